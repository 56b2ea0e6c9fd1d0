"""Passes on what clients send, where no handler of the program's does: over the bus, to their channels."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from fastcast.errors import BusError, OverloadError

if TYPE_CHECKING:
    from fastcast.client import Client, Data

_log = logging.getLogger("fastcast")

# Seconds until a message that there was no room for is tried again.
_PAUSE: Final = 0.005


class Relay:
    """A handler of messages. While the bus is full the client waits, and so its messages keep their order."""

    def __init__(
        self, publish: Callable[[str, Data], object], broadcast: Callable[[Data], object], *, to_all: bool
    ) -> None:
        """``to_all``: to every client, and not only to those of the sender's channel."""
        self._publish = publish
        self._broadcast = broadcast
        self._to_all = to_all
        self._has_told = False

    def __call__(self, client: Client, message: Data) -> Awaitable[None] | None:
        """Pass a client's message on; perhaps later."""
        try:
            self._pass_on(client.channel, message)
        except OverloadError:
            return self._insist(client.channel, message)
        return None

    async def _insist(self, channel: str | None, message: Data) -> None:
        while True:
            await asyncio.sleep(_PAUSE)
            with suppress(OverloadError):
                self._pass_on(channel, message)
                return

    def _pass_on(self, channel: str | None, message: Data) -> None:
        try:
            if self._to_all:
                self._broadcast(message)
            elif channel is not None:
                self._publish(channel, message)
        except BusError:
            pass  # refused, and counted
        except ValueError as error:  # the same: longer than the bus takes, though not than a client may send
            if not self._has_told:  # once, since clients may send any number
                self._has_told = True
                _log.warning("a client's message isn't passed on, nor will others like it be: %s", str(error))
