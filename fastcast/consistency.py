"""Options that depend on each other, and what may not stand together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from fastcast.channels import MOST_RULES
from fastcast.errors import ConfigError
from fastcast.options import KIB, TOKEN, Option, format_size

HEADROOM: Final = 64 * KIB
"""Bytes beyond one message of the largest size that may always wait for a client, for frame headers and small
messages: without it a single large message would cut off every client that does not take it whole at once."""

HMAC: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Algorithms of tokens that take a secret, and its least bytes (RFC 7518, sections 3.1 and 3.2)."""

SIGNATURES: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
"""Those that take a public key."""

LEAST_TOKEN: Final = 16
"""Characters of the admin port's token."""

_BUS_PREFIX: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*", re.ASCII)


def check_together(values: Mapping[str, Any], spelling: Mapping[str, str], options: Sequence[Option]) -> None:
    """Refuse values that contradict each other, with a ConfigError that names them as they were spelt."""
    message, backlog = values["max_message"], values["max_backlog"]
    # Otherwise a message of the largest size could be read from its sender, but never be passed on.
    if backlog is not None and backlog < message + HEADROOM:
        names = [spelling.get(name, name) for name in ("max_backlog", "max_message")]
        raise ConfigError(
            f"{names[0]}: {format_size(backlog)} is too little for {names[1]}, {format_size(message)}"
            f" (it takes {format_size(message + HEADROOM)})"
        )
    _check_rules(values, spelling)
    _check_proxies(values, spelling)
    _check_tokens(values, spelling, options)
    _check_admin(values, spelling)
    _check_bus(values, spelling, options)


def _check_rules(values: Mapping[str, Any], spelling: Mapping[str, str]) -> None:
    default = values["history"]
    kept = [bool(default if rule.history is None else rule.history) for rule in values["channel"]]
    # In the core one with a history is two: see make_rules in core/exchange.c.
    if len(kept) + sum(kept) + bool(default) > MOST_RULES:
        name = spelling.get("channel", "channel")
        raise ConfigError(f"{name}: rules with a history count twice, and these are more than {MOST_RULES}")


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


def _check_bus(values: Mapping[str, Any], spelling: Mapping[str, str], options: Sequence[Option]) -> None:
    def name(option: str) -> str:
        return spelling.get(option, option)

    if not values["bus"]:
        for option in options:
            if option.name.startswith("bus_") and values[option.name] != option.default:
                raise ConfigError(f"{name(option.name)}: needs bus")
    if len({"redis" in url.partition(":")[0].lower() or url.startswith("unix") for url in values["bus"]}) > 1:
        raise ConfigError(f"{name('bus')}: the addresses are those of one bus: NATS, or Redis")
    for url in values["bus"]:
        if not _has_port(url):
            raise ConfigError(f"{name('bus')}: {url.rpartition('@')[2]!r} has a port that is none")
    if not _BUS_PREFIX.fullmatch(values["bus_prefix"]):
        raise ConfigError(f"{name('bus_prefix')}: {values['bus_prefix']!r} takes letters, digits, - and _")
    if values["bus_key"] is not None and values["bus_certificate"] is None:
        raise ConfigError(f"{name('bus_key')}: needs bus_certificate")


def _has_port(url: str) -> bool:
    """Whether the port is one, if there is any; lists of Sentinels are looked at by their library."""
    if "+sentinel:" in url:
        return True
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _check_tokens(values: Mapping[str, Any], spelling: Mapping[str, str], options: Sequence[Option]) -> None:
    def name(option: str) -> str:
        return spelling.get(option, option)

    secret, file = values["jwt_secret"], values["jwt_jwks_file"]
    if secret is not None and file is not None:
        raise ConfigError(f"{name('jwt_secret')}: excludes {name('jwt_jwks_file')}")
    if secret is None and file is None:
        for option in options:
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
