"""From the raw runs of a results file to the rows of its tables: medians, spreads, ratios, losses."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from catalogue import FLOOR, OURS
from scenarios import Result, Scenario, dig

SPOILED: Final = ("lost", "duplicated", "reordered", "damaged")


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several rounds, and the least and the greatest."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """The spread of the values, None when there are none."""
        return cls(median(values), min(values), max(values)) if values else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One server in one scenario."""

    server: str
    values: Mapping[str, Spread | None]
    """By the key of the metric."""

    to_floor: Spread | None
    """The first metric as a multiple of the floor's in the same round."""

    to_ours: Spread | None
    """The first metric as a multiple of fastcast's in the same round."""

    standing: str
    """"ahead of fastcast", "behind fastcast" or "level with fastcast"; empty for fastcast itself and where a
    comparison isn't possible. Ahead and behind need all rounds to agree."""

    rounds: int
    expected: int
    """Deliveries, in all rounds and passes together."""

    faults: Mapping[str, int]
    """What went wrong with deliveries and connections, by kind; only what occurred."""

    client_bound: int
    """In how many passes the load client was the limit."""

    passes: int
    failures: Mapping[str, int]
    """Why passes yielded no result, with how often."""

    complaints: Mapping[str, int]
    """What the load client complained of in passes that did yield one, with how often."""


def _faults(result: Result) -> Counter[str]:
    counts = {kind: dig(result, "deliveries", kind) for kind in SPOILED}
    counts["not connected"] = sum(result["connections"]["failed"].values())
    counts["cut off"] = dig(result, "connections", "closed_unexpectedly")
    return Counter({kind: int(count) for kind, count in counts.items() if count})


def _ratios(values: Mapping[int, float], bases: Mapping[int, float]) -> list[float]:
    """Round by round; memory that was given back is negative and makes no ratio."""
    return [
        value / bases[number] for number, value in values.items() if value > 0 and bases.get(number, 0) > 0
    ]


def _standing(server: str, values: Mapping[int, float], ours: Mapping[int, float]) -> str:
    shared = values.keys() & ours.keys()
    if server == OURS or not shared:
        return ""
    if all(values[number] < ours[number] for number in shared):
        return f"ahead of {OURS}"
    if all(values[number] > ours[number] for number in shared):
        return f"behind {OURS}"
    return f"level with {OURS}"


def rows(scenario: Scenario, runs: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return the rows of a scenario, the least first metric first and those without one last."""
    per_server: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for run in runs:
        if run["scenario"] == scenario.name:
            per_server[run["server"]].append(run)

    values: dict[str, dict[str, dict[int, float]]] = {}
    for server, own in per_server.items():
        results_of: dict[int, dict[str, Result]] = defaultdict(dict)
        for run in own:
            if run["load"] is not None:
                results_of[run["round"]][run["pass"]] = run["load"]
        values[server] = {metric.key: {} for metric in scenario.metrics}
        for number, results in results_of.items():
            for metric in scenario.metrics:
                value = metric.read(results)
                if value is not None:
                    values[server][metric.key][number] = value

    first = scenario.metrics[0].key
    floor = values.get(FLOOR, {}).get(first, {})
    ours = values.get(OURS, {}).get(first, {})
    made = []
    for server, own in per_server.items():
        faults: Counter[str] = Counter()
        for run in own:
            if run["load"] is not None:
                faults += _faults(run["load"])
        made.append(
            Row(
                server=server,
                values={key: Spread.of(list(by_round.values())) for key, by_round in values[server].items()},
                to_floor=Spread.of(_ratios(values[server][first], floor)) if scenario.against_floor else None,
                to_ours=Spread.of(_ratios(values[server][first], ours)),
                standing=_standing(server, values[server][first], ours),
                rounds=len({run["round"] for run in own}),
                expected=sum(int(dig(run["load"], "deliveries", "expected") or 0) for run in own),
                faults=dict(faults),
                client_bound=sum(bool((run["load"] or {}).get("client_bound")) for run in own),
                passes=len(own),
                failures=dict(Counter(run["failure"] for run in own if run["failure"])),
                complaints=dict(
                    Counter(text for run in own if run["load"] for text in run["load"]["errors"])
                ),
            )
        )

    def order(row: Row) -> float:
        spread = row.values[first]
        return float("inf") if spread is None else spread.median

    return sorted(made, key=order)
