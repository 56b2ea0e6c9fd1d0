"""Where quiet channels have ended: what is told at a time fits into a message, and each is told once."""

from __future__ import annotations

import json

import pytest

from fastcast.bus import tails as tails_module
from fastcast.bus.tails import QUIET, Tails


class Clock:
    """Stands in for the module time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the tails, which stands still."""
    clock = Clock()
    monkeypatch.setattr(tails_module, "time", clock)
    return clock


@pytest.mark.parametrize("name", ["x", "x" * 3000, "ü" * 500, '"' * 1000])
def test_what_is_told_at_a_time_fits_into_a_message(clock: Clock, name: str) -> None:
    tails = Tails()
    noted = {f"{name}{number}": number for number in range(1200)}
    for subject, offset in noted.items():
        tails.note(subject, offset)
    clock.now += QUIET
    told: dict[str, int] = {}
    sizes = []
    while some := tails.take():
        assert not told.keys() & some.keys()
        told |= some
        sizes.append(len(json.dumps(some, separators=(",", ":"))))
    assert list(told.items()) == list(noted.items())
    assert max(sizes) <= 256 << 10
    # No more messages than that takes, of which none has more than 500.
    assert len(sizes) <= max(3, sum(sizes) // (200 << 10) + 1)


def test_one_that_is_longer_is_told_by_itself(clock: Clock) -> None:
    tails = Tails()
    long = "x" * (300 << 10)
    for subject in ("a", long, "b"):
        tails.note(subject, 1)
    clock.now += QUIET
    assert [list(tails.take()) for _ in range(4)] == [["a"], [long], ["b"], []]


def test_only_the_quiet_ones_are_told(clock: Clock) -> None:
    tails = Tails()
    for subject in ("a", "b", "c"):
        tails.note(subject, 1)
        clock.now += QUIET / 2
    tails.note("a", 2)
    assert tails.take() == {"b": 1}
    clock.now += QUIET
    assert tails.take() == {"c": 1, "a": 2}
    assert tails.take() == {}
