"""What an option is: declared once, as a field of a dataclass, and known by one name everywhere.

The field ``max_queue`` is a keyword of its dataclass, the flag ``--max-queue``, and the key ``max_queue`` of
a TOML file; where variables are read, it is ``FASTCAST_MAX_QUEUE``. A flag wins over a variable, a variable
over the file, the file over the default.

Units
    Sizes are bytes: a whole number, or a string such as ``"64KiB"`` or ``"1.5MiB"``. ``KB``, ``MB`` and
    ``GB`` are powers of 1000; ``KiB``, ``MiB`` and ``GiB`` are powers of 1024; upper and lower case are the
    same. A bare ``k`` or ``m`` is refused, because programs disagree on which of the two it means.

    Durations are seconds: a number, or a string such as ``"500ms"``, ``"20s"``, ``"1.5m"`` or ``"1h"``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Protocol

from fastcast.errors import ConfigError

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, section 5.6.2: what the names of headers and of subprotocols are (RFC 6455, section 4.1)."""

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
class Optional:
    """A string that is not empty, or None where nothing was given; never shown where it is ``secret``."""

    metavar: str
    secret: bool = False

    def parse(self, text: str) -> object:
        return text

    def check(self, value: object) -> object:
        if value is None or value == "":
            return None
        # What is wrong with a secret must not show the secret.
        shown = "the value" if self.secret else repr(value)
        if not isinstance(value, str):
            raise ValueError(f"expected a string, not {type(value).__name__ if self.secret else shown}")
        if not value.strip() or not value.isprintable():
            raise ValueError(f"{shown} is empty or not printable")
        return value

    def show(self, value: Any) -> str:
        return "" if value is None or self.secret else str(value)


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
    """Yes or no; ``negative`` is the flag that says no, if it has a name of its own."""

    metavar: str = ""
    negative: str = ""

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
class Number:
    """A number, whole or not, from 0 to ``high``; what 0 means, the option's help tells."""

    high: float
    metavar: str = "N"

    def parse(self, text: str) -> object:
        if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,9})?", text.strip(), re.ASCII):
            return text
        return float(text)

    def check(self, value: object) -> object:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"expected a number, not {value!r}")
        # Written so that NaN, for which every comparison is false, is refused as well.
        if not 0 <= value <= self.high:
            raise ValueError(f"{value:g} is not between 0 and {self.high:g}")
        return float(value)

    def show(self, value: Any) -> str:
        return f"{value:g}"


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


@dataclass(frozen=True, slots=True)
class Option:
    """One field of a dataclass of options, and how it is spelt outside of Python."""

    name: str
    kind: Kind
    default: Any
    group: str
    help: str
    argument: bool = False

    @property
    def flag(self) -> str:
        """The command line's name for it: with dashes, or in capitals if it is an argument without a flag."""
        return self.name.upper() if self.argument else "--" + self.name.replace("_", "-")

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
        """``value`` as the dataclass keeps it; :exc:`ConfigError` says what ``spelled`` does wrong."""
        try:
            return self.kind.check(value)
        except ValueError as error:
            raise ConfigError(f"{spelled}: {error}") from None


def declare(kind: Kind, group: str, text: str) -> dict[str, object]:
    """The metadata of a field that is an option: what its values are, the heading in the help, the help."""
    return {"kind": kind, "group": group, "help": text}


def declared(owner: type) -> tuple[Option, ...]:
    """All options of a dataclass, in the order in which the help text shows them."""
    return tuple(Option(name=item.name, default=item.default, **item.metadata) for item in fields(owner))


def gather(
    options: Sequence[Option],
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    file: Path | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """The values that flags, variables and a TOML file give, and how each of them was spelt.

    ``flags`` is keyed by option name; a value may be text or of the option's own type, and None or an empty
    tuple means that the flag was not given. An empty variable counts as not set.

    Raises :exc:`~fastcast.errors.ConfigError`, which names the option as it was written: ``--max-queue``,
    ``FASTCAST_MAX_QUEUE``, or the file and its key.
    """
    settings = {} if file is None else _read(file, [option.name for option in options])
    values: dict[str, Any] = {}
    spelling: dict[str, str] = {}
    for option in options:
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
    return values, spelling


def _read(file: Path, names: Sequence[str]) -> dict[str, object]:
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
    for key in settings:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigError(f"{file}: unknown option {key!r}{hint}")
    return settings
