"""What tsung wrote down about a run: its counters and samples, and what in them is not as it should be."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# "stats: NAME A B ..." in tsung.log, once per dump.
STATS: Final = re.compile(r"^stats: (\w+) (-?\d+(?:\.\d+)?) (-?\d+(?:\.\d+)?)", re.MULTILINE)
# "{sample,NAME,1.5}" or "{sample,NAME,[1.5,2.0]}" in tsung-fullstats.log, broken over lines anywhere.
SAMPLE: Final = re.compile(r"\{sample,\s*(\w+),\s*(?:\[([^\]]*)\]|([^\[{}\],]+))\}")
END: Final = "EndMonitor:"


class ResultsError(Exception):
    """tsung left no complete log."""


@dataclass(frozen=True)
class Results:
    """One run, as tsung saw it.

    :param totals: Last total of each counter, by tsung's name for it.
    :param peak_connected: Most connections at a time, as of tsung's dumps, one every ten seconds.
    :param samples: Sorted durations in milliseconds, by tsung's name for what was timed.
    """

    totals: dict[str, int]
    peak_connected: int
    samples: dict[str, list[float]]

    def errors(self) -> dict[str, int]:
        """Counters that only failures raise."""
        return {
            name: total
            for name, total in self.totals.items()
            if total and (name.startswith("error") or name in ("websocket_fail", "timeout", "abort_session"))
        }

    def heard(self) -> int:
        """Reads by users who had not asked for anything: messages of others, unless two arrive together."""
        return self.totals.get("async_unknown_data_rcv", 0)

    def problems(self, users: int, messages: int) -> list[str]:
        """What keeps this from being a clean run of one speaker and ``users - 1`` listeners."""
        expected = {
            "users who started": (self.totals.get("users_count", 0), users),
            "users who finished": (self.totals.get("finish_users_count", 0), users),
            # More are reconnections, which tsung makes without counting them as errors.
            "TCP connections": (len(self.samples.get("connect", ())), users),
            "accepted handshakes": (self.totals.get("websocket_succ", 0), users),
            "connections at a time": (self.peak_connected, users),
            "messages that came back to the speaker": (len(self.samples.get("tr_echo", ())), messages),
            "messages that listeners heard": (self.heard(), (users - 1) * messages),
        }
        return [
            *(f"tsung counted {total} times {name}" for name, total in self.errors().items()),
            *(f"{what}: {is_} instead of {due}" for what, (is_, due) in expected.items() if is_ != due),
        ]


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the least value that ``percent`` of the values do not exceed; ``ordered`` must not be empty."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def read(directory: Path) -> Results:
    """Read the logs of the one run below ``directory``.

    Raises :exc:`ResultsError` when tsung did not finish them.
    """
    logs = list(directory.glob("*/tsung.log"))
    if len(logs) != 1:
        raise ResultsError(f"tsung left {len(logs)} logs instead of one")
    text = logs[0].read_text(encoding="utf-8", errors="replace")
    if END not in text:
        raise ResultsError("tsung was cut off before its log ended")
    totals: dict[str, int] = {}
    peak = 0
    for name, _, total in STATS.findall(text):
        totals[name] = int(float(total))
        if name == "connected":
            peak = max(peak, totals[name])
    samples: dict[str, list[float]] = {}
    full = logs[0].with_name("tsung-fullstats.log").read_text(encoding="utf-8", errors="replace")
    for name, several, one in SAMPLE.findall(full):
        samples.setdefault(name, []).extend(float(value) for value in (several or one).split(","))
    for values in samples.values():
        values.sort()
    return Results(totals, peak, samples)
