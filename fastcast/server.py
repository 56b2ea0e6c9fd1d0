"""The asyncio side: starts and stops the core, and answers its requests. No frames, no sockets of clients."""

from __future__ import annotations

import asyncio
import errno
import inspect
import logging
import os
import resource
import signal
from collections.abc import Callable
from importlib import resources
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeAlias

import uvloop

from fastcast._core import Hub
from fastcast.config import OPTIONS, Config
from fastcast.errors import ConfigError, FastcastError, OverloadError, StartError
from fastcast.handshake import Accept, Handshake
from fastcast.listen import close, listen
from fastcast.shards import shards_for
from fastcast.watch import Watch

__all__ = ["Server", "run", "serve"]

_log = logging.getLogger("fastcast")

_MAX_HEAD = 8192

# Seconds between two looks at the limits of the machine.
_WATCH_INTERVAL = 1.0

# Answered before the first client comes, so that it doesn't wait for code to be read from disk.
_REHEARSAL = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)

Data: TypeAlias = str | bytes | bytearray | memoryview


class Client(NamedTuple):
    """Who sent a message. May be kept: when the client has gone, it means nobody."""

    id: int
    channel: str


Handler: TypeAlias = Callable[[Client, str | bytes], object]


class Server:
    """A WebSocket server that relays every message to all clients of the same channel.

    Use it with ``async with``, or call ``start()`` and ``stop()``. One loop owns it; ``broadcast`` and
    ``stats`` may be called from any thread while it runs.
    """

    def __init__(self, config: Config | None = None, *, page: bytes | None = None) -> None:
        """``page`` is HTML to serve at ``/`` in the chat page's place."""
        self.config = config or Config()
        self._handler: Handler | None = None
        self._handling = False
        if page is None and self.config.page:
            page = (resources.files("fastcast") / "page" / "chat.html").read_bytes()
        self._handshake = Handshake(
            origins=self.config.origin,
            subprotocols=self.config.subprotocol,
            page=page,
            max_head=_MAX_HEAD,
        )
        self._hub: Hub | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()
        self._next_look: asyncio.TimerHandle | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The TCP port that the server listens on."""
        return self._port

    def on_message(self, handler: Handler) -> Handler:
        """Give every message of a client to ``handler(client, message)``, instead of relaying it.

        To be called, or used as a decorator, before the server starts. Text is str, binary is bytes. The
        handler is a plain function that the server's loop calls with one message at a time, in each client's
        order; an exception in it is logged, and no more. While it doesn't keep up, nothing is read from
        clients.
        """
        if self._hub is not None:
            raise FastcastError("a handler must be set before the server starts")
        if inspect.iscoroutinefunction(handler):
            raise FastcastError("a message handler must be a plain function, not a coroutine function")
        self._handler = handler
        return handler

    async def start(self) -> None:
        """Listen. Raises StartError when the address can't be had, or the system refuses what is needed."""
        if self._hub is not None:
            raise FastcastError("a server starts only once")
        config = self.config
        self._handshake.answer(_REHEARSAL)
        sockets = listen(config.host, config.port, _shards(config))
        try:
            hub = Hub(
                listeners=[[each.fileno() for each in of_shard] for of_shard in sockets],
                max_connections=config.max_connections,
                max_handshakes=config.max_handshakes,
                max_message=config.max_message,
                max_queue=config.queue_limit,
                max_backlog=config.backlog_limit,
                max_head=_MAX_HEAD,
                flush_interval=_milliseconds(config.flush_interval),
                handshake_timeout=_milliseconds(config.handshake_timeout),
                ping_interval=_milliseconds(config.ping_interval),
                ping_timeout=_milliseconds(config.ping_timeout),
                close_timeout=_milliseconds(config.close_timeout),
                timeout=self._handshake.timeout,
                too_large=self._handshake.too_large,
                full=self._handshake.full,
                io=config.io,
                handled=self._handler is not None,
            )
        except (OSError, MemoryError) as error:
            close(sockets)
            raise StartError(f"cannot start: {_reason(error)}") from error
        self._port = sockets[0][0].getsockname()[1]
        for of_shard in sockets:
            for each in of_shard:
                each.detach()  # the hub's from here on
        try:
            hub.start()
        except (OSError, MemoryError) as error:
            over = " over io_uring" if config.io == "uring" else ""
            raise StartError(f"cannot start the shards{over}: {_reason(error)}") from error
        if hub.uring_error:
            _log.warning("io_uring is not available (%s): using epoll", os.strerror(hub.uring_error))
        if not hub.private_tables:
            _log.warning(
                "no fd tables of their own for the shards here: all %d share the limit of %d open files",
                hub.shards,
                resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            )
        if config.max_connections is not None and hub.capacity < config.max_connections:
            _log.warning(
                "room for %d connections only, not %d: raise the limit of open files, or --shards",
                hub.capacity,
                config.max_connections,
            )
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(hub.event_fd, self._on_events)
        self._look_out(Watch(hub.stats, _log))

    async def stop(self, timeout: float | None = None) -> None:
        """Deliver what is published, close every client with 1001, and end.

        Who hasn't gone after ``timeout`` seconds (default: ``shutdown_timeout``) is cut off. May be called
        again with less time while an earlier call waits.
        """
        if self._hub is None:
            return
        self._handler = None  # what it would say, nobody could hear any more
        seconds = self.config.shutdown_timeout if timeout is None else timeout
        self._hub.stop(_milliseconds(seconds))
        await self._ended.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def broadcast(self, data: Data, channel: str = "/") -> None:
        """Send a message to every client of the channel: str as text, bytes-like data as binary.

        Returns at once, whatever the number of clients, and may be called from any thread. Raises
        OverloadError when too much is under way already, ValueError for more than 1 GiB, and
        FastcastError when the server isn't running.
        """
        if self._hub is None:
            raise FastcastError("the server is not running")
        try:
            self._hub.publish(channel, data)
        except BlockingIOError:
            raise OverloadError("too much is under way: the shards must catch up first") from None
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                raise ValueError("the message is longer than 1 GiB") from None
            raise FastcastError("the server is not running") from None

    def stats(self) -> dict[str, Any]:
        """Counters since the start, and gauges: summed up, and for each shard under ``"shards"``.

        Each delivery is in one of these numbers: ``sent = delivered + dropped + gone + queued``. Of a server
        that has stopped, the last numbers are told.
        """
        if self._hub is None:
            raise FastcastError("the server has not been started")
        return self._hub.stats()

    def describe(self) -> str:
        """One line: address, shards, I/O backend, room."""
        if self._hub is None:
            raise FastcastError("the server has not been started")
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return (
            f"fastcast is ready at http://{host}:{self._port}/ ({self._hub.shards} shards,"
            f" {self._hub.backend}, room for {self._hub.capacity} connections)"
        )

    def _look_out(self, watch: Watch) -> None:
        """Look at the limits of the machine now, and again and again."""
        assert self._loop is not None
        watch.poll()
        self._next_look = self._loop.call_later(_WATCH_INTERVAL, self._look_out, watch)

    def _on_events(self) -> None:
        hub = self._hub
        assert hub is not None
        hub.reset_event()
        try:
            while requests := hub.requests():
                hub.answer([self._answer(client, head) for client, head in requests])
            if not self._handling:
                self._handle_some(hub)
        finally:
            if hub.running == 0:
                while hub.messages():
                    pass  # came too late to be handled
                assert self._loop is not None
                self._loop.remove_reader(hub.event_fd)
                if self._next_look is not None:
                    self._next_look.cancel()
                self._ended.set()

    def _handle_some(self, hub: Hub) -> None:
        """Handle some of the messages that wait; the rest comes after a turn of the loop's other tasks."""
        messages = hub.messages()
        self._handling = bool(messages)
        if self._handling:
            # First, so that whatever a handler raises, the rest has its turn.
            assert self._loop is not None
            self._loop.call_soon(self._handle_some, hub)
        for client, channel, message in messages:
            if self._handler is None:
                break
            try:
                self._handler(Client(client, channel), message)
            except Exception:
                _log.exception("the handler failed for a message of client %d", client)

    def _answer(self, client: int, head: bytes) -> tuple[int, bytes, str | None]:
        decision = self._handshake.answer(head)
        return client, decision.response, decision.channel if isinstance(decision, Accept) else None


def serve(**options: Any) -> Server:
    """A server with these options, the same as those of ``fastcast serve`` (``max_queue="4MiB"``).

    ::

        async with fastcast.serve(port=0) as server:
            server.broadcast("hello")

    Raises ConfigError for an option that doesn't exist or has a wrong value.
    """
    unknown = options.keys() - {option.name for option in OPTIONS}
    if unknown:
        raise ConfigError(f"there is no option {sorted(unknown)[0]!r}")
    return Server(Config(**options))


def run(config: Config, *, ready: Callable[[Server], None]) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. ``ready`` is called once the server listens.

    The first signal stops gracefully, a second one at once. Raises StartError.
    """
    return uvloop.run(_run(config, ready))


async def _run(config: Config, ready: Callable[[Server], None]) -> int:
    loop = asyncio.get_running_loop()
    server = Server(config)
    stopping: list[asyncio.Task[None]] = []

    def on_signal(number: int) -> None:
        name = signal.Signals(number).name
        if stopping:
            _log.info("%s again: ending at once", name)
            stopping.append(loop.create_task(server.stop(0)))
        else:
            _log.info("%s: stopping within %g s", name, config.shutdown_timeout)
            stopping.append(loop.create_task(server.stop()))
        signalled.set()

    signalled = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    await server.start()
    ready(server)
    await signalled.wait()
    await stopping[0]
    await asyncio.gather(*stopping)
    return 0


def _milliseconds(seconds: float) -> int:
    """At most some 24 days, which fits the core's 32 bits and is as good as for ever."""
    return min(max(round(seconds * 1000), 0), 2**31 - 1)


def _reason(error: OSError | MemoryError) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else "out of memory"


def _shards(config: Config) -> int:
    if config.shards is not None:
        return config.shards
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return shards_for(
        config.max_connections,
        None if limit == resource.RLIM_INFINITY else limit,
        len(os.sched_getaffinity(0)),
    )
