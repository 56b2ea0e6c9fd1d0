"""Channels as the bus names them: ``fastcast.`` and the channel's tokens, in what every engine accepts.

A channel ``prices.eur`` is the subject ``fastcast.prices.eur``, and ``/rooms/7`` is ``fastcast./rooms/7``.
What NATS forbids in a subject (blanks, control characters, stars and arrows within a token) is written with
a percent sign and two digits, as in URLs; so is the percent sign itself, and an empty token is ``%_``.
The subjects of the servers themselves begin otherwise: ``fastcast-all``, for one.
"""

from __future__ import annotations

import re
from typing import Final

from fastcast.channels import takes_in

__all__ = ["channel_of", "is_wild", "log_prefix", "own_subject", "subject_of", "takes_in"]

_ESCAPED: Final = re.compile(r"[\x00-\x20\x7f%*>]")
_ESCAPE: Final = re.compile(r"%([0-9A-F]{2})")
_EMPTY: Final = "%_"
_WILDCARDS: Final = ("*", ">")


def subject_of(prefix: str, channel: str) -> str:
    """The subject of a channel, or of a pattern, whose wildcards are those of NATS."""
    return ".".join((prefix, *map(_escape, channel.split("."))))


def channel_of(prefix: str, subject: str) -> str | None:
    """The channel that a message's subject stands for; None if that isn't one."""
    if not subject.startswith(prefix + "."):
        return None
    tokens = subject[len(prefix) + 1 :].split(".")
    channel = ".".join(map(_unescape, tokens))
    # Only what is written as we write it is a channel: no two subjects are the same one.
    wild = any(token in _WILDCARDS for token in tokens)
    return None if wild or subject_of(prefix, channel) != subject else channel


def own_subject(prefix: str, name: str) -> str:
    """A subject of the servers' own, which no channel has."""
    return f"{prefix}-{name}"


def log_prefix(prefix: str) -> str:
    """What stands before the tokens of a channel where its messages come from the broker's log."""
    return f"{prefix}-log"


def is_wild(subject: str) -> bool:
    """Whether a subject has wildcards."""
    return not set(_WILDCARDS).isdisjoint(subject.split("."))


def _escape(token: str) -> str:
    if token in _WILDCARDS:
        return token
    return _ESCAPED.sub(lambda found: f"%{ord(found[0]):02X}", token) or _EMPTY


def _unescape(token: str) -> str:
    return "" if token == _EMPTY else _ESCAPE.sub(lambda found: chr(int(found[1], 16)), token)
