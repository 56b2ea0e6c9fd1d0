"""What is worked out before anything starts."""

from __future__ import annotations

import os
import resource

import pytest

from fastcast import launch
from fastcast.config import Config


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processors, and 20,000 open files for a table."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20_000, 20_000))


@pytest.mark.usefixtures("limit")
class TestShards:
    def test_there_is_one_for_each_processor(self) -> None:
        assert launch.shards_of(Config()) == 2

    def test_a_single_processor_has_two(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
        assert launch.shards_of(Config()) == 2

    def test_what_was_asked_for_is_kept(self) -> None:
        assert launch.shards_of(Config(shards=1, max_connections=1_000_000)) == 1

    @pytest.mark.parametrize(
        ("connections", "shards"), [(30_000, 2), (39_000, 2), (39_200, 3), (200_000, 11), (1_000_000, 52)]
    )
    def test_more_connections_than_fds_take_more_shards(self, connections: int, shards: int) -> None:
        assert launch.shards_of(Config(max_connections=connections)) == shards

    def test_there_are_never_more_than_their_own_fds_allow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
        assert launch.shards_of(Config(max_connections=10_000_000)) <= (1024 - 64) // 4

    def test_no_limit_takes_no_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        monkeypatch.setattr(resource, "getrlimit", lambda _: unlimited)
        assert launch.shards_of(Config(max_connections=1_000_000)) == 2


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, 0), (0.0004, 0), (1.5, 1500), (-1, 0), (1e9, 2**31 - 1)]
)
def test_milliseconds_fit_the_core(seconds: float, expected: int) -> None:
    assert launch.milliseconds(seconds) == expected
