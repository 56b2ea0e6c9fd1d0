"""What the load client tells, as `fastcast._load` tells it, with figures that a test chooses."""

from __future__ import annotations

from typing import Any

PHASES = ("connect", "settle", "storm", "messages", "hold", "close")
MOMENTS = ("before_connect", "after_connect", "after_storm", "after_messages", "after_hold", "after_close")

MILLISECOND = 1_000_000


def snapshot(
    seconds: float,
    phase: str = "messages",
    *,
    made: int = 100,
    failed: int = 0,
    sent: int = 0,
    received: int = 0,
    latency: tuple[tuple[int, int], ...] = (),
    handshake: tuple[tuple[int, int], ...] = (),
    server: dict[str, Any] | None = None,
    client_cpu: float = 0.0,
) -> dict[str, Any]:
    """A snapshot; histograms are pairs of nanoseconds and count."""
    return {
        "phase": phase,
        "seconds": seconds,
        "connections": {
            "made": made,
            "failed": failed,
            "open": made,
            "closed_unexpectedly": 0,
            "in_progress": 0,
            "waiting": 0,
        },
        "failures": {"Connection refused": failed} if failed else {},
        "retried": {},
        "sent": sent,
        "received": received,
        "damaged": 0,
        "duplicated": 0,
        "reordered": 0,
        "unexpected": 0,
        "latency": [list(pair) for pair in latency],
        "handshake": [list(pair) for pair in handshake],
        "server": server,
        "kernel": {"tcp": 4096, "slab": 8192},
        "client": {"cpu_seconds": client_cpu},
    }


def server_at(cpu_seconds: float, pss: int = 20 << 20) -> dict[str, Any]:
    """The server's part of a snapshot."""
    return {"cpu_seconds": cpu_seconds, "pss": pss, "rss": pss + 4096, "threads": 3}


def spread(value: float = 0.0, count: int = 0) -> dict[str, Any]:
    """A summed-up histogram, all of whose values are `value` microseconds."""
    return {"count": count, **dict.fromkeys(("p50", "p90", "p99", "p99.9", "max", "mean"), value)}


def result(**changes: Any) -> dict[str, Any]:
    """The result of a clean run of 100 connections and 10 messages.

    A change is merged into the part of its name: `deliveries={"lost": 3}` leaves the other deliveries alone.
    """
    seconds = {**dict.fromkeys(PHASES, 0.0), "connect": 0.5, "messages": 2.0}
    made: dict[str, Any] = {
        "connections": {
            "asked": 100,
            "made": 100,
            "failed": {},
            "retried": {},
            "attempts": 100,
            "reconnected": 0,
            "closed_unexpectedly": 0,
            "stalled_closed": 0,
            "unanswered": 0,
            "connect_seconds": 0.5,
            "rate": 200.0,
            "threads": 2,
            "sources": 1,
            "own_fd_tables": True,
        },
        "churn": {"closed": 0, "reopened": 0, "failed": 0},
        "storm": None,
        "messages": {
            "asked": 10,
            "sent": 10,
            "size": 128,
            "senders": 1,
            "senders_total": 1,
            "text": False,
            "expect": "all",
        },
        "deliveries": {
            "receivers": 100,
            "expected": 1000,
            "received": 1000,
            "lost": 0,
            "duplicated": 0,
            "reordered": 0,
            "damaged": 0,
            "unexpected": 0,
            "churning": 0,
        },
        "throughput": 500.0,
        "order_digest": "b314946414608b1d",
        "latency_us": spread(2000.0, 1000),
        "last_receiver_us": spread(3000.0, 10),
        "first_receiver_us": spread(1000.0, 10),
        "spread_us": spread(2000.0, 10),
        "handshake_us": spread(500.0, 100),
        "phase_seconds": seconds,
        "cpu": {
            "client_seconds": {**dict.fromkeys(PHASES, 0.0), "connect": 0.25, "messages": 0.5},
            "server_seconds": dict.fromkeys(PHASES),
            "server_ticks_seconds": dict.fromkeys(PHASES),
            "server_us_per_delivery": None,
            "server_us_per_connect": None,
            "client_us_per_delivery": 500.0,
            "client_busiest_thread": 0.5,
            "server_busiest_thread": None,
            "machine_busy": None,
        },
        "client_bound": False,
        "memory": {
            moment: {"server_pss": 0, "server_rss": 0, "kernel_tcp": 0, "kernel_slab": 0}
            for moment in MOMENTS
        },
        "closes": {},
        "errors": [],
        "cancelled": False,
        "clean": True,
        "histograms": {
            "latency": [[2 * MILLISECOND, 1000]],
            "handshake": [[MILLISECOND // 2, 100]],
            "first_receiver": [[MILLISECOND, 10]],
            "last_receiver": [[3 * MILLISECOND, 10]],
            "spread": [[2 * MILLISECOND, 10]],
            "storm_handshake": [],
            "storm_back": [],
        },
    }
    for name, change in changes.items():
        made[name] = made[name] | change if isinstance(change, dict) and made.get(name) else change
    return made


def storm(**changes: Any) -> dict[str, Any]:
    """The result's part on a storm of 100 connections that all came back within a second."""
    return {
        "dropped": 100,
        "back": 100,
        "missing": 0,
        "seconds": 1.0,
        "attempts": 100,
        "refused": {},
        "handshake_us": spread(500.0, 100),
        "back_us": spread(700.0, 100),
    } | changes
