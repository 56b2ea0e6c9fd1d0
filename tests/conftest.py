"""Fixtures that more than one directory of tests uses, and the marks of all."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from tests.support.hosting import Run, ServerFactory, await_nothing_left, belongings, hosted
from tests.support.wire import TIMEOUT

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks, for --strict-markers, and have SIGINT end what tests start."""
    config.addinivalue_line("markers", "slow: takes more than ten seconds, or may on a small machine")
    # A shell's background jobs start with SIGINT ignored, and programs that tests start would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
    """`with server(**options) as running:` is a server in this process.

    Whatever the test does to it, it ends with nothing left: no client, message, channel, thread or fd, and
    with every delivery accounted for.
    """
    return hosted


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest, nothing_left: None) -> Run:
    """Runs a coroutine to its end, on asyncio's own loop or on uvloop; nothing may be left of it."""

    def run(coroutine: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(asyncio.wait_for(coroutine, 6 * TIMEOUT))

    return run
