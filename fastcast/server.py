"""The server that a program has: its life, its handlers, and what it can send and ask for.

No frames and no sockets of clients here: the core has them. The loop that starts the server answers its
requests and calls the program's handlers.
"""

from __future__ import annotations

import asyncio
import atexit
import dataclasses
import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from importlib import resources
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, TypeVar

import uvloop

from fastcast._core import Hub
from fastcast.admission import Admission
from fastcast.channels import check_name, check_subscription
from fastcast.client import Client, Clients, Data, Unshared, explain, not_running
from fastcast.config import OPTIONS, Config
from fastcast.errors import BusError, ConfigError, FastcastError, StartError
from fastcast.everywhere import Everywhere, Home
from fastcast.intake import Intake
from fastcast.launch import end_at_once, launch, milliseconds
from fastcast.presence import Presence
from fastcast.signals import Signals, signals_kept
from fastcast.watch import Watch

if TYPE_CHECKING:
    from fastcast.admin import Admin
    from fastcast.bus import Bus
    from fastcast.request import Accept, Request

__all__ = ["Client", "Data", "Server", "serve"]

_log = logging.getLogger("fastcast")

# Seconds between two looks at the limits of the machine.
_WATCH_INTERVAL: Final = 1.0

# Answered before the first client comes, so that it doesn't wait for code to be read from disk.
_REHEARSAL: Final = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)

_NO_SUBSCRIBERS: Final = dict.fromkeys(("members", "sent", "delivered", "dropped", "gone"), 0)

_Admit: TypeAlias = "Callable[[Request], Accept | Awaitable[Accept | None] | None]"
_HandlerT = TypeVar("_HandlerT", bound=Callable[..., object])
_AdmitT = TypeVar("_AdmitT", bound=_Admit)
_MessageT = TypeVar("_MessageT", bound=Callable[[Client, str | bytes], object])
_DisconnectT = TypeVar("_DisconnectT", bound=Callable[[Client, int, str], object])
_SlowT = TypeVar("_SlowT", bound=Callable[[Client, str, int], object])
_ChannelT = TypeVar("_ChannelT", bound=Callable[[Client, str], object])
_TellT = TypeVar("_TellT", bound=Callable[[Client], object])


class Server:
    """A WebSocket server: sends what the program publishes, and handles or relays what clients send.

    Use it with ``async with``; call ``start()`` and ``stop()``; have it ``run()`` as a program of its own; or
    beside a program without asyncio, ``with server.start_in_thread():``. It starts only once.

    Methods that are coroutines belong to the loop that starts the server. All others but ``run`` may be
    called from any thread, and return at once; while the server isn't running they raise FastcastError.

    A handler is set with a decorator before the start, and is a plain function or a coroutine function. Plain
    ones hold up the server's loop while they run. The events of one client are handled one after the other,
    in their order; of coroutines at most ``max_handlers`` run at a time (those of ``on_connect`` are counted
    apart). While the handlers don't keep up, nothing is read from clients. An exception in a handler is
    logged, and no more.
    """

    def __init__(self, config: Config | None = None, /, *, html: bytes | None = None, **options: Any) -> None:
        """``options`` are those of ``fastcast serve`` (``max_queue="4MiB"``), over those of ``config``.

        ``html`` is a page to serve at ``/`` in the chat page's place. Raises ConfigError for an option that
        doesn't exist or has a wrong value.
        """
        unknown = options.keys() - {option.name for option in OPTIONS}
        if unknown:
            raise ConfigError(f"there is no option {min(unknown)!r}")
        self._config = dataclasses.replace(config or Config(), **options)
        self._html = html
        self._handlers: dict[str, Callable[..., Any]] = {}
        self._clients = Clients()
        self._presence = Presence()
        self._hub: Hub | None = None
        self._admin: Admin | None = None
        self._bus: Bus | None = None
        self._port = 0
        self._starting: asyncio.Task[None] | None = None
        self._stopping = False
        self._stops: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._thread: threading.Thread | None = None

    @property
    def config(self) -> Config:
        """The options. Another Config may be set before the start."""
        return self._config

    @config.setter
    def config(self, config: Config) -> None:
        if self._has_begun:
            raise FastcastError("options must be set before the server starts")
        self._config = config

    @property
    def port(self) -> int:
        """The TCP port that the server listens on; 0 before the start."""
        return self._port

    @property
    def admin_port(self) -> int:
        """The TCP port of the admin port; 0 before the start, and where there is none."""
        return 0 if self._admin is None else self._admin.port

    # ---- handlers ----

    def on_connect(self, handler: _AdmitT) -> _AdmitT:
        """``handler(request)`` decides who is admitted, and to which channels.

        It returns an :class:`fastcast.Accept`, or None for the default, which is the path as the channel; or
        it raises :class:`fastcast.Refuse`.
        """
        return self._set("on_connect", handler)

    def on_message(self, handler: _MessageT) -> _MessageT:
        """``handler(client, message)`` gets what clients send, str or bytes, instead of its being relayed."""
        return self._set("on_message", handler)

    def on_disconnect(self, handler: _DisconnectT) -> _DisconnectT:
        """``handler(client, code, reason)`` is told when a client has left: once for each that was admitted.

        The code is that of the client's Close, or the server's; 1006 if it went without one. It is the last
        event of the client, whose state is still there.
        """
        return self._set("on_disconnect", handler)

    def on_slow(self, handler: _SlowT) -> _SlowT:
        """``handler(client, policy, queued)`` is told when a policy acts on a client that lags.

        Once for each time that it lags. ``queued`` is how many bytes waited for it.
        """
        return self._set("on_slow", handler)

    def on_join(self, handler: _ChannelT) -> _ChannelT:
        """``handler(client, channel)`` is told who joins a channel, or pattern. Needs ``presence=True``."""
        return self._set("on_join", handler)

    def on_leave(self, handler: _ChannelT) -> _ChannelT:
        """``handler(client, channel)`` is told who leaves it; who disconnects leaves all.

        Needs ``presence=True``.
        """
        return self._set("on_leave", handler)

    def on_presence(self, handler: _TellT) -> _TellT:
        """``handler(client)`` tells what other servers may know of a client: anything that JSON can say.

        A plain function, which ``server.everywhere.presence()`` calls for each client of a channel.
        """
        return self._set("on_presence", handler)

    def _set(self, name: str, handler: _HandlerT) -> _HandlerT:
        if self._has_begun:
            raise FastcastError(f"{name} must be set before the server starts")
        if name in self._handlers:
            raise FastcastError(f"{name} is set already")
        self._handlers[name] = handler
        return handler

    # ---- life ----

    async def start(self) -> None:
        """Listen. Raises StartError when the address can't be had, or the system refuses what is needed.

        Raises ConfigError if options and handlers don't fit together, and FastcastError when ``stop`` is
        called meanwhile.
        """
        if self._has_begun:
            raise FastcastError("a server starts only once")
        # A task of its own, so that it can be stopped without its caller being cancelled.
        self._starting = starting = asyncio.create_task(self._start())
        try:
            await starting
        except asyncio.CancelledError:
            if (caller := asyncio.current_task()) is not None and caller.cancelling():
                if self._hub is not None:  # at the last moment: nobody would know that it runs
                    await self.stop(0)
                raise
            raise FastcastError("the server was stopped before it had started") from None
        finally:
            self._starting = None

    @property
    def _has_begun(self) -> bool:
        return self._hub is not None or self._starting is not None

    async def _start(self) -> None:
        config = self._config
        if not config.presence and not self._handlers.keys().isdisjoint(("on_join", "on_leave")):
            raise ConfigError("on_join and on_leave need presence=True")
        admin = self._make_admin()
        on_connect = self._handlers.get("on_connect")
        admission = Admission(
            config, page=self._page(), on_connect=on_connect, address_count=self._count_address
        )
        if on_connect is None:
            admission.decide(_REHEARSAL, "", 0)
        wants_ends = bool(self._handlers) or config.presence
        handlers, bus = self._handlers, None
        if config.bus:
            from fastcast.bus import connect_bus  # with its libraries, which are extras

            bus, relay = await connect_bus(config, self.publish, self.broadcast)
            handlers = {**relay, **handlers}
        hub: Hub | None = None
        try:
            hub, port = launch(
                config,
                admission,
                handled="on_message" in handlers,
                closes=wants_ends,
                presence=config.presence,
            )
            if bus is not None:
                await bus.begin(hub, Home(self, self._handlers))
        except BaseException:
            if hub is not None:
                await end_at_once(hub)
            if bus is not None:
                await bus.stop()
            raise
        self._port = port
        self._hub, self._bus = hub, bus
        self._over = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._intake = Intake(
            hub,
            config,
            admission,
            handlers,
            self._clients,
            self._presence,
            self._on_end,
            None if bus is None else bus.ready,
        )
        self._clients.begin(hub, keep=wants_ends, want=None if bus is None else bus.want)
        self._look_out(Watch(hub.stats, _log))
        if admin is not None:
            await self._start_admin(admin)

    async def stop(self, timeout: float | None = None) -> None:
        """Deliver what is published, close every client with 1001, let handlers finish, and end.

        Who hasn't gone after ``timeout`` seconds (default: ``shutdown_timeout``) is cut off, and coroutines
        of handlers are cancelled then. What clients have sent isn't handled any more; their ends are. May be
        called again with less time while an earlier call waits. It goes on when its caller is cancelled; a
        handler that awaits it would wait for itself, and so is cancelled when the time is over.
        """
        if (starting := self._starting) is not None and self._hub is None:
            starting.cancel()
            await asyncio.wait({starting})
        if self._hub is None:
            return
        self._stopping = True
        self._clients.stop()
        self._intake.stop()
        stop = asyncio.create_task(self._stop(self._hub, timeout))
        self._stops.add(stop)
        stop.add_done_callback(self._stops.discard)
        await asyncio.shield(stop)

    async def _stop(self, hub: Hub, timeout: float | None) -> None:
        until = self._loop.time() + (self._config.shutdown_timeout if timeout is None else timeout)
        try:
            if self._bus is not None and until > self._loop.time():
                with suppress(FastcastError, TimeoutError):
                    async with asyncio.timeout_at(until):
                        await self._bus.flush()
        finally:
            hub.stop(milliseconds(max(until - self._loop.time(), 0)))
        try:
            async with asyncio.timeout_at(until):
                await self._over.wait()
        except TimeoutError:
            self._intake.hurry()
            await self._over.wait()

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

    def run(self, ready: Callable[[], object] | None = None) -> int:
        """Serve until SIGTERM or SIGINT; returns the exit code, 0. ``ready`` is called once it listens.

        The first signal stops gracefully, a second one at once; what handled them before does so again
        afterwards. Runs a loop of uvloop's. Raises StartError, and FastcastError outside of the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            raise FastcastError("run() needs the main thread; elsewhere there is start_in_thread()")
        with signals_kept():
            uvloop.run(self._run(ready))
        return 0

    async def _run(self, ready: Callable[[], object] | None) -> None:
        with Signals(self.stop, self._config.shutdown_timeout) as signals:
            try:
                try:
                    await self.start()
                except FastcastError:
                    if not signals.have_come:
                        raise
                else:
                    if ready is not None and not self._stopping:
                        ready()
                    await self._over.wait()
                await signals.obeyed()
            except BaseException:
                await self.stop(0)
                raise

    def start_in_thread(self) -> Self:
        """Start on a thread with a loop of its own, and return when the server listens.

        For programs that don't use asyncio: ``with server.start_in_thread():`` stops it at the end of the
        block, ``close()`` does so anywhere, and the end of the program if nothing else does. Handlers run on
        that thread. Raises as ``start`` does.
        """
        if self._thread is not None:
            raise FastcastError("a server starts only once")
        started: Future[None] = Future()
        thread = threading.Thread(target=self._run_thread, args=(started,), name="fastcast", daemon=True)
        try:
            thread.start()
            started.result()
        except BaseException:
            # Who was interrupted while it waited doesn't want the server any more.
            if not started.cancel() and started.exception() is None:
                asyncio.run_coroutine_threadsafe(self.stop(0), self._loop)
            with suppress(RuntimeError):  # it has not even begun, and ends when it does
                thread.join()
            raise
        self._thread = thread
        atexit.register(self.close)
        return self

    def close(self, timeout: float | None = None) -> None:
        """Stop a server that has its own thread, as ``stop`` does, and end the thread."""
        thread = self._thread
        if thread is None:
            return
        if thread is threading.current_thread():
            raise FastcastError("a handler cannot wait for the end of its own thread")
        stopping = self.stop(timeout)
        try:
            asyncio.run_coroutine_threadsafe(stopping, self._loop)
        except RuntimeError:
            stopping.close()  # its loop has ended
        thread.join()
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self if self._thread is not None else self.start_in_thread()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run_thread(self, started: Future[None]) -> None:
        try:
            uvloop.run(self._serve(started))
        except BaseException as error:
            if not started.done() and started.set_running_or_notify_cancel():
                started.set_exception(error)
            elif not started.cancelled():
                raise

    async def _serve(self, started: Future[None]) -> None:
        await self.start()
        try:
            if started.set_running_or_notify_cancel():
                started.set_result(None)
            else:
                await self.stop(0)
            await self._over.wait()
        except BaseException:
            await self.stop(0)  # the loop ends, as a handler wants it: the shards mustn't outlive it
            raise

    # ---- to send and to ask ----

    def broadcast(self, data: Data, channel: str | None = None) -> int:
        """Send a message to every client, once each; with a channel, the same as ``publish``.

        Returns for how many clients of this server it is. Raises as ``publish`` does.
        """
        if channel is not None:
            return self.publish(channel, data)
        hub, bus = self._core(), self._bus
        if bus is not None:
            is_shared = bus.publish(None, data)
            return (int if is_shared else Unshared)(hub.stats()["clients"])
        try:
            return hub.broadcast(data)
        except OSError as error:
            raise explain(error) from None

    def publish(self, channel: str, data: Data, key: str | None = None) -> int:
        """Send a message to every client of a channel: str as text, bytes-like data as binary.

        Returns the number of subscriptions, patterns among them, for which it is queued; takes the same few
        microseconds for any number. Where the policy is ``latest``, it replaces an older one of the same key
        that still waits for a client.

        With a bus the message reaches the subscribers on all servers, and the number is that of this one's;
        an :class:`fastcast.Unshared` while the bus can't be reached, or BusError if ``bus_alone`` says so.

        Raises OverloadError when too much is under way already, ValueError for more than 1 GiB (or than the
        bus takes), a bad name or a pattern, and FastcastError when the server isn't running.
        """
        hub, bus = self._core(), self._bus
        if bus is not None:
            is_shared = bus.publish(check_name(channel), data, key)
            return (int if is_shared else Unshared)(hub.count(channel))
        try:
            return hub.publish(channel, data, key)
        except OSError as error:
            raise explain(error) from None
        except ValueError:
            check_name(channel)
            raise

    def client(self, id: int) -> Client:
        """The client with that ``id``; it may have left."""
        return Client(self._clients, id)

    def clients(self, channel: str) -> list[Client]:
        """Who would hear what is published to the channel; of a pattern, who is subscribed to just that."""
        return [Client(self._clients, id) for id in self._alive().members(check_subscription(channel))]

    def count(self, channel: str | None = None) -> int:
        """For how many subscriptions a message to the channel would be; of all clients without a channel."""
        if channel is None:
            return int(self._alive().stats()["clients"])
        return self._alive().count(check_subscription(channel))

    def channels(self) -> dict[str, int]:
        """The channels and patterns that somebody is subscribed to, and how many clients are."""
        return dict(self._alive().channels())

    def presence(self, channel: str) -> list[Client]:
        """Who has joined the channel or pattern and not left, as ``on_join`` and ``on_leave`` have told.

        Raises FastcastError unless ``presence`` is on.
        """
        if not self._config.presence:
            raise FastcastError("presence is off: start the server with presence=True")
        return [Client(self._clients, id) for id in self._presence.clients(check_subscription(channel))]

    @property
    def everywhere(self) -> Everywhere:
        """Counts and presence over all servers of the bus."""
        self._alive()
        return Everywhere(Home(self, self._handlers), lambda: self._bus)

    def stats(self, channel: str | None = None) -> dict[str, Any]:
        """Counters since the start, and gauges: summed up, and for each shard under ``"shards"``.

        Each delivery is in one of these numbers: ``sent = delivered + dropped + gone + queued``. Of a server
        that has stopped, the last numbers are told. With a channel or pattern: the same numbers, and
        ``members``, of what was sent to its subscribers since it had the first of them; zeros if there are
        none.
        """
        hub = self._started()
        if channel is None:
            return hub.stats() if self._bus is None else {**hub.stats(), "bus": self._bus.stats()}
        stats = hub.channel_stats(check_subscription(channel)) or _NO_SUBSCRIBERS
        ended = stats["delivered"] + stats["dropped"] + stats["gone"]
        return {**stats, "queued": stats["sent"] - ended}

    async def flush(self) -> int:
        """Wait until all that was published before is written, or stands in the queue of a client that lags.

        Returns how many deliveries are in such queues.
        """
        hub = self._core()
        if self._bus is not None:
            with suppress(BusError):  # then it's this server's clients alone that matter
                await self._bus.flush()
        await self._intake.questions.flush()
        return int(hub.stats()["queued"])

    async def inspect(self, client: Client) -> dict[str, Any] | None:
        """What there is to tell of a client; None if it has left.

        ``id``; ``state``: ``"open"`` or ``"closing"``; ``channels``; ``queued``: deliveries that wait for it,
        and ``queued_bytes``; ``idle``: seconds since it was heard of; ``remote``: the address of its end.
        """
        self._core()
        return await self._intake.questions.inspect(client.id)

    def describe(self) -> str:
        """One line: address, shards, I/O backend, room."""
        hub = self._started()
        host = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        return (
            f"fastcast is ready at http://{host}:{self._port}/ ({hub.shards} shards,"
            f" {hub.backend}, room for {hub.capacity} connections)"
        )

    def _started(self) -> Hub:
        if self._hub is None:
            raise FastcastError("the server has not been started")
        return self._hub

    def _alive(self) -> Hub:
        if self._hub is None or self._over.is_set():
            raise not_running()
        return self._hub

    def _core(self) -> Hub:
        if self._hub is None or self._stopping:
            raise not_running()
        return self._hub

    # ---- what belongs to a start and an end ----

    def _page(self) -> bytes | None:
        if self._html is None and self._config.page:
            return (resources.files("fastcast") / "page" / "chat.html").read_bytes()
        return self._html

    def _count_address(self, address: str) -> int:
        return 0 if self._hub is None else self._hub.address_count(address)

    def _make_admin(self) -> Admin | None:
        if self._config.admin_port is None:
            return None
        try:
            from fastcast.admin import Admin
        except ModuleNotFoundError as error:
            raise StartError(
                f"the admin port needs {error.name}: run pip install 'fastcast[admin]'"
            ) from error
        return Admin(self, self._config)

    async def _start_admin(self, admin: Admin) -> None:
        """Raises StartError, and then the server is as it was before its start."""
        try:
            await admin.start()
        except BaseException:
            await self.stop(0)
            self._hub, self._bus, self._port, self._stopping = None, None, 0, False
            raise
        self._admin = admin
        if self._stopping:  # meanwhile: then nobody else ends it
            await admin.stop()

    def _look_out(self, watch: Watch) -> None:
        """Look at the limits of the machine now, and again and again."""
        watch.poll()
        self._started().expire()
        self._next_look = self._loop.call_later(_WATCH_INTERVAL, self._look_out, watch)

    def _on_end(self) -> None:
        """The hub and all handlers have ended."""
        self._next_look.cancel()
        self._clients.end()
        self._ending = self._loop.create_task(self._end())

    async def _end(self) -> None:
        try:
            for name, part in (("admin port", self._admin), ("bus", self._bus)):
                try:
                    if part is not None:
                        await part.stop()
                except Exception:
                    _log.exception("the %s did not end as it should", name)
        finally:
            self._over.set()


def serve(**options: Any) -> Server:
    """A server with these options: the same as ``Server(**options)``.

    ::

        async with fastcast.serve(port=0) as server:
            server.broadcast("hello")
    """
    return Server(**options)
