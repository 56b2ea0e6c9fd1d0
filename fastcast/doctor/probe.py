"""Finds out by trying what no file tells: fd tables for threads, io_uring, connection tracking."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from fastcast._core import Hub
from fastcast.doctor.facts import Probe

_COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")


def probe() -> Probe:
    """Try. Leaves nothing behind; takes some milliseconds."""
    private_tables, uring_error = _try_hub()
    return Probe(private_tables, uring_error, _try_tracking())


def _try_hub() -> tuple[bool | None, int | None]:
    """Start a server's core with a single shard, on a socket that nobody can reach."""
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("")  # unix(7): an abstract name that the kernel makes up
            listener.listen(1)
            listener.setblocking(False)
            fd = os.dup(listener.fileno())
    except OSError:
        return None, None
    try:
        hub = Hub(
            listeners=[[fd]],
            max_connections=1,
            max_message=1,
            max_backlog=1,
            max_head=1,
            max_handshakes=1,
            flush_interval=0,
            handshake_timeout=0,
            ping_interval=0,
            ping_timeout=0,
            close_timeout=0,
            timeout=b"",
            too_large=b"",
            full=b"",
            too_many=b"",
            rules=[(">", "close", 1, None, None, None)],
        )
    except (OSError, MemoryError):
        os.close(fd)
        return None, None
    try:
        hub.start()
    except (OSError, MemoryError):
        return None, None
    found = hub.private_tables, hub.uring_error
    hub.stop(0)
    return found


def _try_tracking() -> bool | None:
    """Whether a connection over loopback makes an entry in the table.

    The module may be there, and its sysctls, while no rule makes it work: then the table stays empty however
    many connections there are.
    """
    if not os.path.exists(_COUNT):
        return False
    if _count() > 0:
        return True
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname(), 1),
        ):
            return _count() > 0
    except OSError:
        return None  # without loopback, or behind a rule that drops it, nobody knows


def _count() -> int:
    try:
        return int(_COUNT.read_text("ascii"))
    except (OSError, ValueError):
        return 0
