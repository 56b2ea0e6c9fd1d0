"""Who is on which channel, as the program has been told."""

from __future__ import annotations

from typing import Any, NamedTuple


class Present(NamedTuple):
    """A client that is subscribed to a channel, on whatever server."""

    server: str
    """The server's id, one of ``server.everywhere.servers``."""
    client: int
    """The client's id there."""
    told: Any
    """What ``on_presence`` tells of it there; None without that."""


class Presence:
    """The clients of each channel and pattern, in the order in which they joined.

    Written by one thread, read by any.
    """

    def __init__(self) -> None:
        self._channels: dict[str, dict[int, None]] = {}

    def join(self, client: int, channel: str) -> None:
        """Note that the client is there."""
        self._channels.setdefault(channel, {})[client] = None

    def leave(self, client: int, channel: str) -> None:
        """Note that it has gone."""
        clients = self._channels.get(channel, {})
        clients.pop(client, None)
        if not clients:
            self._channels.pop(channel, None)

    def clients(self, channel: str) -> list[int]:
        """The ids of those who are there."""
        # One step for the interpreter, so that it needs no lock.
        return list(self._channels.get(channel, ()))
