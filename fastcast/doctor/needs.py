"""What a number of connections needs, against what the machine has: arithmetic without a look at the machine.

The figures of fastcast come from its own source: a shard's fds from ``count_room`` in core/shard.c, the
number of shards from ``shards.py``, threads of the load client from load/plan.c. Those of memory are
measured, see below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fastcast.doctor.advice import WHY, Setting, command, power_of_two, rounded, sysctl, unit
from fastcast.doctor.facts import Facts, Group
from fastcast.listen import BACKLOG
from fastcast.shards import shards_for

# Slab per idle TCP socket of one end, with its file, inode, dentry and epoll entry. Measured on Linux 6.18: a
# million connections, both ends on one machine, grow the kernel's memory by 9.2 GB.
SOCKET_BYTES: Final = 4600
# A slot (40 bytes), its place in a room, and what a growing array keeps spare.
CLIENT_BYTES: Final = 60
# The load client's side of a connection: a link of 32 bytes, and its marks in the ledger.
LINK_BYTES: Final = 64
# Resident memory of one more shard, with its read buffer, stack and rings: 256 of them take 34 MB.
SHARD_BYTES: Final = 140 * 1024
PROCESS_BYTES: Final = 40 * 2**20
# A tracked connection (struct nf_conn and its extensions).
TRACKED_BYTES: Final = 320

STACK_BYTES: Final = 512 * 1024  # STACK_SIZE in core/hub.c
MAPS_OF_A_SHARD: Final = 5  # measured: 896 more for 256 shards with io_uring, 6 for a single one
MAPS_OF_A_PROCESS: Final = 1000
FILES_OF_A_SHARD: Final = 6  # listener, wake-up, both ends of its door, epoll, ring
FILES_OF_A_PROCESS: Final = 64

MOST_LOAD_THREADS: Final = 256
LOAD_FDS: Final = MOST_LOAD_THREADS + 64  # RESERVED_FDS in load/plan.c
SPARE_FDS: Final = 32  # FC_SPARE_FDS in core/shard.h
MOST_FDS: Final = 2**24  # FC_FD_MAX in core/client.h

# New connections that a core takes in a second: 22 to 30 microseconds of CPU time for each, measured.
ACCEPTED_PER_CORE: Final = 30_000
# Of all clients, those that stall at the same time with full buffers, before it is worth a word.
STALLED: Final = 0.01
# And those that have something waiting in the kernel at the same time, at the least.
WAITING: Final = 0.1

# With a million clients a delivery took 8.2 µs of the server's CPU at 7.6 in a bucket, 5.4 at 0.5.
LONGEST_CHAIN: Final = 4

UNSEEN: Final = "not to be seen from here"


class Role(StrEnum):
    """What is to run on the machine; ``BOTH`` is a server and its load client, over loopback."""

    SERVER = "server"
    LOAD = "load"
    BOTH = "both"


class Verdict(StrEnum):
    """``TIGHT`` holds the connections, but with little to spare, or at a cost that the words tell."""

    FITS = "fits"
    TIGHT = "tight"
    SHORT = "short"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Check:
    """One limit: what there is, what is needed, and what follows.

    ``value`` and ``need`` are in ``unit`` ("" for plain numbers, "bytes", "pages"); a need of None is none, a
    value of None is no limit, or unknown. ``note`` is a few words for the table, ``why`` the explanation.
    ``settings`` is what to set where it doesn't fit.
    """

    name: str
    value: int | None
    need: int | None
    verdict: Verdict
    note: str
    why: str
    unit: str = ""
    settings: tuple[Setting, ...] = ()

    @property
    def lines(self) -> list[str]:
        """The exact lines to set it; none where nothing needs to be set, or can be."""
        return [setting.line for setting in self.settings]


def check_all(facts: Facts, connections: int, role: Role) -> list[Check]:
    """Every limit that plays a part in the role."""
    return list(_Doctor(facts, connections, role).checks())


def judge(value: int | None, need: int, spare: float = 1.1) -> Verdict:
    """Short below the need, tight below ``spare`` times the need."""
    if value is None:
        return Verdict.UNKNOWN
    if value < need:
        return Verdict.SHORT
    return Verdict.TIGHT if value < need * spare else Verdict.FITS


def softened(verdict: Verdict) -> Verdict:
    """For limits beyond which things get worse, but go on."""
    return Verdict.TIGHT if verdict is Verdict.SHORT else verdict


# ---- fd tables ----


def server_room(limit: int, shards: int, private: bool) -> int:
    """Clients that so many shards hold; ``private``: each has an fd table of its own."""
    used = 2 * shards + 1 + 8 + SPARE_FDS
    if private:
        return shards * max(limit - used, 0)
    return max(limit - used - shards * (2 + SPARE_FDS) - 64, 0)


def load_threads(connections: int, limit: int) -> int:
    """Threads that the load client starts."""
    return min(max(-(-connections // _per_load_thread(limit)), 2), MOST_LOAD_THREADS)


def load_room(limit: int, private: bool) -> int:
    """Connections that one load client holds."""
    return _per_load_thread(limit) * MOST_LOAD_THREADS if private else max(limit - LOAD_FDS, 0)


def _per_load_thread(limit: int) -> int:
    return limit - LOAD_FDS if limit > 2 * LOAD_FDS else limit // 2 + 1


def least(fits: Callable[[int], bool], most: int = MOST_FDS) -> int:
    """The least number up to ``most`` that fits, where all larger ones do, too."""
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle + 1
    return low


class _Doctor:
    """The checks of one machine, number and role."""

    def __init__(self, facts: Facts, connections: int, role: Role) -> None:
        self.facts = facts
        self.connections = connections
        self.serves = role is not Role.LOAD
        self.loads = role is not Role.SERVER
        self.ends = self.serves + self.loads
        # Where it couldn't be tried, the worse is assumed.
        self.private = bool(facts.probe.private_tables)
        limit = MOST_FDS if facts.nofile_hard is None else min(facts.nofile_hard, MOST_FDS)
        self.limit = limit
        self.shards = shards_for(connections, limit, facts.cores) if self.serves else 0
        self.load_threads = load_threads(connections, limit) if self.loads else 0
        self.threads = self.shards + self.load_threads + 8 * self.ends

    def checks(self) -> Iterator[Check]:
        yield from self._files()
        yield from self._memory()
        if self.serves:
            yield from self._queues()
        yield from self._tables()
        yield from self._ports()
        yield from self._threads()
        yield from self._figures()

    def _sysctl(
        self,
        name: str,
        need: int,
        note: str,
        *,
        target: int | None = None,
        verdict: Verdict | None = None,
    ) -> Check:
        value = self.facts.sysctl(name)
        verdict = verdict or judge(value, need)
        lacks = verdict in (Verdict.SHORT, Verdict.TIGHT)
        settings = (sysctl(name, target or need),) if lacks else ()
        if value is None:
            note = UNSEEN
        return Check(name, value, need, verdict, note, WHY[name], settings=settings)

    # ---- files ----

    def _fits_in(self, limit: int) -> bool:
        shards = shards_for(self.connections, limit, self.facts.cores)
        served = server_room(limit, shards, self.private) >= self.connections
        threads = load_threads(self.connections, limit)
        # Before its threads part from the process's table, it holds a wake-up of each.
        loaded = load_room(limit, self.private) >= self.connections and threads + FILES_OF_A_PROCESS < limit
        return (served or not self.serves) and (loaded or not self.loads)

    def _files(self) -> Iterator[Check]:
        facts = self.facts
        need = least(self._fits_in)
        target = rounded(need + need // 8)
        hard = judge(self.limit, need)
        if not self._fits_in(need):
            hard = Verdict.SHORT  # beyond the largest fd table, or the most shards, that there can be
        settings = (unit("LimitNOFILE", target),) if hard is not Verdict.FITS else ()
        note = self._table_note()
        yield Check(
            "nofile hard",
            facts.nofile_hard,
            need,
            hard,
            note,
            WHY["nofile hard"],
            settings=settings,
        )
        soft_fits = facts.nofile_soft == facts.nofile_hard or (facts.nofile_soft or MOST_FDS) >= need
        yield Check(
            "nofile soft",
            facts.nofile_soft,
            need,
            hard,
            "as the hard limit" if soft_fits else "raised to the hard limit at the start",
            WHY["nofile soft"],
            settings=settings,
        )
        # The line that raises the limit must be possible, too.
        raised = need if hard is Verdict.FITS else target
        verdict = judge(facts.sysctl("fs.nr_open"), raised, 1)
        if hard is Verdict.TIGHT:
            verdict = softened(verdict)
        yield self._sysctl("fs.nr_open", raised, "", verdict=verdict)
        yield self._file_max()
        watched = self.ends * self.connections + self.threads * 4
        watches = "fs.epoll.max_user_watches"
        yield self._sysctl(watches, watched, "for each user", target=rounded(watched + watched // 4))

    def _table_note(self) -> str:
        if self.facts.probe.private_tables is None:
            return "one shared table assumed"
        if not self.private:
            return "one shared table: no close_range() here"
        parts = []
        if self.serves:
            parts.append(f"{self.shards} shards")
        if self.loads:
            parts.append(f"{self.load_threads} threads")
        return f"a table each: {', '.join(parts)}"

    def _file_max(self) -> Check:
        name = "fs.file-max"
        used = self.facts.sysctl("fs.file-nr") or 0
        own = self.shards * FILES_OF_A_SHARD + self.load_threads * 2 + self.ends * FILES_OF_A_PROCESS
        need = used + self.ends * self.connections + own
        verdict = judge(self.facts.sysctl(name), need)
        note = f"{_short(used)} in use now"
        if verdict is Verdict.SHORT and self.facts.privileged:
            verdict = Verdict.TIGHT
            note = "passed by root, at all others' cost"
        return self._sysctl(name, need, note, target=rounded(need + need // 4), verdict=verdict)

    # ---- memory ----

    def _memory(self) -> Iterator[Check]:
        facts = self.facts
        of_process = self.serves * CLIENT_BYTES + self.loads * LINK_BYTES
        each = self.ends * SOCKET_BYTES + of_process + bool(facts.probe.tracking) * TRACKED_BYTES
        fixed = self.ends * PROCESS_BYTES + (self.shards + self.load_threads) * SHARD_BYTES
        need = fixed + self.connections * each
        held = max((facts.memory_available or 0) - fixed, 0) // each
        yield Check(
            "memory",
            facts.memory_available,
            need,
            judge(facts.memory_available, need),
            f"holds some {_short(held)} idle connections" if facts.memory_available is not None else UNSEEN,
            WHY["memory"],
            "bytes",
        )
        if facts.cgroup_memory:
            yield self._group("cgroup memory", facts.cgroup_memory, need, "bytes")
        yield self._tcp_mem()
        if self.serves:
            yield self._buffers("net.ipv4.tcp_wmem", 2, 65536)
        yield self._buffers("net.ipv4.tcp_rmem", 1, 16384)
        reserved = fixed + self.connections * of_process + self.threads * STACK_BYTES
        yield self._commit(reserved)

    def _group(self, name: str, group: Group, need: int, what: str) -> Check:
        verdict = judge(group.room, need)
        target = rounded(group.used + need + need // 8, 2**20 if what == "bytes" else 64)
        settings = (command(f"echo {target} > {group.file}"),) if verdict is not Verdict.FITS else ()
        return Check(name, group.room, need, verdict, "left in its group", WHY[name], what, settings)

    def _tcp_mem(self) -> Check:
        name = "net.ipv4.tcp_mem"
        values = self.facts.sysctls.get(name, ())
        need = self.ends * self.connections
        if len(values) != 3:
            # It is the machine's, and not to be seen in another network namespace.
            note = "not visible in this namespace"
            return Check(name, None, need, Verdict.UNKNOWN, note, WHY[name], "pages")
        note = f"holds a message for each of {_short(values[1] // self.ends)}"
        verdict = judge(values[1], need, 1)
        if verdict is Verdict.SHORT and values[2] >= need * WAITING:
            verdict = Verdict.TIGHT
        # No more than half of the memory, which can't be taken back from the kernel.
        memory = self.facts.memory_total
        most = min(2 * need, memory // 2 // self.facts.page_size) if memory else 2 * need
        raises = verdict is not Verdict.FITS and most > values[2]
        settings = (sysctl(name, most // 2, most * 5 // 8, most),) if raises else ()
        return Check(name, values[1], need, verdict, note, WHY[name], "pages", settings)

    def _buffers(self, name: str, place: int, least: int) -> Check:
        """What those cost that stall with full buffers: together they must leave some of tcp_mem to the rest.

        ``place`` is that of the number that bounds a stalled one's buffer, ``least`` what it isn't lowered
        below.
        """
        values = self.facts.sysctls.get(name, ())
        pages = self.facts.sysctl("net.ipv4.tcp_mem", 1)
        if len(values) != 3:
            return Check(name, None, None, Verdict.UNKNOWN, "", WHY[name], "bytes")
        buffer = values[place]
        if pages is None:
            return Check(name, buffer, None, Verdict.UNKNOWN, "tcp_mem is not visible", WHY[name], "bytes")
        most = pages * self.facts.page_size
        fair = most // max(int(self.connections * STALLED), 1)
        note = f"{_short(most // buffer)} stalled clients fill tcp_mem"
        verdict = Verdict.FITS if buffer <= fair else Verdict.TIGHT
        lower = list(values)
        lower[place] = max(power_of_two(fair + 1) // 2, least, *lower[:place])
        settings = (sysctl(name, *lower),) if verdict is Verdict.TIGHT and lower[place] < buffer else ()
        return Check(name, buffer, None, verdict, note, WHY[name], "bytes", settings)

    def _commit(self, reserved: int) -> Check:
        name = "vm.overcommit_memory"
        mode = self.facts.sysctl(name)
        if mode is None:
            return Check(name, None, None, Verdict.UNKNOWN, "", WHY[name])
        if mode != 2:
            return Check(name, mode, None, Verdict.FITS, "reservations are free", WHY[name])
        verdict = judge(self.facts.commit_room, reserved)
        settings = (sysctl(name, 0),) if verdict is not Verdict.FITS else ()
        note = "2: what isn't reserved yet"
        return Check(name, self.facts.commit_room, reserved, verdict, note, WHY[name], "bytes", settings)

    # ---- queues of new connections ----

    def _queues(self) -> Iterator[Check]:
        at_once = max(self.connections - self._accepted(), 0)
        need = min(max(-(-at_once // self.shards), 128), BACKLOG)
        yield self._queue("net.core.somaxconn", need, power_of_two(need))
        cookies = self.facts.sysctl("net.ipv4.tcp_syncookies")
        name = "net.ipv4.tcp_max_syn_backlog"
        if cookies:
            value = self.facts.sysctl(name)
            yield Check(name, value, None, Verdict.FITS, "not in use: there are SYN cookies", WHY[name])
        else:
            yield self._queue(name, need * 4 // 3, power_of_two(need * 4 // 3))
        name = "net.ipv4.tcp_syncookies"
        verdict = Verdict.UNKNOWN if cookies is None else Verdict.FITS if cookies == 1 else Verdict.TIGHT
        notes = {0: "SYNs beyond the queue are dropped", 2: "always, a setting for tests"}
        note = notes.get(cookies or 0, "") if cookies is not None else ""
        settings = (sysctl(name, 1),) if verdict is Verdict.TIGHT else ()
        yield Check(name, cookies, 1, verdict, note, WHY[name], settings=settings)

    def _queue(self, name: str, need: int, target: int) -> Check:
        """Whoever doesn't fit tries again, so that only a queue far too short keeps clients out for long."""
        value = self.facts.sysctl(name)
        verdict = judge(value, need, 1)
        queued = (value or 0) * self.shards
        if verdict is Verdict.SHORT and queued >= self.connections // 100:
            verdict = Verdict.TIGHT
        note = f"{_short(min(queued, self.connections))} can wait when all come at once"
        return self._sysctl(name, need, note, target=min(target, BACKLOG), verdict=verdict)

    # ---- tables of the kernel ----

    def _tables(self) -> Iterator[Check]:
        name = "net.netfilter.nf_conntrack_max"
        facts = self.facts
        tracked = facts.sysctl("net.netfilter.nf_conntrack_count") or 0
        need = tracked + self.connections
        if facts.sysctl(name) is None:
            yield Check(name, None, None, Verdict.FITS, "no connection tracking here", WHY[name])
        elif facts.sysctl(name) == 0:
            yield Check(name, None, None, Verdict.FITS, "0, which is no limit", WHY[name])
        elif facts.probe.tracking is False:
            note = "there, but no rule uses it"
            yield Check(name, facts.sysctl(name), None, Verdict.FITS, note, WHY[name])
        else:
            yield self._sysctl(name, need, f"{_short(tracked)} in it now", target=rounded(need + need // 4))
            yield self._chains(need)
        entries = facts.sysctl("net.ipv4.tcp_ehash_entries")
        if entries:
            yield self._hash_of_sockets(abs(entries))  # negative where a namespace shares the machine's

    def _hash_of_sockets(self, buckets: int) -> Check:
        name = "net.ipv4.tcp_ehash_entries"
        sockets = self.ends * self.connections
        note = f"{sockets / buckets:.1f} connections in a bucket"
        if sockets <= LONGEST_CHAIN * buckets:
            return Check(name, buckets, None, Verdict.FITS, note, WHY[name])
        wanted = power_of_two(sockets)
        settings = (
            command(f"thash_entries={wanted} on the kernel's command line, and reboot;"),
            command(f"or: sysctl -w net.ipv4.tcp_child_ehash_entries={wanted}, then a new network namespace"),
        )
        return Check(name, buckets, None, Verdict.TIGHT, note, WHY[name], settings=settings)

    def _chains(self, entries: int) -> Check:
        name = "net.netfilter.nf_conntrack_buckets"
        # Chains vary: with 16 on average, one of 50 is about as rare as one in a hundred thousand million.
        need = power_of_two(-(-2 * entries // 16))
        buckets = self.facts.sysctl(name)
        note = f"chains of {2 * entries / buckets:.1f}" if buckets else ""
        verdict = judge(buckets, need, 1)
        if verdict is Verdict.SHORT and buckets and 2 * entries / buckets <= 24:
            verdict = Verdict.TIGHT
        return self._sysctl(name, need, note, target=need, verdict=verdict)

    # ---- ports ----

    def _ports(self) -> Iterator[Check]:
        name = "ports x addresses"
        facts = self.facts
        bounds = facts.sysctls.get("net.ipv4.ip_local_port_range", ())
        if len(bounds) != 2:
            yield Check(name, None, self.connections, Verdict.UNKNOWN, "", WHY[name])
            return
        ports = max(bounds[1] - bounds[0] + 1 - facts.reserved_ports, 0)
        if not self.loads:
            note = f"for a proxy: {ports:,} per address"
            yield Check(name, ports, None, Verdict.FITS, note, WHY[name])
            return
        if self.serves:
            addresses = 2**24 - 2
            note = f"{ports:,} ports, and all of 127.0.0.0/8"
        else:
            addresses = facts.addresses
            note = f"{ports:,} ports of {addresses} source {'address' if addresses == 1 else 'addresses'}"
        room = ports * addresses
        verdict = judge(room, self.connections, 2)
        settings = self._more_ports(addresses) if verdict is not Verdict.FITS else ()
        yield Check(name, room, self.connections, verdict, note, WHY[name], settings=settings)
        yield from self._time_wait(room)

    def _more_ports(self, addresses: int) -> tuple[Setting, ...]:
        wide = 65535 - 1024 + 1
        needed = -(-2 * self.connections // wide)
        settings = [sysctl("net.ipv4.ip_local_port_range", 1024, 65535)]
        if needed > addresses:
            more = needed - addresses
            add = f"ip addr add ADDRESS/PREFIX dev {self.facts.device}"
            settings.append(command(f"{add}  # for {more} more {'address' if more == 1 else 'addresses'}"))
        return tuple(settings)

    def _time_wait(self, room: int) -> Iterator[Check]:
        name = "net.ipv4.tcp_tw_reuse"
        value = self.facts.sysctl(name)
        reused = value == 1 or (value == 2 and self.serves)
        verdict = Verdict.UNKNOWN if value is None else Verdict.FITS
        note = "over loopback" if value == 2 and self.serves else ""
        if value is not None and not reused:
            enough = room >= 2 * self.connections
            verdict = Verdict.FITS if enough else Verdict.TIGHT
            note = "ports are enough for two runs" if enough else "a second run must wait for ports"
        settings = (sysctl(name, 1),) if verdict is Verdict.TIGHT else ()
        yield Check(name, value, None, verdict, note, WHY[name], settings=settings)
        name = "net.ipv4.tcp_max_tw_buckets"
        verdict = softened(judge(self.facts.sysctl(name), self.connections, 1))
        yield self._sysctl(name, self.connections, "if all close within a minute", verdict=verdict)

    # ---- threads ----

    def _threads(self) -> Iterator[Check]:
        facts = self.facts
        need = (facts.threads or 0) + self.threads
        target = rounded(need + need // 4)
        yield self._sysctl("kernel.threads-max", need, f"{facts.threads or 0:,} there now", target=target)
        yield self._sysctl("kernel.pid_max", need, "", target=target)
        if facts.nproc is not None and not facts.privileged:
            need = (facts.own_threads or 0) + self.threads
            target = rounded(need + need // 4)
            verdict = judge(facts.nproc, need)
            settings = (unit("LimitNPROC", target),) if verdict is not Verdict.FITS else ()
            note = f"{facts.own_threads or 0:,} of this user now"
            yield Check("nproc", facts.nproc, need, verdict, note, WHY["nproc"], settings=settings)
        if facts.cgroup_pids:
            yield self._group("cgroup pids", facts.cgroup_pids, self.threads, "")
        need = max(self.shards, self.load_threads) * MAPS_OF_A_SHARD + MAPS_OF_A_PROCESS
        yield self._sysctl("vm.max_map_count", need, "of one process", target=max(rounded(2 * need), 65536))

    # ---- figures ----

    def _figures(self) -> Iterator[Check]:
        if self.serves:
            error = self.facts.probe.uring_error
            disabled = self.facts.sysctl("kernel.io_uring_disabled")
            verdict = Verdict.UNKNOWN if error is None else Verdict.TIGHT if error else Verdict.FITS
            notes = {Verdict.FITS: "works", Verdict.UNKNOWN: "could not be tried"}
            note = notes.get(verdict, "epoll in its place")
            settings = (sysctl("kernel.io_uring_disabled", 0),) if error and disabled else ()
            yield Check("io_uring", None, None, verdict, note, WHY["io_uring"], settings=settings)
        remarks = [f"accept some {self._accepted():,} a second"] if self.serves else []
        if self.facts.quota is not None:
            remarks.append(f"its group may use {self.facts.quota:g}")
        yield Check("cores", self.facts.cores, None, Verdict.FITS, "; ".join(remarks), WHY["cores"])

    def _accepted(self) -> int:
        """New connections in a second."""
        cores = self.facts.cores if self.facts.quota is None else min(self.facts.cores, self.facts.quota)
        return int(cores * ACCEPTED_PER_CORE)


def _short(number: int) -> str:
    """Three digits, for people: 28.2 k, 1.94 M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if number >= size:
            return f"{number / (1000 if letter == 'k' else size):.3g} {letter}"
    return f"{number:,}"
