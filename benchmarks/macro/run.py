"""Measure fastcast and its peers side by side, and write the report.

    python benchmarks/macro/run.py [--quick] [--servers a,b] [--scenarios a,b] [--rounds N]

Installs and builds what is missing, then runs every scenario against every server, round after round, each
run with a fresh server process. The results, all raw numbers included, go to benchmarks/results/, the report
to benchmarks/REPORT.md. Results are written after each run: an interrupted benchmark keeps what it has.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import catalogue
import install
import machine
import scenarios
import summary
from catalogue import BUILD, MACRO, Peer
from process import ServerError, ServerProcess
from scenarios import Load, Scenario

FORMAT: Final = 1
QUICK_SCALE: Final = 0.1
QUICK_ROUNDS: Final = 1
ROUNDS: Final = 5
# What the load client may take beyond its own time-out: connecting, closing and joining its threads.
GRACE_SECONDS: Final = 60.0


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def apply_load(
    server: ServerProcess, load: Load, directory: Path
) -> tuple[dict[str, Any] | None, str | None]:
    """Put a load on a server that has just been started.

    Returns the load client's results, and why there are none or why they are incomplete.
    """
    host, port = server.wait_ready()
    output = directory / "load.json"
    command = [
        str(BUILD / "load"),
        *("--url", f"ws://{host}:{port}/benchmark"),
        *("--server-pid", str(server.pid)),
        *("--json", str(output)),
        *load.flags(),
    ]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=load.timeout + GRACE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, "the load client did not end"
    failure = None
    try:
        result: dict[str, Any] | None = json.loads(output.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        result = None
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        failure = f"the load client failed: {lines[-1].strip() if lines else f'status {done.returncode}'}"
    ended = server.ended()
    if ended is not None:
        failure = f"the server {ended}"
    elif result is not None:
        result["memory"]["peak_rss"] = server.peak_rss()
    return result, failure


def run_pass(peer: Peer, load: Load) -> dict[str, Any]:
    """Run one load against a fresh process of one server, and return what there is to record."""
    result: dict[str, Any] | None = None
    failure: str | None = None
    started = now()
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        directory = Path(name)
        try:
            with ServerProcess(peer.start, peer.environment, directory) as server:
                result, failure = apply_load(server, load, directory)
        except ServerError as error:
            failure = f"the server {error}"
    return {"started": started, "load_average": busy, "load": result, "failure": failure}


def plan(
    chosen: Sequence[Scenario], peers: Sequence[Peer], rounds: int, seed: int
) -> list[tuple[int, Scenario, str, Peer]]:
    """The order of all passes: servers take turns within a scenario, in another order each round.

    So a disturbance of the machine meets all servers alike, and none has always the same predecessor.
    """
    shuffled = random.Random(seed)
    passes = []
    for number in range(1, rounds + 1):
        for scenario in chosen:
            turn = list(peers)
            shuffled.shuffle(turn)
            passes += [(number, scenario, name, peer) for peer in turn for name in scenario.passes]
    return passes


def write(path: Path, results: Mapping[str, Any]) -> None:
    """Replace the file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)


def verdict(record: Mapping[str, Any]) -> str:
    """What to say about a pass while the benchmark goes on."""
    if record["failure"]:
        return str(record["failure"])
    load = record["load"]
    cpu = scenarios.dig(load, "cpu", "server_us_per_delivery")
    said = "clean" if load.get("clean") else "not clean"
    return said if cpu is None else f"{said}, {cpu:.2f} µs per delivery"


def measure(chosen: Sequence[Scenario], peers: Sequence[Peer], results: dict[str, Any], output: Path) -> None:
    """Run all passes and keep the results file up to date."""
    options = results["options"]
    earlier = max((record["round"] for record in results["runs"]), default=0)
    passes = plan(chosen, peers, options["rounds"], options["seed"])
    for index, (number, scenario, name, peer) in enumerate(passes, 1):
        number += earlier
        record = run_pass(peer, scenario.passes[name].scaled(options["scale"]))
        results["runs"].append(
            {"scenario": scenario.name, "pass": name, "server": peer.name, "round": number, **record}
        )
        write(output, results)
        print(
            f"[{index}/{len(passes)}] round {number}, {scenario.name}, {peer.name}: {verdict(record)}",
            file=sys.stderr,
            flush=True,
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure fastcast and its peers side by side.")
    parser.add_argument("--servers", metavar="a,b", help="servers to run, of peers.toml (default: all)")
    parser.add_argument("--scenarios", metavar="a,b", help="scenarios to run (default: all)")
    parser.add_argument("--rounds", type=int, help=f"rounds (default: {ROUNDS})")
    parser.add_argument("--scale", type=float, help="share of the connections (default: 1)")
    parser.add_argument(
        "--quick", action="store_true", help=f"--rounds {QUICK_ROUNDS} --scale {QUICK_SCALE}: a trial"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the servers' order (default: 1)")
    parser.add_argument("--output", type=Path, help="results file (default: benchmarks/results/DATE.json)")
    parser.add_argument("--add", action="store_true", help="add rounds to what --output holds")
    parser.add_argument("--report", type=Path, default=MACRO.parent / "REPORT.md", help="report to write")
    parser.add_argument("--no-install", action="store_true", help="take what an earlier run has installed")
    options = parser.parse_args()
    if options.rounds is None:
        options.rounds = QUICK_ROUNDS if options.quick else ROUNDS
    if options.scale is None:
        options.scale = QUICK_SCALE if options.quick else 1.0
    if options.rounds < 1 or not 0 < options.scale <= 1:
        parser.error("--rounds must be at least 1, and --scale above 0 and at most 1")
    if options.add and (options.output is None or not options.output.exists()):
        parser.error("--add needs an --output that exists")
    if options.output is None:
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d-%H%M")
        options.output = MACRO.parent / "results" / f"{stamp}.json"
    return options


def main() -> int:
    options = parse()
    chosen = scenarios.select(options.scenarios)
    asked = catalogue.select(catalogue.load(), options.servers)
    if options.no_install:
        known = json.loads(catalogue.INSTALLED.read_text(encoding="utf-8"))
    else:
        BUILD.mkdir(exist_ok=True)
        install.install_load()
        install.install_report()
        known = install.install_all(asked)

    # The servers inherit it; the hard limit is the most that an unprivileged server could ask for.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    earlier = json.loads(options.output.read_text(encoding="utf-8")) if options.add else {}
    results: dict[str, Any] = {
        "format": FORMAT,
        "started": earlier.get("started", now()),
        "ended": None,
        "commit": machine.commit(),
        "machine": machine.describe(),
        "options": {"rounds": options.rounds, "scale": options.scale, "seed": options.seed},
        "scenarios": [
            scenario.name
            for scenario in scenarios.SCENARIOS
            if scenario in chosen or scenario.name in earlier.get("scenarios", [])
        ],
        "servers": earlier.get("servers", {})
        | {
            peer.name: {
                "title": peer.title,
                "language": peer.language,
                "about": peer.about,
                **known.get(peer.name, install.UNTRIED),
            }
            for peer in asked
        },
        "runs": earlier.get("runs", []),
    }
    installed = [peer for peer in asked if results["servers"][peer.name]["installed"]]
    measure(chosen, installed, results, options.output)
    results["ended"] = now()
    results["summary"] = {
        scenario.name: [dataclasses.asdict(row) for row in summary.rows(scenario, results["runs"])]
        for scenario in scenarios.SCENARIOS
        if scenario.name in results["scenarios"]
    }
    write(options.output, results)
    print(f"results: {options.output}", file=sys.stderr)

    python = install.REPORT_VENV / "bin" / "python"
    command = [python, MACRO / "report.py", options.output, "--output", options.report]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
