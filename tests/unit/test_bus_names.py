"""Channels as the bus names them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcast.bus.names import channel_of, is_wild, own_subject, subject_of, takes_in
from fastcast.bus.redis import glob_of

NAMES = st.text(min_size=1, max_size=30).filter(lambda name: not is_wild(name))
TOKENS = st.sampled_from(["a", "b", "c"])


@pytest.mark.parametrize(
    ("channel", "subject"),
    [
        ("prices.eur", "fastcast.prices.eur"),
        ("/rooms/7", "fastcast./rooms/7"),
        ("a b", "fastcast.a%20b"),
        ("100%", "fastcast.100%25"),
        ("a..b", "fastcast.a.%_.b"),
        ("a*b.c>", "fastcast.a%2Ab.c%3E"),
        ("größe", "fastcast.größe"),
        ("prices.*", "fastcast.prices.*"),
        ("prices.>", "fastcast.prices.>"),
    ],
)
def test_subject_of_a_channel(channel: str, subject: str) -> None:
    assert subject_of("fastcast", channel) == subject


@given(NAMES)
def test_every_channel_comes_back_from_its_subject(channel: str) -> None:
    subject = subject_of("a.b", channel)
    assert channel_of("a.b", subject) == channel
    # What NATS takes: tokens that aren't empty, without blanks, controls and wildcards.
    assert all(re.fullmatch(r"[^\x00-\x20\x7f*>]+", token) for token in subject.split("."))


@pytest.mark.parametrize(
    "subject",
    [
        "other.prices",
        "fastcast",
        "fastcast.a%2fb",  # a lower-case digit: not as we write it
        "fastcast.a%41",  # an A that has no need of it
        "fastcast.%_b",
        "fastcast.*",
        own_subject("fastcast", "broadcast"),
        own_subject("fastcast", "node-0123"),
    ],
)
def test_what_is_no_channel_of_ours(subject: str) -> None:
    assert channel_of("fastcast", subject) is None


@given(st.lists(st.one_of(TOKENS, st.just("*")), min_size=1, max_size=4), st.booleans(), st.data())
def test_patterns_take_in_what_they_do_in_nats(tokens: list[str], rest: bool, data: st.DataObject) -> None:
    pattern = ".".join([*tokens, ">"] if rest else tokens)
    subject = ".".join(data.draw(st.lists(TOKENS, min_size=1, max_size=6)))
    expression = r"\.".join("[^.]+" if token == "*" else token for token in tokens)
    expected = re.fullmatch(expression + (r"\..+" if rest else ""), subject) is not None
    assert takes_in(pattern, subject) == expected


@pytest.mark.parametrize(
    ("subject", "glob"),
    [("f.a.*", "f.a.*"), ("f.a.>", "f.a.*"), ("f.[x].*", r"f.\[x\].*"), ("f.a?.>", r"f.a\?.*")],
)
def test_pattern_of_redis(subject: str, glob: str) -> None:
    assert glob_of(subject) == glob
