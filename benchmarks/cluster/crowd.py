"""Clients that come back: each counts what it hears, what it misses, and what comes twice.

A process of its own for some thousands of them: ``crowd.py NUMBER FIRST SOURCE RESUMES PORT...`` connects,
and then obeys single lines on its standard input: ``report`` is answered by a line of JSON, ``report END``
likewise once everyone has heard message number END of its channel, ``stop`` ends it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import sys
import time
from collections import Counter
from typing import Any, Final

CHANNELS: Final = 10
_TOGETHER: Final = 100
_PATIENCE: Final = 60.0


class Listener(asyncio.Protocol):
    """One client, over all of its connections. Messages are numbered from 0 in each channel."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self._crowd = crowd
        self._channel = number % CHANNELS
        self._since = "new"
        self._buffer = bytearray()
        self._is_open = False
        self._transport: asyncio.Transport | None = None
        self.last = -1

    async def connect(self) -> None:
        """Try until it is open; to any server."""
        while not self._crowd.is_over:
            query = f"?since={self._since}" if self._crowd.resumes else ""
            self._buffer.clear()
            self._opened = asyncio.get_running_loop().create_future()
            try:
                transport, _ = await asyncio.get_running_loop().create_connection(
                    lambda: self,
                    "127.0.0.1",
                    random.choice(self._crowd.ports),
                    local_addr=(self._crowd.source(), 0),
                )
            except OSError:
                await asyncio.sleep(random.uniform(0.2, 1))
                continue
            key = base64.b64encode(os.urandom(16)).decode()
            transport.write(
                f"GET /c{self._channel}{query} HTTP/1.1\r\nHost: a\r\n"
                f"Upgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
            )
            if await self._opened:
                return
            await asyncio.sleep(random.uniform(0.2, 1))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        if not self._is_open:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            if not buffer.startswith(b"HTTP/1.1 101"):
                assert self._transport is not None
                self._transport.abort()
                return
            del buffer[: end + 4]
            self._is_open = True
            self._opened.set_result(True)
        while len(buffer) >= 2:
            size, start = buffer[1], 2
            if size == 126:
                if len(buffer) < 4:
                    return
                size, start = int.from_bytes(buffer[2:4]), 4
            if len(buffer) < start + size:
                return
            opcode, payload = buffer[0] & 15, bytes(buffer[start : start + size])
            del buffer[: start + size]
            self._take(opcode, payload)

    def _take(self, opcode: int, payload: bytes) -> None:
        assert self._transport is not None
        counts = self._crowd.counts
        if opcode == 9:
            mask = bytes(4)
            self._transport.write(bytes((0x8A, 0x80 | len(payload))) + mask + payload)
        elif opcode == 8:
            self._transport.abort()
        elif opcode == 1:
            if self._crowd.resumes:
                head, _, payload = payload.partition(b"\n")
                what, position, _ = head[1:].split(b" ", 2)
                self._since = position.decode()
                if what != b"msg":
                    counts["gaps"] += what == b"gap"
                    return
            number = int(payload.partition(b" ")[0])
            counts["heard"] += 1
            if number <= self.last:
                counts["twice or out of order"] += 1
                return
            if self.last >= 0:
                counts["missed"] += number - self.last - 1
            self.last = number

    def connection_lost(self, error: Exception | None) -> None:
        was_open, self._is_open = self._is_open, False
        if not self._opened.done():
            self._opened.set_result(False)
        if was_open and not self._crowd.is_over:
            self._crowd.counts["lost connections"] += 1
            self._crowd.run(self._come_back())

    async def _come_back(self) -> None:
        await asyncio.sleep(random.uniform(0, 3))
        await self.connect()


class Crowd:
    """All of them."""

    def __init__(self, number: int, first: int, source: int, resumes: bool, ports: list[int]) -> None:
        self.ports = ports
        self.resumes = resumes
        self.counts: Counter[str] = Counter()
        self.is_over = False
        self._source = source
        self._made = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners = [Listener(self, first + i) for i in range(number)]

    def source(self) -> str:
        """An address for a connection: each for some hundreds, and others in another run."""
        self._made += 1
        return f"127.{self._source}.{self._made // 200 % 250}.{1 + self._made // 50_000 % 250}"

    def run(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def serve(self) -> None:
        for start in range(0, len(self._listeners), _TOGETHER):
            await asyncio.gather(*(each.connect() for each in self._listeners[start : start + _TOGETHER]))
        self._tell({"connected": len(self._listeners)})
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        while (words := (await reader.readline()).split()) and words[0] == b"report":
            behind = await self._await(int(words[1])) if len(words) > 1 else 0
            self._tell(
                {**self.counts, "behind": behind, "away": sum(not each._is_open for each in self._listeners)}
            )
        self.is_over = True
        os._exit(0)  # not with thousands of farewells

    async def _await(self, end: int) -> int:
        until = time.monotonic() + _PATIENCE
        while behind := sum(each.last < end for each in self._listeners):
            if time.monotonic() > until:
                return behind
            await asyncio.sleep(0.2)
        return 0

    @staticmethod
    def _tell(what: dict[str, Any]) -> None:
        print(json.dumps(what), flush=True)


if __name__ == "__main__":
    count, begin, net, resuming, *at = map(int, sys.argv[1:])
    asyncio.run(Crowd(count, begin, net, bool(resuming), at).serve())
