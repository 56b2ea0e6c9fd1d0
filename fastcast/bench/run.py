"""A run from its first snapshot to its verdict, with everybody told who watches."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Final, Self

from fastcast.bench.engine import Engine, Result, Snapshot
from fastcast.bench.series import Row, Series
from fastcast.bench.verdict import Verdict, judge

Watcher = Callable[[Row, Series], object]
"""Is told each interval, and the series that it belongs to."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    result: Result
    series: Series
    verdict: Verdict


class Interruption:
    """SIGINT or SIGTERM within the ``with`` block is noted; a second one ends the process as usual."""

    def __init__(self) -> None:
        self.noted = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.noted = True
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)


def execute(options: Mapping[str, object], engine: Engine, watchers: Sequence[Watcher]) -> Outcome:
    """Run to the end, or to an interruption; to be called from the main thread, because signals are its.

    Raises what the engine raises.
    """
    series = Series()

    with Interruption() as interruption:

        def observe(snapshot: Snapshot) -> bool:
            row = series.add(snapshot)
            for watcher in watchers:
                watcher(row, series)
            return interruption.noted

        result = engine(options, observe)
    return Outcome(result, series, judge(result))
