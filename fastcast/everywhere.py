"""What all servers of a bus have together; of one without a bus, what it has itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from fastcast.channels import check_subscription
from fastcast.errors import FastcastError
from fastcast.presence import Present

if TYPE_CHECKING:
    from fastcast.bus import Bus
    from fastcast.server import Server

_log = logging.getLogger("fastcast")

_ALONE: Final = "this"


class Home:
    """What a server tells the others of itself."""

    def __init__(self, server: Server, handlers: Mapping[str, Callable[..., Any]]) -> None:
        self._server = server
        self._handlers = handlers

    def clients(self) -> int:
        """How many it has; none once it has stopped."""
        try:
            return self._server.count()
        except FastcastError:
            return 0

    def count(self, channel: str) -> int:
        """How many subscriptions a message to the channel is for."""
        return self._server.count(channel)

    def present(self, channel: str) -> list[tuple[int, Any]]:
        """Who is subscribed to it, and what ``on_presence`` tells of each: nothing, where it fails."""
        tell = self._handlers.get("on_presence")
        present = []
        failures = 0
        for client in self._server.clients(channel):
            told = None
            try:
                if tell is not None:
                    told = tell(client)
            except (Exception, asyncio.CancelledError):  # the latter of something that it looked at
                failures += 1
                if failures == 1:  # the others are likely to be the same
                    _log.exception("on_presence failed for client %d of %r", client.id, channel)
            present.append((client.id, told))
        if failures > 1:
            _log.error("on_presence failed for %d more clients of %r", failures - 1, channel)
        return present


class Everywhere:
    """``server.everywhere``: counts and presence over all servers.

    The coroutines ask the other servers, and wait two seconds at the most for those that don't answer. A
    server that has died is missed within four seconds, and its clients with it. While the bus can't be
    reached they raise BusError; all raise FastcastError when the server isn't running.
    """

    def __init__(self, home: Home, bus: Callable[[], Bus | None]) -> None:
        self._home = home
        self._bus = bus

    @property
    def servers(self) -> list[str]:
        """The ids of the servers, this one's first; an id lasts from a start to the end."""
        bus = self._bus()
        return [_ALONE] if bus is None else list(bus.peers)

    @property
    def clients(self) -> int:
        """How many clients there are, as all servers have told within the last second or so."""
        bus = self._bus()
        return self._home.clients() if bus is None else bus.peers.clients

    async def count(self, channel: str | None = None) -> int:
        """For how many subscriptions a message to the channel would be; of all clients without a channel."""
        bus = self._bus()
        if channel is not None:
            check_subscription(channel)
        if bus is not None:
            return await bus.reached().count(channel)
        return self._home.clients() if channel is None else self._home.count(channel)

    async def presence(self, channel: str) -> list[Present]:
        """Who would hear what is published to the channel; of a pattern, who is subscribed to just that."""
        bus = self._bus()
        check_subscription(channel)
        if bus is not None:
            return await bus.reached().present(channel)
        return [Present(_ALONE, *each) for each in self._home.present(channel)]
