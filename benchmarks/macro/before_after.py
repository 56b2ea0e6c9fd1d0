"""Compare the fastcast of the work tree with that of an earlier commit, in the macro benchmark's scenarios.

    python benchmarks/macro/before_after.py COMMIT [--scenarios a,b] [--rounds N]

Both take turns, each run with a fresh process; what is printed and written are ratios within a round. The raw
numbers go to benchmarks/results/before-after-DATE.json.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import resource
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import catalogue
import install
import machine
import run
import scenarios
from catalogue import BUILD, MACRO, OURS, ROOT, Peer
from scenarios import Scenario

SCENARIOS: Final = "one-in-flight,sixteen-in-flight,chat,connect,idle-memory"
ROUNDS: Final = 15


def set_up(commit: str) -> list[Peer]:
    """Install both below build/: a copy of the commit's files, and the work tree."""
    tree = BUILD / "before"
    install.run(["rm", "-rf", str(tree)])
    tree.mkdir(parents=True)
    archive = BUILD / "before.tar"
    install.run(["git", "-C", str(ROOT), "archive", "--output", str(archive), commit])
    install.run(["tar", "-xf", str(archive), "-C", str(tree)])
    peers = []
    for name, source in (("before", tree), ("after", ROOT)):
        venv = BUILD / f"venv-{name}"
        install.install_pip(venv, [str(source)], upgrade=False)
        # The same version has another content: without this, pip would leave what is there.
        python = str(venv / "bin" / "python")
        install.run([python, "-m", "pip", "install", "-q", "--force-reinstall", "--no-deps", str(source)])
        ours = catalogue.load()[OURS]
        start = [python, *ours.start[1:]]
        peers.append(Peer(name=name, title=name, language=ours.language, about=ours.about, start=start))
    return peers


def ratios(scenario: Scenario, runs: Iterable[Mapping[str, Any]]) -> list[float]:
    """Of the scenario's first metric: after to before, of each round that has both."""
    results: dict[int, dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    for record in runs:
        if record["scenario"] == scenario.name and record["load"] and not record["failure"]:
            results[record["round"]][record["server"]][record["pass"]] = record["load"]
    read = scenario.metrics[0].read
    pairs = [(read(of["before"]), read(of["after"])) for of in results.values()]
    return [after / before for before, after in pairs if before and after]


def summarize(values: Sequence[float]) -> dict[str, float]:
    """The median, and an interval for it from the order statistics: a rank each side of the middle, by 1.96
    standard deviations of a fair coin."""
    ordered = sorted(values)
    reach = 0.98 * math.sqrt(len(ordered))
    low = max(0, math.floor(len(ordered) / 2 - reach))
    high = min(len(ordered) - 1, math.ceil(len(ordered) / 2 + reach) - 1)
    return {"median": statistics.median(ordered), "low": ordered[low], "high": ordered[high]}


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("commit", help="what to compare with")
    parser.add_argument("--scenarios", default=SCENARIOS, help=f"default: {SCENARIOS}")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--output", type=Path, help="results file")
    options = parser.parse_args()
    chosen = scenarios.select(options.scenarios)
    BUILD.mkdir(exist_ok=True)
    install.install_load()
    peers = set_up(options.commit)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d-%H%M")
    output = options.output or MACRO.parent / "results" / f"before-after-{stamp}.json"
    before = install.run(["git", "-C", str(ROOT), "rev-parse", options.commit]).strip()
    results: dict[str, Any] = {
        "started": run.now(),
        "before": before,
        "after": machine.commit(),
        "machine": machine.describe(),
        "options": {"rounds": options.rounds, "scale": 1.0, "seed": os.getpid()},
        "runs": [],
    }
    run.measure(chosen, peers, results, output)
    results["ratios"] = {}
    for scenario in chosen:
        if values := ratios(scenario, results["runs"]):
            of = results["ratios"][scenario.name] = {"rounds": len(values), **summarize(values)}
            print(
                f"{scenario.title}: {scenario.metrics[0].title}, after to before:"
                f" {of['median']:.3f} ({of['low']:.3f} to {of['high']:.3f}), {len(values)} rounds"
            )
    run.write(output, results)
    print(f"results: {output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except (install.InstallError, subprocess.SubprocessError) as error:
        raise SystemExit(f"before_after.py: error: {error}") from None
