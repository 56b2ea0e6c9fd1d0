"""A trial: one server and one load on it, as the options of both commands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

PING_INTERVAL: Final = "30s"
REHEARSAL: Final = 100

# Far below what a slow and busy machine does: a trial that takes longer will never end.
LEAST_CONNECTIONS_PER_SECOND: Final = 1_000
LEAST_DELIVERIES_PER_SECOND: Final = 30_000
SPARE_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One fresh ``fastcast serve``, and ``fastcast bench`` against it; most fields are flags."""

    connections: int
    messages: int = 0
    rate: float = 0.0
    churn: float = 0.0
    hold: float = 0.0
    storm: bool = False
    retry: float = 0.0
    threads: int | None = None
    shards: int | None = None

    group: int = 0
    """Trials of a round that are compared with each other."""

    base: bool = False
    """Whether the others of its group are compared with this one."""

    room: float = 1.0
    """How many clients the server has room for, as a multiple of ``connections``: who comes back is refused
    where those that have gone are still counted, unless there is room to spare."""

    rehearsal: int = REHEARSAL
    """How many clients connect, get a message and leave before the load that counts, so that what a server
    does just once in its life is not put down to that."""

    drained: bool = False
    """Whether the server is told to end while it holds all clients."""

    aftermath: bool = False
    """Whether memory is measured again when all clients are gone."""

    weighed: bool = True
    """Whether the kernel's memory counts, which takes a kernel without remains of an earlier trial."""

    @property
    def label(self) -> str:
        """What distinguishes the trial from others of its scenario."""
        parts = [f"{self.connections:,} clients"]
        if self.shards is not None:
            parts.append(f"{self.shards} shards")
        if self.threads is not None:
            parts.append(f"{self.threads} client threads")
        return ", ".join(parts)

    @property
    def seconds(self) -> float:
        """The most that the load client may take."""
        connecting = self.connections * (2 if self.storm else 1) / LEAST_CONNECTIONS_PER_SECOND
        delivering = self.connections * self.messages / LEAST_DELIVERIES_PER_SECOND
        paced = self.messages / self.rate if self.rate else 0.0
        return SPARE_SECONDS + connecting + max(delivering, paced) + self.hold

    def serve(self) -> list[str]:
        """The arguments of ``fastcast`` for the server."""
        return [
            "serve",
            *("--port", "0"),
            *("--max-connections", str(math.ceil(self.connections * self.room))),
            *("--ping-interval", PING_INTERVAL),
            *(("--shards", str(self.shards)) if self.shards is not None else ()),
        ]

    def bench(self, url: str, pid: str, file: str) -> list[str]:
        """The arguments of ``fastcast`` for the load that counts."""
        flags: dict[str, object] = {
            "--connections": self.connections,
            "--server-pid": pid,
            "--json": file,
            "--messages": self.messages,
        }
        if self.rate:
            flags["--rate"] = f"{self.rate:g}"
        if self.churn:
            flags["--churn"] = f"{self.churn:g}"
        if self.hold:
            flags["--hold"] = f"{self.hold:g}s"
        if self.retry:
            flags["--retry"] = f"{self.retry:g}s"
        if self.threads is not None:
            flags["--threads"] = self.threads
        arguments = ["bench", url, *(str(part) for flag in flags.items() for part in flag)]
        return [*arguments, "--storm"] if self.storm else arguments

    def rehearse(self, url: str) -> list[str]:
        """The arguments of ``fastcast`` for the load before it."""
        return ["bench", url, "--connections", str(self.rehearsal), "--messages", "1"]
