"""Configuration of the server: each option is declared once, as a field of :class:`Config`.

The names under which an option is known, and the units of its values, are those of :mod:`fastcast.options`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fastcast.channels import POLICIES, Rule, Rules
from fastcast.errors import ConfigError
from fastcast.options import (
    GIB,
    KIB,
    MIB,
    TOKEN,
    Choice,
    Count,
    Duration,
    Number,
    Optional,
    Several,
    Size,
    Switch,
    Text,
    declare,
    declared,
    format_size,
    gather,
)
from fastcast.proxies import NETWORKS
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
HMAC: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Algorithms of tokens that take a secret, and its least bytes (RFC 7518, sections 3.1 and 3.2)."""

SIGNATURES: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
"""Those that take a public key."""

PLACES: Final = ("query", "header", "cookie", "subprotocol")
"""Where a client may bring its token."""

RELAYS: Final = ("channel", "all", "off")
"""Where a client's message may go."""

LEAST_TOKEN: Final = 16
"""Characters of the admin port's token."""

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
    trusted_proxy: tuple[str, ...] = field(
        default=(),
        metadata=declare(
            NETWORKS,
            "Admission",
            "Address or network of a proxy whose word counts on where clients connect from: Forwarded,"
            " X-Forwarded-For and -Proto, or a PROXY header; may be repeated.",
        ),
    )
    proxy_protocol: bool = field(
        default=False,
        metadata=declare(
            Switch(),
            "Admission",
            "Every connection of a trusted proxy begins with a PROXY header, version 1 or 2.",
        ),
    )
    jwt_secret: str | None = field(
        default=None,
        repr=False,
        metadata=declare(
            Optional("SECRET", secret=True),
            "Tokens",
            "Admit only clients with a JSON Web Token that this secret verifies, of 32 bytes at least. Better"
            " a variable or the file than a flag, which others on the machine see.",
        ),
    )
    jwt_jwks_file: str | None = field(
        default=None,
        metadata=declare(
            Optional("FILE"),
            "Tokens",
            "Admit only clients with a JSON Web Token that one of the public keys in this JWK set verifies.",
        ),
    )
    jwt_algorithm: tuple[str, ...] = field(
        default=(),
        metadata=declare(
            Several(re.compile("|".join([*HMAC, *SIGNATURES])), "an algorithm for tokens", "NAME"),
            "Tokens",
            "Algorithm that a token may have; may be repeated. Without it, HS256 for a secret, and for a key"
            " what it says itself, or RS256, ES256 (384, 512) or EdDSA by its kind.",
        ),
    )
    jwt_audience: str | None = field(
        default=None,
        metadata=declare(
            Optional("AUDIENCE"),
            "Tokens",
            "Who a token must be for (aud). Without it, only tokens for nobody in particular are accepted.",
        ),
    )
    jwt_issuer: str | None = field(
        default=None,
        metadata=declare(Optional("ISSUER"), "Tokens", "Who a token must be issued by (iss)."),
    )
    jwt_channels: str = field(
        default="channels",
        metadata=declare(
            Text("CLAIM"),
            "Tokens",
            "Claim with the channels that the client is subscribed to, a name or a list; a token without it"
            " leaves the path as the channel.",
        ),
    )
    jwt_from: tuple[str, ...] = field(
        default=PLACES,
        metadata=declare(
            Several(re.compile("|".join(PLACES)), f"one of {', '.join(PLACES)}", "PLACE"),
            "Tokens",
            "Where a token is looked for: query, header (Authorization: Bearer), cookie, or subprotocol (the"
            " one offered behind bearer); may be repeated, the first that has one counts.",
        ),
    )
    jwt_name: str = field(
        default="token",
        metadata=declare(Text("NAME"), "Tokens", "Name of the query's parameter, and of the cookie."),
    )
    relay: str = field(
        default="channel",
        metadata=declare(
            Choice(RELAYS, "WHERE"),
            "Messages",
            "Where a client's message goes if the program has no handler for it: channel, to all clients of"
            " the sender's first channel; all, to every client; off, nowhere.",
        ),
    )
    slow: str = field(
        default="close",
        metadata=declare(
            Choice(POLICIES, "POLICY"),
            "Messages",
            "What happens when more than max_queue or max_queue_messages would wait for a client: close"
            " disconnects it; drop-oldest and drop-newest leave out messages; latest keeps, of each channel"
            " and key, only the newest.",
        ),
    )
    channel: tuple[Rule, ...] = field(
        default=(),
        metadata=declare(
            Rules(),
            "Messages",
            "Other limits and policy for some channels, such as 'prices.* slow=latest max_queue=64KiB"
            " max_queue_messages=100'; may be repeated, the first that takes in a channel's name holds. * is"
            " any part between dots, a last > one or more of them.",
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
    max_per_address: int | None = field(
        default=None,
        metadata=declare(
            Count(1, 100_000_000, auto=True),
            "Limits",
            "Clients at a time from one IPv4 address, or one IPv6 network of 64 bits; more are answered with"
            " status 429. auto is any number.",
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
            "Bytes that may wait for one client, or a single message of any size; with more, slow says what"
            " happens. auto is 4MiB, or room for two messages of the largest size if that is more.",
        ),
    )
    max_queue_messages: int | None = field(
        default=None,
        metadata=declare(
            Count(1, 1_000_000_000, auto=True),
            "Limits",
            "Messages that may wait for one client; with more, slow says what happens. auto is any number.",
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
    rate_limit: float = field(
        default=0.0,
        metadata=declare(
            Number(1_000_000),
            "Limits",
            "Messages per second that a client may send; one that sends more is disconnected. 0 is any"
            " number.",
        ),
    )
    rate_burst: int | None = field(
        default=None,
        metadata=declare(
            Count(1, 1_000_000, auto=True),
            "Limits",
            "Messages that a client may send at once, if it keeps to rate_limit on average; auto is those of"
            " a second.",
        ),
    )
    presence: bool = field(
        default=False,
        metadata=declare(
            Switch(),
            "Handlers",
            "Tell the program who joins and leaves which channel, and keep who is there.",
        ),
    )
    max_handlers: int = field(
        default=100,
        metadata=declare(
            Count(1, 1_000_000),
            "Handlers",
            "Coroutines of the program's handlers that run at a time; further events wait, and in the end the"
            " clients do.",
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
    admin_host: str = field(
        default="127.0.0.1",
        metadata=declare(
            Text("ADDRESS"),
            "Admin port",
            "Address or host name on which the admin port listens. It speaks no TLS: beyond this machine it"
            " belongs behind a proxy.",
        ),
    )
    admin_port: int | None = field(
        default=None,
        metadata=declare(
            Count(0, 65535, "PORT", auto=True),
            "Admin port",
            "TCP port over which other programs publish and look at the server; 0 picks a free one, auto is"
            " none.",
        ),
    )
    admin_token: str | None = field(
        default=None,
        repr=False,
        metadata=declare(
            Optional("TOKEN", secret=True),
            "Admin port",
            "What requests to the admin port have to bring, of 16 characters at least. Better a variable or"
            " the file than a flag, which others on the machine see.",
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

    @property
    def burst_limit(self) -> int:
        """Messages that a client may send at once: ``rate_burst``, or what auto comes to."""
        return max(1, math.ceil(self.rate_limit)) if self.rate_burst is None else self.rate_burst

    @property
    def rules(self) -> list[tuple[str, str, int, int | None]]:
        """For the core: channels, policy, bytes and messages (None: any number) that may wait for a client.

        The first that takes in a channel's name holds; the last one takes in all.
        """
        rules = [
            (
                rule.channels,
                rule.slow or self.slow,
                rule.max_queue or self.queue_limit,
                rule.max_queue_messages or self.max_queue_messages,
            )
            for rule in self.channel
        ]
        return [*rules, (">", self.slow, self.queue_limit, self.max_queue_messages)]

    @classmethod
    def load(
        cls,
        flags: Mapping[str, object],
        environ: Mapping[str, str],
        file: Path | None = None,
        base: Config | None = None,
    ) -> Config:
        """The configuration that flags, variables and a TOML file together ask for.

        What none of them gives is as in ``base``, or the default. ``flags`` is keyed by option name; a value
        may be text or of the option's own type, and None or an empty tuple means that the flag was not given.
        An empty variable counts as not set.

        Raises :exc:`~fastcast.errors.ConfigError`, which names the option as it was written: ``--max-queue``,
        ``FASTCAST_MAX_QUEUE``, or the file and its key.
        """
        given, spelling = gather(OPTIONS, flags, environ, file)
        values = {option.name: getattr(base, option.name, option.default) for option in OPTIONS} | given
        _check_together(values, spelling)
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
    _check_proxies(values, spelling)
    _check_tokens(values, spelling)
    _check_admin(values, spelling)


def _check_proxies(values: Mapping[str, Any], spelling: Mapping[str, str]) -> None:
    # Nobody may send what nobody is trusted to send.
    if values["proxy_protocol"] and not values["trusted_proxy"]:
        name = spelling.get("proxy_protocol", "proxy_protocol")
        raise ConfigError(f"{name}: needs trusted_proxy, the proxies that send the header")


def _check_admin(values: Mapping[str, Any], spelling: Mapping[str, str]) -> None:
    def name(option: str) -> str:
        return spelling.get(option, option)

    token = values["admin_token"]
    if values["admin_port"] is None:
        # A token alone is fine: `fastcast publish` reads the same variable.
        if values["admin_host"] != "127.0.0.1":
            raise ConfigError(f"{name('admin_host')}: needs admin_port")
        return
    if token is None:
        raise ConfigError(f"{name('admin_port')}: needs admin_token, or anybody could publish")
    if len(token) < LEAST_TOKEN:
        raise ConfigError(f"{name('admin_token')}: takes {LEAST_TOKEN} characters at least")
    # It is to fit into a header, and to come out of it as it was.
    if not token.isascii() or token != token.strip():
        raise ConfigError(f"{name('admin_token')}: takes ASCII, without blanks at its ends")


def _check_tokens(values: Mapping[str, Any], spelling: Mapping[str, str]) -> None:
    def name(option: str) -> str:
        return spelling.get(option, option)

    secret, file = values["jwt_secret"], values["jwt_jwks_file"]
    if secret is not None and file is not None:
        raise ConfigError(f"{name('jwt_secret')}: excludes {name('jwt_jwks_file')}")
    if secret is None and file is None:
        for option in OPTIONS:
            # Whoever sets one of these believes that tokens are asked for.
            if option.name.startswith("jwt_") and values[option.name] != option.default:
                raise ConfigError(f"{name(option.name)}: needs jwt_secret or jwt_jwks_file")
        return
    fitting, key = (tuple(HMAC), "jwt_secret") if file is None else (SIGNATURES, "jwt_jwks_file")
    for algorithm in values["jwt_algorithm"]:
        if algorithm not in fitting:
            raise ConfigError(f"{name('jwt_algorithm')}: {algorithm} doesn't go with {name(key)}")
    # Whoever has any token can try secrets in peace until one fits.
    for algorithm in () if secret is None else values["jwt_algorithm"] or ("HS256",):
        if len(secret.encode()) < HMAC[algorithm]:
            raise ConfigError(f"{name('jwt_secret')}: {algorithm} takes {HMAC[algorithm]} bytes at least")
    if not values["jwt_from"]:
        raise ConfigError(f"{name('jwt_from')}: no place is left for a token")
    if not TOKEN.fullmatch(values["jwt_name"]):
        raise ConfigError(f"{name('jwt_name')}: {values['jwt_name']!r} can't be the name of a cookie")
