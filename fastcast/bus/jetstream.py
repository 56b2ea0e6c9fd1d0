"""The histories of channels, as NATS keeps them: one stream of JetStream for all servers.

The stream stores what is published to the channels' subjects, and publishes each message anew, with the
number that it has in the stream and that of the one before it on its subject. So a server hears its channels
over plain subscriptions, knows what it has missed, and reads just that from the stream.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import DiscardPolicy, RePublish, StorageType, StreamConfig

from fastcast.bus.backoff import Backoff
from fastcast.bus.coverage import cover
from fastcast.bus.engine import PATIENCE, Place, Retention, Stored, Unreachable
from fastcast.bus.names import channel_of, log_prefix, takes_in
from fastcast.bus.outbox import Outbox

_log = logging.getLogger("fastcast")

_SEQUENCE: Final = "Nats-Sequence"
_BEFORE: Final = "Nats-Last-Sequence"
_TIME: Final = "Nats-Time-Stamp"

# Seconds for which the stream knows a message's id, at least; and so, for which it keeps a message.
_WINDOW: Final = 120.0

# Seconds between two looks at whether the stream is still there.
_LOOK: Final = 1.0

# Seconds for an answer about the stream; between two tries, the first and the most.
_PATIENCE: Final = 2.0
_LEAST_DELAY: Final = 0.05
_MOST_DELAY: Final = 1.0

# The errors "JetStream not enabled", for the server and for the account; None: nobody answers at all.
_IS_OFF: Final = (10039, 10076, None)

_MOST_TAKEN: Final = 100_000

# Messages that are read at a time, and seconds for all of a channel's.
_BATCH: Final = 500
_READING: Final = 30


def place_of(headers: Mapping[str, str] | None) -> Place | None:
    """Where in the stream a message is that the stream has published anew."""
    if not headers or _SEQUENCE not in headers:
        return None
    try:
        return Place(int(headers[_SEQUENCE]), int(headers.get(_BEFORE, 0)))
    except ValueError:
        return None


def _age_of(headers: Mapping[str, str]) -> float:
    """Seconds since the stream got a message; 0 if it doesn't say, or our clock is behind."""
    try:
        stored = datetime.fromisoformat(headers.get(_TIME, ""))
        return max(0.0, time.time() - stored.timestamp())
    except ValueError:
        return 0.0


class _Batch:
    """Messages that answer one question, up to one that says that there are no more."""

    def __init__(self) -> None:
        self.messages: list[Stored] = []
        self.whole: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def take(self, message: Msg) -> None:
        headers = message.headers or {}
        place = place_of(headers)
        if "Status" not in headers and place is not None:
            self.messages.append(Stored(place.offset, message.data, _age_of(headers)))
        elif self.whole.done():
            return
        elif headers.get("Status") in ("204", "404"):  # the end of the batch; nothing at all
            self.whole.set_result(None)
        else:
            status, what = headers.get("Status", "?"), headers.get("Description", "an answer that is none")
            self.whole.set_exception(nats.errors.Error(f"{status} {what}"))


class JetStream:
    """The stream, over one connection after the other."""

    def __init__(
        self, prefix: str, retention: Retention, most_bytes: int, keeps: Callable[[str], bool]
    ) -> None:
        """So many bytes may wait for the stream to take them. ``keeps`` tells whether a channel has a
        history.
        """
        self._prefix = prefix
        self._keeps = keeps
        self._retention = retention
        self._name = f"{prefix.replace('.', '_')}-history"
        self._born = ""
        self.first = 0
        self.most = retention.messages
        self.outbox = Outbox(most_bytes, self.doubt)
        self.anew: Callable[[], None] = lambda: None
        self._is_open = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None
        self._looked_at = 0.0
        self._connection = 0
        self._taken: dict[str, bool] = {}

    async def open(self, client: Client) -> None:
        """Use this connection. Raises Unreachable if the stream can't be had, but only the first time: later
        it will come back, and everything else that is published needn't wait for it.
        """
        self._client = client
        self._jetstream = client.jetstream(timeout=_PATIENCE if self._born else PATIENCE)
        if not self._born:
            await self._make()
        else:
            self._opening = asyncio.create_task(self._make_at_last(self._connection))

    def doubt(self) -> bool:
        """Look whether the stream is still there, and the same; but not all the time. Whether that's done."""
        now = time.monotonic()
        if self._is_open.is_set() and now - self._looked_at > _LOOK:
            self._is_open.clear()
            self._opening = asyncio.create_task(self._make_at_last(self._connection, adding=True))
        return not self._is_open.is_set()

    async def ready(self) -> None:
        """Wait until the stream can be used. Raises Unreachable if that takes too long."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._is_open.wait()
        except TimeoutError:
            raise Unreachable("its JetStream doesn't answer") from None

    async def _make_at_last(self, connection: int, *, adding: bool = False) -> None:
        backoff = Backoff(_LEAST_DELAY, _MOST_DELAY)
        while connection == self._connection and not self._is_open.is_set():
            try:
                await self._make(adding=adding)
            except Unreachable as error:
                if backoff.is_fresh:
                    _log.warning("histories have to wait: %s", str(error))
                await backoff.pause()

    async def _make(self, *, adding: bool = False) -> None:
        """Make the stream, or change it to what is wanted; what else somebody has set for it stays, and with
        ``adding`` its subjects, too: two servers that want different ones don't take turns. Then send what a
        connection before may not have brought, behind which everything else waits.

        Raises Unreachable.
        """
        jetstream, connection = self._jetstream, self._connection
        try:
            try:
                info = await jetstream.stream_info(self._name)
                wanted = self._wanted(info.config, info.config.subjects or () if adding else ())
                if wanted != info.config:
                    info = await jetstream.update_stream(wanted)
            except nats.js.errors.NotFoundError:
                info = await jetstream.add_stream(self._wanted(StreamConfig(storage=StorageType.FILE)))
        except nats.js.errors.ServiceUnavailableError as error:
            if error.err_code in _IS_OFF:
                raise Unreachable("a history takes JetStream, which is off there (nats-server -js)") from None
            raise Unreachable(f"its JetStream: {error.description}") from None
        except (OSError, nats.errors.Error) as error:
            raise Unreachable(f"its JetStream: {error or type(error).__name__}") from error
        if connection != self._connection:
            raise Unreachable("its JetStream: the connection has ended")
        self._looked_at = time.monotonic()
        before, self._born = self._born, str(info.created)
        self.first = info.state.first_seq
        self.outbox.open(jetstream, info.config.duplicate_window or _WINDOW)
        self._is_open.set()
        if before not in ("", self._born):
            _log.warning("the stream of histories is another one than before")
            self.anew()

    def close(self) -> None:
        """The connection has ended."""
        self._is_open.clear()
        self._connection += 1
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        self.outbox.close()

    def takes(self, subject: str) -> bool:
        """Whether what is published there is for a history: only then a message that's sent again, which the
        stream knows by its id, is heard once. It may store others as well.
        """
        taken = self._taken.get(subject)
        if taken is None:
            if len(self._taken) >= _MOST_TAKEN:
                self._taken.clear()
            channel = channel_of(self._prefix, subject)
            taken = (
                channel is not None
                and self._keeps(channel)
                and any(takes_in(wanted, subject) for wanted in self._retention.subjects)
            )
            self._taken[subject] = taken
        return taken

    def keep(self, subject: str, payload: bytes) -> None:
        """Have a message sent as soon as there is a connection that gets it into the stream."""
        self.outbox.put(subject, payload)

    async def settle(self) -> None:
        """Wait until all that has been published is stored, and was published anew."""
        await self.outbox.settle()

    @property
    def is_full(self) -> bool:
        """Whether more waits for the stream than should."""
        return self.outbox.is_full

    @property
    def unconfirmed(self) -> int:
        """Messages on their way into the stream."""
        return len(self.outbox)

    @property
    def lost(self) -> int:
        """Messages that were published and aren't in the stream, or may not be."""
        return self.outbox.lost

    def tails(self) -> dict[str, int]:
        """Offsets of what was stored last on subjects that are quiet since; each is told once."""
        return self.outbox.tails.take()

    def epoch(self, channel: str) -> bytes:
        """That of a channel's offsets: another one if the stream is."""
        return hashlib.sha256(f"{self._born} {channel}".encode()).hexdigest()[:12].encode()

    async def fetch(self, subject: str, after: int) -> list[Stored]:
        """What the stream has on a subject behind an offset, the oldest first. Raises Unreachable."""
        found: list[Stored] = []
        try:
            async with asyncio.timeout(_READING):
                while some := await self._fetch_some(subject, found[-1].offset if found else after):
                    found += some
        except (OSError, nats.errors.Error) as error:
            raise Unreachable(f"its JetStream: {error or type(error).__name__}") from error
        return found

    async def _fetch_some(self, subject: str, after: int) -> list[Stored]:
        """The next messages. One, where the server is older than 2.11, which has no batches."""
        version = self._client.connected_server_version
        if (version.major, version.minor) < (2, 11):
            try:
                message = await self._jetstream.get_msg(
                    self._name, seq=after + 1, subject=subject, direct=True, next=True
                )
            except nats.js.errors.NotFoundError:
                return []
            return [Stored(message.seq or 0, message.data or b"", _age_of(message.headers or {}))]
        batch = _Batch()
        inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(inbox, cb=batch.take)
        try:
            question = {"seq": after + 1, "next_by_subj": subject, "batch": _BATCH}
            await self._client.publish(
                f"$JS.API.DIRECT.GET.{self._name}", json.dumps(question).encode(), reply=inbox
            )
            async with asyncio.timeout(PATIENCE):
                await batch.whole
        finally:
            await subscription.unsubscribe()
        return batch.messages

    def _wanted(self, config: StreamConfig, others: Iterable[str] = ()) -> StreamConfig:
        retention = self._retention
        window = max(config.duplicate_window or 0, _WINDOW)
        return replace(
            config,
            name=self._name,
            subjects=cover([*others, *retention.subjects]),
            # One more than is asked for: so it's known whether something came before the others.
            max_msgs_per_subject=-1 if retention.messages is None else retention.messages + 1,
            # Who wants less leaves out what is older: of a message that is sent again it must be known.
            max_age=0 if retention.seconds is None else max(retention.seconds, window),
            duplicate_window=window,
            max_bytes=retention.most_bytes,
            discard=DiscardPolicy.OLD,
            allow_direct=True,
            republish=RePublish(src=f"{self._prefix}.>", dest=f"{log_prefix(self._prefix)}.>"),
        )
