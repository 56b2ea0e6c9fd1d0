"""Configuration of the server: each option is declared once, as a field of :class:`Config`.

The names under which an option is known, and the units of its values, are those of :mod:`fastcast.options`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fastcast.channels import POLICIES, Rule, Rules, is_pattern, takes_in
from fastcast.consistency import HEADROOM, HMAC, SIGNATURES, check_together
from fastcast.history import History, Keep
from fastcast.options import (
    GIB,
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
    gather,
)
from fastcast.proxies import NETWORKS
from fastcast.shards import MOST_SHARDS

# RFC 6454, section 6.2: no path, no user, and a host that is already in its ASCII form; or "*." before a
# domain of two labels at least, for its subdomains.
_ORIGIN: Final = re.compile(
    r"\*|null|[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\*(?:\.[a-z0-9_-]+){2,}|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?",
    re.ASCII | re.IGNORECASE,
)
_BUS: Final = re.compile(
    r"(?:nats|tls|ws|wss|rediss?)://[^\s/,]+(?:/\S*)?|unix:///\S+|rediss?\+sentinel://[^\s/]+/[^\s/]+",
    re.ASCII | re.IGNORECASE,
)
PLACES: Final = ("query", "header", "cookie", "subprotocol")
"""Where a client may bring its token."""

RELAYS: Final = ("channel", "all", "off")
"""Where a client's message may go."""

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
    history: Keep = field(
        default=Keep(),
        metadata=declare(
            History(),
            "Messages",
            "What a channel keeps of its last messages for clients that come back with ?since=: a number of"
            " messages, a time such as 5m, both as in 100/5m, whichever is less, or off.",
        ),
    )
    channel: tuple[Rule, ...] = field(
        default=(),
        metadata=declare(
            Rules(),
            "Messages",
            "Other limits, policy or history for some channels, such as 'prices.* slow=latest"
            " max_queue=64KiB max_queue_messages=100 history=5m'; may be repeated, the first that takes in a"
            " channel's name holds. * is any part between dots, a last > one or more of them.",
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
    max_history: int = field(
        default=64 * MIB,
        metadata=declare(
            Size(1, 1024 * GIB),
            "Limits",
            "Bytes of messages that channels keep, all together; beyond them the oldest of the channels that"
            " were quiet for longest go first.",
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
    bus: tuple[str, ...] = field(
        default=(),
        repr=False,
        metadata=declare(
            Several(_BUS, "the URL of a bus (write nats://host:4222 or redis://host:6379)", "URL"),
            "Bus",
            "Broker that carries messages between servers, so that clients of all of them hear what is"
            " published on one: nats://, tls://, redis://, rediss://, or redis+sentinel://HOST,HOST/SERVICE;"
            " may be repeated for several addresses of the same one.",
        ),
    )
    bus_prefix: str = field(
        default="fastcast",
        metadata=declare(
            Text("NAME"),
            "Bus",
            "What the names of channels begin with on the bus: channel prices is fastcast.prices there.",
        ),
    )
    bus_alone: str = field(
        default="deliver",
        metadata=declare(
            Choice(("deliver", "refuse"), "WHAT"),
            "Bus",
            "What becomes of messages while the bus can't be reached: deliver, to this server's clients"
            " alone, or refuse.",
        ),
    )
    bus_credentials: str | None = field(
        default=None,
        metadata=declare(Optional("FILE"), "Bus", "File of NATS credentials: a JWT and a seed."),
    )
    bus_nkey: str | None = field(
        default=None,
        metadata=declare(Optional("FILE"), "Bus", "File with the seed of a NATS nkey."),
    )
    bus_ca: str | None = field(
        default=None,
        metadata=declare(
            Optional("FILE"), "Bus", "File of certificates to trust, in the place of the system's."
        ),
    )
    bus_certificate: str | None = field(
        default=None,
        metadata=declare(
            Optional("FILE"), "Bus", "File with this server's certificate, where the bus asks for one."
        ),
    )
    bus_key: str | None = field(
        default=None,
        metadata=declare(
            Optional("FILE"), "Bus", "File with the certificate's key, if it's a file of its own."
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
        check_together(values, {}, OPTIONS)
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

    def keep_of(self, channel: str) -> Keep:
        """What a channel keeps; a pattern keeps nothing."""
        if is_pattern(channel):
            return Keep()
        for rule in self.channel:
            if takes_in(rule.channels, channel):
                return self.history if rule.history is None else rule.history
        return self.history

    @property
    def keeps(self) -> bool:
        """Whether channels have a history, or some of them."""
        return bool(self.history) or any(rule.history for rule in self.channel)

    @property
    def rules(self) -> list[tuple[str, str, int, int | None, int | None, int | None]]:
        """For the core: channels, policy, bytes and messages (None: any number) that may wait for a client,
        messages to keep and milliseconds to keep them.

        The first that takes in a channel's name holds; the last one takes in all.
        """
        rules = [
            (
                rule.channels,
                rule.slow or self.slow,
                rule.max_queue or self.queue_limit,
                rule.max_queue_messages or self.max_queue_messages,
                *_kept(self.history if rule.history is None else rule.history),
            )
            for rule in self.channel
        ]
        last = (">", self.slow, self.queue_limit, self.max_queue_messages, *_kept(self.history))
        return [*rules, last]

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
        check_together(values, spelling, OPTIONS)
        return cls(**values)


def _kept(keep: Keep) -> tuple[int | None, int | None]:
    """Messages, and milliseconds."""
    return keep.messages, None if keep.seconds is None else round(keep.seconds * 1000)


OPTIONS: Final = declared(Config)
"""All options, in the order in which the help text shows them."""
