"""The suite's pictures: metrics over the number of clients, and over the number of shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import common  # noqa: F401  (it makes the next one importable)
import matplotlib.pyplot as plt
import plots  # its settings of matplotlib hold here, too
from common import OURS, Metric, Spread
from figures import Row
from matplotlib.axes import Axes

COLOUR = plots.COLOURS[OURS]
OTHER_COLOUR = plots.PEER_COLOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a picture: a name, and a spread for each place."""

    name: str
    colour: str
    points: Mapping[float, Spread]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One diagram of a picture."""

    title: str
    across: str
    lines: Sequence[Line]
    logarithmic: bool = False
    """Whether the values go over orders of magnitude; places always do."""

    level: float | None = None
    """A value to compare with."""


def over_size(rows: Sequence[Row], metric: Metric, colour: str = COLOUR) -> Panel:
    """A metric over the number of clients, both logarithmic where it grows with that number."""
    points = {float(row.connections): row.values[metric.key] for row in rows if metric.key in row.values}
    medians = [spread.median for spread in points.values()]
    wide = bool(medians) and min(medians) > 0 and max(medians) > 30 * min(medians)
    return Panel(
        title=", ".join(filter(None, (metric.title, metric.unit))),
        across="clients",
        lines=[Line(name="", colour=colour, points=points)],
        logarithmic=wide,
    )


def over_shards(rows: Sequence[Row], metric: Metric) -> Panel:
    """A metric's ratios over the number of shards, for each way to choose the client's threads."""

    def line(name: str, colour: str, chosen: Callable[[Row], bool]) -> Line:
        points = {
            float(row.shards): row.ratios[metric.key]
            for row in rows
            if row.shards is not None and metric.key in row.ratios and chosen(row)
        }
        return Line(name=name, colour=colour, points=points)

    fewest = min((row.threads or 0 for row in rows), default=0)
    return Panel(
        title=f"{metric.title}, multiple",
        across="shards",
        lines=[
            line(f"{fewest} client threads", COLOUR, lambda row: row.threads == fewest),
            line("as many as shards", OTHER_COLOUR, lambda row: row.threads == row.shards),
        ],
        level=1.0,
    )


def draw_panel(axes: Axes, panel: Panel) -> None:
    places = sorted({place for line in panel.lines for place in line.points})
    for line in panel.lines:
        own = sorted(line.points)
        medians = [line.points[place].median for place in own]
        errors = [
            [line.points[place].median - line.points[place].least for place in own],
            [line.points[place].greatest - line.points[place].median for place in own],
        ]
        axes.errorbar(
            own,
            medians,
            yerr=errors,
            color=line.colour,
            label=line.name or None,
            marker="o",
            markersize=4,
            capsize=2,
            elinewidth=0.8,
        )
    axes.set_xscale("log")
    axes.set_xticks(places, [short(place) for place in places])
    axes.set_xticks([], minor=True)
    if panel.logarithmic:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    if panel.level is not None:
        axes.axhline(panel.level, color="#94a3b8", linewidth=0.8, linestyle="--")
    if any(line.name for line in panel.lines):
        axes.legend(frameon=False)
    axes.set_xlabel(panel.across)
    axes.set_title(panel.title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def short(place: float) -> str:
    """A number of clients or shards in the room that a tick has."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if place >= size:
            return f"{place / size:g}{unit}"
    return f"{place:g}"


def draw(panels: Sequence[Panel], path: Path) -> bool:
    """Write the panels with points in them side by side as SVG; False, and nothing written, without any."""
    filled = [panel for panel in panels if any(line.points for line in panel.lines)]
    if not filled:
        return False
    figure, axes = plt.subplots(
        1, len(filled), figsize=(3.75 * len(filled), 2.8), layout="constrained", squeeze=False
    )
    for one, panel in zip(axes[0], filled, strict=True):
        draw_panel(one, panel)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
    return True
