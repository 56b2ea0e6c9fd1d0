"""Calls the program's handlers: each client's events in order, and only so many coroutines at a time.

A handler that is a plain function has done its work when it returns. What returns an awaitable goes on as a
task; until that is over, what else happens to the same client stands in a line of its own behind it, while
other clients' events go ahead. Everything here belongs to one loop.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from fastcast.errors import FastcastError

_log = logging.getLogger("fastcast")

MOST_WAITING: Final = 1024
"""Events that may have been taken and wait for a coroutine to end, before no more should be taken."""

Finished: TypeAlias = "Callable[[asyncio.Future[Any]], None]"


class Pool:
    """Runs coroutines, so many at a time; further ones wait, first come, first served."""

    def __init__(self, limit: int) -> None:
        """Takes a running loop."""
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._hurrying = False
        self._running: set[asyncio.Future[Any]] = set()
        self._waiting: deque[tuple[Awaitable[Any], Finished]] = deque()

    def __len__(self) -> int:
        """How many run or wait."""
        return len(self._running) + len(self._waiting)

    @property
    def has_room(self) -> bool:
        """Whether more should be brought here."""
        return self._hurrying or len(self._waiting) < MOST_WAITING

    def run(self, work: Awaitable[Any], finished: Finished) -> None:
        """Run ``work`` when its turn has come; ``finished`` gets the task once that is over, or cancelled."""
        if self._hurrying or len(self._running) < self._limit:
            self._begin(work, finished)
        else:
            self._waiting.append((work, finished))

    def hurry(self) -> None:
        """From now on, whatever is here or comes is cancelled where it first waits for something."""
        self._hurrying = True
        for task in self._running:
            self._cancel(task)
        while self._waiting:
            self._begin(*self._waiting.popleft())

    def _begin(self, work: Awaitable[Any], finished: Finished) -> None:
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(partial(self._end, finished))
        if self._hurrying:
            self._cancel(task)

    def _cancel(self, task: asyncio.Future[Any]) -> None:
        # Behind its first step, which is scheduled already: what need not wait gets done.
        self._loop.call_soon(task.cancel)

    def _end(self, finished: Finished, task: asyncio.Future[Any]) -> None:
        self._running.discard(task)
        if self._waiting:
            self._begin(*self._waiting.popleft())
        finished(task)


class _Call(NamedTuple):
    handler: Callable[..., object]
    arguments: tuple[Any, ...]
    size: int


class Dispatcher:
    """Calls handlers, and knows what of that isn't finished.

    An exception in a handler is logged with the client's id, and no more.
    """

    def __init__(self, limit: int, most_bytes: int, relieved: Callable[[], None]) -> None:
        """At most ``limit`` coroutines run at a time; ``relieved`` is called whenever one has ended.

        There is no room for more while events of ``most_bytes``, or too many of them, are unfinished.
        """
        self._pool = Pool(limit)
        self._most = limit + MOST_WAITING
        self._most_bytes = most_bytes
        self._relieved = relieved
        # Of each client with a coroutine under way: its call first, then those that wait for it.
        self._lines: dict[int, deque[_Call]] = {}
        self._unfinished = 0
        self._bytes = 0
        self._hurrying = False
        self.stopping = False
        """Set once the server stops: that a handler can't send any more is no failure then."""

    @property
    def idle(self) -> bool:
        """Whether every handler that was called has ended."""
        return not self._lines

    @property
    def has_room(self) -> bool:
        """Whether more events should be taken. It's for the caller to respect."""
        return self._hurrying or (self._unfinished < self._most and self._bytes < self._most_bytes)

    def call(self, client: int, handler: Callable[..., object], *arguments: Any, size: int = 0) -> None:
        """Call the handler, at once or behind the client's other calls; the arguments take ``size`` bytes."""
        line = self._lines.get(client)
        if line is not None:
            line.append(_Call(handler, arguments, size))
            self._count(1, size)
        elif self._begin(client, handler, arguments):
            self._lines[client] = deque((_Call(handler, arguments, size),))
            self._count(1, size)

    def hurry(self) -> int:
        """Whatever is here or comes is cancelled where it first waits for something, and no call is left out.

        Returns for how many handlers that comes too early.
        """
        self._hurrying = True
        unfinished = len(self._pool)
        self._pool.hurry()
        return unfinished

    def _begin(self, client: int, handler: Callable[..., object], arguments: tuple[Any, ...]) -> bool:
        """Call the handler; whether it goes on as a coroutine."""
        try:
            result = handler(*arguments)
        except (KeyboardInterrupt, SystemExit) as error:
            # The end of the loop, as the handler wants it; but not in the midst of our accounts.
            asyncio.get_running_loop().call_soon(_raise, error)
            return False
        except BaseException as error:  # also what frameworks raise beside the usual kinds
            self._complain(client, error)
            return False
        if result is None or not inspect.isawaitable(result):
            return False
        self._pool.run(result, partial(self._advance, client))
        return True

    def _advance(self, client: int, ended: asyncio.Future[Any]) -> None:
        """Go on in a client's line, up to the next coroutine."""
        line = self._lines.pop(client)
        self._count(-1, -line.popleft().size)
        if not ended.cancelled() and (error := ended.exception()):
            self._complain(client, error)
        while line:
            if self._begin(client, line[0].handler, line[0].arguments):
                self._lines[client] = line
                break
            self._count(-1, -line.popleft().size)
        self._relieved()

    def _count(self, calls: int, size: int) -> None:
        self._unfinished += calls
        self._bytes += size

    def _complain(self, client: int, error: BaseException) -> None:
        expected = self.stopping and isinstance(error, FastcastError)
        level = logging.DEBUG if expected else logging.ERROR
        try:
            _log.log(level, "a handler failed for client %d", client, exc_info=error)
        except Exception as failure:  # of the program's logging, which is no reason to hold up its clients
            asyncio.get_running_loop().call_soon(_raise, failure)


def _raise(error: BaseException) -> None:
    raise error
