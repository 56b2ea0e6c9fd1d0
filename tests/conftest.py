"""Fixtures that more than one directory of tests uses, and the marks of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
import uvloop

import fastcast
from tests.support.hosting import await_nothing_left, belongings, hosted

ServerFactory = Callable[..., AbstractContextManager[fastcast.Server]]


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks, for --strict-markers."""
    config.addinivalue_line("markers", "slow: takes more than ten seconds, or may on a small machine")


@pytest.fixture(scope="session")
def uvloop_set_up() -> None:
    """The first loop of uvloop opens a pipe that the process then keeps."""
    uvloop.new_event_loop().close()


@pytest.fixture
def nothing_left(uvloop_set_up: None) -> Iterator[None]:
    """The test leaves no fd open and no thread running."""
    before = belongings()
    yield
    await_nothing_left(before)


@pytest.fixture
def server(nothing_left: None) -> ServerFactory:
    """`with server(**options) as running:` is a server in this process. Whatever the test does to it, it ends with
    nothing left: no client, message, channel, thread or fd, and every delivery accounted for."""
    return hosted
