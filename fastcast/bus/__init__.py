"""Servers on several machines, as one: a broker carries what is published between them.

``connect_bus`` is what the server uses; the libraries for NATS and Redis are loaded when they're needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from fastcast.bus.bus import Bus
from fastcast.bus.coverage import cover, covers
from fastcast.bus.engine import Access, Engine, Retention
from fastcast.bus.names import subject_of
from fastcast.bus.relay import Relay
from fastcast.errors import StartError

if TYPE_CHECKING:
    from fastcast.config import Config

__all__ = ["Bus", "connect_bus"]

_NATS: Final = ("nats", "tls", "ws", "wss")


async def connect_bus(
    config: Config, publish: Callable[..., int], broadcast: Callable[..., int]
) -> tuple[Bus, dict[str, Callable[..., Any]]]:
    """The bus, connected; and a handler that does over it what the core does where there is none: relaying.

    Raises StartError, also when the library for it is missing, or a file can't be used.
    """
    bus = open_bus(config)
    await bus.start()
    if config.relay == "off":
        return bus, {}
    return bus, {"on_message": Relay(publish, broadcast, to_all=config.relay == "all")}


def open_bus(config: Config) -> Bus:
    """The bus that a configuration asks for; it has yet to be started.

    Raises StartError when the library for it is missing, or a file can't be used.
    """
    access = Access(
        urls=config.bus,
        credentials=config.bus_credentials,
        nkey=config.bus_nkey,
        ca=config.bus_ca,
        certificate=config.bus_certificate,
        key=config.bus_key,
    )
    return Bus(
        _engine(access, config),
        prefix=config.bus_prefix,
        alone=config.bus_alone,
        most_bytes=config.backlog_limit // 4,
        keep_of=config.keep_of if config.keeps else None,
    )


def _retention(config: Config) -> Retention | None:
    """What has to be kept so that each channel finds what it wants there; None if none wants anything."""
    rules = [
        *(
            (rule.channels, config.history if rule.history is None else rule.history)
            for rule in config.channel
        ),
        (">", config.history),
    ]
    # The first rule that takes a channel in holds: one that an earlier one covers holds nowhere.
    kept = {
        name: keep
        for place, (name, keep) in enumerate(rules)
        if keep and not any(covers(earlier, name) for earlier, _ in rules[:place])
    }
    if not kept:
        return None
    messages = [keep.messages for keep in kept.values()]
    seconds = [keep.seconds for keep in kept.values()]
    return Retention(
        subjects=tuple(subject_of(config.bus_prefix, name) for name in cover(kept)),
        messages=None if None in messages else max(filter(None, messages)),
        seconds=None if None in seconds else max(filter(None, seconds)),
        most_bytes=config.max_history,
    )


def _engine(access: Access, config: Config) -> Engine:
    extra = "nats" if access.urls[0].partition("://")[0] in _NATS else "redis"
    try:
        if extra == "nats":
            from fastcast.bus.jetstream import JetStream
            from fastcast.bus.nats import Nats

            retention = _retention(config)
            log: JetStream | None = None
            if retention is not None:
                log = JetStream(
                    config.bus_prefix,
                    retention,
                    config.backlog_limit // 4,
                    lambda channel: bool(config.keep_of(channel)),
                )
            return Nats(access, log, config.bus_prefix)
        from fastcast.bus.redis import Redis

        return Redis(access)
    except ModuleNotFoundError as error:
        raise StartError(f"the bus needs {error.name}: run pip install 'fastcast[{extra}]'") from error
    except (OSError, ValueError) as error:
        raise StartError(f"cannot use the bus: {error}") from error
