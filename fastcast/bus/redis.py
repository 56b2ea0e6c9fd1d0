"""Redis: its publish and subscribe, by its own client library. Two connections, since one that subscribes
can't publish.

Nothing is retried: a command that was sent and not answered may have been executed, and again would be twice.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

from redis.asyncio import Redis as Client
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from fastcast.bus.engine import PATIENCE, PULSE, Access, Received, Unreachable
from fastcast.bus.names import is_wild, takes_in

_log = logging.getLogger("fastcast")

MOST_BYTES: Final = 512 << 20
"""Of a string, unless Redis is told otherwise (proto-max-bulk-len)."""

# Bytes that are sent before Redis must have answered: what is more gets time of its own, so that a line which
# is only slow isn't taken for a loss.
_ENOUGH: Final = 1 << 20

# Seconds for a lost connection to end.
_LAST_WORDS: Final = 0.2

_GLOB: Final = re.compile(r"[?\[\]\\^]")


class Redis:
    """One Redis, or the master that Sentinels name."""

    log = None  # its publish and subscribe keeps nothing
    dropped = 0  # the broker ends the connection before that

    def __init__(self, access: Access) -> None:
        self._access = access
        self._client: Client | None = None
        self._watchers: list[Client] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._awaited: dict[str, asyncio.Future[None]] = {}
        # Subjects with wildcards, by the pattern that Redis has for them; several may share one.
        self._globs: dict[str, set[str]] = {}
        self._name = _shown(access.urls[0])
        self._is_lost = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def most_bytes(self) -> int:
        return MOST_BYTES

    async def connect(self, received: Received, lost: Callable[[str], None]) -> None:
        failures = []
        for url in self._access.urls:
            client = self._open(url)
            pubsub = client.pubsub()
            try:
                async with asyncio.timeout(PATIENCE):
                    await client.ping()
                    await pubsub.connect()  # type: ignore[no-untyped-call]
            except (OSError, RedisError) as error:
                failures.append(f"{_shown(url)}: {_reason(error)}")
                await self._end(client, pubsub)
                continue
            except asyncio.CancelledError:
                await self._end(client, pubsub)
                raise
            self._client, self._pubsub, self._name = client, pubsub, _shown(url)
            self._received, self._lost = received, lost
            self._globs, self._awaited = {}, {}
            self._ponged, self._is_lost = True, False
            self._tasks = [asyncio.create_task(self._guard(work)) for work in (self._read, self._feel)]
            return
        raise Unreachable("; ".join(failures))

    def _open(self, url: str) -> Client:
        options: dict[str, Any] = {
            "retry": Retry(NoBackoff(), 0),
            "socket_connect_timeout": PATIENCE,
            "socket_timeout": None,  # who listens may hear nothing for long
            "socket_keepalive": True,
        }
        parts = urlsplit(url)
        if parts.scheme in ("rediss", "rediss+sentinel"):
            options |= {"ssl_ca_certs": self._access.ca, "ssl_certfile": self._access.certificate}
            options["ssl_keyfile"] = self._access.key
        if not parts.scheme.endswith("+sentinel"):
            return Client.from_url(url, **options)
        hosts, _, service = url.partition("://")[2].rpartition("/")
        hosts = hosts.rpartition("@")[2]
        sentinels = [_address(each, 26379) for each in hosts.split(",")]
        login: dict[str, Any] = {"username": parts.username or None, "password": parts.password}
        if parts.scheme.startswith("rediss"):
            options["ssl"] = True
        watch = Sentinel(sentinels, socket_timeout=PATIENCE)  # type: ignore[no-untyped-call]
        self._watchers = watch.sentinels  # the library doesn't close them with the master
        master: Client = watch.master_for(service, **login, **options)
        return master

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        try:
            for some in _portions(messages):
                async with asyncio.timeout(PATIENCE), self._alive().pipeline(transaction=False) as pipeline:
                    for subject, payload in some:
                        pipeline.publish(subject, payload)
                    await pipeline.execute()
        except (OSError, RedisError) as error:
            self._is_lost = True
            raise Unreachable(_reason(error)) from error

    async def subscribe(self, subjects: Collection[str]) -> None:
        self._alive()
        loop = asyncio.get_running_loop()
        exact, wild = _sort(subjects)
        globs = self._enter(wild)
        awaited = {name: loop.create_future() for name in (*exact, *globs)}
        self._awaited |= awaited
        try:
            async with asyncio.timeout(PATIENCE):
                if exact:
                    await self._pubsub.subscribe(*exact)
                if globs:
                    await self._pubsub.psubscribe(*globs)
                await asyncio.gather(*awaited.values())
        except (OSError, RedisError) as error:
            raise Unreachable(_reason(error)) from error
        finally:
            for name in awaited:
                self._awaited.pop(name, None)

    async def unsubscribe(self, subjects: Collection[str]) -> None:
        self._alive()
        exact, wild = _sort(subjects)
        globs = self._leave(wild)
        try:
            async with asyncio.timeout(PATIENCE):
                if exact:
                    await self._pubsub.unsubscribe(*exact)
                if globs:
                    await self._pubsub.punsubscribe(*globs)
        except (OSError, RedisError) as error:
            raise Unreachable(_reason(error)) from error

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        if self._is_lost:  # what has arrived already is still read, up to the connection's end
            await asyncio.wait(self._tasks[:1], timeout=_LAST_WORDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._end(client, self._pubsub)

    async def _end(self, client: Client, pubsub: PubSub) -> None:
        watchers, self._watchers = self._watchers, []
        with suppress(OSError, RedisError):
            await pubsub.aclose()  # type: ignore[no-untyped-call]
        for each in (client, *watchers):
            with suppress(OSError, RedisError):
                await each.aclose()

    def _alive(self) -> Client:
        if self._client is None:
            raise Unreachable("not connected")
        return self._client

    def _enter(self, wild: Collection[str]) -> list[str]:
        """Note subjects with wildcards; returns the patterns that Redis doesn't have yet."""
        new = []
        for subject in wild:
            glob = glob_of(subject)
            if glob not in self._globs:
                self._globs[glob] = set()
                new.append(glob)
            self._globs[glob].add(subject)
        return new

    def _leave(self, wild: Collection[str]) -> list[str]:
        """Forget subjects with wildcards; returns the patterns whose last subject has gone."""
        gone = []
        for subject in wild:
            glob = glob_of(subject)
            if (sharing := self._globs.get(glob)) is not None:
                sharing.discard(subject)
                if not sharing:
                    del self._globs[glob]
                    gone.append(glob)
        return gone

    async def _read(self) -> None:
        while True:
            message = await self._pubsub.get_message(timeout=None)
            if message is not None:
                self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "message":
            subject = message["channel"].decode("utf-8", "replace")
            self._received(subject, message["data"], subject, None)
        elif kind == "pmessage":
            subject = message["channel"].decode("utf-8", "replace")
            # One that was just given up may bring some more.
            for source in self._globs.get(message["pattern"].decode(), ()):
                # A star of Redis goes beyond one token.
                if takes_in(source, subject):
                    self._received(subject, message["data"], source, None)
        elif kind in ("subscribe", "psubscribe"):
            waiting = self._awaited.get(message["channel"].decode())
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
        elif kind == "pong":
            self._ponged = True

    async def _feel(self) -> None:
        """The pulse: who doesn't answer is gone, whatever TCP believes."""
        while True:
            await asyncio.sleep(PULSE)
            if not self._ponged:
                raise ConnectionError("no sign of life")
            self._ponged = False
            await self._pubsub.ping()
            await asyncio.sleep(PULSE)

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """Whatever ends the work is a loss: without it nothing would be heard, and nobody would know."""
        try:
            await work()
        except (OSError, RedisError) as error:
            self._tell_loss(_reason(error))
        except Exception as error:
            _log.exception("the bus can't be listened to any more")
            self._tell_loss(repr(error))

    def _tell_loss(self, reason: str) -> None:
        if self._client is not None:
            for waiting in self._awaited.values():
                if not waiting.done():
                    waiting.set_exception(ConnectionError(reason))
            self._is_lost = True
            self._lost(reason)


def glob_of(subject: str) -> str:
    """The pattern of Redis that takes in at least what a subject with wildcards does; others may have it,
    too.
    """
    tokens = [_GLOB.sub(r"\\\g<0>", token) for token in subject.split(".")]
    return ".".join("*" if token == ">" else token for token in tokens)


def _sort(subjects: Collection[str]) -> tuple[list[str], list[str]]:
    """Those without wildcards, and those with."""
    wild = [subject for subject in subjects if is_wild(subject)]
    return [subject for subject in subjects if not is_wild(subject)], wild


def _portions(messages: Sequence[tuple[str, bytes]]) -> Iterator[Sequence[tuple[str, bytes]]]:
    """All of them in their order: together what isn't too much, and alone what is too long by itself."""
    first = size = 0
    for i, (_, payload) in enumerate(messages):
        if i > first and size + len(payload) > _ENOUGH:
            yield messages[first:i]
            first, size = i, 0
        size += len(payload)
    if messages:
        yield messages[first:]


def _address(text: str, port: int) -> tuple[str, int]:
    parts = urlsplit("//" + text)
    return parts.hostname or "localhost", parts.port or port


def _shown(url: str) -> str:
    """Without user and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
