"""Distributions: nothing is lost on the way in, and percentiles are what they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcast.bench.distribution import Distribution, packed, unpacked

SECOND = 1_000_000_000


def exact(values: list[int], percent: float) -> int:
    """The percentile of a list, by its definition."""
    rank = max(1, int(percent * len(values) / 100 + 0.5))
    return sorted(values)[rank - 1]


class TestPercentiles:
    @given(st.lists(st.integers(1, 3600 * SECOND), min_size=1, max_size=200))
    def test_they_are_within_one_percent(self, values: list[int]) -> None:
        made = Distribution((value, 1) for value in values)
        for percent in (50, 90, 100):
            assert made.percentile(percent) == pytest.approx(exact(values, percent), rel=0.01, abs=1)
        assert made.maximum == pytest.approx(max(values), rel=0.01, abs=1)

    def test_counts_weigh(self) -> None:
        made = Distribution([(100, 99), (200, 1)])
        assert (made.count, made.percentile(99), made.percentile(100)) == (100, 100, 200)
        assert made.mean == pytest.approx(101)

    def test_an_empty_one_is_zero(self) -> None:
        made = Distribution()
        assert (made.count, made.mean, made.maximum, made.percentile(50), made.curve()) == (0, 0, 0, 0, [])

    def test_more_than_an_hour_counts_as_an_hour(self) -> None:
        made = Distribution([(10 * 3600 * SECOND, 3)])
        assert made.count == 3
        assert made.maximum == pytest.approx(3600 * SECOND, rel=0.01)


class TestPairs:
    @given(st.lists(st.tuples(st.integers(1, 3600 * SECOND), st.integers(1, 1000)), max_size=50))
    def test_what_comes_out_goes_in_again_unchanged(self, pairs: list[tuple[int, int]]) -> None:
        once = Distribution(pairs).pairs()
        assert Distribution(once).pairs() == once
        assert sum(count for _, count in once) == sum(count for _, count in pairs)

    def test_added_parts_are_the_whole(self) -> None:
        one, other = [(1000, 2), (5000, 1)], [(1000, 3), (70, 9)]
        assert Distribution(one).add(other).pairs() == Distribution(one + other).pairs()

    @given(st.lists(st.tuples(st.integers(0, 2**63), st.integers(0, 2**63)), max_size=20))
    def test_packing_is_reversible(self, pairs: list[tuple[int, int]]) -> None:
        assert list(unpacked(packed(pairs))) == pairs


class TestCurve:
    def test_it_rises_to_the_maximum_at_one_hundred(self) -> None:
        curve = Distribution((value, 1) for value in range(1000, 100_000, 10)).curve()
        assert curve[-1][0] == 100
        assert curve[-1][1] == pytest.approx(100_000, rel=0.01)
        assert curve == sorted(curve)
