"""What the macro benchmark measures: the load of each scenario, and which of the results count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

Result = Mapping[str, Any]
"""The JSON of one run of the load client, with "peak_rss" of the server in bytes added to its "memory"."""

Results = Mapping[str, Result]
"""The results of a scenario's passes, by the name of the pass."""

ONLY: Final = "only"
"""The pass of a scenario that has just one."""

KIB: Final = 1024
MB: Final = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Arguments of the load client; the fields carry the names of its flags."""

    connections: int
    senders: int = 1
    messages: int = 0
    in_flight: int = 1
    rate: float = 0.0
    size: int = 128
    stalled: int = 0
    hold: float = 0.0
    timeout: float = 60.0

    def scaled(self, scale: float) -> Load:
        """The same load with a share of the connections."""
        if scale == 1:
            return self
        connections = max(10, round(self.connections * scale))
        return replace(
            self,
            connections=connections,
            senders=max(1, round(self.senders * scale)),
            stalled=max(1, round(self.stalled * scale)) if self.stalled else 0,
        )

    def flags(self) -> list[str]:
        """The command line, without address and process id."""
        flags = {
            "--connections": self.connections,
            "--senders": self.senders,
            "--messages": self.messages,
            "--size": self.size,
            "--timeout": self.timeout,
            **({"--rate": self.rate} if self.rate else {"--in-flight": self.in_flight}),
            **({"--stalled": self.stalled} if self.stalled else {}),
            **({"--hold": self.hold} if self.hold else {}),
        }
        return [text for flag, value in flags.items() for text in (flag, str(value))]


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a scenario; less is better unless the title says otherwise."""

    key: str
    title: str
    unit: str
    read: Callable[[Results], float | None]
    digits: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One question to every server. The first metric is the answer; rows are sorted by it."""

    name: str
    title: str
    about: str
    passes: Mapping[str, Load]
    metrics: tuple[Metric, ...]
    against_floor: bool = True
    """Whether a ratio to the floor says anything: it does for work, not for what the floor leaves out."""


def dig(result: Result | None, *path: str) -> float | None:
    """The number at a path of keys, None where there is none."""
    value: Any = result
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def at(*path: str, divide: float = 1.0) -> Callable[[Results], float | None]:
    """A reader of the number at a path in the only pass."""

    def read(results: Results) -> float | None:
        value = dig(results.get(ONLY), *path)
        return None if value is None else value / divide

    return read


def growth(
    key: str, until: str, since: str = "before_connect", divide: float = 1.0
) -> Callable[[Results], float | None]:
    """A reader of how much a memory measurement grew from one moment of the only pass to another."""

    def read(results: Results) -> float | None:
        earlier = dig(results.get(ONLY), "memory", since, key)
        later = dig(results.get(ONLY), "memory", until, key)
        return None if earlier is None or later is None else (later - earlier) / divide

    return read


def per_client(reader: Callable[[Results], float | None]) -> Callable[[Results], float | None]:
    """The reader's number divided by the connections that were made."""

    def read(results: Results) -> float | None:
        total = reader(results)
        clients = dig(results.get(ONLY), "connections", "made")
        return None if total is None or not clients else total / clients

    return read


def total(*readers: Callable[[Results], float | None]) -> Callable[[Results], float | None]:
    """The sum of several readers' numbers, None when one is missing."""

    def read(results: Results) -> float | None:
        values = [reader(results) for reader in readers]
        return None if None in values else sum(value for value in values if value is not None)

    return read


def peak_growth(results: Results) -> float | None:
    """Megabytes by which the server's resident size at its largest exceeds that with all clients idle."""
    peak = dig(results.get(ONLY), "memory", "peak_rss")
    idle = dig(results.get(ONLY), "memory", "after_connect", "server_rss")
    return None if peak is None or idle is None else (peak - idle) / MB


def delivered(result: Result | None) -> float | None:
    """The share of a pass's deliveries that took place; messages that were never sent count as missing."""
    asked = dig(result, "messages", "asked")
    receivers = dig(result, "deliveries", "receivers")
    received = dig(result, "deliveries", "received")
    return None if received is None or not asked or not receivers else received / (asked * receivers)


def p99_with_stalled(results: Results) -> float | None:
    """The 99th percentile of latency with stalled clients, as a multiple of the one without.

    None when clients that do read have missed messages: those have no latency, and the rest would flatter.
    """
    with_stalled = dig(results.get("stalled"), "latency_us", "p99")
    without = dig(results.get("reading"), "latency_us", "p99")
    share = delivered(results.get("stalled"))
    return None if with_stalled is None or not without or share != 1 else with_stalled / without


def p99_of(name: str) -> Callable[[Results], float | None]:
    """A reader of one pass's 99th percentile of latency, in milliseconds."""

    def read(results: Results) -> float | None:
        value = dig(results.get(name), "latency_us", "p99")
        return None if value is None else value / 1000

    return read


def percent_delivered(results: Results) -> float | None:
    """What clients that do read have received in spite of the stalled ones, in percent."""
    share = delivered(results.get("stalled"))
    return None if share is None else 100 * share


CPU_PER_DELIVERY: Final = Metric("cpu", "server CPU per delivery", "µs", at("cpu", "server_us_per_delivery"))
TO_LAST: Final = Metric(
    "last", "to the last client, p50", "ms", at("last_receiver_us", "p50", divide=1000), 1
)
TO_LAST_P99: Final = Metric(
    "last_p99", "to the last client, p99", "ms", at("last_receiver_us", "p99", divide=1000), 1
)
LATENCY: Final = Metric("p50", "latency p50", "ms", at("latency_us", "p50", divide=1000))
LATENCY_P99: Final = Metric("p99", "latency p99", "ms", at("latency_us", "p99", divide=1000))
LATENCY_P999: Final = Metric("p999", "latency p99.9", "ms", at("latency_us", "p99.9", divide=1000))
SPREAD: Final = Metric("spread", "first to last client", "ms", at("spread_us", "p50", divide=1000), 1)
THROUGHPUT: Final = Metric("throughput", "deliveries per second", "1,000/s", at("throughput", divide=1000), 0)

SCENARIOS: Final = (
    Scenario(
        name="one-in-flight",
        title="One message in flight",
        about="10,000 clients, messages of 128 bytes; the next is sent when the last client has this one.",
        passes={ONLY: Load(connections=10_000, messages=40)},
        metrics=(
            CPU_PER_DELIVERY,
            TO_LAST,
            TO_LAST_P99,
            SPREAD,
            LATENCY,
            LATENCY_P99,
            LATENCY_P999,
            THROUGHPUT,
        ),
    ),
    Scenario(
        name="sixteen-in-flight",
        title="Sixteen messages in flight",
        about="10,000 clients, messages of 128 bytes from one sender, who has up to sixteen under way.",
        passes={ONLY: Load(connections=10_000, messages=48, in_flight=16)},
        metrics=(CPU_PER_DELIVERY, TO_LAST, TO_LAST_P99, SPREAD, THROUGHPUT),
    ),
    Scenario(
        name="paced",
        title="A steady stream",
        about="200 messages of 128 bytes per second to 1,000 clients for five seconds; times count from the"
        " moment at which a message was due.",
        passes={ONLY: Load(connections=1_000, messages=1_000, rate=200)},
        metrics=(CPU_PER_DELIVERY, LATENCY, LATENCY_P99, LATENCY_P999),
    ),
    Scenario(
        name="chat",
        title="Many speak at once",
        about="100 of 5,000 clients send one message of 128 bytes each, all at the same time.",
        passes={ONLY: Load(connections=5_000, senders=100, messages=1)},
        metrics=(CPU_PER_DELIVERY, TO_LAST, TO_LAST_P99),
    ),
    Scenario(
        name="handler",
        title="Messages through the application",
        about="1,000 clients, messages of 128 bytes from one sender, who has up to sixteen under way."
        " Compare the servers in Python with fastcast's Python handler: every message passes through Python.",
        passes={ONLY: Load(connections=1_000, messages=400, in_flight=16)},
        metrics=(CPU_PER_DELIVERY, TO_LAST, THROUGHPUT),
    ),
    Scenario(
        name="large",
        title="Large messages",
        about="64 KiB to 1,000 clients, one message in flight.",
        passes={ONLY: Load(connections=1_000, messages=60, size=64 * KIB)},
        metrics=(CPU_PER_DELIVERY, TO_LAST, THROUGHPUT),
    ),
    Scenario(
        name="connect",
        title="Connections",
        about="10,000 clients connect as fast as the server lets them, with up to 256 handshakes under way.",
        passes={ONLY: Load(connections=10_000)},
        metrics=(
            Metric("cpu", "server CPU per connection", "µs", at("cpu", "server_us_per_connect"), 1),
            Metric("rate", "connections per second", "1/s", at("connections", "rate"), 0),
        ),
    ),
    Scenario(
        name="stalled",
        title="Clients that do not read",
        about="64 KiB to 2,000 clients, one message in flight, twice: all of them read, and 1 % of them never"
        " do. The number is the 99th percentile of the others' latency in the second case, as a multiple of"
        " that in the first.",
        passes={
            "reading": Load(connections=2_000, messages=60, size=64 * KIB, timeout=40),
            "stalled": Load(connections=2_000, messages=60, size=64 * KIB, stalled=20, timeout=40),
        },
        metrics=(
            Metric("slowdown", "p99 with stalled clients", "multiple of that without", p99_with_stalled),
            Metric("without", "p99 without", "ms", p99_of("reading"), 1),
            Metric("with", "p99 with", "ms", p99_of("stalled"), 1),
            Metric("delivered", "delivered to those who read", "%", percent_delivered, 1),
        ),
        against_floor=False,
    ),
    Scenario(
        name="idle-memory",
        title="Memory of idle clients",
        about="19,000 clients, connected and silent for three seconds. The process's own memory is its"
        " proportional set size; the kernel's holds the sockets of both ends, because the clients are on the"
        " same machine.",
        passes={ONLY: Load(connections=19_000, hold=3)},
        metrics=(
            Metric(
                "process",
                "process memory per client",
                "bytes",
                per_client(growth("server_pss", "after_hold")),
                0,
            ),
            Metric(
                "kernel",
                "kernel memory per client, both ends",
                "bytes",
                per_client(total(growth("kernel_tcp", "after_hold"), growth("kernel_slab", "after_hold"))),
                0,
            ),
            Metric(
                "base",
                "process without clients",
                "MB",
                at("memory", "before_connect", "server_pss", divide=MB),
                1,
            ),
        ),
        against_floor=False,
    ),
    Scenario(
        name="burst",
        title="Memory after a burst",
        about="Eight messages of 64 KiB at once to 1,000 clients, 524 MB in all; the number is what the"
        " process still holds three seconds later, above what it held before.",
        passes={ONLY: Load(connections=1_000, messages=8, in_flight=8, size=64 * KIB, hold=3)},
        metrics=(
            Metric(
                "kept",
                "kept after the burst",
                "MB",
                growth("server_pss", "after_hold", "after_connect", MB),
                1,
            ),
            Metric("peak", "peak above idle", "MB", peak_growth, 1),
        ),
        against_floor=False,
    ),
)


def select(names: str | None) -> list[Scenario]:
    """Return the scenarios of a comma-separated list, all of them for None.

    Raises :exc:`SystemExit` with a message for a name that isn't one.
    """
    if names is None:
        return list(SCENARIOS)
    known = {scenario.name: scenario for scenario in SCENARIOS}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SystemExit(f"no such scenario: {', '.join(unknown)} (there are: {', '.join(known)})")
    return [known[name] for name in wanted]
