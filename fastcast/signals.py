"""SIGTERM and SIGINT, for a server that is a program."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self

_log = logging.getLogger("fastcast")

_NUMBERS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Whatever handled them does so again after the block."""
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # as for one that wasn't set from Python
                signal.signal(number, handler)


class Signals:
    """Within its block the first one stops gracefully, and each further one at once."""

    def __init__(self, stop: Callable[[float | None], Coroutine[Any, Any, None]], seconds: float) -> None:
        """``stop`` gets the time that it may take; None for the ``seconds`` that it takes by itself. Takes a
        running loop.
        """
        self._stop = stop
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._stops: list[asyncio.Task[None]] = []

    @property
    def have_come(self) -> bool:
        return bool(self._stops)

    async def obeyed(self) -> None:
        """Wait until what they have begun is over."""
        await asyncio.gather(*self._stops)

    def __enter__(self) -> Self:
        for number in _NUMBERS:
            self._loop.add_signal_handler(number, self._on_signal, number)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number in _NUMBERS:
            self._loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stops:
            _log.info("%s again: ending at once", number.name)
        else:
            _log.info("%s: stopping within %g s", number.name, self._seconds)
        self._stops.append(self._loop.create_task(self._stop(0 if self._stops else None)))
