"""An agent: generates load here for a driver elsewhere, one run at a time.

An agent connects to wherever its driver says, as fast as this machine can. It therefore listens on loopback
unless it is told otherwise, and then it wants a token that the driver has to know.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

from fastcast import __version__
from fastcast.bench.engine import Snapshot, load
from fastcast.bench.link import GREETING_SECONDS, MOST_ORDERED, Link, LinkError, reason, written
from fastcast.errors import ConfigError, StartError

_ORDER_SECONDS: Final = 60.0
"""For a driver that has been greeted to say what to run; it greets its other agents meanwhile."""

_ENDING_SECONDS: Final = 5.0
"""For a run without a driver to come to its end, before another driver hears that the agent is busy."""

_VANISHED_SECONDS: Final = 60.0
"""After which a driver that acknowledges nothing has gone, although nobody said so."""


def serve(host: str, port: int, token: str, ready: Callable[[str], object]) -> None:
    """Take runs until SIGINT or SIGTERM. ``ready`` is told the address once the agent listens.

    Raises :exc:`~fastcast.errors.ConfigError` for an address beyond loopback without a token, and
    :exc:`~fastcast.errors.StartError` when the address can't be had.
    """
    if not token and not _is_loopback(host):
        raise ConfigError(
            f"--agent: whoever reaches {host} could have this machine send load anywhere: set a --token, or"
            " FASTCAST_AGENT_TOKEN, here and at the driver"
        )
    asyncio.run(Agent(token).serve(host, port, ready))


class Agent:
    """Greets drivers, and runs what the first of them asks for while others are turned away."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._idle = asyncio.Event()
        self._idle.set()
        self._abandoned = False
        self._drivers: set[asyncio.Task[None]] = set()

    async def serve(self, host: str, port: int, ready: Callable[[str], object]) -> None:
        """Take runs until SIGINT or SIGTERM, which end the one that goes on."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        try:
            server = await asyncio.start_server(self.greet, host, port, limit=MOST_ORDERED)
        except OSError as error:
            raise StartError(f"cannot listen on {written(host, port)}: {reason(error)}") from None
        async with server:
            ready(written(host, server.sockets[0].getsockname()[1]))
            await ended.wait()
            server.close()
            for driver in self._drivers:
                driver.cancel()
            await asyncio.gather(*self._drivers, return_exceptions=True)

    async def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Deal with one driver, from its greeting to its going."""
        task = asyncio.current_task()
        assert task is not None
        self._drivers.add(task)
        writer.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(_VANISHED_SECONDS * 1000)
        )
        link = Link(reader, writer)
        try:
            await self._take(link)
        except (LinkError, TimeoutError):
            pass  # The driver has gone, or is none: there is nobody to tell.
        finally:
            self._drivers.discard(task)
            await link.close()

    async def _take(self, link: Link) -> None:
        greeting = await asyncio.wait_for(link.hear(), GREETING_SECONDS)
        if self._abandoned:
            # Its driver has gone, so that it is about to end: who tries again at once should get a run.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), _ENDING_SECONDS)
        if problem := self._objection(greeting):
            link.say("error", error="refused", message=problem)
            return
        self._idle.clear()
        try:
            link.say("hello", version=__version__)
            order = await asyncio.wait_for(link.hear(), _ORDER_SECONDS)
            if order["type"] != "run" or not isinstance(order.get("options"), dict):
                raise LinkError("it is no run")
            await self._run(link, order["options"])
        finally:
            self._abandoned = False
            self._idle.set()

    def _objection(self, greeting: Mapping[str, Any]) -> str:
        token = greeting.get("token")
        if greeting["type"] != "hello" or not isinstance(token, str):
            return "it expects a greeting"
        if not hmac.compare_digest(_bytes_of(token), _bytes_of(self._token)):
            return "the token is not the agent's"
        if greeting.get("version") != __version__:
            return f"it is fastcast {__version__}, and the driver is {greeting.get('version')}"
        if not self._idle.is_set():
            return "it is busy with another run"
        return ""

    async def _run(self, link: Link, options: Mapping[str, object]) -> None:
        part = _Part(link, asyncio.get_running_loop())
        run = asyncio.ensure_future(asyncio.to_thread(part.run, options))
        orders = asyncio.ensure_future(part.obey())
        try:
            await asyncio.wait((run, orders), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # The thread can't be cancelled; it sees this within an interval.
            part.stopped = True
            self._abandoned = orders.done()
            try:
                kind, told = await asyncio.shield(run)
            finally:
                orders.cancel()
                await asyncio.wait((run, orders))
        link.say(kind, **told)


class _Part:
    """A part of a run, in a thread; what it shares with the loop are attributes that one side only sets."""

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop) -> None:
        self.stopped = False
        self._link = link
        self._loop = loop
        self._ready = ""
        self._free = ""

    def run(self, options: Mapping[str, object]) -> tuple[str, dict[str, Any]]:
        """In the thread: run, and return the line to end with."""
        try:
            return "result", {"result": load(options, self._observe, self._gate)}
        except StartError as error:
            return "error", {"error": "start", "message": str(error)}
        # The options come from elsewhere, and may have any type.
        except (ConfigError, TypeError, OverflowError) as error:
            return "error", {"error": "usage", "message": str(error)}

    async def obey(self) -> None:
        """In the loop: do as the driver says, until it goes."""
        while True:
            try:
                order = await self._link.hear()
            except LinkError:
                return
            if order["type"] == "go":
                self._free = str(order.get("phase"))
            elif order["type"] == "stop":
                self.stopped = True

    def _observe(self, snapshot: Snapshot) -> bool:
        self._loop.call_soon_threadsafe(self._say, "snapshot", {"snapshot": snapshot})
        return self.stopped

    def _gate(self, phase: str) -> bool:
        if self._ready != phase:
            self._ready = phase
            self._loop.call_soon_threadsafe(self._say, "gate", {"phase": phase})
        return self.stopped or self._free == phase

    def _say(self, kind: str, fields: Mapping[str, Any]) -> None:
        self._link.say(kind, **fields)


def _bytes_of(token: str) -> bytes:
    # JSON and the environment may bring surrogates, which UTF-8 proper does not have.
    return token.encode("utf-8", "surrogatepass")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
