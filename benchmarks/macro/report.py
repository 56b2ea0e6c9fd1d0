"""Render a results file of run.py as Markdown with SVG plots.

    cd benchmarks/macro && build/venv-report/bin/python report.py RESULTS [--output ../REPORT.md]

The tables are made from the raw runs, so that an old results file gets a report of today's form.
"""

# ruff: noqa: RUF001  (en dashes and multiplication signs are meant: this text is read by people)

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jinja2
import plots
import scenarios
from catalogue import MACRO, OURS
from scenarios import Metric, Scenario
from summary import Row, rows
from wording import NOTHING, amount, cell, environment, span

SCALE: Final = "SCALE.md"
"""The report of benchmarks/scale, next to this one; its plots are called after it."""


def losses(row: Row) -> str:
    """What went wrong with deliveries and connections, in words."""
    if not row.faults:
        return "none" if row.passes > sum(row.failures.values()) else NOTHING
    said = ", ".join(f"{count:,} {kind}" for kind, count in row.faults.items())
    return f"**{said}** of {row.expected:,} deliveries" if row.expected else f"**{said}**"


def remarks(row: Row) -> str:
    said = []
    if row.client_bound:
        said.append(f"client-bound in {row.client_bound} of {row.passes}")
    said += [
        f"**failed** in {count} of {row.passes}: {cell(reason)}" for reason, count in row.failures.items()
    ]
    said += [f"{cell(text)} ({count} of {row.passes})" for text, count in row.complaints.items()]
    return "; ".join(said)


def heading(metric: Metric) -> str:
    return f"{metric.title}, {metric.unit}"


def table(
    scenario: Scenario, made: Sequence[Row], titles: Mapping[str, str], missing: Mapping[str, str]
) -> dict[str, Any]:
    """The columns and rows of one scenario, as text; servers that are not installed come last."""
    first, *others = scenario.metrics
    floor = ["× floor"] if scenario.against_floor else []
    numbers = [heading(first), "least–greatest", *floor, f"× {OURS}"]
    columns = ["server", *numbers, "standing", *map(heading, others), "losses", "remarks"]
    rulers = ["---", *["---:"] * len(numbers), "---", *["---:"] * len(others), "---", "---"]
    lines = []
    for row in made:
        value = row.values[first.key]
        lines.append(
            [
                titles[row.server],
                amount(value, first.digits),
                span(value, first.digits),
                *([amount(row.to_floor, 2)] if scenario.against_floor else []),
                amount(row.to_ours, 2),
                row.standing,
                *(amount(row.values[metric.key], metric.digits) for metric in others),
                losses(row),
                remarks(row),
            ]
        )
    for server, reason in missing.items():
        lines.append([titles[server], *[NOTHING] * (len(columns) - 2), f"not installed: {cell(reason)}"])
    return {"columns": columns, "rulers": rulers, "rows": lines}


def describe_server(server: Mapping[str, Any]) -> dict[str, str]:
    if server["installed"]:
        version = server["version"] or "of this commit"
    else:
        version = f"not installed: {server['reason']}"
    return {**server, "version": cell(version)}


def glance(titles: Mapping[str, str], tables: Mapping[str, Sequence[Row]]) -> list[dict[str, Any]]:
    """For each server that ran, its ratio to fastcast in every scenario."""
    made = []
    for server, title in titles.items():
        cells = []
        for rows_of_scenario in tables.values():
            row = next((row for row in rows_of_scenario if row.server == server), None)
            cells.append(amount(row.to_ours, 2) if row else NOTHING)
        if any(row.server == server for rows_of_scenario in tables.values() for row in rows_of_scenario):
            made.append({"title": title, "cells": cells})
    return made


def scale(output: Path) -> dict[str, Any] | None:
    """What there is to say about the scale suite: its report and plots; None where it has no report."""
    report = output.parent / SCALE
    if not report.exists():
        return None
    drawn = sorted((output.parent / "plots").glob("scale-*.svg"))
    return {
        "report": report.name,
        "plots": [{"title": plot.stem.replace("-", " "), "path": f"plots/{plot.name}"} for plot in drawn],
    }


def render(results: Mapping[str, Any], source: str, output: Path) -> None:
    """Write the report and its plots, which go to a directory next to it."""
    servers = results["servers"]
    titles = {name: server["title"] for name, server in servers.items()}
    missing = {name: server["reason"] for name, server in servers.items() if not server["installed"]}

    sections, tables = [], {}
    for scenario in scenarios.select(",".join(results["scenarios"])):
        made = tables[scenario.name] = rows(scenario, results["runs"])
        plot = output.parent / "plots" / f"{scenario.name}.svg"
        drawn = plots.draw(scenario.metrics[0], made, titles, plot)
        sections.append(
            {
                "title": scenario.title,
                "about": scenario.about,
                "metric": scenario.metrics[0].title,
                "plot": f"plots/{plot.name}" if drawn else None,
                **table(scenario, made, titles, missing),
            }
        )

    # No escaping: this is Markdown, and the cells of its tables are safe by cell().
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(MACRO), trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    text = templates.get_template("report.md.j2").render(
        source=source,
        options=results["options"],
        environment=environment(results),
        servers=[describe_server(server) for server in servers.values()],
        glance=glance(titles, tables),
        scenarios=sections,
        scale=scale(output),
    )
    output.write_text(text.rstrip() + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Render a results file as Markdown with SVG plots.")
    parser.add_argument("results", type=Path)
    parser.add_argument("--output", type=Path, default=MACRO.parent / "REPORT.md")
    options = parser.parse_args()
    results = json.loads(options.results.read_text(encoding="utf-8"))
    render(results, options.results.name, options.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
