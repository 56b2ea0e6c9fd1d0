"""Histories that follow a log, without a broker and without a core."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Sequence
from typing import Any, cast

from fastcast._core import Hub
from fastcast.bus.engine import Log, Place, Stored, Unreachable
from fastcast.bus.incoming import Incoming
from fastcast.bus.records import Records
from fastcast.history import Keep


class Core:
    """Notes what is done to a hub's histories. Others hear what is published, and a history keeps it."""

    def __init__(self) -> None:
        self.history: list[tuple[int, str]] = []
        self.heard: list[str] = []
        self.floor = -1
        self.epoch = b""
        self.is_behind = False

    @property
    def hub(self) -> Hub:
        return cast(Hub, self)

    def lead_history(self, channel: str, position: tuple[bytes, int], stored: list[tuple[int, str]]) -> None:
        self.history[:] = stored
        self.epoch, self.floor = position

    def skip_history(self, channel: str, offset: int) -> None:
        self.history.clear()
        self.heard.append("gap")
        self.floor = offset

    def release_history(self, channel: str) -> None:
        self.epoch = b""

    def publish(self, channel: str, data: str, key: str | None) -> None:
        if self.is_behind:
            raise BlockingIOError(errno.EAGAIN, "behind")
        if channel == "a":
            self.heard.append(data)

    def record(self, channel: str, data: str, offset: int, key: str | None, to: str) -> bool:
        if self.is_behind:
            raise BlockingIOError(errno.EAGAIN, "behind")
        if to == "all":
            assert not self.history or offset > self.history[-1][0]
            self.history.append((offset, data))
        self.heard.append(data)
        return True


class Stream:
    """A log of one channel: its messages by their offsets."""

    def __init__(self, *offsets: int) -> None:
        self.stored = {offset: f"{offset}" for offset in offsets}
        self.first = 1
        self.most: int | None = None
        self.born = b"000000000001"
        self.fails = 0
        self.fetches: list[int] = []
        self.meanwhile: list[Any] = []
        self.ended: dict[str, int] = {}
        self.ages: dict[int, float] = {}
        self.lags_behind = 0
        """Up to which offset a replica has nothing yet."""
        self.doubts = 0
        self.is_another = False
        self.anew: Callable[[], None]

    @property
    def log(self) -> Log:
        return cast(Log, self)

    def epoch(self, channel: str) -> bytes:
        return self.born

    async def ready(self) -> None:
        pass

    def tails(self) -> dict[str, int]:
        told, self.ended = self.ended, {}
        return told

    async def fetch(self, subject: str, after: int) -> Sequence[tuple[int, bytes]]:
        self.fetches.append(after)
        await asyncio.sleep(0)
        for action in self.meanwhile:
            action()
        self.meanwhile = []
        if self.fails:
            self.fails -= 1
            raise Unreachable("not now")
        behind = {
            offset: text for offset, text in self.stored.items() if offset > max(after, self.lags_behind)
        }
        return [
            Stored(offset, behind[offset].encode(), self.ages.get(offset, 0.0)) for offset in sorted(behind)
        ]

    def doubt(self) -> bool:
        self.doubts += 1
        return self.is_another


class Case:
    """Records over a stream and a core that are none."""

    def __init__(self, *offsets: int, keep: int | None = None) -> None:
        self.core = Core()
        self.stream = Stream(*offsets)
        self.said: list[bytes] = []
        self.keep = Keep(keep)
        self.incoming = Incoming(self.core.hub, 1000)
        self.records = Records(
            self.core.hub,
            self.incoming,
            self.stream.log,
            "fastcast",
            lambda channel: self.keep,
            self.said.append,
        )

    def publish(self, offset: int, *, arrives: bool = True) -> None:
        """Store a message, and have it arrive."""
        before = max((each for each in self.stream.stored if each < offset), default=0)
        self.stream.stored[offset] = f"{offset}"
        if arrives:
            self.arrive(offset, before)

    def log_is_another(self) -> None:
        self.stream.anew()

    def arrive(self, offset: int, before: int) -> None:
        self.records.receive("a", b"%d" % offset, Place(offset, before))
