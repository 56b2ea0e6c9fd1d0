"""NATS, by its own client library. What it lost is connected anew by the bus, not by the library.

The library would keep what is published while there is no connection, and send it later: a message that was
delivered to this server's clients meanwhile would come a second time.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.protocol.parser import PERMISSIONS_ERR

from fastcast.bus.engine import PATIENCE, PULSE, Access, Received, Unreachable
from fastcast.bus.jetstream import JetStream, place_of
from fastcast.bus.names import log_prefix

_log = logging.getLogger("fastcast")

# Bytes that the library may hold before we wait for the broker to take them.
_ENOUGH: Final = 1 << 20

# Bytes of a message's headers: its id on the way into a stream, and its place there on the way out of it.
_HEADERS: Final = 1024

# Seconds for a connection to end.
_LAST_WORDS: Final = 1.0

# Different warnings that are logged, each once: a client may make another one of each channel.
_MOST_WARNINGS: Final = 100


class _Client(Client):
    """The library's, except that it flushes what waits, and closes all the way."""

    def __init__(self) -> None:
        super().__init__()
        self._closing = asyncio.Lock()

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        """Behind all that waits to be written, which the library's own would overtake: its answer, for which
        ``flush`` waits, is to say that the broker has what came before it."""
        if self._transport is not None and self._pending:
            pending, self._pending, self._pending_data_size = self._pending, [], 0
            self._transport.writelines(pending)
        await super()._send_ping(future)

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        """What is unsent by now is lost: were it written to a broken line, the error would end the closing
        halfway, and nobody would be told. Whoever closes second waits for the first to be through."""
        if self._flush_queue is None:
            return  # it hasn't got as far as to connect
        self._pending = []
        self._pending_data_size = 0
        async with self._closing:
            await super()._close(status, do_cbs)
            await asyncio.sleep(0)  # tasks that are cancelled are gone after one more round


class Nats:
    """A connection to one server of a NATS cluster."""

    def __init__(self, access: Access, log: JetStream | None, prefix: str) -> None:
        """With a log, it's opened on each connection; ``prefix`` is that of all subjects. Raises OSError or
        ValueError for files that can't be used.
        """
        self._access = access
        self.log = log
        self._from_log = f"{log_prefix(prefix)}."
        self._urls = list(access.urls)
        self._tls = _tls(access)
        self._nats: _Client | None = None
        self._most_bytes = 1 << 20
        self._subscriptions: dict[str, Subscription] = {}
        self._reason = ""
        self._is_opening = False
        self.dropped = 0
        self._warnings: set[str] = set()

    @property
    def name(self) -> str:
        url = (self._nats and self._nats.connected_url) or urlsplit(self._urls[0])
        return f"{url.scheme}://{url.hostname}:{url.port or 4222}"

    @property
    def most_bytes(self) -> int:
        return self._most_bytes

    async def connect(self, received: Received, lost: Callable[[str], None]) -> None:
        self._reason = ""
        self._is_opening = True
        failures = []
        for url in random.sample(self._urls, len(self._urls)):
            self._subscriptions = {}
            self._received = received
            self._nats = client = _Client()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._open(client, url, lost)
                    if self.log is not None:
                        await self.log.open(client)
            except Exception as error:  # of the libraries, whose kinds are many: for keys, for TLS
                failures.append(
                    f"{urlsplit(url).netloc.rpartition('@')[2]}: {self._reason or _reason(error)}"
                )
                self._nats = None  # its end is no loss
                await self._end(client)
                continue
            self._most_bytes = client.max_payload - (_HEADERS if self.log is not None else 0)
            self._learn(client, url)
            self._reason, self._is_opening = "", False
            return
        raise Unreachable("; ".join(failures))

    async def _open(self, client: _Client, url: str, lost: Callable[[str], None]) -> None:
        await client.connect(
            url,
            name="fastcast",
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=PATIENCE,
            ping_interval=PULSE,
            max_outstanding_pings=2,
            error_cb=self._on_error,
            closed_cb=partial(self._on_closed, client, lost),
            tls=self._tls,
            user_credentials=self._access.credentials,
            nkeys_seed=self._access.nkey,
        )

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        client = self._connected()
        ids: dict[int, str] = {}
        if self.log is not None:
            # What goes through the log isn't lost, wherever this ends.
            outbox = self.log.outbox
            ids = {i: outbox.put(*each) for i, each in enumerate(messages) if self.log.takes(each[0])}
        try:
            for i, (subject, payload) in enumerate(messages):
                if i in ids:
                    await outbox.send(ids[i])
                else:
                    await client.publish(subject, payload)
                if client.pending_data_size > _ENOUGH:
                    await client.flush(PATIENCE)
        except (OSError, nats.errors.Error) as error:
            raise Unreachable(_reason(error)) from error

    async def subscribe(self, subjects: Collection[str]) -> None:
        client = self._connected()
        try:
            for subject in subjects:
                if subject in self._subscriptions:
                    continue
                # The source is the subscription's own subject, however the message's reads.
                on_message = partial(self._on_message, subject)
                self._subscriptions[subject] = await client.subscribe(subject, cb=on_message)
            await client.flush(PATIENCE)
        except (OSError, nats.errors.Error) as error:
            raise Unreachable(_reason(error)) from error

    async def unsubscribe(self, subjects: Collection[str]) -> None:
        self._connected()
        try:
            for subject in subjects:
                if subscription := self._subscriptions.pop(subject, None):
                    await subscription.unsubscribe()
        except (OSError, nats.errors.Error) as error:
            raise Unreachable(_reason(error)) from error

    def _connected(self) -> _Client:
        if self._nats is None:
            raise Unreachable("not connected")
        return self._nats

    async def close(self) -> None:
        client, self._nats = self._nats, None
        if client is None:
            return
        try:
            if client.is_connected:
                await client.flush(PATIENCE)
        except (OSError, nats.errors.Error):
            pass  # it ends in any case
        finally:
            await self._end(client)

    async def _on_message(self, source: str, message: Msg) -> None:
        # Elsewhere the headers are those of a stream that isn't ours.
        is_from_log = self.log is not None and message.subject.startswith(self._from_log)
        place = place_of(message.headers) if is_from_log else None
        self._received(message.subject, message.data, source, place)

    async def _on_error(self, error: Exception) -> None:
        """What is wrong with the connection, which then ends; or with something on it, which nobody else
        would hear of."""
        reason = _reason(error)
        is_passing = PERMISSIONS_ERR in reason
        if isinstance(error, nats.errors.SlowConsumerError):
            self.dropped += 1
            is_passing, reason = True, f"messages to {error.subject} are dropped, there are too many"
        if self._is_opening or not is_passing:
            self._reason = reason
        if is_passing and reason not in self._warnings and len(self._warnings) < _MOST_WARNINGS:
            self._warnings.add(reason)
            _log.warning("the bus: %s", reason)

    async def _on_closed(self, client: _Client, lost: Callable[[str], None]) -> None:
        if client is self._nats:  # else we have closed it
            lost(self._reason or "the connection has ended")

    async def _end(self, client: _Client) -> None:
        """TLS may wait for an answer to its farewell that never comes."""
        if self.log is not None:
            self.log.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                await client.close()

    def _learn(self, client: _Client, url: str) -> None:
        """Other servers of the cluster, in case this one goes: those that it knows now, beside the given
        ones. They want to know who we are, as the one at this URL did.
        """
        login, at, _ = urlsplit(url).netloc.rpartition("@")
        learned = [
            each._replace(netloc=f"{login}{at}{each.netloc}").geturl() for each in client.discovered_servers
        ]
        self._urls = list(dict.fromkeys((*self._access.urls, *learned)))


def _tls(access: Access) -> ssl.SSLContext | None:
    if not (access.ca or access.certificate):
        return None  # with tls:// the library takes the system's
    context = ssl.create_default_context(cafile=access.ca)
    if access.certificate:
        context.load_cert_chain(access.certificate, access.key)
    return context


def _reason(error: BaseException) -> Any:
    return str(error).removeprefix("nats: ") or type(error).__name__
