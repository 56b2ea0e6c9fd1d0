"""Render a results file of run.py as Markdown with SVG plots.

    PYTHON benchmarks/scale/report.py RESULTS [--output benchmarks/SCALE.md]

PYTHON is benchmarks/macro/build/venv-report/bin/python, which run.py installs.

The tables are made from the raw runs, so that an old results file gets a report of today's form.
"""

# ruff: noqa: RUF001  (en dashes and multiplication signs are meant: this text is read by people)

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cases
import curves
import figures
import jinja2
from cases import Case
from common import BENCHMARKS, NOTHING, SCALE, Metric, Spread, amount, cell, environment, span
from figures import Record, Row


def told(spread: Spread | None, digits: int) -> str:
    """The median, and the least and the greatest where they differ from it."""
    if spread is None:
        return NOTHING
    median = amount(spread, digits)
    spanned = span(spread, digits)
    return median if spanned == f"{median}–{median}" else f"{median} ({spanned})"


def heading(metric: Metric) -> str:
    return f"{metric.title}, {metric.unit}" if metric.unit else metric.title


def remarks(row: Row) -> str:
    """What a reader must know about the runs besides their numbers."""
    dirty = [f"**{cell(fault)}** ({count} of {row.runs})" for fault, count in row.faults.items()]
    said = dirty or (["clean"] if row.runs else [])
    if row.client_bound:
        said.append(f"client-bound in {row.client_bound} of {row.runs}")
    said += [f"failed attempts: {count:,} × {cell(reason)}" for reason, count in row.refusals.items()]
    said += [
        f"skipped in {count} of {row.runs + sum(row.skipped.values())}: {cell(reason)}"
        for reason, count in row.skipped.items()
    ]
    return "; ".join(said)


def table(case: Case, rows: Sequence[Row]) -> dict[str, Any]:
    """The scenario's numbers."""
    metrics = [metric for metric in case.metrics if any(metric.key in row.values for row in rows)]
    return {
        "columns": ["trial", "runs", *map(heading, metrics), "outcome"],
        "rulers": ["---", "---:", *["---:"] * len(metrics), "---"],
        "rows": [
            [
                row.label,
                str(row.runs),
                *(told(row.values.get(metric.key), metric.digits) for metric in metrics),
                remarks(row),
            ]
            for row in rows
        ],
    }


def ratios(case: Case, rows: Sequence[Row]) -> dict[str, Any] | None:
    """The scenario's numbers as multiples of the base's; None where nothing is compared."""
    metrics = [
        metric
        for metric in case.metrics
        if metric.key in case.compared and any(metric.key in row.ratios for row in rows)
    ]
    if not metrics:
        return None
    return {
        "columns": ["trial", *(f"× {metric.title}" for metric in metrics)],
        "rulers": ["---", *["---:"] * len(metrics)],
        "rows": [[row.label, *(told(row.ratios.get(metric.key), 2) for metric in metrics)] for row in rows],
    }


def pictures(case: Case, rows: Sequence[Row]) -> dict[str, list[curves.Panel]]:
    """The panels of each of the scenario's pictures, by the name of the picture."""
    if case.name == "growth":
        return {
            "memory": [
                curves.over_size(rows, figures.PROCESS_PER_CLIENT),
                curves.over_size(rows, figures.KERNEL_PER_CLIENT, curves.OTHER_COLOUR),
            ],
            "connections": [
                curves.over_size(rows, figures.CONNECT_RATE),
                curves.over_size(rows, figures.CPU_PER_CONNECTION),
            ],
            "deliveries": [
                curves.over_size(rows, figures.CPU_PER_DELIVERY),
                curves.over_size(rows, figures.TO_LAST),
            ],
        }
    if case.name == "shards":
        largest = [row for row in rows if row.connections == rows[-1].connections]
        return {
            "shards": [
                curves.over_shards(largest, figures.CPU_PER_DELIVERY),
                curves.over_shards(largest, figures.CPU_BOTH_ENDS),
            ]
        }
    return {}


def section(case: Case, records: Sequence[Record], output: Path) -> dict[str, Any]:
    """What the template needs to know about a scenario; its pictures are written on the way."""
    rows = figures.rows(records, case.metrics)
    drawn = []
    for name, panels in pictures(case, rows).items():
        path = output.parent / "plots" / f"scale-{name}.svg"
        if curves.draw(panels, path):
            drawn.append({"title": f"{case.title}: {name}", "path": f"plots/{path.name}"})
    largest = max(records, key=lambda record: (record["connections"], record["shards"] or 0))
    return {
        "title": case.title,
        "about": case.about,
        "pictures": drawn,
        "tables": [made for made in (table(case, rows), ratios(case, rows)) if made],
        "against": case.against,
        "label": largest["label"],
        "commands": largest["commands"],
    }


def surroundings(invocations: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The environment of all invocations, which are of one machine: its state is that of the last one."""
    last = invocations[-1]
    commits = dict.fromkeys(invocation["commit"]["hash"] or "none" for invocation in invocations)
    return environment(
        {
            "commit": {
                "hash": ", ".join(commits),
                "modified": any(invocation["commit"]["modified"] for invocation in invocations),
            },
            "machine": last["machine"],
            "started": invocations[0]["started"],
            "ended": last["ended"],
        }
    )


def render(results: Mapping[str, Any], source: str, output: Path) -> None:
    """Write the report and its plots, which go to a directory next to it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    sections = []
    for case in cases.CASES:
        records = [record for record in results["runs"] if record["scenario"] == case.name]
        if records:
            sections.append(section(case, records, output))
    # No escaping: this is Markdown, and the cells of its tables are safe by cell().
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(SCALE), trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    text = templates.get_template("scale.md.j2").render(
        source=source,
        invocations=[invocation["command"] for invocation in results["invocations"]],
        environment=surroundings(results["invocations"]),
        sections=sections,
    )
    output.write_text(text.rstrip() + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Render a results file as Markdown with SVG plots.")
    parser.add_argument("results", type=Path)
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "SCALE.md")
    options = parser.parse_args()
    results = json.loads(options.results.read_text(encoding="utf-8"))
    render(results, options.results.name, options.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
