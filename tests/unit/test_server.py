"""What the server works out before it starts anything."""

from __future__ import annotations

import resource

import pytest

import fastcast
from fastcast import server
from fastcast.config import Config


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processors, and 20,000 open files for a table."""
    monkeypatch.setattr(server.os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20_000, 20_000))


@pytest.mark.usefixtures("limit")
class TestShards:
    def test_there_is_one_for_each_processor(self) -> None:
        assert server._shards(Config()) == 2

    def test_a_single_processor_has_two(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server.os, "sched_getaffinity", lambda _: {0})
        assert server._shards(Config()) == 2

    def test_what_was_asked_for_is_kept(self) -> None:
        assert server._shards(Config(shards=1, max_connections=1_000_000)) == 1

    @pytest.mark.parametrize(
        ("connections", "shards"), [(30_000, 2), (39_000, 2), (39_200, 3), (200_000, 11), (1_000_000, 52)]
    )
    def test_more_connections_than_fds_take_more_shards(self, connections: int, shards: int) -> None:
        assert server._shards(Config(max_connections=connections)) == shards

    def test_there_are_never_more_than_their_own_fds_allow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
        assert server._shards(Config(max_connections=10_000_000)) <= (1024 - 64) // 4

    def test_no_limit_takes_no_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        monkeypatch.setattr(resource, "getrlimit", lambda _: unlimited)
        assert server._shards(Config(max_connections=1_000_000)) == 2


def test_an_option_that_does_not_exist_is_named() -> None:
    with pytest.raises(fastcast.ConfigError, match="max_conections"):
        fastcast.serve(max_conections=1)


def test_a_handler_must_be_a_plain_function() -> None:
    async def handle(client: fastcast.Client, message: str | bytes) -> None:
        raise AssertionError("never called")

    with pytest.raises(fastcast.FastcastError, match="plain function"):
        fastcast.serve().on_message(handle)
