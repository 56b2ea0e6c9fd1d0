"""Configuration: each option is declared once, as a field of :class:`Config`.

The field ``max_queue`` is the keyword ``Config(max_queue=...)``, the flag ``--max-queue``, the variable
``FASTCAST_MAX_QUEUE`` and the key ``max_queue`` of the TOML file. A flag wins over a variable, a variable
over the file, the file over the default.

Units
    Sizes are bytes: a whole number, or a string such as ``"64KiB"`` or ``"1.5MiB"``. ``KB``, ``MB`` and
    ``GB`` are powers of 1000; ``KiB``, ``MiB`` and ``GiB`` are powers of 1024; upper and lower case are the
    same. A bare ``k`` or ``m`` is refused, because programs disagree on which of the two it means.

    Durations are seconds: a number, or a string such as ``"500ms"``, ``"20s"``, ``"1.5m"`` or ``"1h"``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Protocol

from fastcast.errors import ConfigError

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

HEADROOM: Final = 64 * KIB
"""Bytes beyond one message of the largest size that may always wait for a client, for frame headers and small
messages: without it a single large message would cut off every client that does not take it whole at once."""

# The digits are bounded, so that no input reaches the interpreter's own limit on converting long numbers.
_QUANTITY: Final = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,9}))?\s*([a-z]*)", re.ASCII | re.IGNORECASE)
_BYTES: Final = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": KIB,
    "mib": MIB,
    "gib": GIB,
}
_MILLISECONDS: Final = {"": 1000, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}

# RFC 9110, section 5.6.2: a subprotocol is a token (RFC 6455, section 4.1).
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# RFC 6454, section 6.2: no path, no user, and a host that is already in its ASCII form.
_ORIGIN: Final = re.compile(
    r"\*|null|[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.ASCII | re.IGNORECASE
)
_LOG_LEVELS: Final = ("debug", "info", "warning", "error")
_WORDS: Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def parse_size(text: str) -> int:
    """Bytes from ``text`` (``"65536"``, ``"64KiB"``, ``"2GB"``); :exc:`ValueError` if it is not a size."""
    numerator, denominator = _exact(text, _BYTES, "a size (write 65536, 64KiB, 1.5MiB or 2GB)")
    size, rest = divmod(numerator, denominator)
    if rest:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return size


def parse_duration(text: str) -> float:
    """Seconds from ``text`` (``"20"``, ``"500ms"``, ``"1.5m"``); :exc:`ValueError` if it is no duration."""
    numerator, denominator = _exact(text, _MILLISECONDS, "a duration (write 500ms, 20s, 1.5m or 1h)")
    return numerator / (denominator * 1000)


def _exact(text: str, units: Mapping[str, int], what: str) -> tuple[int, int]:
    """The quantity in ``text`` as a fraction, because a float would round what is written in decimals."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[3].lower() not in units:
        raise ValueError(f"{text!r} is not {what}")
    decimals = match[2] or ""
    return int(match[1] + decimals) * units[match[3].lower()], int(10 ** len(decimals))


def format_size(size: int) -> str:
    """``size`` bytes in the largest binary unit that divides it: what :func:`parse_size` reads back."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit}{name}"
    return str(size)


def format_duration(seconds: float) -> str:
    """``seconds`` in the largest unit that divides it: what :func:`parse_duration` reads back."""
    for unit, name in ((3600, "h"), (60, "m"), (1, "s")):
        if seconds and seconds % unit == 0:
            return f"{seconds / unit:.0f}{name}"
    return f"{seconds:g}s"


class Kind(Protocol):
    """What the values of an option are; ``parse`` and ``check`` raise :exc:`ValueError` saying why not."""

    @property
    def metavar(self) -> str:
        """The placeholder for a value in the help text."""

    def parse(self, text: str) -> object:
        """The value that a flag or a variable spells; it has yet to be checked."""

    def check(self, value: object) -> object:
        """``value`` as the configuration keeps it, if it has the right type and lies within its limits."""

    def show(self, value: Any) -> str:
        """A checked value as ``parse`` would read it; empty if there is nothing to show."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string that is not empty."""

    metavar: str

    def parse(self, text: str) -> object:
        return text

    def check(self, value: object) -> object:
        if not isinstance(value, str):
            raise ValueError(f"expected a string, not {value!r}")
        if not value.strip() or not value.isprintable():
            raise ValueError(f"{value!r} is empty or not printable")
        return value

    def show(self, value: Any) -> str:
        return str(value)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words, in either case."""

    words: tuple[str, ...]
    metavar: str

    def parse(self, text: str) -> object:
        return text

    def check(self, value: object) -> object:
        if not isinstance(value, str) or value.lower() not in self.words:
            raise ValueError(f"{value!r} is not one of {', '.join(self.words)}")
        return value.lower()

    def show(self, value: Any) -> str:
        return str(value)


@dataclass(frozen=True, slots=True)
class Switch:
    """Yes or no."""

    metavar: str = ""

    def parse(self, text: str) -> object:
        return _WORDS.get(text.strip().lower(), text)

    def check(self, value: object) -> object:
        if not isinstance(value, bool):
            raise ValueError(f"expected true or false, not {value!r}")
        return value

    def show(self, value: Any) -> str:
        return "on" if value else "off"


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number from ``low`` to ``high``; with ``auto``, also None (``auto``): the server chooses."""

    low: int
    high: int
    metavar: str = "N"
    auto: bool = False

    def parse(self, text: str) -> object:
        digits = text.strip()
        if not re.fullmatch(r"-?[0-9]{1,15}", digits):
            return digits
        return int(digits)

    def check(self, value: object) -> object:
        if self.auto and (value is None or value == "auto"):
            return None
        # bool is a subclass of int, and `port = true` is a mistake.
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"expected a whole number{' or auto' if self.auto else ''}, not {value!r}")
        if not self.low <= value <= self.high:
            raise ValueError(f"{value} is not between {self.low} and {self.high}")
        return value

    def show(self, value: Any) -> str:
        return "auto" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes, from ``low`` to ``high``; with ``auto``, also None (``auto``): it follows from other options."""

    low: int
    high: int
    metavar: str = "SIZE"
    auto: bool = False

    def parse(self, text: str) -> object:
        return text if self.auto and text == "auto" else parse_size(text)

    def check(self, value: object) -> object:
        if self.auto and (value is None or value == "auto"):
            return None
        if isinstance(value, str):
            value = parse_size(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"expected a size in bytes or a string such as '64KiB', not {value!r}")
        if not self.low <= value <= self.high:
            raise ValueError(
                f"{value} bytes is not between {format_size(self.low)} and {format_size(self.high)}"
            )
        return value

    def show(self, value: Any) -> str:
        return "auto" if value is None else format_size(value)


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds, from ``low`` to ``high``; with ``zero``, also 0, whose meaning the option's help tells."""

    low: float
    high: float
    zero: bool = False
    metavar: str = "TIME"

    def parse(self, text: str) -> object:
        return parse_duration(text)

    def check(self, value: object) -> object:
        if isinstance(value, str):
            value = parse_duration(value)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"expected a number of seconds or a string such as '20s', not {value!r}")
        # Written so that NaN, for which every comparison is false, is refused as well.
        if not (self.low <= value <= self.high or (self.zero and value == 0)):
            zero = "0 or " if self.zero else ""
            limits = f"{format_duration(self.low)} and {format_duration(self.high)}"
            raise ValueError(f"{value:g} seconds is not {zero}between {limits}")
        return float(value)

    def show(self, value: Any) -> str:
        return format_duration(value)


@dataclass(frozen=True, slots=True)
class Several:
    """Any number of strings of one form: a flag that may be repeated, a list, or commas in a variable."""

    form: re.Pattern[str]
    what: str
    metavar: str

    def parse(self, text: str) -> object:
        return [item for item in map(str.strip, text.split(",")) if item]

    def check(self, value: object) -> object:
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"expected a list of strings, not {value!r}")
        for item in value:
            if not self.form.fullmatch(item):
                raise ValueError(f"{item!r} is not {self.what}")
        return tuple(value)

    def show(self, value: Any) -> str:
        return ", ".join(value)


def _option(kind: Kind, group: str, text: str) -> dict[str, object]:
    return {"kind": kind, "group": group, "help": text}


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
        metadata=_option(Text("ADDRESS"), "Listening", "Address or host name to listen on."),
    )
    port: int = field(
        default=8000,
        metadata=_option(Count(0, 65535, "PORT"), "Listening", "TCP port to listen on; 0 picks a free one."),
    )
    shards: int | None = field(
        default=None,
        metadata=_option(
            Count(1, 1024, auto=True),
            "Listening",
            "Threads that own the clients; auto follows the processors.",
        ),
    )
    io: str = field(
        default="auto",
        metadata=_option(
            Choice(("auto", "epoll", "uring"), "BACKEND"),
            "Listening",
            "How the kernel is asked: epoll, uring (io_uring for sends), or auto, which is uring where the"
            " kernel allows it.",
        ),
    )
    page: bool = field(
        default=True,
        metadata=_option(Switch(), "Listening", "Serve a chat page at / to browsers."),
    )
    origin: tuple[str, ...] = field(
        default=(),
        metadata=_option(
            Several(_ORIGIN, "an origin (write https://example.org, without a path)", "ORIGIN"),
            "Admission",
            "Admit only browsers on pages of this origin, such as https://example.org; may be repeated."
            " Without it, every origin is admitted.",
        ),
    )
    subprotocol: tuple[str, ...] = field(
        default=(),
        metadata=_option(
            Several(_TOKEN, "a subprotocol name (letters, digits and !#$%&'*+-.^_`|~)", "NAME"),
            "Admission",
            "Subprotocol to agree to when a client offers it; may be repeated, the preferred one first.",
        ),
    )
    max_connections: int | None = field(
        default=None,
        metadata=_option(
            Count(1, 100_000_000, auto=True),
            "Limits",
            "Clients at a time; auto is as many as the file descriptor limits of the shards hold."
            " More are answered with status 503.",
        ),
    )
    max_message: int = field(
        default=MIB,
        metadata=_option(Size(1, GIB), "Limits", "Bytes in one message; a longer one closes the connection."),
    )
    max_queue: int | None = field(
        default=None,
        metadata=_option(
            Size(1, 1024 * GIB, auto=True),
            "Limits",
            "Bytes that may wait for one client; a slower one is disconnected, but for a single message"
            " of any size. auto is 4MiB, or room for two messages of the largest size if that is more.",
        ),
    )
    max_backlog: int | None = field(
        default=None,
        metadata=_option(
            Size(1, 1024 * GIB, auto=True),
            "Limits",
            "Bytes of messages alive in the whole process; near the limit nothing more is read from clients,"
            " at the limit those who lag are disconnected. auto is 256MiB, or eight messages of the largest"
            " size if that is more.",
        ),
    )
    flush_interval: float = field(
        default=0.0,
        metadata=_option(
            Duration(0.001, 60, zero=True),
            "Time limits",
            "Least time between two writes to a client: what is published in between goes out together, for"
            " less CPU at the price of that delay. 0 delays nothing.",
        ),
    )
    handshake_timeout: float = field(
        default=10.0,
        metadata=_option(
            Duration(0.01, 3600), "Time limits", "Time for a client to send its complete request."
        ),
    )
    ping_interval: float = field(
        default=20.0,
        metadata=_option(
            Duration(0.01, 86400, zero=True),
            "Time limits",
            "Silence after which a client is pinged; 0 is never.",
        ),
    )
    ping_timeout: float = field(
        default=20.0,
        metadata=_option(Duration(0.01, 86400), "Time limits", "Time for a client to answer a ping."),
    )
    close_timeout: float = field(
        default=5.0,
        metadata=_option(Duration(0.01, 3600), "Time limits", "Time for a client to answer a close."),
    )
    shutdown_timeout: float = field(
        default=30.0,
        metadata=_option(
            Duration(0.01, 86400, zero=True),
            "Time limits",
            "Time over which clients are let go at SIGTERM or SIGINT; 0 is at once.",
        ),
    )
    log_level: str = field(
        default="info",
        metadata=_option(
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
        settings = {} if file is None else _read(file)
        values: dict[str, Any] = {}
        spelling: dict[str, str] = {}
        for option in OPTIONS:
            name = option.name
            flag = flags.get(name)
            if flag is not None and flag != ():
                spelling[name] = option.flag
                values[name] = option.parse(flag, option.flag) if isinstance(flag, str) else flag
            elif text := environ.get(option.variable):
                spelling[name] = option.variable
                values[name] = option.parse(text, option.variable)
            elif name in settings:
                spelling[name] = f"{file}: {name}"
                values[name] = settings[name]
            else:
                continue
            values[name] = option.check(values[name], spelling[name])
        _check_together({option.name: option.default for option in OPTIONS} | values, spelling)
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Option:
    """One field of :class:`Config`, and how it is spelt outside of Python."""

    name: str
    kind: Kind
    default: Any
    group: str
    help: str

    @property
    def flag(self) -> str:
        """The command line's name for it, with its dashes."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment's name for it."""
        return "FASTCAST_" + self.name.upper()

    def parse(self, text: str, spelled: str) -> object:
        """What ``text`` means; :exc:`ConfigError` says what ``spelled`` does wrong."""
        try:
            return self.kind.parse(text)
        except ValueError as error:
            raise ConfigError(f"{spelled}: {error}") from None

    def check(self, value: object, spelled: str) -> object:
        """``value`` as :class:`Config` keeps it; :exc:`ConfigError` says what ``spelled`` does wrong."""
        try:
            return self.kind.check(value)
        except ValueError as error:
            raise ConfigError(f"{spelled}: {error}") from None


OPTIONS: Final = tuple(
    Option(name=item.name, default=item.default, **item.metadata) for item in fields(Config)
)
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


def _read(file: Path) -> dict[str, object]:
    # Most starts have no file, and need not pay for the imports.
    import difflib
    import tomllib

    try:
        with file.open("rb") as stream:
            settings = tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None
    names = [option.name for option in OPTIONS]
    for key in settings:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigError(f"{file}: unknown option {key!r}{hint}")
    return settings
