"""What has come over the bus, on its way to the shards; it waits only while these are behind."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from fastcast.bus.line import OVERHEAD
from fastcast.bus.wire import decode

if TYPE_CHECKING:
    from fastcast._core import Hub

_log = logging.getLogger("fastcast")

# Seconds until the shards are asked again.
_RETRY: Final = 0.002

# What a message costs beside its bytes while it waits, roughly: more than in the line, for what is to be done
# with it stands there, too.
_OVERHEAD: Final = 2 * OVERHEAD


class Incoming:
    """Delivers messages in their order; beyond a bound, the newest are dropped. Belongs to one loop."""

    def __init__(self, hub: Hub, most_bytes: int) -> None:
        """Takes a running loop."""
        self._loop = asyncio.get_running_loop()
        self._hub = hub
        self._most_bytes = most_bytes
        self._waiting: deque[tuple[int, Callable[[], bool]]] = deque()
        self._bytes = 0
        self._is_dropping = False
        self.delivered = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def deliver(self, channel: str | None, payload: bytes) -> None:
        """Give a message to the clients of the channel; to all, without one."""
        size = _size(channel or "", payload)
        if not self._put(size, partial(self._try, self._publish, channel, payload)):
            self.drop()

    def record(self, channel: str, payload: bytes, offset: int, to: str) -> bool:
        """Give a message to the channel's clients and its history, see Hub.record. False: not now, there's
        no room.
        """
        size = _size(channel, payload)
        return self._put(size, partial(self._try, partial(self._record, offset, to), channel, payload))

    def then(self, action: Callable[[], object]) -> None:
        """Do something to the hub behind all that waits, however much that is."""
        self._put(0, partial(self._do, action))

    async def passed(self) -> None:
        """Wait until all that waits by now has been given."""
        event = asyncio.Event()
        self.then(event.set)
        await event.wait()

    async def room(self) -> None:
        """Wait until there is some again."""
        while self._waiting:
            await asyncio.sleep(_RETRY)

    def _put(self, size: int, attempt: Callable[[], bool]) -> bool:
        if not self._waiting:
            if attempt():
                return True
            self._loop.call_later(_RETRY, self._go_on)
        elif size > 0 and self._bytes + size > self._most_bytes:
            return False
        self._waiting.append((size, attempt))
        self._bytes += size
        return True

    def _go_on(self) -> None:
        while self._waiting:
            size, attempt = self._waiting[0]
            if not attempt():
                self._loop.call_later(_RETRY, self._go_on)
                return
            self._waiting.popleft()
            self._bytes -= size
        self._is_dropping = False

    def _publish(self, channel: str | None, data: str | bytes, key: str | None) -> None:
        if channel is None:
            self._hub.broadcast(data)
        else:
            self._hub.publish(channel, data, key)

    def _record(self, offset: int, to: str, channel: str, data: str | bytes, key: str | None) -> None:
        self._hub.record(channel, data, offset, key, to)

    @staticmethod
    def _do(action: Callable[[], object]) -> bool:
        try:
            action()
        except (OSError, MemoryError, ValueError) as error:
            _log.warning("a history is not what it should be: %s", error or "out of memory")
        return True

    def _try(self, give: Callable[..., None], channel: str | None, payload: bytes) -> bool:
        """Whether the message is dealt with: False while the shards have no room."""
        data, key = decode(payload)
        try:
            give(channel, data, key)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return False
            # Else the server stops, or the message is longer than any can be.
        except (ValueError, MemoryError) as error:
            self.dropped += 1
            _log.warning("a message from the bus can't be delivered: %s", error or "out of memory")
        else:
            self.delivered += 1
        return True

    def drop(self) -> None:
        """A message finds no room."""
        self.dropped += 1
        if not self._is_dropping:
            self._is_dropping = True
            _log.warning("the shards are behind the bus: messages are dropped, the newest first")


def _size(channel: str, payload: bytes) -> int:
    """Of a message that waits, in memory."""
    return len(channel) + len(payload) + _OVERHEAD
