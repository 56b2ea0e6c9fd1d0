"""Questions to the shards, which reply: whether all is written, what there is to tell of a client."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

from fastcast._core import FLUSHED, Hub


class _Flush:
    """Waits for every shard."""

    __slots__ = ("done", "missing")

    def __init__(self, shards: int) -> None:
        self.missing = shards
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Questions:
    """Those that are on their way; they belong to the loop."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._tokens = count(1)
        self._flushes: dict[int, _Flush] = {}
        self._inspections: dict[int, asyncio.Future[dict[str, Any] | None]] = {}
        self._ended = False

    async def flush(self) -> None:
        """Wait until all that has been published is written, or queued for clients that lag."""
        if self._ended:
            return
        token = next(self._tokens)
        flush = self._flushes[token] = _Flush(self._hub.shards)
        try:
            self._hub.flush(token)
            await flush.done
        finally:
            self._flushes.pop(token, None)

    async def inspect(self, client: int) -> dict[str, Any] | None:
        """What a client's shard can tell of it; None if it has gone."""
        if self._ended:
            return None
        token = next(self._tokens)
        future: asyncio.Future[dict[str, Any] | None] = asyncio.get_running_loop().create_future()
        self._inspections[token] = future
        try:
            self._hub.inspect(client, token)
            return await future
        finally:
            self._inspections.pop(token, None)

    def take(self) -> None:
        """Take the replies that have come."""
        while replies := self._replies():
            for kind, token, *what in replies:
                if kind == FLUSHED:
                    self._flushed(token)
                else:
                    self._told(token, *what)

    def _replies(self) -> list[tuple[Any, ...]]:
        try:
            return self._hub.replies()
        except MemoryError as error:
            # Nobody knows which one is lost. Who asks again isn't worse off than who waits for ever.
            waiting: list[asyncio.Future[Any]] = [flush.done for flush in self._flushes.values()]
            waiting += self._inspections.values()
            for future in waiting:
                if not future.done():
                    future.set_exception(error)
            return self._hub.replies()

    def _flushed(self, token: int) -> None:
        """A shard has written all."""
        flush = self._flushes.get(token)
        if flush is None:
            return
        flush.missing -= 1
        if flush.missing == 0 and not flush.done.done():
            flush.done.set_result(None)

    def _told(self, token: int, client: dict[str, Any] | None) -> None:
        """A shard has told what it knows of a client."""
        future = self._inspections.get(token)
        if future is not None and not future.done():
            future.set_result(client)

    def end(self) -> None:
        """The shards have ended: all is written, every client gone, and nobody would reply."""
        self._ended = True
        for flush in self._flushes.values():
            if not flush.done.done():
                flush.done.set_result(None)
        for token in self._inspections:
            self._told(token, None)
