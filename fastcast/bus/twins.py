"""Once each: a message that several subscriptions of this node bring is let through when the first one does.

An engine delivers a message once for each subscription that takes it in: ``prices.eur`` and ``prices.*``
bring two copies. They don't say that they are the same message, and while subscriptions come and go, one of
them may be missing. What can be relied on: each subscription that lasts brings each message once. So copies
are counted by subscription, and the n-th message of the same content is let through with the first
subscription that brings its n-th copy.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Final

HORIZON: Final = 1.0
"""Seconds for which copies of a message may be apart. A subscription stays far longer, once it is there."""


class _Copies:
    __slots__ = ("by_source", "let_through", "touched")

    def __init__(self) -> None:
        self.by_source: Counter[str] = Counter()
        self.let_through = 0
        self.touched = 0.0


class Twins:
    """Those messages of which another copy may come."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # By the time of the last copy, the oldest first.
        self._pending: dict[tuple[str, bytes], _Copies] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def first(self, subject: str, payload: bytes, source: str, sources: Collection[str]) -> bool:
        """Whether the copy that ``source`` brings is of a message that hasn't been let through yet.

        ``sources`` are all subscriptions that take the subject in; for one alone there is no need to ask.
        """
        now = self._clock()
        self._forget(now - HORIZON)
        key = subject, payload
        copies = self._pending.pop(key, None) or _Copies()
        copies.by_source[source] += 1
        is_first = copies.by_source[source] > copies.let_through
        if is_first:
            copies.let_through += 1
        if any(copies.by_source[each] != copies.let_through for each in sources):
            copies.touched = now
            self._pending[key] = copies
        return is_first

    def _forget(self, until: float) -> None:
        while self._pending:
            oldest = next(iter(self._pending))
            if self._pending[oldest].touched > until:
                return
            del self._pending[oldest]
