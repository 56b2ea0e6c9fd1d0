"""Durations as HDR histograms: what the load client counts goes in without loss.

The load client's buckets are those of an HdrHistogram with two significant digits, so a recorded value is at
most 0.8 % off, whatever is merged with whatever.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Final, Self

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

NANOSECONDS: Final = 1
MICROSECONDS: Final = 1000
MILLISECONDS: Final = 1_000_000

_LONGEST: Final = 3600 * 1_000_000_000
_DIGITS: Final = 2


class Distribution:
    """Durations in nanoseconds, from 1 ns to an hour."""

    def __init__(self, pairs: Iterable[Sequence[int]] = ()) -> None:
        """``pairs`` are of a value in nanoseconds and how often it occurred."""
        self._histogram = HdrHistogram(1, _LONGEST, _DIGITS)
        self.add(pairs)

    def add(self, pairs: Iterable[Sequence[int]]) -> Self:
        """Count more; a duration of more than an hour counts as an hour."""
        for value, count in pairs:
            self._histogram.record_value(min(value, _LONGEST), count)
        return self

    @property
    def count(self) -> int:
        """Durations counted."""
        return int(self._histogram.get_total_count())

    @property
    def mean(self) -> float:
        """Nanoseconds; 0 when empty."""
        return float(self._histogram.get_mean_value())

    @property
    def maximum(self) -> int:
        """Nanoseconds; 0 when empty."""
        return int(self._histogram.get_max_value())

    def percentile(self, percent: float) -> int:
        """The nanoseconds that ``percent`` of the durations don't exceed; 0 when empty.

        As the library has it, the number of durations within is rounded, not rounded up.
        """
        return int(self._histogram.get_value_at_percentile(percent)) if self.count else 0

    def pairs(self) -> list[list[int]]:
        """What is counted, as what ``add`` takes."""
        return [
            [int(item.value_iterated_to), int(item.count_added_in_this_iter_step)]
            for item in self._histogram.get_recorded_iterator()
        ]

    def curve(self) -> list[tuple[float, int]]:
        """Percentiles with their nanoseconds, ever denser towards 100: what an HDR plot shows."""
        if not self.count:
            return []
        return [
            (float(item.percentile_level_iterated_to), int(item.value_iterated_to))
            for item in self._histogram.get_percentile_iterator(5)
        ]


def packed(pairs: Iterable[Sequence[int]]) -> array[int]:
    """Pairs without an object for each: a run of hours keeps a histogram for every interval."""
    return array("Q", (number for pair in pairs for number in pair))


def unpacked(numbers: array[int]) -> Iterable[tuple[int, int]]:
    """What ``packed`` packed."""
    return zip(numbers[::2], numbers[1::2], strict=True)
