"""What is to go out over the bus, in order: filled by any thread, emptied by the loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from enum import Enum
from typing import Final, NamedTuple

from fastcast.errors import OverloadError

OVERHEAD: Final = 250
"""What a message that waits costs beside its bytes, roughly: else empty ones could wait without end."""


class Kind(Enum):
    """What a command asks for."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    UNSUBSCRIBE = "unsubscribe"


class Command(NamedTuple):
    """Something to be done with a subject."""

    kind: Kind
    subject: str
    payload: bytes = b""

    @property
    def weight(self) -> int:
        """Bytes of memory that count against a bound; only messages do."""
        return len(self.subject) + len(self.payload) + OVERHEAD if self.kind is Kind.PUBLISH else 0


class Line:
    """Commands that wait. Messages are bounded in bytes; subscriptions aren't, since each name waits once."""

    def __init__(self, most_bytes: int) -> None:
        """Takes a running loop."""
        self._loop = asyncio.get_running_loop()
        self._most_bytes = most_bytes
        self._commands: deque[Command] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._filled = asyncio.Event()
        self._told = False

    def __len__(self) -> int:
        return len(self._commands)

    def put(self, command: Command) -> None:
        """Go to the end of the line. Raises OverloadError when it is too long for a message."""
        weight = command.weight
        with self._lock:
            is_full = self._commands and self._bytes + weight > self._most_bytes
            if is_full and command.kind is Kind.PUBLISH:
                raise OverloadError("too much is under way to the bus: it must catch up first")
            self._commands.append(command)
            self._bytes += weight
            told, self._told = self._told, True
        if not told:
            self._loop.call_soon_threadsafe(self._filled.set)

    def take(self, most: int) -> list[Command]:
        """The first commands, all of one kind."""
        with self._lock:
            taken: list[Command] = []
            while self._commands and len(taken) < most:
                if taken and self._commands[0].kind is not taken[0].kind:
                    break
                taken.append(self._commands.popleft())
                self._bytes -= taken[-1].weight
            if not self._commands:
                self._told = False
        return taken

    async def wait(self) -> None:
        """Until there is something, or ``rouse`` is called."""
        await self._filled.wait()
        self._filled.clear()

    def rouse(self) -> None:
        """End a ``wait``; from the loop."""
        self._filled.set()
