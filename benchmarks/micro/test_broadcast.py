"""Broadcasts: what the call costs, and how long it takes until everyone has the message.

The clients live in the same process as the server, and one thread reads them in turn. The rounds are the same
for every server, and say nothing of how many messages per second a server manages.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.micro.peers import FASTCAST, PEERS, Peer, Start
from fastcast._core import unmask

PAYLOAD = b"x" * 128
FRAME = b"\x82\x7e\x00\x80" + PAYLOAD  # binary, final, with a length of 16 bits

MASK = b"\x37\xfa\x21\x3d"
MASKED_FRAME = b"\x82\xfe\x00\x80" + MASK + unmask(PAYLOAD, MASK)

WARMUP_ROUNDS = 3
ROUNDS = {0: 1000, 10: 1000, 100: 500, 1000: 200, 10_000: 60}

Setup: TypeAlias = Callable[[], tuple[tuple[bytes], dict[str, object]]]

# A shard that is woken may take the processor from the thread that woke it, and the call is over only when
# that thread has it back. The first clock counts the wait, the second does not.
CLOCKS = [
    pytest.param(
        "elapsed",
        marks=pytest.mark.benchmark(group="broadcast() alone, time elapsed"),
    ),
    pytest.param(
        "cpu",
        marks=pytest.mark.benchmark(
            group="broadcast() alone, CPU time of its thread", timer=time.thread_time
        ),
    ),
]


@pytest.mark.parametrize("number", [0, 10, 1000, 10_000])
@pytest.mark.parametrize("clock", CLOCKS)
def test_call(benchmark: BenchmarkFixture, start: Start, number: int, clock: str) -> None:
    """The call hands the message to the shards; with nobody there, it finds that out and returns.

    Between the rounds everyone receives, so that no client is ever slow.
    """
    server, clients = start(FASTCAST, number)

    def let_all_receive() -> tuple[tuple[bytes], dict[str, object]]:
        clients.receive(len(FRAME))
        return (PAYLOAD,), {}

    server.broadcast(PAYLOAD)
    _measure(benchmark, number, server.broadcast, let_all_receive)
    clients.expect(FRAME)


@pytest.mark.parametrize("peer", PEERS, ids=str)
@pytest.mark.parametrize("number", [10, 100, 1000])
def test_delivery(benchmark: BenchmarkFixture, start: Start, number: int, peer: Peer) -> None:
    """From the call until the last client has the message."""
    benchmark.group = f"broadcast until all of {number} clients have it"
    server, clients = start(peer, number)

    def deliver() -> None:
        server.broadcast(PAYLOAD)
        clients.receive(len(FRAME))

    server.broadcast(PAYLOAD)
    clients.expect(FRAME)
    _measure(benchmark, number, deliver)


@pytest.mark.benchmark(group="relay: one client sends, all receive")
@pytest.mark.parametrize("number", [10, 100, 1000])
def test_relay(benchmark: BenchmarkFixture, start: Start, number: int) -> None:
    """From a client's send until the last one has the message, the sender included; no Python on the way."""
    _, clients = start(FASTCAST, number)

    def relay() -> None:
        clients.send(MASKED_FRAME)
        clients.receive(len(FRAME))

    clients.send(MASKED_FRAME)
    clients.expect(FRAME)
    _measure(benchmark, number, relay)


def _measure(
    benchmark: BenchmarkFixture, number: int, target: Callable[..., None], setup: Setup | None = None
) -> None:
    benchmark.extra_info["clients"] = number
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        target, setup=setup, rounds=ROUNDS[number], warmup_rounds=WARMUP_ROUNDS
    )
