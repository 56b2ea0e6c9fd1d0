"""From the records of a results file to the numbers of its tables: readers, medians, ratios, faults."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from common import ONLY, Metric, Results, Spread, at, dig, growth, per_client, total

Record: TypeAlias = Mapping[str, Any]
"""One trial as it stands in the results file."""

Reader: TypeAlias = Callable[[Results], float | None]

MB: Final = 1e6
CONNECTED: Final = "after_connect"


def quotient(above: Reader, below: Reader, times: float = 1.0) -> Reader:
    """A reader of one reader's number divided by another's."""

    def read(results: Results) -> float | None:
        numerator, denominator = above(results), below(results)
        return None if numerator is None or not denominator else times * numerator / denominator

    return read


def refused(results: Results) -> float | None:
    """Attempts of a storm that another followed."""
    result = results.get(ONLY)
    if not result or not result["storm"]:
        return None
    return float(sum(result["storm"]["refused"].values()))


def kernel_kept(results: Results) -> float | None:
    """Megabytes of the kernel's memory when all have gone, above those before the first came."""
    values = [
        dig(results.get(ONLY), "server", moment, key)
        for moment in ("after", "before")
        for key in ("kernel_tcp", "kernel_slab")
    ]
    if any(value is None for value in values):
        return None
    tcp_after, slab_after, tcp_before, slab_before = (value or 0.0 for value in values)
    return (tcp_after + slab_after - tcp_before - slab_before) / MB


KERNEL_GROWTH: Final = total(growth("kernel_tcp", CONNECTED), growth("kernel_slab", CONNECTED))

PROCESS_PER_CLIENT: Final = Metric(
    "process", "process memory per client", "bytes", per_client(growth("server_pss", CONNECTED)), 0
)
PROCESS: Final = Metric("whole", "whole process", "MB", at("memory", CONNECTED, "server_pss", divide=MB), 1)
PROCESS_BEFORE: Final = Metric(
    "empty", "process without clients", "MB", at("server", "before", "server_pss", divide=MB), 1
)
PROCESS_AFTER: Final = Metric(
    "emptied", "process when all have gone", "MB", at("server", "after", "server_pss", divide=MB), 1
)
KERNEL_PER_CLIENT: Final = Metric(
    "kernel", "kernel memory per connection, both ends", "bytes", per_client(KERNEL_GROWTH), 0
)
KERNEL: Final = Metric(
    "kernel_whole",
    "kernel memory for all, both ends",
    "MB",
    total(growth("kernel_tcp", CONNECTED, divide=MB), growth("kernel_slab", CONNECTED, divide=MB)),
    0,
)
KERNEL_KEPT: Final = Metric("kernel_kept", "of that left when all have gone", "MB", kernel_kept, 0)
CONNECT_RATE: Final = Metric("rate", "connections per second", "", at("connections", "rate"), 0)
CONNECT_SECONDS: Final = Metric(
    "connect", "all connected after", "s", at("connections", "connect_seconds"), 2
)
CPU_PER_CONNECTION: Final = Metric(
    "connect_cpu", "server CPU per connection", "µs", at("cpu", "server_us_per_connect"), 1
)
CPU_PER_DELIVERY: Final = Metric("cpu", "server CPU per delivery", "µs", at("cpu", "server_us_per_delivery"))
CPU_BOTH_ENDS: Final = Metric(
    "both",
    "CPU of both ends per delivery",
    "µs",
    total(at("cpu", "server_us_per_delivery"), at("cpu", "client_us_per_delivery")),
)
TO_LAST: Final = Metric(
    "last", "to the last client, p50", "ms", at("last_receiver_us", "p50", divide=1000), 1
)
LATENCY_P99: Final = Metric("p99", "latency p99", "ms", at("latency_us", "p99", divide=1000), 1)
REOPENED: Final = Metric("reopened", "connections opened anew", "", at("churn", "reopened"), 0)
MESSAGES_SHARE: Final = Metric(
    "busy",
    "server CPU while messages flow",
    "% of a processor",
    quotient(at("cpu", "server_seconds", "messages"), at("phase_seconds", "messages"), 100),
    0,
)
HOLD_CPU: Final = Metric(
    "hold_cpu", "server CPU while they are held", "s", at("cpu", "server_seconds", "hold")
)
HOLD_CPU_PER_CLIENT: Final = Metric(
    "hold_each",
    "for each client and second",
    "ns",
    quotient(per_client(at("cpu", "server_seconds", "hold")), at("phase_seconds", "hold"), 1e9),
    0,
)
HOLD_SHARE: Final = Metric(
    "hold_share",
    "server CPU while they are held",
    "% of a processor",
    quotient(at("cpu", "server_seconds", "hold"), at("phase_seconds", "hold"), 100),
    1,
)
EXIT_SECONDS: Final = Metric("exit", "server ended after", "s", at("server", "exit_seconds"), 2)
EXIT_STATUS: Final = Metric("status", "exit code", "", at("server", "exit_status"), 0)
GOING_AWAY: Final = Metric("1001", "clients closed with 1001", "", at("closes", "1001"), 0)
STORM_SECONDS: Final = Metric("storm", "all back after the storm", "s", at("storm", "seconds"), 2)
STORM_RATIO: Final = Metric(
    "ratio",
    "storm to peace",
    "multiple",
    quotient(at("storm", "seconds"), at("connections", "connect_seconds")),
)
STORM_BACK_P99: Final = Metric(
    "back", "a client is back, p99", "s", at("storm", "back_us", "p99", divide=1e6), 2
)
STORM_CPU: Final = Metric(
    "storm_cpu",
    "server CPU per client in the storm",
    "µs",
    quotient(at("cpu", "server_seconds", "storm"), at("storm", "dropped"), 1e6),
    1,
)
REFUSED: Final = Metric("refused", "attempts that failed", "", refused, 0)
ATTEMPTS: Final = Metric("attempts", "attempts in the storm", "", at("storm", "attempts"), 0)


def values_of(record: Record, metrics: Sequence[Metric]) -> dict[str, float]:
    """What the record has to say, by the key of the metric."""
    if record["result"] is None:
        return {}
    results: Results = {ONLY: {**record["result"], "server": record["server"]}}
    return {metric.key: value for metric in metrics if (value := metric.read(results)) is not None}


def faults(record: Record) -> list[str]:
    """What was wrong with a trial that took place, in one line each; none for a clean one."""
    if record["skipped"]:
        return []
    found = [record["failure"]] if record["failure"] else []
    result, server = record["result"], record["server"]
    if result is not None and record["drained"]:
        # There, that connections end before their time is what was asked for.
        others = result["connections"]["asked"] - result["closes"].get("1001", 0)
        if others:
            found.append(f"{others:,} clients were not closed with 1001")
    elif result is not None:
        found += result["verdict"]["findings"]
    if server is not None and server["exit_status"] not in (0, None):
        found.append(f"the server's exit code was {server['exit_status']}")
    return found


def refusals(record: Record) -> Counter[str]:
    """Why attempts of a storm failed, with how often."""
    storm = record["result"]["storm"] if record["result"] else None
    return Counter(storm["refused"] if storm else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """All rounds of the trials with one label."""

    label: str
    connections: int
    shards: int | None
    threads: int | None
    values: Mapping[str, Spread]
    """By the key of the metric; without those that no round has."""

    ratios: Mapping[str, Spread]
    """By the key of the metric: multiples of the base's value in the same group of the same round."""

    runs: int
    """How many trials took place."""

    client_bound: int
    """In how many of them the load client was the limit."""

    faults: Mapping[str, int]
    """What was wrong, with how often."""

    refusals: Mapping[str, int]
    """Why attempts of a storm failed, with how often."""

    skipped: Mapping[str, int]
    """Why trials did not take place, with how often."""


def spreads(values: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """The spread of each key's values."""
    collected: dict[str, list[float]] = defaultdict(list)
    for each in values:
        for key, value in each.items():
            collected[key].append(value)
    return {key: spread for key, own in collected.items() if (spread := Spread.of(own))}


def rows(records: Sequence[Record], metrics: Sequence[Metric]) -> list[Row]:
    """The rows of one scenario's records, the smallest first."""
    bases = {
        (record["round"], record["group"]): values_of(record, metrics) for record in records if record["base"]
    }
    labelled: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        labelled[record["label"]].append(record)
    made = []
    for label, own in labelled.items():
        values = [values_of(record, metrics) for record in own]
        ratios = []
        for record, each in zip(own, values, strict=True):
            base = bases.get((record["round"], record["group"]), {})
            # Memory that was given back is negative, and makes no ratio.
            ratios.append(
                {key: value / base[key] for key, value in each.items() if value > 0 and base.get(key, 0) > 0}
            )
        took_place = [record for record in own if not record["skipped"]]
        made.append(
            Row(
                label=label,
                connections=own[0]["connections"],
                shards=own[0]["shards"],
                threads=own[0]["threads"],
                values=spreads(values),
                ratios=spreads(ratios),
                runs=len(took_place),
                client_bound=sum(bool((record["result"] or {}).get("client_bound")) for record in own),
                faults=Counter(fault for record in own for fault in faults(record)),
                refusals=sum((refusals(record) for record in own), Counter()),
                skipped=Counter(record["skipped"] for record in own if record["skipped"]),
            )
        )
    return sorted(made, key=lambda row: (row.connections, row.shards or 0, row.threads or 0))
