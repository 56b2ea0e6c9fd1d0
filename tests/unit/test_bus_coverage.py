"""Which subjects a stream has, for channels of which only some keep a history."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcast.bus import _engine, _retention
from fastcast.bus.coverage import cover, covers, overlap
from fastcast.bus.engine import Access
from fastcast.channels import takes_in
from fastcast.config import Config

NAMES = [".".join(tokens) for length in (1, 2, 3, 4) for tokens in product("ab", repeat=length)]
"""Enough names to tell all short patterns of these tokens apart."""

PATTERNS = [
    ".".join(tokens)
    for length in (1, 2, 3)
    for tokens in product(("a", "b", "*", ">"), repeat=length)
    if ">" not in tokens[:-1]
]


def taken_in(*patterns: str) -> set[str]:
    return {name for name in NAMES if any(takes_in(pattern, name) for pattern in patterns)}


def test_covering_and_overlapping_are_what_names_say() -> None:
    for one, two in product(PATTERNS, repeat=2):
        assert covers(one, two) == (taken_in(two) <= taken_in(one)), (one, two)
        assert overlap(one, two) == (not taken_in(one).isdisjoint(taken_in(two))), (one, two)


@given(st.lists(st.sampled_from(PATTERNS), max_size=6))
def test_a_cover_takes_in_all_and_nothing_twice(patterns: list[str]) -> None:
    found = cover(patterns)
    assert taken_in(*found) >= taken_in(*patterns)
    for one, two in product(found, repeat=2):
        assert one is two or not overlap(one, two)


def test_no_more_is_covered_than_has_to_be() -> None:
    assert cover(["a.*", "a.>", "b", "b"]) == ["a.>", "b"]
    assert cover(["a", "a.>"]) == ["a", "a.>"]
    assert cover(["a.b.*", "a.*.c", "d.*"]) == ["a.>", "d.*"]
    assert cover(["a.*", "*.b"]) == [">"]
    assert cover([]) == []


@pytest.mark.parametrize(
    ("history", "rules", "subjects"),
    [
        ("100", ["* history=5m"], ["fastcast.>"]),
        ("off", ["chat.* history=100", "chat.> history=10"], ["fastcast.chat.>"]),
        ("off", ["prices.* history=5", "> history=100"], ["fastcast.>"]),
        ("off", ["> history=100"], ["fastcast.>"]),
        ("100", ["> history=off"], None),
        ("100", ["> history=off", "a history=10"], None),
        ("off", ["a history=off", "a history=10"], None),
        ("off", ["a.b history=off", "a.* history=10"], ["fastcast.a.*"]),
        ("off", {"a b": {"history": "10"}}, ["fastcast.a%20b"]),
        ("off", [], None),
        ("5m", [], ["fastcast.>"]),
    ],
)
def test_a_stream_has_what_the_rules_keep(history: str, rules: Any, subjects: list[str] | None) -> None:
    found = _retention(Config(history=history, channel=rules))
    assert (list(found.subjects) if found else None) == subjects


def test_only_what_has_a_history_goes_through_the_stream_with_an_id() -> None:
    config = Config(history="100", channel=["private.> history=off"], bus=("nats://127.0.0.1",))
    engine = _engine(Access(urls=config.bus), config)
    assert engine.log is not None
    assert engine.log.takes("fastcast.a")
    assert not engine.log.takes("fastcast.private.a")
    assert not engine.log.takes("elsewhere.a")


def test_it_keeps_as_much_as_the_longest_history_wants() -> None:
    found = _retention(
        Config(history="10/1m", channel=["a history=100", "b.* history=20/2m", "c history=off"])
    )
    assert found is not None
    assert (found.messages, found.seconds) == (100, None)
    found = _retention(
        Config(history="10/1m", channel=["b.* history=20/2m", "> history=30s", "d history=1h"])
    )
    assert found is not None
    assert (found.messages, found.seconds) == (None, 120.0)
