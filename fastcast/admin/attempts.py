"""Requests that may come again: what was published for each Idempotency-Key.

A message is published while nothing else runs on the loop, and written down at once. So there is no request
"in progress" that another one of the same key could meet: it finds all, some, or nothing of it published, and
goes on from there.
"""

from __future__ import annotations

import hashlib
import re
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from fastcast.admin.problem import Problem

SECONDS: Final = 300.0
"""For which a key is remembered after its last use, unless too many others come."""

MOST_KEYS: Final = 65_536
MOST_NUMBERS: Final = 1 << 20
"""Messages of all remembered requests together."""

_KEY: Final = re.compile(r"[!-~]{1,255}")


class Attempt:
    """What came of a request up to now."""

    __slots__ = ("counted", "expires", "fingerprint", "subscribers")

    def __init__(self, fingerprint: bytes) -> None:
        self.fingerprint = fingerprint
        self.subscribers = array("Q")
        """Of each message that was published."""
        self.counted = 0
        self.expires = 0.0


class Attempts:
    """The requests that are remembered, the one last used at the end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[str, Attempt] = OrderedDict()
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._known)

    def find(self, key: str, *request: bytes) -> Attempt:
        """The attempt of this key, a new one if there was none.

        ``request`` is everything that two requests of one key have in common. Raises Problem for a key that
        is no key, or that another request had.
        """
        if not _KEY.fullmatch(key):
            raise Problem(400, "Idempotency-Key: expected 1 to 255 printable ASCII characters, and no blank")
        digest = hashlib.blake2b(digest_size=16)
        for part in request:
            digest.update(len(part).to_bytes(8) + part)
        self._forget()
        attempt = self._known.get(key)
        if attempt is None:
            return Attempt(digest.digest())
        if attempt.fingerprint != digest.digest():
            raise Problem(422, "Idempotency-Key: another request had this key")
        return attempt

    def keep(self, key: str, attempt: Attempt) -> None:
        """Remember the attempt, if anything was published."""
        if not attempt.subscribers:
            return
        self._numbers += len(attempt.subscribers) - attempt.counted
        attempt.counted = len(attempt.subscribers)
        attempt.expires = self._clock() + SECONDS
        self._known[key] = attempt
        self._known.move_to_end(key)
        self._forget()

    def _forget(self) -> None:
        now = self._clock()
        while self._known:
            key, oldest = next(iter(self._known.items()))
            fits = len(self._known) <= MOST_KEYS and self._numbers <= MOST_NUMBERS
            if fits and oldest.expires > now:
                return
            del self._known[key]
            self._numbers -= oldest.counted
