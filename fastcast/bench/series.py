"""The run over time: snapshots of counters become rows of rates, percentiles, CPU and memory.

However long the run, the rows stay few: when there are too many, every two neighbours become one, with their
histograms added, so that the percentiles of the longer interval are exact.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from fastcast.bench.distribution import Distribution, packed, unpacked

MOST_ROWS: Final = 600


@dataclass(frozen=True, slots=True)
class Row:
    """One interval; None is what was not measured, or had nothing to measure. It is what the web page gets.

    Rates are per second, latencies in milliseconds, memory in bytes, CPU in processors (1.0 is one of them
    busy).
    """

    seconds: float
    phase: str
    made: int
    failed: int
    open: int
    in_progress: int
    connect_rate: float
    sent_rate: float
    delivery_rate: float
    latency_p50: float | None
    latency_p99: float | None
    latency_max: float | None
    handshake_p50: float | None
    handshake_p99: float | None
    handshake_max: float | None
    server_cpu: float | None
    server_pss: int | None
    server_rss: int | None
    kernel_tcp: int | None
    kernel_slab: int | None
    client_cpu: float


@dataclass(slots=True)
class _Point:
    """The counters at the end of an interval, and the histograms of the interval."""

    seconds: float
    phase: str
    made: int
    failed: int
    open: int
    in_progress: int
    sent: int
    received: int
    latency: array[int]
    handshake: array[int]
    server: Mapping[str, Any] | None
    kernel: Mapping[str, Any]
    client_cpu: float


_START: Final = _Point(0.0, "connect", 0, 0, 0, 0, 0, 0, array("Q"), array("Q"), None, {}, 0.0)


class Series:
    """Collects the snapshots of one run."""

    def __init__(self, most: int = MOST_ROWS) -> None:
        """``most`` is the number of rows at which they are halved."""
        self._most = most
        self._points: list[_Point] = []
        self.halvings = 0

    def add(self, snapshot: Mapping[str, Any]) -> Row:
        """Take a snapshot in; returns the row of the interval that it ends."""
        connections = snapshot["connections"]
        point = _Point(
            seconds=snapshot["seconds"],
            phase=snapshot["phase"],
            made=connections["made"],
            failed=connections["failed"],
            open=connections["open"],
            in_progress=connections["in_progress"],
            sent=snapshot["sent"],
            received=snapshot["received"],
            latency=packed(snapshot["latency"]),
            handshake=packed(snapshot["handshake"]),
            server=snapshot["server"],
            kernel=snapshot["kernel"],
            client_cpu=snapshot["client"]["cpu_seconds"],
        )
        row = _row(self._points[-1] if self._points else _START, point)
        self._points.append(point)
        if len(self._points) >= self._most:
            self._halve()
        return row

    def rows(self) -> list[Row]:
        """The whole run so far."""
        points = [_START, *self._points]
        return [_row(before, point) for before, point in pairwise(points)]

    def _halve(self) -> None:
        self.halvings += 1
        odd = self._points[-1:] if len(self._points) % 2 else []
        halves = list(zip(self._points[::2], self._points[1::2], strict=False))
        for first, second in halves:
            second.latency = _sum(first.latency, second.latency)
            second.handshake = _sum(first.handshake, second.handshake)
        self._points = [second for _, second in halves] + odd


def _sum(one: array[int], other: array[int]) -> array[int]:
    return packed(Distribution(unpacked(one)).add(unpacked(other)).pairs())


def _row(before: _Point, point: _Point) -> Row:
    seconds = point.seconds - before.seconds

    def rate(now: float, then: float) -> float:
        return round(max(now - then, 0) / seconds, 3) if seconds > 0 else 0.0

    def of_server(name: str) -> int | None:
        return point.server[name] if point.server else None

    latency, handshake = _milliseconds(point.latency), _milliseconds(point.handshake)
    server_cpu = None
    if before.server and point.server:
        server_cpu = rate(point.server["cpu_seconds"], before.server["cpu_seconds"])
    return Row(
        seconds=round(point.seconds, 3),
        phase=point.phase,
        made=point.made,
        failed=point.failed,
        open=point.open,
        in_progress=point.in_progress,
        connect_rate=rate(point.made, before.made),
        sent_rate=rate(point.sent, before.sent),
        delivery_rate=rate(point.received, before.received),
        latency_p50=latency[0],
        latency_p99=latency[1],
        latency_max=latency[2],
        handshake_p50=handshake[0],
        handshake_p99=handshake[1],
        handshake_max=handshake[2],
        server_cpu=server_cpu,
        server_pss=of_server("pss"),
        server_rss=of_server("rss"),
        kernel_tcp=point.kernel.get("tcp"),
        kernel_slab=point.kernel.get("slab"),
        client_cpu=rate(point.client_cpu, before.client_cpu),
    )


def _milliseconds(numbers: array[int]) -> tuple[float | None, float | None, float | None]:
    """Median, 99th percentile and maximum."""
    if not numbers:
        return None, None, None
    all_of_it = Distribution(unpacked(numbers))
    median, high, top = all_of_it.percentile(50), all_of_it.percentile(99), all_of_it.maximum
    return round(median / 1e6, 4), round(high / 1e6, 4), round(top / 1e6, 4)
