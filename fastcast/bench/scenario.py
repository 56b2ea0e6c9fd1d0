"""What a run is told: each option declared once, for the command line and for the scenario file.

The load client itself is :mod:`fastcast._load`; :meth:`Scenario.load_options` says it in that module's words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from fastcast.errors import ConfigError
from fastcast.options import (
    MIB,
    TOKEN,
    Choice,
    Count,
    Duration,
    Kind,
    Number,
    Several,
    Size,
    Switch,
    declare,
    declared,
    gather,
)

_MOST: Final = 100_000_000
_RATE: Final = 1e8
_DAY: Final = 86400.0
_LONGEST: Final = 365 * _DAY

_DEFAULT_CONNECTIONS: Final = 1000
_DEFAULT_MESSAGES: Final = 10

# The request's own: a second one would make it a different request, or none (RFC 6455, section 4.1).
_OWN_HEADERS: Final = {
    "connection",
    "host",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "upgrade",
}

_HEADER: Final = re.compile(TOKEN.pattern + r":[ \t]*[\x20-\x7e\t]*")
_QUERY: Final = re.compile(r"[^=\s&#]+(=.*)?")
_SOURCE: Final = re.compile(r"[0-9A-Fa-f.:]+(/[0-9]{1,3}|-[0-9A-Fa-f.:]+)?")
_ARRIVAL: Final = re.compile(r"([0-9]{1,9})(?:@([0-9]{1,9}(?:\.[0-9]{1,9})?))?")

Arrival = tuple[int, float]
"""So many connections, at so many per second; 0 is as fast as the server takes them."""


@dataclass(frozen=True, slots=True)
class Url:
    """The address of a WebSocket server."""

    metavar: str = "URL"

    def parse(self, text: str) -> object:
        return text

    def check(self, value: object) -> object:
        if not isinstance(value, str):
            raise ValueError(f"expected a string, not {value!r}")
        if value.lower().startswith("wss://"):
            raise ValueError(
                "wss:// is not supported yet: measure the server behind the TLS proxy, with ws://"
            )
        if not value.lower().startswith("ws://") or not value.isascii() or not value.isprintable():
            raise ValueError(f"{value!r} is not a WebSocket address (write ws://HOST:PORT/PATH)")
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError:
            raise ValueError(f"{value!r} has no valid host and port") from None
        if not parts.hostname or port == 0 or parts.username is not None or " " in value:
            raise ValueError(f"{value!r} has no valid host and port")
        return value

    def show(self, value: Any) -> str:
        return str(value)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Phases of connecting: COUNT@RATE,... as a flag, a list of tables in a file."""

    metavar: str = "COUNT[@RATE],..."

    def parse(self, text: str) -> object:
        phases = []
        for item in text.split(","):
            match = _ARRIVAL.fullmatch(item.strip())
            if match is None:
                raise ValueError(f"{item.strip()!r} is not COUNT@RATE (such as 1000@50) or COUNT")
            phases.append((int(match[1]), float(match[2] or 0)))
        return tuple(phases)

    def check(self, value: object) -> object:
        if not isinstance(value, list | tuple):
            raise ValueError(f"expected a list of tables with count, rate and duration, not {value!r}")
        return tuple(_phase(item) for item in value)

    def show(self, value: Any) -> str:
        return ",".join(f"{count}@{rate:g}" if rate else str(count) for count, rate in value)


_PHASE: Final[Mapping[str, Kind]] = {
    "count": Count(1, _MOST),
    "rate": Number(_RATE),
    "duration": Duration(0.001, _DAY),
}


def _phase(item: object) -> Arrival:
    if isinstance(item, tuple | list) and len(item) == 2:
        item = dict(zip(("count", "rate"), item, strict=True))
    if not isinstance(item, Mapping) or not item.keys() <= _PHASE.keys():
        raise ValueError(f"expected a table with two of count, rate and duration, not {item!r}")
    given: dict[str, Any] = {}
    for name, value in item.items():
        try:
            given[name] = _PHASE[name].check(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    match given:
        case {"count": count, "rate": rate, **rest} if not rest:
            return count, rate
        case {"count": count, "duration": seconds, **rest} if not rest:
            return count, count / seconds
        case {"rate": rate, "duration": seconds} if len(given) == 2 and rate * seconds >= 1:
            return round(rate * seconds), rate
        case {"count": count} if len(given) == 1:
            return count, 0.0
    raise ValueError(f"a phase is told by its count, or by two of count, rate and duration, not by {item!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A run; values are checked, and immutable once the object exists.

    Sizes and durations may be given as strings with units as well; the attributes are always bytes and
    seconds. Raises :exc:`~fastcast.errors.ConfigError` for a value that has the wrong type, lies outside its
    limits, or contradicts another one.
    """

    url: str = field(
        default="",
        metadata=declare(Url(), "Target", "The server, as ws://HOST:PORT/PATH.") | {"argument": True},
    )
    connections: int | None = field(
        default=None,
        metadata=declare(
            Count(1, _MOST, auto=True),
            "Connections",
            "Connections to hold at a time; auto is the sum of the arrivals, or 1000.",
        ),
    )
    connect_rate: float = field(
        default=0.0,
        metadata=declare(
            Number(_RATE, "PER_SECOND"),
            "Connections",
            "Connections to open per second; 0 is as fast as it goes.",
        ),
    )
    connect_window: int = field(
        default=256,
        metadata=declare(Count(1, 65536), "Connections", "Handshakes that may be under way at once."),
    )
    arrivals: tuple[Arrival, ...] = field(
        default=(),
        metadata=declare(
            Arrivals(),
            "Connections",
            "Phases of connecting instead of one: 1000@50,5000 is 1000 at 50 per second, then 5000 as fast as"
            " it goes.",
        ),
    )
    settle: float = field(
        default=0.2,
        metadata=declare(
            Duration(0, _DAY), "Connections", "Time between the last connection and the first message."
        ),
    )
    hold: float = field(
        default=0.0,
        metadata=declare(
            Duration(0, _DAY), "Connections", "Time to keep the connections after the messages."
        ),
    )
    churn: float = field(
        default=0.0,
        metadata=declare(
            Number(_RATE, "PER_SECOND"),
            "Connections",
            "Connections closed and opened anew per second while messages flow.",
        ),
    )
    stalled: int = field(
        default=0,
        metadata=declare(Count(0, _MOST), "Connections", "Connections that never read what they are sent."),
    )
    retry: float = field(
        default=0.0,
        metadata=declare(
            Duration(0.001, _DAY, zero=True),
            "Connections",
            "A connection that fails or is lost tries again after a random time up to this, which doubles"
            " from try to try; 0 is never.",
        ),
    )
    storm: bool = field(
        default=False,
        metadata=declare(
            Switch(),
            "Connections",
            "Before the messages, drop all connections at once, and have all connect again at once.",
        ),
    )
    storm_reset: bool = field(
        default=False,
        metadata=declare(
            Switch(), "Connections", "Drop them as a machine that vanishes does, with RST instead of FIN."
        ),
    )
    messages: int | None = field(
        default=None,
        metadata=declare(
            Count(0, 4_000_000_000, auto=True),
            "Messages",
            "Messages of each sender; auto is 10, or none with --expect any.",
        ),
    )
    senders: int = field(
        default=1, metadata=declare(Count(1, _MOST), "Messages", "Connections that send messages.")
    )
    rate: float = field(
        default=0.0,
        metadata=declare(
            Number(_RATE, "PER_SECOND"),
            "Messages",
            "Open loop: messages per second of all senders together, sent when they are due, whatever the"
            " server does. 0 is a closed loop: the next message follows the delivery of one before.",
        ),
    )
    in_flight: int = field(
        default=1,
        metadata=declare(
            Count(1, 65536), "Messages", "Closed loop: a sender's messages that not everyone has yet."
        ),
    )
    think: float = field(
        default=0.0,
        metadata=declare(
            Duration(0.000001, _DAY, zero=True),
            "Messages",
            "Closed loop: pause of a sender before its next message, random with this mean.",
        ),
    )
    think_fixed: bool = field(
        default=False, metadata=declare(Switch(), "Messages", "Each pause is as long as --think says.")
    )
    size: int = field(default=128, metadata=declare(Size(32, 256 * MIB), "Messages", "Bytes of a message."))
    text: bool = field(
        default=False,
        metadata=declare(Switch(negative="--binary"), "Messages", "Messages are text, of at least 64 bytes."),
    )
    expect: str = field(
        default="all",
        metadata=declare(
            Choice(("all", "sender", "any"), "WHO"),
            "Messages",
            "Who gets a message: all (a broadcast), sender (an echo); any: whatever the server publishes of"
            " itself is counted during --hold.",
        ),
    )
    subprotocol: tuple[str, ...] = field(
        default=(),
        metadata=declare(
            Several(TOKEN, "a subprotocol name (letters, digits and !#$%&'*+-.^_`|~)", "NAME"),
            "Handshake",
            "Subprotocol to offer; may be repeated.",
        ),
    )
    header: tuple[str, ...] = field(
        default=(),
        metadata=declare(
            Several(_HEADER, "a header (write 'Name: value')", "HEADER"),
            "Handshake",
            "Header to add to each request, as 'Name: value'; may be repeated.",
        ),
    )
    query: tuple[str, ...] = field(
        default=(),
        metadata=declare(
            Several(_QUERY, "a parameter (write name=value)", "NAME=VALUE"),
            "Handshake",
            "Parameter to add to the URL's query; may be repeated.",
        ),
    )
    source: tuple[str, ...] = field(
        default=(),
        metadata=declare(
            Several(_SOURCE, "an address, a range A-B or a network A/N", "ADDRESS"),
            "Machine",
            "Address to connect from, as an address, a range 10.0.0.2-10.0.0.9 or a network 10.0.0.0/24; may"
            " be repeated. To a server on loopback, addresses are found without it.",
        ),
    )
    threads: int | None = field(
        default=None,
        metadata=declare(
            Count(1, 256, auto=True),
            "Machine",
            "Threads of the load client; auto is two, or as many as the descriptor limit asks for.",
        ),
    )
    server_pid: int = field(
        default=0,
        metadata=declare(
            Count(0, 2**31 - 1, "PID"),
            "Machine",
            "Process whose CPU and memory are measured, on this machine; 0 is none. With agents it is one of"
            " the first agent's machine.",
        ),
    )
    handshake_timeout: float = field(
        default=30.0,
        metadata=declare(Duration(0.01, _DAY), "Handshake", "Time for one attempt to connect."),
    )
    patience: float = field(
        default=10.0,
        metadata=declare(
            Duration(0.01, _DAY), "Machine", "Give up on the messages after this long without a delivery."
        ),
    )
    timeout: float = field(
        default=0.0,
        metadata=declare(
            Duration(0.01, _LONGEST, zero=True),
            "Machine",
            "Time for connecting, the storm and the messages together; 0 is ample for what the other options"
            " ask for.",
        ),
    )

    def __post_init__(self) -> None:
        values = {option.name: option.check(getattr(self, option.name), option.name) for option in OPTIONS}
        _check_together(values, {})
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def load(cls, flags: Mapping[str, object], file: Path | None = None) -> Scenario:
        """The run that flags and a TOML file together ask for; no variables, because runs are not services.

        Raises :exc:`~fastcast.errors.ConfigError`, which names the option as it was written.
        """
        values, spelling = gather(OPTIONS, flags, {}, file)
        if "url" not in values:
            raise ConfigError("there is no URL: write ws://HOST:PORT/PATH, or url = in the scenario file")
        _check_together({option.name: option.default for option in OPTIONS} | values, spelling)
        return cls(**values)

    @property
    def connection_count(self) -> int:
        """Connections at a time: ``connections``, or what auto comes to."""
        return _connections(self.connections, self.arrivals)

    @property
    def message_count(self) -> int:
        """Messages of each sender: ``messages``, or what auto comes to."""
        if self.messages is not None:
            return self.messages
        return 0 if self.expect == "any" else _DEFAULT_MESSAGES

    @property
    def timeout_seconds(self) -> float:
        """Seconds for connecting, the storm and the messages: ``timeout``, or what is ample.

        A run that is stuck ends by its patience long before.
        """
        if self.timeout:
            return self.timeout
        phases = self.arrivals or ((self.connection_count, self.connect_rate),)
        connecting = sum(count / (rate or 100) for count, rate in phases)
        messages = self.message_count * self.senders
        receivers = self.connection_count if self.expect == "all" else 1
        sending = messages / self.rate if self.rate else self.message_count * self.think * 2
        storm = self.connection_count / 100 if self.storm else 0
        delivering = messages * receivers / 5000
        return min(120 + 2 * (connecting + storm + sending) + delivering, _LONGEST)

    def load_options(self) -> dict[str, object]:
        """The options of :func:`fastcast._load.run`."""
        address = self.url.partition("#")[0]
        query = urlencode([(name, value) for name, _, value in (item.partition("=") for item in self.query)])
        if query:
            address += ("&" if "?" in address else "?") + query
        options: dict[str, object] = {
            "url": address,
            "connections": self.connection_count,
            "connect_rate": self.connect_rate,
            "connect_window": self.connect_window,
            "senders": self.senders,
            "messages": self.message_count,
            "in_flight": self.in_flight,
            "rate": self.rate,
            "size": self.size,
            "text": self.text,
            "think": self.think,
            "think_fixed": self.think_fixed,
            "expect": self.expect,
            "stalled": self.stalled,
            "churn": self.churn,
            "retry": self.retry,
            "storm": self.storm,
            "storm_reset": self.storm_reset,
            "handshake_timeout": self.handshake_timeout,
            "hold": self.hold,
            "settle": self.settle,
            "timeout": self.timeout_seconds,
            "patience": self.patience,
            "server_pid": self.server_pid,
            "threads": self.threads or 0,
        }
        if self.arrivals:
            options["arrivals"] = [list(phase) for phase in self.arrivals]
        if self.source:
            options["sources"] = ",".join(self.source)
        if self.header:
            options["headers"] = "".join(f"{line}\r\n" for line in self.header)
        if self.subprotocol:
            options["subprotocol"] = ", ".join(self.subprotocol)
        return options


OPTIONS: Final = declared(Scenario)
"""All options, in the order in which the help text shows them."""


def _connections(connections: int | None, arrivals: tuple[Arrival, ...]) -> int:
    if connections is not None:
        return connections
    return sum(count for count, _ in arrivals) or _DEFAULT_CONNECTIONS


def _check_together(values: Mapping[str, Any], spelling: Mapping[str, str]) -> None:
    def fail(name: str, problem: str) -> None:
        raise ConfigError(f"{spelling.get(name, name)}: {problem}")

    connections = _connections(values["connections"], values["arrivals"])
    if values["arrivals"]:
        arriving = sum(count for count, _ in values["arrivals"])
        if arriving != connections:
            fail("arrivals", f"they are {arriving} connections, and {connections} are asked for")
        if values["connect_rate"]:
            fail("connect_rate", "the arrivals have rates of their own")
    if values["senders"] > connections:
        fail("senders", f"{values['senders']} senders are more than the {connections} connections")
    if values["stalled"] > connections - values["senders"]:
        fail("stalled", "the senders and those who stall are more than the connections")
    if values["text"] and values["size"] < 64:
        fail("size", "a text message has at least 64 bytes")
    if values["rate"] and values["think"]:
        fail("think", "a pause belongs to a closed loop, and a rate to an open one")
    if values["think_fixed"] and not values["think"]:
        fail("think_fixed", "there is no pause to be fixed (see think)")
    if values["expect"] == "any":
        for name, unsaid in (("messages", 0), ("rate", 0), ("think", 0), ("senders", 1)):
            if (values[name] or 0) > unsaid:
                fail(name, "the server publishes, and clients send no messages (see expect)")
    if values["storm_reset"] and not values["storm"]:
        fail("storm_reset", "there is no storm (see storm)")
    for header in values["header"]:
        name = header.partition(":")[0]
        if name.lower() in _OWN_HEADERS:
            fail("header", f"{name} belongs to the handshake itself")
