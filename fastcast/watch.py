"""Tells the log when a running server meets a limit of the machine: once, in words, with what to do about it.

The core goes on by itself whatever limit it meets. This looks at its counters, and at those of the kernel, as
they rise from what they were when the server started. The kernel's are of the whole network namespace: what
they tell may be another program's trouble, and the words say so.
"""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from fastcast.doctor.advice import MET, more_files, more_room, run, sysctl, what_is_short
from fastcast.doctor.facts import ROOT, read_conntrack_drops, read_netstat, read_sysctl, read_tcp_pages
from fastcast.listen import BACKLOG

QUIET: Final = 3600.0
"""Seconds for which a limit must not have been met before it is told again."""

FILES_INTERVAL: Final = 5.0
"""Seconds between two looks at the kernel's counters, which cost a fraction of a millisecond each."""

_OWN: Final = ("no_files", "no_memory", "full")

_CONNTRACK_MAX: Final = "net.netfilter.nf_conntrack_max"
_CONNTRACK_COUNT: Final = "net.netfilter.nf_conntrack_count"
_CONNTRACK_BUCKETS: Final = "net.netfilter.nf_conntrack_buckets"


class Watch:
    """Looks when ``poll()`` is called, every second or so; takes far less than a millisecond.

    ``stats`` returns the counters of the server (:meth:`fastcast.Server.stats`); those that it doesn't have
    count as 0. Not for several threads at a time.
    """

    def __init__(
        self,
        stats: Callable[[], Mapping[str, Any]],
        log: logging.Logger,
        *,
        clock: Callable[[], float] = time.monotonic,
        root: Path = ROOT,
    ) -> None:
        """``root`` is what /proc is looked for in."""
        self._stats = stats
        self._log = log
        self._clock = clock
        self._root = root
        self._met: dict[str, float] = {}  # when a limit was last met, by its name in MET
        self._counters: dict[str, int] = {}
        self._read_at = clock()
        self._failed = False
        self._guard(self._baseline)

    def poll(self) -> None:
        """Look once. Never raises: what can't be read is not watched."""
        self._guard(self._look)

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception:
            # A look at the machine must not cost the server its life. Once, since every look would fail.
            if not self._failed:
                self._log.debug("cannot watch for the limits of the machine", exc_info=True)
            self._failed = True

    def _baseline(self) -> None:
        stats = self._stats()
        for name in _OWN:
            self._rise(name, stats.get(name, 0))
        for name, value in self._kernel().items():
            self._rise(name, value)

    def _look(self) -> None:
        self._tell(self._of_server())
        now = self._clock()
        if now - self._read_at >= FILES_INTERVAL:
            self._read_at = now
            self._tell(self._of_kernel())

    def _tell(self, met: Iterator[tuple[str, str]]) -> None:
        now = self._clock()
        for limit, advice in met:
            before = self._met.get(limit)
            self._met[limit] = now
            if before is None or now - before >= QUIET:
                self._log.warning("%s. To change that: %s", MET[limit], advice)

    def _rise(self, name: str, value: int) -> int:
        """By how much a counter has risen since the last look; 0 at the first."""
        before = self._counters.get(name, value)
        self._counters[name] = value
        return max(value - before, 0)

    # ---- the server's own counters ----

    def _of_server(self) -> Iterator[tuple[str, str]]:
        stats = self._stats()
        risen = {name: self._rise(name, stats.get(name, 0)) for name in _OWN}
        if risen["no_files"]:
            yield self._files()
        if risen["no_memory"]:
            yield "no memory", what_is_short(stats.get("connections", 0))
        if risen["full"]:
            yield "full", more_room(stats.get("connections", 0))

    def _files(self) -> tuple[str, str]:
        """Both limits are one error to the core; which it was, the machine's count tells."""
        used = read_sysctl("fs.file-nr", self._root)
        if len(used) == 3 and used[0] >= used[2] * 0.98:
            return "no files on the machine", run(sysctl("fs.file-max", 2 * used[2]))
        most = read_sysctl("fs.nr_open", self._root)
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return "no files", more_files(limit, most[0] if most else None)

    # ---- the kernel's ----

    def _kernel(self) -> dict[str, int]:
        counters = read_netstat(self._root)
        counters["conntrack"] = read_conntrack_drops(self._root)
        return counters

    def _of_kernel(self) -> Iterator[tuple[str, str]]:
        risen = {name: self._rise(name, value) for name, value in self._kernel().items()}
        yield from self._queues(risen)
        yield from self._tcp_memory(risen)
        yield from self._conntrack(risen)

    def _queues(self, risen: Mapping[str, int]) -> Iterator[tuple[str, str]]:
        if risen.get("ListenOverflows"):
            yield "listen queue", self._longer_queue()
        cookies = read_sysctl("net.ipv4.tcp_syncookies", self._root)
        # With 2 every SYN counts as one that the queue was too full for.
        if risen.get("TCPReqQFullDoCookies") and cookies != (2,):
            yield "half-open, cookies", self._longer_queue()
        # With SYN cookies off, SYNs are dropped at three quarters of tcp_max_syn_backlog, which only
        # ListenDrops tells.
        dropped = risen.get("ListenDrops", 0) > risen.get("ListenOverflows", 0) and cookies == (0,)
        if risen.get("TCPReqQFullDrop") or dropped:
            yield "half-open, dropped", run(sysctl("net.ipv4.tcp_syncookies", 1))

    def _longer_queue(self) -> str:
        present = read_sysctl("net.core.somaxconn", self._root)
        if present and present[0] >= BACKLOG:
            return "start the server with more --shards, each of which has a queue of its own"
        return run(sysctl("net.core.somaxconn", BACKLOG), restart=True)

    def _tcp_memory(self, risen: Mapping[str, int]) -> Iterator[tuple[str, str]]:
        allowed = read_sysctl("net.ipv4.tcp_mem", self._root)
        pages = read_tcp_pages(self._root)
        over = len(allowed) == 3 and pages is not None and pages > allowed[1]
        if over or risen.get("TCPMemoryPressures") or risen.get("TCPAbortOnMemory"):
            if len(allowed) == 3:
                yield "tcp memory", run(sysctl("net.ipv4.tcp_mem", *(2 * number for number in allowed)))
            else:
                yield "tcp memory", "raise net.ipv4.tcp_mem outside this network namespace"

    def _conntrack(self, risen: Mapping[str, int]) -> Iterator[tuple[str, str]]:
        most = read_sysctl(_CONNTRACK_MAX, self._root)
        count = read_sysctl(_CONNTRACK_COUNT, self._root)
        if not most or not count or not most[0]:
            return
        if count[0] >= most[0] or (risen["conntrack"] and count[0] >= 0.9 * most[0]):
            yield "conntrack", run(sysctl(_CONNTRACK_MAX, 2 * most[0]))
        elif risen["conntrack"]:
            buckets = read_sysctl(_CONNTRACK_BUCKETS, self._root)
            wanted = 4 * (buckets[0] if buckets else most[0])
            yield "conntrack chains", run(sysctl(_CONNTRACK_BUCKETS, wanted))
