"""Messages on their way into the stream of JetStream, in their order, until it has each of them once.

One that wasn't acknowledged may have been stored or not: it's sent again with its id, by which the stream
knows it. While the stream doesn't answer, because the broker that led it has died and another one is about
to, or because somebody has deleted it, what goes into it waits here; everything else that is published goes
on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Final
from uuid import uuid4

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext

from fastcast.bus.backoff import Backoff
from fastcast.bus.engine import PATIENCE
from fastcast.bus.line import OVERHEAD
from fastcast.bus.tails import Tails

_log = logging.getLogger("fastcast")

_ID: Final = "Nats-Msg-Id"

# Seconds of the time for which the stream knows a message's id in which it is sent again; the rest is for
# its way.
_MARGIN: Final = 20.0

# Messages that may be sent and not acknowledged; the library would stop at 4000.
_WINDOW: Final = 3000

# What a message costs beside its bytes, roughly: more than in the line, for its id and its answer stand here.
_OVERHEAD: Final = 2 * OVERHEAD

# Seconds between two tries to reach the stream, the first and the most.
_LEAST_DELAY: Final = 0.05
_MOST_DELAY: Final = 1.0

# Seconds between two looks at whether there is room, or all is confirmed; and at whether an answer is due.
_GLANCE: Final = 0.002
_LOOK: Final = 1.0


@dataclass(slots=True)
class _Message:
    subject: str
    payload: bytes
    first_sent: float = 0.0
    """0: it has never been sent."""
    last_sent: float = 0.0
    acknowledged: asyncio.Future[Any] | None = None
    """None: it isn't under way."""

    @property
    def weight(self) -> int:
        return len(self.payload) + _OVERHEAD


class Outbox:
    """Belongs to one loop, and survives its connections."""

    def __init__(self, most_bytes: int, doubt: Callable[[], object]) -> None:
        """``doubt`` is called, perhaps often, when the stream may not be there."""
        self._most_bytes = most_bytes
        self._doubt = doubt
        self._ids = map(f"{uuid4().hex}-{{}}".format, count())
        self._messages: dict[str, _Message] = {}
        self._bytes = 0
        self._under_way = 0
        self._jetstream: JetStreamContext | None = None
        self._again = 0.0
        self._is_held = True
        self._is_refused = False
        self._sender: asyncio.Task[None] | None = None
        self._next_look: asyncio.TimerHandle | None = None
        self.tails = Tails()
        """Where the channels of what was acknowledged have ended."""
        self.lost = 0
        """Messages that the stream didn't take, or of which nobody knows whether it has them."""

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def is_full(self) -> bool:
        """Whether so much waits that no more should come; what does is taken all the same."""
        return self._bytes > self._most_bytes

    def open(self, jetstream: JetStreamContext, window: float) -> None:
        """Send over a new connection, first what is left of the one before. The stream knows ids for
        ``window`` seconds.
        """
        self._jetstream = jetstream
        self._again = max(window - _MARGIN, 0)
        self._hold()

    def close(self) -> None:
        """The connection has ended."""
        self._is_held = True
        self._jetstream = None
        self._recall()
        for each in (self._sender, self._next_look):
            if each is not None:
                each.cancel()
        self._sender, self._next_look = None, None

    def put(self, subject: str, payload: bytes) -> str:
        """Have a message sent sooner or later; returns its id."""
        id = next(self._ids)
        self._messages[id] = message = _Message(subject, payload)
        self._bytes += message.weight
        return id

    async def send(self, id: str) -> None:
        """Send a message, unless others must go first. Raises errors of the library."""
        while self._under_way > _WINDOW and not self._is_held:
            await asyncio.sleep(_GLANCE)
        message = self._messages.get(id)
        if not self._is_held and message is not None and message.acknowledged is None:
            await self._send(id)

    async def settle(self) -> None:
        """Wait until all that is here now has been stored."""
        for id in list(self._messages):
            while id in self._messages:
                await asyncio.sleep(_GLANCE)

    async def _send(self, id: str) -> None:
        if self._jetstream is None:
            raise nats.errors.ConnectionClosedError
        message = self._messages[id]
        message.last_sent = time.monotonic()
        message.first_sent = message.first_sent or message.last_sent
        try:
            acknowledged = await self._jetstream.publish_async(
                message.subject, message.payload, wait_stall=PATIENCE, headers={_ID: id}
            )
        except nats.errors.MaxPayloadError as error:  # the broker takes less than it did before
            self._lose(id, error)
            return
        if message.acknowledged is not None:  # meanwhile
            message.acknowledged.cancel()
        message.acknowledged = acknowledged
        self._under_way += 1
        acknowledged.add_done_callback(partial(self._answered, id))
        if self._next_look is None:
            self._next_look = asyncio.get_running_loop().call_later(_LOOK, self._look)

    def _answered(self, id: str, acknowledged: asyncio.Future[Any]) -> None:
        self._under_way -= 1
        if acknowledged.cancelled() or id not in self._messages:
            return
        error = acknowledged.exception()
        if isinstance(error, nats.js.errors.NoStreamResponseError | nats.js.errors.ServiceUnavailableError):
            self._messages[id].acknowledged = None
            self._is_refused = True
            self._hold()
            return
        if error is None:
            self.tails.note(self._drop(id).subject, acknowledged.result().seq)
        else:
            self._lose(id, error)

    def _lose(self, id: str, error: BaseException) -> None:
        if id in self._messages:
            self._drop(id)
            self.lost += 1
            _log.warning("a message wasn't taken into the history: %s", str(error) or type(error).__name__)

    def _drop(self, id: str) -> _Message:
        message = self._messages.pop(id)
        self._bytes -= message.weight
        return message

    # ---- what the stream doesn't answer ----

    def _look(self) -> None:
        """Whether the oldest has been waiting for an answer for too long."""
        self._next_look = None
        oldest = next(iter(self._messages.values()), None)
        if oldest is None or self._is_held:
            return
        if time.monotonic() - oldest.last_sent > PATIENCE:
            self._hold()
        else:
            self._next_look = asyncio.get_running_loop().call_later(_LOOK, self._look)

    def _hold(self) -> None:
        """Send nothing new until all that is here has been sent again."""
        if self._sender is None and self._jetstream is not None:
            self._is_held = True
            self._recall()
            self._sender = asyncio.create_task(self._send_again(self._jetstream))

    def _recall(self) -> None:
        """Await no answers any more."""
        for message in self._messages.values():
            if message.acknowledged is not None:
                message.acknowledged.cancel()
                message.acknowledged = None

    async def _send_again(self, jetstream: JetStreamContext) -> None:
        """Send one until the stream has it, then the rest: so they keep their order."""
        since = time.monotonic()
        backoff = Backoff(_LEAST_DELAY, _MOST_DELAY)
        while not await self._try_all():
            if backoff.is_fresh:
                _log.warning("the stream of histories doesn't answer: what is for it waits")
            self._doubt()
            await backoff.pause()
            if self._jetstream is not jetstream:
                return  # that connection has ended, though the library hasn't let us be cancelled
        self._is_held = False
        self._sender = None
        if not backoff.is_fresh:
            _log.warning("the stream of histories answers again after %.1f s", time.monotonic() - since)

    async def _try_all(self) -> bool:
        try:
            return await self._send_all()
        except (OSError, nats.errors.Error):
            return False  # most likely the connection has ended, and somebody is about to say so

    async def _send_all(self) -> bool:
        """Send all that isn't under way. False: the stream didn't answer."""
        self._is_refused = False
        self._drop_old()
        if (first := next(iter(self._messages), None)) is None:
            return True
        message = self._messages[first]
        if message.acknowledged is None:
            await self._send(first)
        if message.acknowledged is not None:
            await asyncio.wait({message.acknowledged}, timeout=PATIENCE)
        if first in self._messages:
            self._recall()
            return False
        while unsent := [id for id, message in self._messages.items() if message.acknowledged is None]:
            for id in unsent:
                while self._under_way > _WINDOW and not self._is_refused:
                    await asyncio.sleep(_GLANCE)
                if self._is_refused:
                    self._recall()
                    return False
                if id in self._messages:
                    await self._send(id)
        return True

    def _drop_old(self) -> None:
        """What was sent so long ago that the stream may not know its id any more might come twice."""
        too_old = time.monotonic() - self._again
        old = [id for id, each in self._messages.items() if 0 < each.first_sent < too_old]
        for id in old:
            self._drop(id)
        if old:
            self.lost += len(old)
            _log.warning("%d messages may be missing from histories: the stream didn't answer", len(old))
