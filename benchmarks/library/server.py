"""The servers that are measured: one process for each case, which prints JSON lines."""

from __future__ import annotations

import asyncio
import itertools
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvloop

import fastcast

CLIENTS_EACH: Final = 10
MESSAGE: Final = "x" * 128
QUIET: Final[dict[str, Any]] = {"port": 0, "ping_interval": 0}


def say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


def cpu() -> float:
    """Seconds of processor time of this process so far, all threads together."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measured(server: fastcast.Server, *publishing: Callable[[], int]) -> dict[str, float]:
    """What it takes to publish, and to write it all before the next."""
    before, started = cpu(), time.perf_counter()
    reached, publish_seconds = 0, 0.0
    for publish in publishing:
        begun = time.perf_counter()
        reached += publish()
        publish_seconds += time.perf_counter() - begun
        await server.flush()
    return {
        "deliveries": reached,
        "cpu": cpu() - before,
        "publish_seconds": publish_seconds,
        "seconds": time.perf_counter() - started,
    }


async def channels(clients: int, rounds: int) -> None:
    """Each client is in ten channels, of which each has ten clients: a message to each of them.

    And as many deliveries by broadcasts to all, each written before the next, so that in both cases each
    delivery takes a write of its own. In turn, so that a ratio within a round says what small channels cost.
    """
    server = fastcast.Server(**QUIET)
    numbers = itertools.count()
    groups = clients // CLIENTS_EACH

    @server.on_connect
    def admit(request: fastcast.Request) -> fastcast.Accept:
        group = next(numbers) // CLIENTS_EACH  # ten clients that come one after the other have the same ten
        return fastcast.Accept(channels=[f"c.{group}.{n}" for n in range(CLIENTS_EACH)])

    def to_channels() -> int:
        return sum(
            server.publish(f"c.{group}.{n}", MESSAGE) for group in range(groups) for n in range(CLIENTS_EACH)
        )

    def to_all() -> int:
        return server.broadcast(MESSAGE)

    async with server:
        say(port=server.port)
        while server.count() < clients:
            await asyncio.sleep(0.05)
        for number in range(rounds + 1):
            small = await measured(server, to_channels)
            result = {"channels": small, "all": await measured(server, *[to_all] * CLIENTS_EACH)}
            if number > 0:  # the first one warms up
                say(**result)


async def handlers(kind: str) -> None:
    """Sends each message back to its sender: by the relay, or by a handler."""
    server = fastcast.Server(**QUIET)
    numbers = itertools.count()

    @server.on_connect
    def admit(request: fastcast.Request) -> fastcast.Accept:
        return fastcast.Accept(channels=[f"own.{next(numbers)}"])

    if kind == "plain":

        @server.on_message
        def handle(client: fastcast.Client, message: str | bytes) -> None:
            client.send(message)

    elif kind == "coroutine":

        @server.on_message
        async def handle_later(client: fastcast.Client, message: str | bytes) -> None:
            client.send(message)

    await serve(server)


async def node(bus: str) -> None:
    """A server on the bus, or on none; does what standard input says, and tells when all of it is written."""
    server = fastcast.Server(**QUIET, bus=[bus] if bus else [])
    async with server:
        say(port=server.port)
        while line := await asyncio.to_thread(sys.stdin.readline):
            for _ in range(int(line)):
                while True:
                    try:
                        server.publish("/", MESSAGE)
                        break
                    except fastcast.OverloadError:
                        await asyncio.sleep(0.001)
            await server.flush()
            while server.stats()["queued"]:
                await asyncio.sleep(0.001)
            say(clients=server.count(), delivered=server.stats()["delivered"])


async def http() -> None:
    """Publishes what comes over HTTP; prints where, and what it costs to publish directly."""
    server = fastcast.Server(**QUIET, admin_port=0, admin_token="a token for the benchmark")
    await serve(server)


async def serve(server: fastcast.Server) -> None:
    """Serve until standard input ends."""
    async with server:
        admin = getattr(server, "admin_port", None)
        say(port=server.port, admin=admin)
        await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    case, *arguments = sys.argv[1:]
    cases: dict[str, Callable[[], Awaitable[None]]] = {
        "channels": lambda: channels(int(arguments[0]), int(arguments[1])),
        "handlers": lambda: handlers(arguments[0]),
        "node": lambda: node(*arguments),
        "http": http,
    }
    uvloop.run(cases[case]())  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
