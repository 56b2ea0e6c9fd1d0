"""A proxy for TCP that can be cut: nothing arrives any more, and neither side is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.hosting import Host


class Cut:
    """Forwards connections to a port. What is sent while it's cut arrives later, as TCP would have it."""

    def __init__(self, port: int) -> None:
        """Takes a running loop."""
        self._target = port
        self._whole = asyncio.Event()
        self._whole.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen on ``port``."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def end(self) -> None:
        """Close everything."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def set(self, *, whole: bool) -> None:
        """Mend it, or cut it."""
        if whole:
            self._whole.set()
        else:
            self._whole.clear()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._whole.wait()
            there = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(self._pump(reader, there[1]), self._pump(there[0], writer))
        except OSError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
            await self._whole.wait()
        finally:
            with suppress(OSError):
                writer.close()


class Line:
    """The proxy, for a test that isn't a coroutine."""

    def __init__(self, host: Host, cut: Cut) -> None:
        self._host = host
        self._cut = cut
        self.port = cut.port

    def cut(self) -> None:
        """From now on nothing arrives."""
        self._host.run(self._cut.set(whole=False))

    def mend(self) -> None:
        """Everything arrives, what was sent meanwhile first."""
        self._host.run(self._cut.set(whole=True))


@contextmanager
def line_to(port: int) -> Iterator[Line]:
    """A proxy before a port of this machine."""
    host = Host()
    try:

        async def begin() -> Cut:
            cut = Cut(port)
            await cut.start()
            return cut

        cut = host.run(begin())
        try:
            yield Line(host, cut)
        finally:
            host.run(cut.end())
    finally:
        host.end()
