"""Measure fastcast with very many clients, and write the report.

    python benchmarks/scale/run.py [growth|idle|churn|hold|drain|storm|shards ...] [--sizes 1000,10000]
                                   [--rounds N] [--output FILE] [--add]

Starts `fastcast serve` of the interpreter's own installation anew for each run, and drives `fastcast bench`
against it. Every run's record goes to benchmarks/results/, the report to benchmarks/SCALE.md. Results are
written after each run: an interrupted suite keeps what it has.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cases
import figures
from cases import Case
from common import BENCHMARKS, REPORT_VENV, SCALE, InstallError, commit, describe, install_report
from drive import attempt
from trial import Trial

FORMAT: Final = 1
SEED: Final = 1

EXIT_CLEAN: Final = 0
EXIT_NOT_CLEAN: Final = 1
EXIT_INTERRUPTED: Final = 130

SETTINGS: Final = (
    "fs/file-max",
    "fs/nr_open",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/tcp_max_tw_buckets",
    "net/ipv4/tcp_mem",
    "net/ipv4/tcp_syncookies",
)


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def setting(name: str) -> str | None:
    try:
        return Path("/proc/sys", name).read_text(encoding="ascii").strip()
    except OSError:
        return None


def invocation() -> dict[str, Any]:
    """What the runs of this call have in common."""
    machine = describe()
    # The machine's other tools take no part in this.
    machine["tools"] = {name: machine["tools"][name] for name in ("python", "gcc")}
    machine["settings"] |= {name: setting(name) for name in SETTINGS}
    return {
        "command": shlex.join(["python", "benchmarks/scale/run.py", *sys.argv[1:]]),
        "started": now(),
        "ended": None,
        "commit": commit(),
        "machine": machine,
    }


def order(case: Case, sizes: Sequence[int] | None, rounds: int | None) -> list[tuple[int, Trial]]:
    """The trials of all rounds, with the number of the round."""
    shuffled = random.Random(SEED)
    trials = []
    for number in range(1, (rounds or case.rounds) + 1):
        turn = case.plan(sizes or case.sizes)
        if case.shuffled:
            shuffled.shuffle(turn)
        trials += [(number, trial) for trial in turn]
    return trials


def write(path: Path, results: Mapping[str, Any]) -> None:
    """Replace the file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)


def told(record: figures.Record, case: Case) -> str:
    """What to say about a trial while the suite goes on."""
    if record["skipped"]:
        return f"skipped, {record['skipped']}"
    parts = figures.faults(record) or ["clean"]
    values = figures.values_of(record, case.metrics)
    parts += [
        f"{metric.title} {values[metric.key]:,.{metric.digits}f} {metric.unit}".rstrip()
        for metric in case.metrics
        if metric.key in values
    ]
    return "; ".join(parts)


def measure(
    chosen: Sequence[Case],
    sizes: Sequence[int] | None,
    rounds: int | None,
    results: dict[str, Any],
    output: Path,
) -> bool:
    """Run all trials and keep the results file up to date; tells whether all that took place were clean."""
    planned = [(case, number, trial) for case in chosen for number, trial in order(case, sizes, rounds)]
    earlier = {
        case.name: max((run["round"] for run in results["runs"] if run["scenario"] == case.name), default=0)
        for case in chosen
    }
    clean = True
    for index, (case, number, trial) in enumerate(planned, 1):
        number += earlier[case.name]
        record = {
            "scenario": case.name,
            "round": number,
            "invocation": len(results["invocations"]) - 1,
            **attempt(trial),
        }
        results["runs"].append(record)
        results["invocations"][-1]["ended"] = now()
        write(output, results)
        clean = clean and not figures.faults(record)
        print(
            f"[{index}/{len(planned)}] {case.name}, round {number}, {trial.label}: {told(record, case)}",
            file=sys.stderr,
            flush=True,
        )
    return clean


def report(results: Path, output: Path) -> bool:
    """Write the report; tells whether that was possible."""
    try:
        install_report()
    except InstallError as error:
        print(f"run.py: no report: {error}", file=sys.stderr)
        return False
    python = REPORT_VENV / "bin" / "python"
    command = [str(part) for part in (python, SCALE / "report.py", results, "--output", output)]
    return subprocess.run(command, check=False).returncode == 0


def sizes(text: str) -> list[int]:
    found = [int(size) for size in text.split(",")]
    if min(found) < 1:
        raise ValueError("a size is at least 1")
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure fastcast with very many clients.")
    parser.add_argument(
        "scenarios",
        nargs="*",
        metavar="SCENARIO",
        help=f"{', '.join(case.name for case in cases.CASES)} (default: all)",
    )
    parser.add_argument(
        "--sizes", type=sizes, metavar="N,N", help="numbers of clients (default: each scenario's own)"
    )
    parser.add_argument("--rounds", type=int, help="rounds (default: each scenario's own)")
    parser.add_argument(
        "--output", type=Path, help="results file (default: benchmarks/results/scale-DATE.json)"
    )
    parser.add_argument("--add", action="store_true", help="add runs to what the results file holds")
    parser.add_argument("--report", type=Path, default=BENCHMARKS / "SCALE.md", help="report to write")
    options = parser.parse_args()
    try:
        options.chosen = cases.select(options.scenarios)
    except ValueError as error:
        parser.error(str(error))
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.output is None:
        today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
        options.output = BENCHMARKS / "results" / f"scale-{today}.json"
    if options.output.exists() != options.add:
        there = (
            "exists: use --add, or another --output" if options.output.exists() else "isn't there to add to"
        )
        parser.error(f"{options.output} {there}")
    return options


def stop(_number: int, _frame: object) -> None:
    """SIGTERM unwinds the stack as Ctrl-C does, so that whatever was started is ended."""
    raise KeyboardInterrupt


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, stop)
    # The server inherits it; the hard limit is the most that an unprivileged one could ask for.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    results: dict[str, Any] = {"format": FORMAT, "invocations": [], "runs": []}
    if options.add:
        results = json.loads(options.output.read_text(encoding="utf-8"))
    results["invocations"].append(invocation())
    try:
        clean = measure(options.chosen, options.sizes, options.rounds, results, options.output)
    except KeyboardInterrupt:
        print("run.py: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(f"results: {options.output}", file=sys.stderr)
    written = report(options.output, options.report)
    return EXIT_CLEAN if clean and written else EXIT_NOT_CLEAN


if __name__ == "__main__":
    raise SystemExit(main())
