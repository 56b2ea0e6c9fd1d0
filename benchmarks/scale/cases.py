"""What the scale suite measures: for each scenario its trials, and which of their results count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import figures
from common import Metric
from trial import Trial

REFERENCE: Final = 10_000
"""The size that others are compared with, measured anew before each of them."""

LEAST_DELIVERIES: Final = 400_000
LEAST_MESSAGES: Final = 10
MOST_MESSAGES: Final = 400

SPARE_ROOM: Final = 1.1
DRAIN_HOLD: Final = 600.0
SHARDS: Final = (2, 4, 8, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question about the server, and the trials of one round that answer it."""

    name: str
    title: str
    about: str
    sizes: Sequence[int]
    rounds: int
    plan: Callable[[Sequence[int]], list[Trial]]
    """From sizes to the trials of one round."""

    metrics: tuple[Metric, ...]
    compared: tuple[str, ...] = ()
    """Keys of the metrics for which the multiple of the base's is told."""

    against: str = ""
    """What the base is."""

    shuffled: bool = False
    """Whether each round has an order of its own; otherwise it is that of the plan."""


def messages(connections: int) -> int:
    """How many messages make enough deliveries for their CPU time to be told."""
    return min(max(LEAST_DELIVERIES // connections, LEAST_MESSAGES), MOST_MESSAGES)


def growing(sizes: Sequence[int]) -> list[Trial]:
    """Each size has the reference size before it, so that a ratio is of the same minutes."""
    reference = REFERENCE if REFERENCE in sizes else min(sizes)
    trials = []
    for group, size in enumerate([size for size in sorted(sizes) if size != reference]):
        trials.append(Trial(connections=reference, messages=messages(reference), group=group, base=True))
        trials.append(Trial(connections=size, messages=messages(size), group=group))
    return trials or [Trial(connections=reference, messages=messages(reference), base=True)]


def idling(sizes: Sequence[int]) -> list[Trial]:
    return [Trial(connections=size, hold=70) for size in sizes]


def churning(sizes: Sequence[int]) -> list[Trial]:
    return [
        Trial(connections=size, rate=2, messages=40, churn=size / 100, room=SPARE_ROOM, weighed=False)
        for size in sizes
    ]


def holding(sizes: Sequence[int]) -> list[Trial]:
    return [Trial(connections=size, messages=1, hold=60, aftermath=True) for size in sizes]


def draining(sizes: Sequence[int]) -> list[Trial]:
    return [Trial(connections=size, hold=DRAIN_HOLD, drained=True, weighed=False) for size in sizes]


def storming(sizes: Sequence[int]) -> list[Trial]:
    return [
        Trial(connections=size, storm=True, retry=1, rehearsal=size, room=SPARE_ROOM, weighed=False)
        for size in sizes
    ]


def sharding(sizes: Sequence[int]) -> list[Trial]:
    fewest = SHARDS[0]
    return [
        Trial(
            connections=size,
            messages=messages(size),
            shards=shards,
            threads=threads,
            group=group,
            base=shards == fewest,
            weighed=False,
        )
        for group, size in enumerate(sizes)
        for shards in SHARDS
        for threads in sorted({fewest, shards})
    ]


CASES: Final = (
    Case(
        name="growth",
        title="Growth",
        about="All clients connect as fast as the server lets them, with up to 256 handshakes under way. Then"
        " one of them sends messages of 128 bytes, the next when the last client has this one.",
        sizes=(1_000, 10_000, 50_000, 100_000, 200_000, 500_000, 1_000_000),
        rounds=3,
        plan=growing,
        metrics=(
            figures.PROCESS_PER_CLIENT,
            figures.PROCESS,
            figures.KERNEL_PER_CLIENT,
            figures.CONNECT_RATE,
            figures.CPU_PER_CONNECTION,
            figures.CPU_PER_DELIVERY,
            figures.TO_LAST,
        ),
        compared=("process", "kernel", "rate", "connect_cpu", "cpu"),
        against="the run with the reference size just before it",
    ),
    Case(
        name="idle",
        title="Idle clients",
        about="Silent clients, held for 70 seconds, with a ping for each every 30 seconds: what the server's"
        " threads need for keeping them.",
        sizes=(200_000,),
        rounds=1,
        plan=idling,
        metrics=(
            figures.HOLD_CPU,
            figures.HOLD_CPU_PER_CLIENT,
            figures.HOLD_SHARE,
            figures.PROCESS_PER_CLIENT,
            figures.KERNEL_PER_CLIENT,
        ),
    ),
    Case(
        name="churn",
        title="Churn",
        about="Two messages per second to all clients for 20 seconds, while in every second one of a hundred"
        " clients leaves and connects anew. Those that stay must get every message.",
        sizes=(200_000,),
        rounds=1,
        plan=churning,
        metrics=(
            figures.REOPENED,
            figures.CPU_PER_DELIVERY,
            figures.MESSAGES_SHARE,
            figures.TO_LAST,
            figures.LATENCY_P99,
        ),
    ),
    Case(
        name="hold",
        title="Connected, held, gone",
        about="All clients connect, get one message, are held for a minute and leave. Memory before and"
        " afterwards is that of the server alone: without the load client, which shares the interpreter's"
        " pages with it, and once the kernel has forgotten the connections.",
        sizes=(1_000_000,),
        rounds=1,
        plan=holding,
        metrics=(
            figures.CONNECT_SECONDS,
            figures.TO_LAST,
            figures.HOLD_SHARE,
            figures.PROCESS_BEFORE,
            figures.PROCESS,
            figures.PROCESS_AFTER,
            figures.KERNEL,
            figures.KERNEL_KEPT,
        ),
    ),
    Case(
        name="drain",
        title="Shutdown",
        about="SIGTERM to a server that holds all clients: each must be closed with 1001, and the process"
        " must end with exit code 0.",
        sizes=(200_000,),
        rounds=1,
        plan=draining,
        metrics=(figures.EXIT_SECONDS, figures.GOING_AWAY, figures.EXIT_STATUS),
    ),
    Case(
        name="storm",
        title="All come back at once",
        about="All connections are dropped in the same moment, and all clients connect again in the same"
        " moment, as after a network failure. Who is refused or times out tries again after a random time"
        " up to a second, then up to two, and so on. Peace is the same run before that: the same clients"
        " arrive with up to 256 handshakes under way. Both happen on a server that has held as many"
        " clients once before, so that neither is slower for the memory that it gets from the system.",
        sizes=(100_000,),
        rounds=3,
        plan=storming,
        metrics=(
            figures.STORM_RATIO,
            figures.CONNECT_SECONDS,
            figures.STORM_SECONDS,
            figures.REFUSED,
            figures.ATTEMPTS,
            figures.STORM_BACK_P99,
            figures.STORM_CPU,
        ),
    ),
    Case(
        name="shards",
        title="More shards than processors",
        about="The same clients on more and more shards; messages of 128 bytes, one in flight. The load"
        " client has two threads, or as many as there are shards.",
        sizes=(10_000,),
        rounds=3,
        plan=sharding,
        metrics=(figures.CPU_PER_DELIVERY, figures.CPU_BOTH_ENDS, figures.TO_LAST, figures.CONNECT_RATE),
        compared=("cpu", "both"),
        against=f"the run with {SHARDS[0]} shards of the same round",
        shuffled=True,
    ),
)


def select(names: Sequence[str]) -> list[Case]:
    """The cases of these names, in the order of :data:`CASES`; all of them for none.

    Raises :exc:`ValueError` with a message for a name that isn't one.
    """
    known = [case.name for case in CASES]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no such scenario: {', '.join(unknown)} (there are: {', '.join(known)})")
    return [case for case in CASES if not names or case.name in names]
