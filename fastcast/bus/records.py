"""The histories of this server's channels, led by what the broker keeps: offsets are the same on all servers.

A channel's history is filled from the broker when the channel is first asked for, and from then on by what
comes. Each message says which one was before it: where that is one that hasn't come, because the connection
was lost or the shards were behind, what is missing is read first. So a message comes late rather than never,
and never twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from fastcast.bus.engine import PATIENCE, Log, Place, Stored, Unreachable
from fastcast.bus.incoming import Incoming
from fastcast.bus.line import OVERHEAD
from fastcast.bus.names import channel_of, subject_of
from fastcast.bus.tails import QUIET
from fastcast.bus.wire import decode
from fastcast.history import Keep

if TYPE_CHECKING:
    from fastcast._core import Hub

_log = logging.getLogger("fastcast")

# Seconds until a history is read again that couldn't be read.
_RETRY: Final = 1.0

# Histories that are read at a time.
_AT_A_TIME: Final = 64

# Seconds between two looks for a message that others say there is: a broker's replica may be behind.
_PAUSE: Final = 0.05

# Messages of a channel that may wait for what is missing before them, and their bytes; more are read, too.
_MOST_WAITING: Final = 10_000
_MOST_BYTES: Final = 16 << 20


class _Record:
    """One channel's: the offsets of the newest message in the history, and of the newest that was published.

    When a history begins, it's ahead: of what it begins with, all that is yet to come has to be published.
    """

    __slots__ = (
        "cut_at",
        "epoch",
        "filling",
        "hole_since",
        "is_stale",
        "lacks_more",
        "last",
        "live",
        "published",
        "read_at",
        "waiting",
        "weight",
    )

    def __init__(self) -> None:
        self.epoch = b""
        self.last = 0
        self.published = 0
        # The newest that came by itself over this connection, and when the log was last read.
        self.live = 0
        self.read_at = 0.0
        self.hole_since: float | None = None
        self.filling: asyncio.Task[None] | None = None
        self.waiting: list[tuple[Place, bytes]] = []
        self.lacks_more = False
        # The newest offset of any channel when the connection was lost, if it hasn't been read since.
        self.cut_at: int | None = None
        # The log is another one than it was read from.
        self.is_stale = False
        # Bytes of all that has come to wait since nothing did: no less than what waits now.
        self.weight = 0

    @property
    def is_filling(self) -> bool:
        return self.filling is not None and not self.filling.done()

    def wait(self, place: Place, payload: bytes) -> None:
        """Keep a message until it's its turn; without room, it will be read when that comes."""
        weight = len(payload) + OVERHEAD
        # The first one always finds room: by it a history that begins knows what is yet to be heard.
        if not self.waiting:
            self.weight = 0
        elif len(self.waiting) >= _MOST_WAITING or self.weight + weight > _MOST_BYTES:
            self.lacks_more = True
            return
        self.waiting.append((place, payload))
        self.weight += weight


class Records:
    """Belongs to one loop."""

    def __init__(
        self,
        hub: Hub,
        incoming: Incoming,
        log: Log,
        prefix: str,
        keep_of: Callable[[str], Keep] | None,
        say: Callable[[bytes], None],
    ) -> None:
        """``keep_of`` tells what a channel keeps; ``say`` tells all servers what ``hear`` takes."""
        self._hub = hub
        self._incoming = incoming
        self._source = log
        self._prefix = prefix
        self._keep_of = keep_of
        self._say = say
        self._records: dict[str, _Record] = {}
        self._room = asyncio.Semaphore(_AT_A_TIME)
        self.fetched = 0
        # The newest offset of any channel; and how often the connection was lost.
        self._seen = 0
        self._cuts = 0
        # What was published last to channels that were closed in this second, and in the one before.
        self._closed: tuple[dict[str, int], dict[str, int]] = {}, {}
        self._is_failing = False
        self._next_tell = asyncio.get_running_loop().call_later(QUIET, self._tell)
        log.anew = self._open_all

    def __contains__(self, channel: str) -> bool:
        return channel in self._records

    def __len__(self) -> int:
        return len(self._records)

    def open(self, channel: str) -> asyncio.Task[None]:
        """Begin, or go on after a loss: read what is missing. The task ends when it has been tried."""
        record = self._records.setdefault(channel, _Record())
        if not record.is_filling:
            record.filling = asyncio.create_task(self._fill(channel, record))
        assert record.filling is not None
        return record.filling

    def _open_all(self) -> None:
        """The log is another one."""
        self._seen = 0
        self._closed = {}, {}
        for channel, record in self._records.items():
            record.is_stale = True
            self._open_for_more(channel, record)

    async def reach(self, channels: Collection[str], positions: Collection[tuple[bytes, int]]) -> None:
        """Go on to where a client has been, on a server that was ahead of this one."""
        behind = [
            self._open_for_more(channel, record)
            for channel in channels
            for epoch, offset in positions
            if (record := self._records.get(channel)) and record.epoch == epoch and offset > record.last
        ]
        if behind:
            await asyncio.wait(behind, timeout=PATIENCE)
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._incoming.passed()

    def _open_for_more(self, channel: str, record: _Record) -> asyncio.Task[None]:
        """Read what there is by now, though another reading may be under way."""
        record.lacks_more |= record.is_filling
        return self.open(channel)

    def cut(self) -> None:
        """The connection is lost: nobody knows what comes meanwhile, until the channels are opened again."""
        self._cuts += 1
        for record in self._records.values():
            if record.cut_at is None:  # else it has not been read since it was
                record.cut_at = self._seen
            record.lacks_more |= record.is_filling
            record.live = 0
            record.waiting.clear()

    def close(self, channel: str) -> None:
        """Forget a channel's history."""
        if (record := self._records.pop(channel, None)) is None:
            return
        if record.filling is not None:
            record.filling.cancel()
        for place, payload in record.waiting:
            if place.offset > record.published:  # patterns are to hear it, too
                self._incoming.deliver(channel, payload)
                record.published = place.offset
        self._closed[0][channel] = record.published
        self._incoming.then(lambda: self._hub.release_history(channel))

    def has_had(self, channel: str, offset: int) -> bool:
        """Whether a message of which a copy comes now was heard by patterns while the channel was open."""
        return any(offset <= closed.get(channel, 0) for closed in self._closed)

    async def stop(self) -> None:
        """End what is being read, and tell no more."""
        self._next_tell.cancel()
        filling = [each.filling for each in self._records.values() if each.filling is not None]
        self._records.clear()  # so that none is tried again
        for task in filling:
            task.cancel()
        await asyncio.gather(*filling, return_exceptions=True)

    def receive(self, channel: str, payload: bytes, place: Place) -> None:
        """A message has come to a channel that is open."""
        record = self._records[channel]
        self._seen = max(self._seen, place.offset)
        is_clear = (
            record.epoch
            and not record.is_stale
            and not record.waiting
            and not (self._is_odd(record, place) and self._source.doubt())
        )
        record.live = place.offset
        if is_clear and place.offset <= record.last:
            self._catch_up(channel, record, payload, place.offset)
            return
        if is_clear and place.before <= record.last and self._deliver(channel, record, payload, place.offset):
            return
        record.wait(place, payload)
        self.open(channel)

    @staticmethod
    def _is_odd(record: _Record, place: Place) -> bool:
        """Whether the log may have begun anew: offsets go back, or what is before the message isn't what came
        last. Of what was read only just now, copies may still come.
        """
        if place.offset > record.last:
            return place.before < record.last
        return place.offset <= record.live or time.monotonic() - record.read_at > PATIENCE

    def hear(self, payload: bytes) -> None:
        """Where channels have ended, as some server says: who hasn't come so far has missed something."""
        try:
            for subject, offset in json.loads(payload).items():
                channel = channel_of(self._prefix, subject)
                record = self._records.get(channel) if channel is not None else None
                if record is not None and channel is not None and record.epoch and offset > record.last:
                    self._open_for_more(channel, record)
        except (ValueError, TypeError, AttributeError):
            _log.debug("on the bus, this is nothing that a server says: %r", payload[:200])

    def _tell(self) -> None:
        """Say where channels have ended that were published to here and are quiet since."""
        self._closed = {}, self._closed[0]
        if tails := self._source.tails():
            self._say(json.dumps(tails, separators=(",", ":")).encode())
        self._next_tell = asyncio.get_running_loop().call_later(QUIET, self._tell)

    def _catch_up(self, channel: str, record: _Record, payload: bytes, offset: int) -> None:
        """A message comes that the history has already."""
        if offset > record.published:
            record.published = offset
            if not self._incoming.record(channel, payload, offset, "others"):
                self._incoming.drop()

    def _deliver(self, channel: str, record: _Record, payload: bytes, offset: int) -> bool:
        if not self._incoming.record(channel, payload, offset, "all"):
            return False
        record.last = record.published = offset
        return True

    async def _fill(self, channel: str, record: _Record) -> None:
        try:
            await self._source.ready()
            while not await self._read_in_turn(channel, record):
                await asyncio.sleep(0 if record.hole_since is None else _PAUSE)
        except Unreachable as error:
            if not self._is_failing:
                self._is_failing = True
                _log.warning(
                    "the history of %r, and perhaps others, can't be read yet: %s", channel, str(error)
                )
            asyncio.get_running_loop().call_later(_RETRY, self._retry, channel, record)
        else:
            self._is_failing = False

    def _retry(self, channel: str, record: _Record) -> None:
        if self._records.get(channel) is record:
            self.open(channel)

    async def _read_in_turn(self, channel: str, record: _Record) -> bool:
        async with self._room:
            return await self._read(channel, record)

    async def _read(self, channel: str, record: _Record) -> bool:
        """Get what is missing. True: it's all there."""
        epoch, cuts = self._source.epoch(channel), self._cuts
        is_new = record.epoch != epoch
        stored = await self._source.fetch(subject_of(self._prefix, channel), 0 if is_new else record.last)
        self.fetched += len(stored)
        self._seen = max(self._seen, stored[-1].offset if stored else 0)
        record.read_at = time.monotonic()
        if is_new:
            await self._begin(channel, record, epoch, stored)
            stored = ()
        elif self._may_lack_some(record, stored):
            floor = stored[0].offset - 1 if stored else record.last
            self._incoming.then(lambda: self._hub.skip_history(channel, floor))
        if cuts == self._cuts:
            record.cut_at = None
        record.is_stale = epoch != self._source.epoch(channel)
        for offset, payload, _ in stored:
            if not self._deliver(channel, record, payload, offset):
                await self._incoming.room()
                return False
        return await self._let_go(channel, record)

    def _may_lack_some(self, record: _Record, stored: Sequence[Stored]) -> bool:
        """Whether the log may have dropped messages before these that have not come."""
        most = self._source.most
        if most is not None and len(stored) > most:
            return True
        return record.cut_at is not None and self._source.first > record.cut_at + 1

    async def _begin(self, channel: str, record: _Record, epoch: bytes, stored: Sequence[Stored]) -> None:
        """Put what is stored into a new history. Who was here when it was published has heard it; but not
        what has come since the channel was opened, or is yet to come. If there was another epoch before,
        nobody has heard anything of this one.
        """
        first = record.waiting[0][0].offset if record.waiting else None
        heard_from = 0 if record.epoch else first
        floor = stored[0].offset - 1 if stored else 0
        wanted = self._wanted(channel, stored)
        if wanted < len(stored):
            floor, stored = stored[-wanted - 1].offset, stored[len(stored) - wanted :]
        kept = [
            (offset, decode(payload)[0])
            for offset, payload, _ in stored
            if heard_from is None or offset < heard_from
        ]
        self._incoming.then(lambda: self._hub.lead_history(channel, (epoch, floor), kept))
        for offset, payload, _ in stored[len(kept) :]:
            while not self._incoming.record(channel, payload, offset, "all"):
                await self._incoming.room()
        await self._incoming.passed()  # before anybody is let in
        record.epoch = epoch
        record.last = stored[-1].offset if stored else floor
        record.published = 0 if heard_from is None else record.last
        record.live = 0

    def _wanted(self, channel: str, stored: Sequence[Stored]) -> int:
        """How many of the messages, the newest, the channel keeps; the log may have more for others."""
        keep = self._keep_of(channel) if self._keep_of is not None else Keep()
        wanted = len(stored)
        if keep.messages is not None:
            wanted = min(wanted, keep.messages)
        while keep.seconds is not None and wanted > 0 and stored[-wanted].age > keep.seconds:
            wanted -= 1
        return wanted

    async def _let_go(self, channel: str, record: _Record) -> bool:
        """Deliver what has come meanwhile. False: something is missing before it, or the log is another."""
        if record.is_stale:
            return False
        while record.waiting:
            place, payload = record.waiting[0]
            if place.offset <= record.last:
                self._catch_up(channel, record, payload, place.offset)
            else:
                if place.before > record.last and not self._gives_up(channel, record, place.before):
                    return False
                if not self._deliver(channel, record, payload, place.offset):
                    await self._incoming.room()
                    continue
            del record.waiting[0]
            record.hole_since = None
        is_all, record.lacks_more = not record.lacks_more, False
        return is_all

    def _gives_up(self, channel: str, record: _Record, before: int) -> bool:
        """What is before a message isn't in the log: it may not be there yet. After some time it's a gap."""
        now = time.monotonic()
        record.hole_since = record.hole_since or now
        if now - record.hole_since < PATIENCE:
            return False
        self._incoming.then(lambda: self._hub.skip_history(channel, before))
        record.last = before
        return True
