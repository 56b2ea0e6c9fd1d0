"""The series: snapshots become rates and percentiles, and however many come, few rows remain."""

from __future__ import annotations

import pytest

from fastcast.bench.series import Series
from tests.support.bench import MILLISECOND, server_at, snapshot


def test_counters_become_rates_of_the_interval() -> None:
    series = Series()
    series.add(snapshot(0.5, made=100, sent=1, received=100))
    row = series.add(snapshot(1.0, made=150, sent=3, received=400))
    assert (row.connect_rate, row.sent_rate, row.delivery_rate) == (100, 4, 600)


def test_the_first_interval_begins_with_the_run() -> None:
    row = Series().add(snapshot(0.5, made=100, client_cpu=0.25))
    assert (row.connect_rate, row.client_cpu) == (200, 0.5)


def test_latency_is_that_of_the_interval_in_milliseconds() -> None:
    row = Series().add(snapshot(0.5, latency=((MILLISECOND, 98), (8 * MILLISECOND, 2))))
    assert (row.latency_p50, row.latency_p99, row.latency_max) == pytest.approx((1, 8, 8), rel=0.01)
    assert row.handshake_p50 is None


def test_what_is_not_measured_is_none() -> None:
    row = Series().add(snapshot(0.5))
    assert (row.server_cpu, row.server_pss, row.server_rss, row.latency_p50) == (None, None, None, None)


def test_server_cpu_needs_two_snapshots() -> None:
    series = Series()
    assert series.add(snapshot(0.5, server=server_at(7.0))).server_cpu is None
    assert series.add(snapshot(1.0, server=server_at(7.75))).server_cpu == 1.5


def test_two_snapshots_at_once_have_no_rate() -> None:
    series = Series()
    series.add(snapshot(0.5, received=1))
    assert series.add(snapshot(0.5, received=9)).delivery_rate == 0


def test_rows_are_what_add_returned() -> None:
    series = Series()
    added = [series.add(snapshot(0.5 * (step + 1), received=step * 7)) for step in range(5)]
    assert series.rows() == added


@pytest.mark.parametrize("snapshots", [8, 9, 100, 101])
def test_rows_stay_few_and_cover_the_whole_run(snapshots: int) -> None:
    series = Series(most=8)
    for step in range(1, snapshots + 1):
        series.add(snapshot(step * 0.5, received=step * 100, latency=((step * MILLISECOND, 1),)))
    rows = series.rows()
    assert len(rows) < 8
    assert series.halvings >= 1
    assert rows[-1].seconds == snapshots * 0.5
    assert {row.delivery_rate for row in rows} == {200}


def test_rows_put_together_have_the_percentiles_of_both() -> None:
    series = Series(most=2)
    series.add(snapshot(0.5, latency=((MILLISECOND, 99),)))
    series.add(snapshot(1.0, latency=((5 * MILLISECOND, 1),)))
    (row,) = series.rows()
    assert (row.latency_p50, row.latency_p99, row.latency_max) == pytest.approx((1, 1, 5), rel=0.01)
