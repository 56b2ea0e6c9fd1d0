"""Where channels ended that have gone quiet: what a server has had stored last, for the others to compare.

A message that was stored may fail to come to a server, when a broker dies that was to pass it on. The next
one on its channel shows that, by the offset of the one before it; but there may not be a next one soon.
"""

from __future__ import annotations

import json
import time
from itertools import islice
from typing import Final, NamedTuple

from fastcast.bus.engine import MOST_SAID

QUIET: Final = 1.0
"""Seconds without another message after which a channel is quiet."""

_MOST: Final = 10_000

# Channels in one announcement, if their names aren't too long.
_AT_ONCE: Final = 500


class _Tail(NamedTuple):
    offset: int
    since: float


class Tails:
    """The offsets of the last messages, by subject, until they are taken; the oldest first."""

    def __init__(self) -> None:
        self._tails: dict[str, _Tail] = {}

    def note(self, subject: str, offset: int) -> None:
        """A message has been stored."""
        self._tails.pop(subject, None)
        self._tails[subject] = _Tail(offset, time.monotonic())
        if len(self._tails) > _MOST:
            del self._tails[next(iter(self._tails))]

    def take(self) -> dict[str, int]:
        """Some of those that are quiet, as many as fit into a message, which are then forgotten."""
        now = time.monotonic()
        some: dict[str, int] = {}
        size = len("{}")
        for subject, tail in islice(self._tails.items(), _AT_ONCE):
            size += len(json.dumps(subject)) + len(f":{tail.offset},")
            if now - tail.since < QUIET or (some and size > MOST_SAID):
                break  # what follows is newer
            some[subject] = tail.offset
        for subject in some:
            del self._tails[subject]
        return some
