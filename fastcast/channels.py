"""Names of channels, patterns of names, and the rules that an option gives for them.

A name is any string that isn't empty, ``"/rooms/7"`` for one. What stands between its dots are tokens. A
pattern is a name with the token ``*``, which is any one token, or with ``>`` as its last one, which is one or
more, as in NATS: ``prices.*`` takes in ``prices.eur``, ``prices.>`` takes in ``prices.eur.spot`` as well, and
both leave out ``prices``. A star within a token, as in ``prices*``, is a star.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from fastcast.history import History, Keep
from fastcast.options import GIB, Choice, Count, Kind, Size

MOST_BYTES: Final = 1024
"""Of a name, in UTF-8; FC_TOPIC_MAX in core/topic.h."""

MOST_RULES: Final = 254
"""FC_RULES_MAX in core/fastcast.h, but for the rule that holds where no other does."""

POLICIES: Final = ("close", "drop-oldest", "drop-newest", "latest")
"""What may become of a client, or of its messages, when too much waits for it."""


def is_pattern(name: str) -> bool:
    """Whether the name stands for many."""
    if "*" not in name and ">" not in name:
        return False
    return not {"*", ">"}.isdisjoint(name.split("."))


def check_subscription(name: object) -> str:
    """``name`` if one can subscribe to it, a name or a pattern; TypeError or ValueError says why not."""
    if not isinstance(name, str):
        raise TypeError(f"a channel is a str, not {type(name).__name__}")
    size = len(name.encode())
    if size == 0:
        raise ValueError("the name of a channel is empty")
    if size > MOST_BYTES:
        raise ValueError(f"the name of a channel has {size} bytes, more than {MOST_BYTES}")
    if ">" in name.split(".")[:-1]:
        raise ValueError(f"{name!r} has a '>' that isn't its last token")
    return name


def check_name(name: object) -> str:
    """``name`` if one can publish to it; TypeError or ValueError says why not: a pattern, for one."""
    checked = check_subscription(name)
    if is_pattern(checked):
        raise ValueError(f"{checked!r} is a pattern: a message goes to one channel")
    return checked


def takes_in(pattern: str, name: str) -> bool:
    """Whether a pattern, or name, takes in a name."""
    wanted, tokens = pattern.split("."), name.split(".")
    if wanted[-1] == ">":
        del wanted[-1]
        if len(tokens) <= len(wanted):
            return False
    elif len(tokens) != len(wanted):
        return False
    return all(want in ("*", token) for want, token in zip(wanted, tokens, strict=False))


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for some channels, and for clients that lag behind their messages; None is what holds
    elsewhere."""

    channels: str
    slow: str | None = None
    max_queue: int | None = None
    max_queue_messages: int | None = None
    history: Keep | None = None

    def __str__(self) -> str:
        """The rule as :func:`parse_rule` reads it."""
        words = [self.channels]
        for name, kind in SETTINGS.items():
            value = getattr(self, name)
            if value is not None:
                words.append(f"{name}={kind.show(value)}")
        return " ".join(words)


SETTINGS: Final[Mapping[str, Kind]] = {
    "slow": Choice(POLICIES, "POLICY"),
    "max_queue": Size(1, 1024 * GIB),
    "max_queue_messages": Count(1, 1_000_000_000),
    "history": History(),
}
"""What a rule may set. The options of the same names hold where no rule does."""

assert ("channels", *SETTINGS) == tuple(field.name for field in fields(Rule))


def make_rule(channels: object, settings: object) -> Rule:
    """A rule for a name or pattern, with its settings by name; ValueError says what is wrong."""
    try:
        name = check_subscription(channels)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if not isinstance(settings, Mapping):
        raise ValueError(f"{name!r}: expected settings by name, not {settings!r}")
    checked: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in SETTINGS:
            raise ValueError(f"{name!r}: there is no setting {key!r} ({', '.join(SETTINGS)})")
        try:
            checked[key] = SETTINGS[key].check(value)
        except ValueError as error:
            raise ValueError(f"{name!r}: {key}: {error}") from None
    return Rule(name, **checked)


def parse_rule(text: str) -> Rule:
    """``"prices.* slow=latest max_queue=64KiB"``, whose name has no blanks; ValueError says what is wrong."""
    name, *words = text.split() or [""]
    settings: dict[str, object] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in SETTINGS or key in settings:
            raise ValueError(f"{text!r}: expected settings such as slow=latest behind the name, not {word!r}")
        try:
            settings[key] = SETTINGS[key].parse(value)
        except ValueError as error:
            raise ValueError(f"{name!r}: {key}: {error}") from None
    return make_rule(name, settings)


@dataclass(frozen=True, slots=True)
class Rules:
    """The kind of an option: rules in the order in which they are looked at.

    A list of strings, as :func:`parse_rule` reads them, or settings by name or pattern:
    ``{"prices.*": {"slow": "latest"}}``. A flag may be repeated; in a variable, commas separate the rules.
    """

    metavar: str = "RULE"

    def parse(self, text: str) -> object:
        return [item for item in map(str.strip, text.split(",")) if item]

    def check(self, value: object) -> tuple[Rule, ...]:
        if isinstance(value, Mapping):
            rules = [make_rule(name, settings) for name, settings in value.items()]
        elif isinstance(value, list | tuple):
            rules = [self._rule_of(item) for item in value]
        else:
            raise ValueError(f"expected a list of rules, or settings by channel, not {value!r}")
        if len(rules) > MOST_RULES:
            raise ValueError(f"{len(rules)} rules are more than {MOST_RULES}")
        return tuple(rules)

    def show(self, value: tuple[Rule, ...]) -> str:
        return ", ".join(map(str, value))

    @staticmethod
    def _rule_of(item: object) -> Rule:
        if isinstance(item, Rule):
            return item
        if isinstance(item, str):
            return parse_rule(item)
        raise ValueError(f"expected a rule such as 'prices.* slow=latest', not {item!r}")
