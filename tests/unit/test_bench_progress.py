"""Progress: a panel on a terminal, lines elsewhere, and the same figures in both."""

from __future__ import annotations

import io

from rich.console import Console

from fastcast.bench.progress import LINE_SECONDS, Progress, figures, line
from fastcast.bench.series import Series
from tests.support.bench import MILLISECOND, server_at, snapshot


def shown(*snapshots: dict[str, object], terminal: bool = False) -> str:
    """What a console gets for these snapshots."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100)
    series = Series()
    with Progress(console, 100) as progress:
        for each in snapshots:
            progress.show(series.add(each))
    return stream.getvalue()


class TestLines:
    def test_each_phase_gets_one_at_once(self) -> None:
        text = shown(snapshot(0.5, "connect"), snapshot(1.0, "settle"), snapshot(1.5, "messages"))
        assert [line.split()[2] for line in text.splitlines()] == ["connect", "settle", "messages"]

    def test_a_long_phase_gets_one_now_and_then(self) -> None:
        steps = [snapshot(0.5 + step * 0.5) for step in range(int(4 * LINE_SECONDS) + 1)]
        assert len(shown(*steps).splitlines()) == 3

    def test_no_control_sequences_are_in_them(self) -> None:
        assert "\x1b" not in shown(snapshot(0.5))

    def test_they_are_not_broken(self) -> None:
        row = Series().add(snapshot(0.5, latency=((MILLISECOND, 1),), received=10**9, server=server_at(1)))
        assert len(line(row)) > 100
        assert len(shown(snapshot(0.5, latency=((MILLISECOND, 1),), received=10**9)).splitlines()) == 1


class TestPanel:
    def test_it_is_redrawn_and_gone_at_the_end(self) -> None:
        text = shown(snapshot(0.5, "connect", made=50), snapshot(1.0, "messages"), terminal=True)
        assert "connect" in text
        assert "50 open, 0 failed" in text
        assert text.rstrip().endswith("\x1b[2K")


class TestFigures:
    def test_what_was_measured_is_told(self) -> None:
        series = Series()
        series.add(snapshot(0.5, "connect", made=40, server=server_at(1.0)))
        row = series.add(
            snapshot(
                1.0,
                failed=2,
                received=1000,
                latency=((2 * MILLISECOND, 10),),
                server=server_at(1.25, pss=20 << 20),
            )
        )
        assert figures(row) == {
            "connections": "100 open, 2 failed, 120/s",
            "deliveries": "2,000/s",
            "latency": "p50 2.01 ms, p99 2.01 ms, max 2.01 ms",
            "server": "50% CPU, 20 MiB; kernel 12 KiB",
        }

    def test_handshakes_are_told_while_there_are_no_messages(self) -> None:
        row = Series().add(snapshot(0.5, "connect", handshake=((MILLISECOND, 5),)))
        assert figures(row)["handshake"] == "p50 1 ms, p99 1 ms"

    def test_nothing_is_told_of_what_was_not_measured(self) -> None:
        assert figures(Series().add(snapshot(0.5, "hold", made=0))) == {"connections": "0 open, 0 failed"}
