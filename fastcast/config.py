"""Configuration of the server: each option is declared once, as a field of :class:`Config`.

The names under which an option is known, and the units of its values, are those of :mod:`fastcast.options`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fastcast.errors import ConfigError
from fastcast.options import (
    GIB,
    KIB,
    MIB,
    TOKEN,
    Choice,
    Count,
    Duration,
    Several,
    Size,
    Switch,
    Text,
    declare,
    declared,
    format_size,
    gather,
)
from fastcast.shards import MOST_SHARDS

HEADROOM: Final = 64 * KIB
"""Bytes beyond one message of the largest size that may always wait for a client, for frame headers and small
messages: without it a single large message would cut off every client that does not take it whole at once."""

# RFC 6454, section 6.2: no path, no user, and a host that is already in its ASCII form; or "*." before a
# domain of two labels at least, for its subdomains.
_ORIGIN: Final = re.compile(
    r"\*|null|[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\*(?:\.[a-z0-9_-]+){2,}|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?",
    re.ASCII | re.IGNORECASE,
)
_LOG_LEVELS: Final = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a server is told; values are checked, and immutable once the object exists.

    Sizes and durations may be given as strings with units as well; the attributes are always bytes and
    seconds.

    Raises :exc:`~fastcast.errors.ConfigError` for a value that has the wrong type, lies outside its limits,
    or contradicts another one.
    """

    host: str = field(
        default="127.0.0.1",
        metadata=declare(Text("ADDRESS"), "Listening", "Address or host name to listen on."),
    )
    port: int = field(
        default=8000,
        metadata=declare(Count(0, 65535, "PORT"), "Listening", "TCP port to listen on; 0 picks a free one."),
    )
    shards: int | None = field(
        default=None,
        metadata=declare(
            Count(1, MOST_SHARDS, auto=True),
            "Listening",
            "Threads that own the clients; auto follows the processors.",
        ),
    )
    io: str = field(
        default="auto",
        metadata=declare(
            Choice(("auto", "epoll", "uring"), "BACKEND"),
            "Listening",
            "How the kernel is asked: epoll, uring (io_uring for sends), or auto, which is uring where the"
            " kernel allows it.",
        ),
    )
    page: bool = field(
        default=True,
        metadata=declare(Switch(), "Listening", "Serve a chat page at / to browsers."),
    )
    origin: tuple[str, ...] = field(
        default=(),
        metadata=declare(
            Several(_ORIGIN, "an origin (write https://example.org, without a path)", "ORIGIN"),
            "Admission",
            "Admit only browsers on pages of this origin, such as https://example.org, or"
            " https://*.example.org for all of its subdomains; may be repeated. Without it, every origin is"
            " admitted.",
        ),
    )
    subprotocol: tuple[str, ...] = field(
        default=(),
        metadata=declare(
            Several(TOKEN, "a subprotocol name (letters, digits and !#$%&'*+-.^_`|~)", "NAME"),
            "Admission",
            "Subprotocol to agree to when a client offers it; may be repeated, the preferred one first.",
        ),
    )
    max_connections: int | None = field(
        default=None,
        metadata=declare(
            Count(1, 100_000_000, auto=True),
            "Limits",
            "Clients at a time; auto is as many as the file descriptor limits of the shards hold."
            " More are answered with status 503.",
        ),
    )
    max_handshakes: int | None = field(
        default=None,
        metadata=declare(
            Count(1, 100_000_000, auto=True),
            "Limits",
            "Connections at a time whose handshake isn't complete; others wait in the kernel's backlog. auto"
            " is no limit but max_connections. Each shard gets its share, and at least one.",
        ),
    )
    max_message: int = field(
        default=MIB,
        metadata=declare(Size(1, GIB), "Limits", "Bytes in one message; a longer one closes the connection."),
    )
    max_queue: int | None = field(
        default=None,
        metadata=declare(
            Size(1, 1024 * GIB, auto=True),
            "Limits",
            "Bytes that may wait for one client; a slower one is disconnected, but for a single message"
            " of any size. auto is 4MiB, or room for two messages of the largest size if that is more.",
        ),
    )
    max_backlog: int | None = field(
        default=None,
        metadata=declare(
            Size(1, 1024 * GIB, auto=True),
            "Limits",
            "Bytes of messages alive in the whole process; near the limit nothing more is read from clients,"
            " at the limit those who lag are disconnected. auto is 256MiB, or eight messages of the largest"
            " size if that is more.",
        ),
    )
    flush_interval: float = field(
        default=0.0,
        metadata=declare(
            Duration(0.001, 60, zero=True),
            "Time limits",
            "Least time between two writes to a client: what is published in between goes out together, for"
            " less CPU at the price of that delay. 0 delays nothing.",
        ),
    )
    handshake_timeout: float = field(
        default=10.0,
        metadata=declare(
            Duration(0.01, 3600), "Time limits", "Time for a client to send its complete request."
        ),
    )
    ping_interval: float = field(
        default=20.0,
        metadata=declare(
            Duration(0.01, 86400, zero=True),
            "Time limits",
            "Silence after which a client is pinged; 0 is never.",
        ),
    )
    ping_timeout: float = field(
        default=20.0,
        metadata=declare(Duration(0.01, 86400), "Time limits", "Time for a client to answer a ping."),
    )
    close_timeout: float = field(
        default=5.0,
        metadata=declare(Duration(0.01, 3600), "Time limits", "Time for a client to answer a close."),
    )
    shutdown_timeout: float = field(
        default=30.0,
        metadata=declare(
            Duration(0.01, 86400, zero=True),
            "Time limits",
            "Time over which clients are let go at SIGTERM or SIGINT; 0 is at once.",
        ),
    )
    log_level: str = field(
        default="info",
        metadata=declare(
            Choice(_LOG_LEVELS, "LEVEL"),
            "Logging",
            f"Least severity that is logged: {', '.join(_LOG_LEVELS)}.",
        ),
    )

    def __post_init__(self) -> None:
        values = {option.name: option.check(getattr(self, option.name), option.name) for option in OPTIONS}
        _check_together(values, {})
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def queue_limit(self) -> int:
        """Bytes that may wait for one client: ``max_queue``, or what auto comes to."""
        if self.max_queue is not None:
            return self.max_queue
        return max(4 * MIB, 2 * (self.max_message + HEADROOM))

    @property
    def backlog_limit(self) -> int:
        """Bytes of messages that may be alive: ``max_backlog``, or what auto comes to."""
        if self.max_backlog is not None:
            return self.max_backlog
        return max(256 * MIB, 8 * (self.max_message + HEADROOM))

    @classmethod
    def load(
        cls, flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None
    ) -> Config:
        """The configuration that flags, variables and a TOML file together ask for.

        ``flags`` is keyed by option name; a value may be text or of the option's own type, and None or an
        empty tuple means that the flag was not given. An empty variable counts as not set.

        Raises :exc:`~fastcast.errors.ConfigError`, which names the option as it was written: ``--max-queue``,
        ``FASTCAST_MAX_QUEUE``, or the file and its key.
        """
        values, spelling = gather(OPTIONS, flags, environ, file)
        _check_together({option.name: option.default for option in OPTIONS} | values, spelling)
        return cls(**values)


OPTIONS: Final = declared(Config)
"""All options, in the order in which the help text shows them."""


def _check_together(values: Mapping[str, Any], spelling: Mapping[str, str]) -> None:
    message, backlog = values["max_message"], values["max_backlog"]
    # Otherwise a message of the largest size could be read from its sender, but never be passed on.
    if backlog is not None and backlog < message + HEADROOM:
        names = [spelling.get(name, name) for name in ("max_backlog", "max_message")]
        raise ConfigError(
            f"{names[0]}: {format_size(backlog)} is too little for {names[1]}, {format_size(message)}"
            f" (it takes {format_size(message + HEADROOM)})"
        )
