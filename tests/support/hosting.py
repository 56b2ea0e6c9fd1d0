"""A server inside the test's process, on a thread of its own, with its accounts checked at the end."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import fastcast
from fastcast.client import Data
from tests.support.wire import TIMEOUT, Address, until

MIB = 1 << 20

GAUGES = (
    "connections",
    "clients",
    "handshakes",
    "asked",
    "lagging",
    "queued",
    "queued_bytes",
    "messages",
    "message_bytes",
    "channels",
    "threads",
)
"""Everything in ``stats()`` that has to be 0 once a server has ended."""

T = TypeVar("T")

ServerFactory = Callable[..., AbstractContextManager[fastcast.Server]]
"""The type of `hosted`."""

Run = Callable[[Coroutine[Any, Any, None]], None]
"""The type of a function that runs a coroutine to its end."""


def await_true(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition; TimeoutError names `what` after the usual time."""
    until(lambda: condition() or None, what)


def check_accounts(stats: Mapping[str, Any]) -> None:
    """Assert that a server which has ended holds nothing, and can say what became of everything it had."""
    left = {name: stats[name] for name in GAUGES if stats[name]}
    assert left == ({"channels": stats["histories"]} if stats["histories"] else {})  # those outlive clients
    assert stats["sent"] == stats["delivered"] + stats["dropped"] + stats["gone"]
    assert stats["accepted"] == stats["closed"]


def publish(server: fastcast.Server, data: Data, channel: str = "/") -> None:
    """Publish, waiting while the server has too much under way."""

    def attempt() -> bool | None:
        try:
            server.publish(channel, data)
        except fastcast.OverloadError:
            return None
        return True

    until(attempt, "room for one more message")


class Host:
    """An event loop on a thread of its own, so that a test can use blocking clients."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="host")
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and return its result; TimeoutError after three times TIMEOUT."""
        return self.begin(coroutine)()

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> Callable[[], T]:
        """The same in two steps: what is returned waits for the result."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return lambda: future.result(3 * TIMEOUT)

    def end(self) -> None:
        """End the thread, and close the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


_HOSTS: WeakKeyDictionary[fastcast.Server, Host] = WeakKeyDictionary()


def default_options() -> dict[str, Any]:
    """What every server in a test has unless the test says otherwise; FASTCAST_IO picks the I/O backend."""
    io = os.environ.get("FASTCAST_IO")
    return {"port": 0, "shards": 2} | ({"io": io} if io else {})


def serve(**options: Any) -> fastcast.Server:
    """A server that has yet to be started, on two shards and a free port unless `options` say otherwise."""
    return fastcast.serve(**default_options() | options)


def address_of(server: fastcast.Server) -> Address:
    """Where a server in this process listens."""
    return server.config.host, server.port


@contextmanager
def hosted(
    prepare: Callable[[fastcast.Server], object] | None = None, /, **options: Any
) -> Iterator[fastcast.Server]:
    """A running server, as `serve` makes it; `prepare` may set its handlers.

    Leaving the block stops it, with time for its clients to go, and checks its accounts.
    """
    host = Host()
    try:
        server = serve(**options)
        if prepare is not None:
            prepare(server)
        host.run(server.start())
        _HOSTS[server] = host
        try:
            yield server
        except BaseException:
            # The test's own failure is the one to report, not what it did to the server's accounts.
            host.run(server.stop(0))
            raise
        host.run(server.stop(TIMEOUT))
        check_accounts(server.stats())
    finally:
        host.end()


def on_loop(server: fastcast.Server, coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that runs on a hosted server's loop."""
    return _HOSTS[server].run(coroutine)


def stop_in_background(server: fastcast.Server) -> Callable[[], None]:
    """Have a hosted server stop while the test goes on; what is returned waits for the end."""
    return _HOSTS[server].begin(server.stop())


def belongings() -> tuple[dict[int, str], set[int]]:
    """The open fds of this process with what they are, and the ids of its threads."""
    fds = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            fds[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the fd of the listing itself
            continue
    return fds, {int(name) for name in os.listdir("/proc/self/task")}


def await_nothing_left(before: tuple[dict[int, str], set[int]]) -> None:
    """Wait until this process has no fd and no thread that it hadn't before; AssertionError says which."""

    def leftovers() -> tuple[dict[int, str], set[int]]:
        fds, threads = belongings()
        return {fd: what for fd, what in fds.items() if before[0].get(fd) != what}, threads - before[1]

    def nothing_left() -> bool:
        # Reference cycles, such as that of an exception and its frame, may hold a server: that's no leak.
        gc.collect()
        return not any(leftovers())

    try:
        # A thread that has been joined may be listed for a moment longer.
        await_true(nothing_left, "fds and threads to go")
    except TimeoutError:
        raise AssertionError(f"left behind, fds and threads: {leftovers()}") from None
