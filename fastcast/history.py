"""What channels keep of their last messages, and where in it a client that comes back wants to go on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import parse_qsl

from fastcast.options import Duration, format_duration, parse_duration

MOST_MESSAGES: Final = 1_000_000
MOST_POSITIONS: Final = 1000
"""That a client may name when it comes back."""

Since: TypeAlias = Literal["new", "all"] | list[tuple[bytes, int]]
"""What a client wants: only to know its positions, all that is kept before that, or what came after its
positions, each an epoch and an offset."""

_TIME: Final = Duration(0.001, 30 * 86400)
_POSITION: Final = re.compile(r"([0-9a-z]{12}):([0-9]{1,19})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Keep:
    """How much of a channel is kept: so many messages, for so many seconds. None: any; both: nothing."""

    messages: int | None = None
    seconds: float | None = None

    def __bool__(self) -> bool:
        return self.messages is not None or self.seconds is not None

    def __str__(self) -> str:
        """As :class:`History` reads it."""
        words = [str(self.messages)] if self.messages is not None else []
        words += [format_duration(self.seconds)] if self.seconds is not None else []
        return "/".join(words) or "off"


@dataclass(frozen=True, slots=True)
class History:
    """The kind of an option: ``100`` messages, ``5m``, or ``100/5m``, whichever is less; or ``off``."""

    metavar: str = "HOW MUCH"

    def parse(self, text: str) -> object:
        return text

    def check(self, value: object) -> Keep:
        if isinstance(value, Keep):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise ValueError(f"expected a number of messages, a time such as '5m', or both, not {value!r}")
        if value.strip().lower() in ("off", ""):
            return Keep()
        return self._keep_of(value)

    def show(self, value: Any) -> str:
        return str(value)

    @staticmethod
    def _keep_of(text: str) -> Keep:
        messages: int | None = None
        seconds: float | None = None
        for word in map(str.strip, text.split("/")):
            if word.isdecimal() and word.isascii() and messages is None:
                messages = int(word)
            elif not word.isdecimal() and seconds is None:
                seconds = parse_duration(word)
                _TIME.check(seconds)
            else:
                raise ValueError(f"{text!r} is not a number of messages, a time, or one of each as in 100/5m")
        if messages is not None and not 1 <= messages <= MOST_MESSAGES:
            raise ValueError(f"{messages} messages is not between 1 and {MOST_MESSAGES}")
        return Keep(messages, seconds)


def since_of(query: str) -> Since | None:
    """What the query of a request asks for with ``since``; None: nothing. ValueError for what can't be read.

    ``since=`` or ``since=new``, ``since=all``, or ``since=EPOCH:OFFSET`` with commas between several.
    """
    if "since=" not in query:
        return None
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "since":
            return _parse_since(value)
    return None


def _parse_since(text: str) -> Since:
    if text in ("", "new"):
        return "new"
    if text == "all":
        return "all"
    words = text.split(",")
    if len(words) > MOST_POSITIONS:
        raise ValueError(f"since has more than {MOST_POSITIONS} positions")
    matches = [_POSITION.fullmatch(word) for word in words]
    if not all(matches):
        raise ValueError("since is new, all, or EPOCH:OFFSET as the server has told it")
    return [(match[1].encode(), min(int(match[2]), 2**63)) for match in matches if match]
