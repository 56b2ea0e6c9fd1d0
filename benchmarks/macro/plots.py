"""One picture for each scenario: bars of the first metric, with the spread of the rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from catalogue import FLOOR, OURS
from scenarios import Metric
from summary import Row

COLOURS = {OURS: "#c2410c", FLOOR: "#64748b", "floor-uring": "#64748b"}
PEER_COLOUR = "#3b82f6"

plt.switch_backend("svg")
# The same results must give the same bytes.
plt.rcParams.update(
    {"svg.hashsalt": "benchmark", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}
)


def draw(metric: Metric, rows: Sequence[Row], titles: Mapping[str, str], path: Path) -> bool:
    """Write the picture as SVG; return False, and write nothing, when no row has a number."""
    bars = [(row, spread) for row in rows if (spread := row.values[metric.key]) is not None]
    if not bars:
        return False
    medians = [spread.median for _, spread in bars]
    errors = [
        [spread.median - spread.least for _, spread in bars],
        [spread.greatest - spread.median for _, spread in bars],
    ]
    figure, axes = plt.subplots(figsize=(7.5, 0.6 + 0.3 * len(bars)), layout="constrained")
    axes.barh(
        range(len(bars)),
        medians,
        xerr=errors,
        color=[COLOURS.get(row.server, PEER_COLOUR) for row, _ in bars],
        error_kw={"elinewidth": 0.8, "capsize": 2},
    )
    axes.set_yticks(range(len(bars)), [titles.get(row.server, row.server) for row, _ in bars])
    axes.invert_yaxis()
    # One server that is far off would otherwise squeeze all others into a line.
    logarithmic = min(medians) > 0 and max(medians) > 30 * min(medians)
    if logarithmic:
        axes.set_xscale("log")
    scale = "; logarithmic scale" if logarithmic else ""
    axes.set_xlabel(f"{metric.title}, {metric.unit} (median, least to greatest{scale})")
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
    return True
