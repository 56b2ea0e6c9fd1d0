"""One run on several machines: its parts, and how what they tell becomes one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from fastcast.bench.distribution import MICROSECONDS, Distribution
from fastcast.bench.engine import PHASES
from fastcast.errors import ConfigError

_SPREADS: Final = {
    "latency": "latency_us",
    "handshake": "handshake_us",
    "first_receiver": "first_receiver_us",
    "last_receiver": "last_receiver_us",
    "spread": "spread_us",
}
_STORM_SPREADS: Final = {"storm_handshake": "handshake_us", "storm_back": "back_us"}
"""Histograms, and the names under which the result and its storm sum them up."""

_COUNTERS: Final = ("sent", "received", "duplicated", "reordered", "damaged", "unexpected")

# One who is slow to start isn't known by how busy it was, so these are the worst of all.
_WORST: Final = ("client_busiest_thread", "server_busiest_thread", "machine_busy")


def split(options: Mapping[str, Any], parts: int) -> list[dict[str, Any]]:
    """The options of each part of a run: shares of the connections, the senders and the rates.

    Senders keep their numbers within the whole, so that every receiver can tell whether it missed one.
    Raises :exc:`~fastcast.errors.ConfigError` when there are not enough connections for all.
    """
    connections = _shares(options["connections"], parts)
    senders = _shares(options["senders"], parts)
    stalled = _shares(options["stalled"], parts)[::-1]
    if min(connections) < 1 or any(
        one + other > size for one, other, size in zip(senders, stalled, connections, strict=True)
    ):
        raise ConfigError(f"connections: {options['connections']} are too few for {parts} agents")
    phases = _phases(options.get("arrivals", ()), parts)
    made = []
    for number in range(parts):
        part = dict(options)
        part |= {
            "connections": connections[number],
            "senders": senders[number],
            "stalled": stalled[number],
            "connect_rate": options["connect_rate"] * connections[number] / options["connections"],
            "connect_window": max(1, options["connect_window"] // parts),
            "churn": options["churn"] / parts,
            "rate": options["rate"] * senders[number] / options["senders"],
            # A process id means nothing on another machine.
            "server_pid": options["server_pid"] if number == 0 else 0,
        }
        if options["expect"] == "all":
            part |= {"sender_base": sum(senders[:number]), "senders_total": options["senders"]}
        elif not senders[number]:
            part["messages"] = 0
        if "arrivals" in options:
            part["arrivals"] = [
                [counts[number], rate * counts[number] / sum(counts)]
                for counts, rate in phases
                if counts[number]
            ]
        made.append(part)
    return made


def merge_snapshots(
    latest: Sequence[Mapping[str, Any]], since: Mapping[str, Iterable[Any]]
) -> dict[str, Any]:
    """One snapshot from the latest one of each part.

    ``since`` has what must not be counted twice: all pairs of the histograms ``latency`` and ``handshake``
    that have come in since the last merged snapshot.
    """
    return {
        "phase": min((part["phase"] for part in latest), key=PHASES.index),
        "seconds": max(part["seconds"] for part in latest),
        "connections": _sums(part["connections"] for part in latest),
        "failures": _sums(part["failures"] for part in latest),
        **{name: sum(part[name] for part in latest) for name in _COUNTERS},
        "latency": list(since["latency"]),
        "handshake": list(since["handshake"]),
        "server": next((part["server"] for part in latest if part["server"]), None),
        "kernel": latest[0]["kernel"],
        "client": {"cpu_seconds": sum(part["client"]["cpu_seconds"] for part in latest)},
    }


def merge_results(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One result from those of all parts, which are keyed by where they ran.

    Memory is that of the first part's machine, where the server may be measured.
    """
    parts = list(results.values())
    first = parts[0]
    histograms = {
        name: Distribution(pair for part in parts for pair in part["histograms"][name])
        for name in (*_SPREADS, *_STORM_SPREADS)
    }
    seconds = {
        phase: max(part["phase_seconds"][phase] or 0.0 for part in parts) for phase in first["phase_seconds"]
    }
    connections = _sums(part["connections"] for part in parts)
    connections["connect_seconds"] = max(part["connections"]["connect_seconds"] for part in parts)
    connections["rate"] = _ratio(connections["made"], connections["connect_seconds"])
    connections["own_fd_tables"] = all(part["connections"]["own_fd_tables"] for part in parts)
    deliveries = _sums(part["deliveries"] for part in parts)
    digests = {part["order_digest"] for part in parts if part["order_digest"]}
    return {
        "connections": connections,
        "churn": _sums(part["churn"] for part in parts),
        "storm": _storm(parts, histograms),
        "messages": {
            **first["messages"],
            **{name: sum(part["messages"][name] for part in parts) for name in ("asked", "sent", "senders")},
        },
        "deliveries": deliveries,
        "throughput": _ratio(deliveries["received"], seconds["messages"]),
        **{total: _spread(histograms[name]) for name, total in _SPREADS.items()},
        "phase_seconds": seconds,
        "cpu": _cpu(parts, connections["made"], deliveries["received"]),
        "client_bound": any(part["client_bound"] for part in parts),
        "memory": first["memory"],
        "closes": _sums(part["closes"] for part in parts),
        "errors": [f"{where}: {error}" for where, part in results.items() for error in part["errors"]],
        "order_digest": first["order_digest"] if len(digests) == 1 else None,
        "one_order": len(digests) <= 1,
        "cancelled": any(part["cancelled"] for part in parts),
        "clean": len(digests) <= 1 and all(part["clean"] for part in parts),
        "histograms": {name: histogram.pairs() for name, histogram in histograms.items()},
        "agents": {
            where: {name: value for name, value in part.items() if name != "histograms"}
            for where, part in results.items()
        },
    }


def _shares(total: int, parts: int) -> list[int]:
    return [total // parts + (number < total % parts) for number in range(parts)]


def _phases(arrivals: Iterable[tuple[int, float]], parts: int) -> list[tuple[list[int], float]]:
    """The shares of each phase of connecting, which over all phases add up to those of the connections."""
    shares = []
    before = 0
    for count, rate in arrivals:
        until, since = _shares(before + count, parts), _shares(before, parts)
        shares.append(([after - already for after, already in zip(until, since, strict=True)], rate))
        before += count
    return shares


def _sums(mappings: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Each number added up; tallies within are added up likewise."""
    total: dict[str, Any] = {}
    for mapping in mappings:
        for name, value in mapping.items():
            if isinstance(value, Mapping):
                total[name] = dict(Counter(total.get(name, {})) + Counter(value))
            else:
                total[name] = total.get(name, 0) + (value or 0)
    return total


def _storm(
    parts: Sequence[Mapping[str, Any]], histograms: Mapping[str, Distribution]
) -> dict[str, Any] | None:
    storms = [part["storm"] for part in parts if part["storm"]]
    if not storms:
        return None
    names = ("dropped", "back", "missing", "attempts", "refused")
    return {
        **_sums({name: storm[name] for name in names} for storm in storms),
        "seconds": max(storm["seconds"] for storm in storms),
        **{total: _spread(histograms[name]) for name, total in _STORM_SPREADS.items()},
    }


def _cpu(parts: Sequence[Mapping[str, Any]], made: int, received: int) -> dict[str, Any]:
    first = parts[0]["cpu"]
    server, client = first["server_seconds"], _sums(part["cpu"]["client_seconds"] for part in parts)
    known = server["messages"] is not None
    worst = {
        name: max((part["cpu"][name] for part in parts if part["cpu"][name] is not None), default=None)
        for name in _WORST
    }
    return {
        "client_seconds": client,
        "server_seconds": server,
        "server_ticks_seconds": first["server_ticks_seconds"],
        "server_us_per_delivery": server["messages"] / received * 1e6 if known and received else None,
        "server_us_per_connect": (server["connect"] or 0) / made * 1e6 if known and made else None,
        "client_us_per_delivery": client["messages"] / received * 1e6 if received else None,
        **worst,
    }


def _spread(histogram: Distribution) -> dict[str, Any]:
    percents = {"p50": 50, "p90": 90, "p99": 99, "p99.9": 99.9}
    return {
        "count": histogram.count,
        **{name: histogram.percentile(percent) / MICROSECONDS for name, percent in percents.items()},
        "max": histogram.maximum / MICROSECONDS,
        "mean": histogram.mean / MICROSECONDS,
    }


def _ratio(amount: float, seconds: float) -> float:
    return amount / seconds if seconds > 0 else 0.0
