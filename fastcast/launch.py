"""From a configuration to a hub whose shards listen."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
from typing import Final, Protocol

from fastcast._core import Hub
from fastcast.config import Config
from fastcast.errors import StartError
from fastcast.listen import close, listen
from fastcast.shards import shards_for

_log = logging.getLogger("fastcast")

# Seconds between two looks at whether shards have ended.
_GLANCE: Final = 0.001

MAX_HEAD: Final = 8192
"""Bytes of a request's head."""


class Responses(Protocol):
    """Complete responses that the shards give without asking, and what they have to tell with a request."""

    @property
    def timeout(self) -> bytes:
        """408."""

    @property
    def too_large(self) -> bytes:
        """431."""

    @property
    def full(self) -> bytes:
        """503."""

    @property
    def too_many(self) -> bytes:
        """429."""

    @property
    def remotes(self) -> bool:
        """Whether the address of whoever asks is wanted."""


def launch(
    config: Config, responses: Responses, *, handled: bool, closes: bool, presence: bool
) -> tuple[Hub, int]:
    """Listen; returns the hub, and the port. The last three say which events are wanted.

    Raises StartError when the address can't be had, or the system refuses what is needed.
    """
    sockets = listen(config.host, config.port, shards_of(config))
    try:
        hub = Hub(
            listeners=[[each.fileno() for each in of_shard] for of_shard in sockets],
            max_connections=config.max_connections,
            max_handshakes=config.max_handshakes,
            max_message=config.max_message,
            max_backlog=config.backlog_limit,
            max_head=MAX_HEAD,
            flush_interval=milliseconds(config.flush_interval),
            handshake_timeout=milliseconds(config.handshake_timeout),
            ping_interval=milliseconds(config.ping_interval),
            ping_timeout=milliseconds(config.ping_timeout),
            close_timeout=milliseconds(config.close_timeout),
            timeout=responses.timeout,
            too_large=responses.too_large,
            full=responses.full,
            too_many=responses.too_many,
            rules=config.rules,
            max_history=config.max_history,
            rate_limit=config.rate_limit,
            rate_burst=config.burst_limit,
            max_per_address=config.max_per_address,
            relay=config.relay,
            handled=handled,
            closes=closes,
            presence=presence,
            remotes=responses.remotes,
            proxy_protocol=config.proxy_protocol,
            io=config.io,
        )
    except (OSError, MemoryError) as error:
        close(sockets)
        raise StartError(f"cannot start: {_reason(error)}") from error
    port = sockets[0][0].getsockname()[1]
    for of_shard in sockets:
        for each in of_shard:
            each.detach()  # the hub's from here on
    try:
        hub.start()
    except (OSError, MemoryError) as error:
        over = " over io_uring" if config.io == "uring" else ""
        raise StartError(f"cannot start the shards{over}: {_reason(error)}") from error
    _tell_shortcomings(hub, config)
    return hub, port


def shards_of(config: Config) -> int:
    """How many shards a server with this configuration has."""
    if config.shards is not None:
        return config.shards
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return shards_for(
        config.max_connections,
        None if limit == resource.RLIM_INFINITY else limit,
        len(os.sched_getaffinity(0)),
    )


def milliseconds(seconds: float) -> int:
    """At most some 24 days, which fits the core's 32 bits and is as good as for ever."""
    return min(max(round(seconds * 1000), 0), 2**31 - 1)


def _tell_shortcomings(hub: Hub, config: Config) -> None:
    if hub.uring_error:
        _log.warning("io_uring is not available (%s): using epoll", os.strerror(hub.uring_error))
    if not hub.private_tables:
        _log.warning(
            "no fd tables of their own for the shards here: all %d share the limit of %d open files",
            hub.shards,
            resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        )
    if config.max_connections is not None and hub.capacity < config.max_connections:
        _log.warning(
            "room for %d connections only, not %d: raise the limit of open files, or --shards",
            hub.capacity,
            config.max_connections,
        )


def _reason(error: OSError | MemoryError) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else "out of memory"


async def end_at_once(hub: Hub) -> None:
    """End a hub that nobody looks after yet: its port is free again, whoever still refers to it."""
    hub.stop(0)
    while hub.running:
        await asyncio.sleep(_GLANCE)
