"""Pauses between tries: each twice as long as the one before, and half of it chance, so that not all who lost
the same broker come back at once.
"""

from __future__ import annotations

import asyncio
import random


class Backoff:
    """Belongs to one loop. In seconds, the first pause and the longest."""

    def __init__(self, least: float, most: float) -> None:
        self._least = least
        self._most = most
        self.delay = least
        """The next pause, at the most."""

    @property
    def is_fresh(self) -> bool:
        """Whether there was none yet."""
        return self.delay == self._least

    def reset(self) -> None:
        """Begin with short ones again."""
        self.delay = self._least

    async def pause(self) -> None:
        """Wait until the next try."""
        delay, self.delay = self.delay, min(2 * self.delay, self._most)
        await asyncio.sleep(delay * random.uniform(0.5, 1))
