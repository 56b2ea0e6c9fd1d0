"""Reads what the machine allows and holds right now. No opinion on it, and no changes to it.

Everything is read below ``root``, so that a test can bring a machine of its own. What can't be read is
missing: a sysctl isn't in the mapping, a figure is None.
"""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

ROOT: Final = Path("/")

SYSCTLS: Final = (
    "fs.epoll.max_user_watches",
    "fs.file-max",
    "fs.file-nr",
    "fs.nr_open",
    "kernel.io_uring_disabled",
    "kernel.pid_max",
    "kernel.threads-max",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_ehash_entries",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_wmem",
    "net.netfilter.nf_conntrack_buckets",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_max",
    "vm.max_map_count",
    "vm.overcommit_memory",
)

_CAP_SYS_ADMIN: Final = 1 << 21
_ALL_IDS: Final = 2**32 - 1
_LOOPBACK: Final = IPv4Network("127.0.0.0/8")


@dataclass(frozen=True, slots=True)
class Group:
    """A limit of a control group: the file that sets it, the limit, and what is used of it."""

    file: str
    limit: int
    used: int

    @property
    def room(self) -> int:
        """What is left."""
        return max(self.limit - self.used, 0)


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found by trying; None is what couldn't be found out.

    ``private_tables``: a thread can have an fd table of its own. ``uring_error``: 0, or the errno for which
    io_uring isn't used. ``tracking``: the firewall keeps track of connections in this network namespace.
    """

    private_tables: bool | None = None
    uring_error: int | None = None
    tracking: bool | None = None


@dataclass(frozen=True)
class Facts:
    """A machine as a process on it finds it. Memory is in bytes; a limit of None is no limit."""

    sysctls: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    locked: frozenset[str] = frozenset()  # sysctls that not even root can set from here
    kernel: str = ""
    cores: int = 1
    quota: float | None = None  # processors' worth of time that the control group may use
    page_size: int = 4096
    nofile_soft: int | None = None
    nofile_hard: int | None = None
    nproc: int | None = None
    threads: int | None = None  # of the whole machine, now
    own_threads: int | None = None  # of this user, as far as they are to be seen
    privileged: bool = False  # CAP_SYS_ADMIN over the machine: exempt from fs.file-max and nproc
    memory_total: int | None = None
    memory_available: int | None = None
    commit_room: int | None = None
    tcp_pages: int | None = None  # of net.ipv4.tcp_mem, in use
    reserved_ports: int = 0  # within ip_local_port_range
    addresses: int = 0  # source addresses beyond this machine: IPv4, or IPv6 where there are more
    device: str = "eth0"  # of the default route
    cgroup_memory: Group | None = None  # the tightest of the process's own group and those above it
    cgroup_pids: Group | None = None
    probe: Probe = field(default_factory=Probe)

    def sysctl(self, name: str, place: int = 0) -> int | None:
        """One number of a sysctl; None where there isn't one."""
        values = self.sysctls.get(name, ())
        return values[place] if place < len(values) else None


def read(root: Path = ROOT, probe: Probe | None = None) -> Facts:
    """The facts of this machine and process."""
    memory = _meminfo(root)
    available = memory.get("MemAvailable")
    return Facts(
        sysctls={name: values for name in SYSCTLS if (values := read_sysctl(name, root))},
        locked=frozenset(name for name in SYSCTLS if _is_locked(name, root)),
        kernel=_text(root / "proc/sys/kernel/osrelease").strip(),
        cores=len(os.sched_getaffinity(0)),
        quota=_quota(root),
        page_size=resource.getpagesize(),
        nofile_soft=_limit(resource.RLIMIT_NOFILE, 0),
        nofile_hard=_limit(resource.RLIMIT_NOFILE, 1),
        nproc=_limit(resource.RLIMIT_NPROC, 0),
        threads=_threads(root),
        own_threads=_own_threads(root),
        privileged=_is_privileged(root),
        memory_total=memory.get("MemTotal"),
        memory_available=available,
        commit_room=memory["CommitLimit"] - memory["Committed_AS"] if "CommitLimit" in memory else None,
        tcp_pages=read_tcp_pages(root),
        reserved_ports=_reserved_ports(root),
        addresses=max(_addresses(root), _addresses_6(root)),
        device=_device(root),
        cgroup_memory=_tightest(root, "memory"),
        cgroup_pids=_tightest(root, "pids"),
        probe=probe or Probe(),
    )


def read_sysctl(name: str, root: Path = ROOT) -> tuple[int, ...]:
    """The numbers of a sysctl; none where it isn't there or isn't readable."""
    try:
        return tuple(map(int, _text(root / "proc/sys" / name.replace(".", "/")).split()))
    except ValueError:
        return ()


def read_tcp_pages(root: Path = ROOT) -> int | None:
    """Pages that all TCP sockets of the machine hold, of ``net.ipv4.tcp_mem``."""
    for line in _text(root / "proc/net/sockstat").splitlines():
        words = line.split()
        if words and words[0] == "TCP:" and "mem" in words:
            return int(words[words.index("mem") + 1])
    return None


def read_netstat(root: Path = ROOT) -> dict[str, int]:
    """The TcpExt counters of /proc/net/netstat, by name."""
    lines = [line for line in _text(root / "proc/net/netstat").splitlines() if line.startswith("TcpExt:")]
    if len(lines) != 2:
        return {}
    return dict(zip(lines[0].split()[1:], map(int, lines[1].split()[1:]), strict=False))


def read_conntrack_drops(root: Path = ROOT) -> int:
    """Packets that connection tracking has dropped: the table was full, or a chain of it too long."""
    lines = _text(root / "proc/net/stat/nf_conntrack").splitlines()
    if len(lines) < 2:
        return 0
    names = lines[0].split()
    # "chainlength" counts what was refused for a long chain; before Linux 5.15 the place has another name.
    places = [names.index(name) for name in ("drop", "chainlength") if name in names]
    rows = [line.split() for line in lines[1:]]
    return sum(int(row[place], 16) for row in rows for place in places if place < len(row))


def _is_locked(name: str, root: Path) -> bool:
    """A container has /proc/sys read-only, and what is the machine's has no permission to write elsewhere."""
    path = root / "proc/sys" / name.replace(".", "/")
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY) or not path.stat().st_mode & stat.S_IWUSR
    except OSError:
        return False


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def _limit(which: int, place: int) -> int | None:
    value = resource.getrlimit(which)[place]
    return None if value == resource.RLIM_INFINITY else value


def _meminfo(root: Path) -> dict[str, int]:
    found = {}
    for line in _text(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if value.endswith("kB"):
            found[name] = int(value.split()[0]) * 1024
    return found


def _threads(root: Path) -> int | None:
    # proc_loadavg(5): the fourth field is runnable/existing scheduling entities.
    fields = _text(root / "proc/loadavg").split()
    return int(fields[3].partition("/")[2]) if len(fields) > 3 else None


def _own_threads(root: Path) -> int | None:
    """Threads of all processes of this user, which is what RLIMIT_NPROC counts."""
    count = 0
    for file in (root / "proc").glob("[0-9]*/status"):
        lines = dict(line.split(":", 1) for line in _text(file).splitlines() if ":" in line)
        # The first is the real user id. A process may have ended meanwhile.
        if lines.get("Uid", "").split()[:1] == [str(os.getuid())]:
            count += int(lines["Threads"])
    return count or None


def _is_privileged(root: Path) -> bool:
    # What is root in a user namespace of its own is nobody special to the machine (user_namespaces(7)).
    ids = _text(root / "proc/self/uid_map").split()
    if ids and ids != ["0", "0", str(_ALL_IDS)]:
        return False
    for line in _text(root / "proc/self/status").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & _CAP_SYS_ADMIN)
    return False


# ---- addresses ----


def _reserved_ports(root: Path) -> int:
    """Ports of ip_local_port_range that ip_local_reserved_ports (``"8080,9000-9010"``) takes away."""
    bounds = read_sysctl("net.ipv4.ip_local_port_range", root)
    if len(bounds) != 2:
        return 0
    reserved = 0
    for part in _text(root / "proc/sys/net/ipv4/ip_local_reserved_ports").strip().split(","):
        first, _, last = part.partition("-")
        if first:
            reserved += max(min(int(last or first), bounds[1]) - max(int(first), bounds[0]) + 1, 0)
    return reserved


def _addresses(root: Path) -> int:
    """IPv4 addresses that are this machine's, but for loopback; whole ranges count (``ip route add"
    " local``)."""
    found: set[IPv4Network] = set()
    address = ""
    for line in _text(root / "proc/net/fib_trie").splitlines():
        words = line.split()
        if words[:1] in (["|--"], ["+--"]):
            address = words[1].partition("/")[0]
        elif words[1:3] == ["host", "LOCAL"] and address:
            found.add(IPv4Network(address + words[0], strict=False))
    return sum(each.num_addresses for each in found if not each.overlaps(_LOOPBACK))


def _addresses_6(root: Path) -> int:
    """IPv6 addresses of global scope (the fourth field is 00)."""
    return sum(line.split()[3] == "00" for line in _text(root / "proc/net/if_inet6").splitlines())


def _device(root: Path) -> str:
    """The network device of the default route."""
    for line in _text(root / "proc/net/route").splitlines()[1:]:
        words = line.split()
        if words[1] == "00000000" and IPv4Address(int(words[7], 16)) == IPv4Address(0):
            return words[0]
    return "eth0"


# ---- control groups ----


def _tightest(root: Path, controller: str) -> Group | None:
    """The limit with the least room among the process's group and all above it; None where there is none."""
    groups = [group for path in _group_paths(root, controller) if (group := _group(root, path, controller))]
    return min(groups, key=lambda group: group.room, default=None)


def _quota(root: Path) -> float | None:
    """Processors that the tightest of the process's groups may use, as CPU time per time; None for all."""
    found = []
    for path in _group_paths(root, "cpu"):
        quota, _, period = _text(path / "cpu.max").strip().partition(" ")
        quota = quota or _text(path / "cpu.cfs_quota_us").strip()
        period = period or _text(path / "cpu.cfs_period_us").strip()
        if quota.isdecimal() and period.isdecimal() and int(period):
            found.append(int(quota) / int(period))
    return min(found, default=None)


def _group_paths(root: Path, controller: str) -> list[Path]:
    """Directories of the process's group for a controller, from its own up to the highest that is mounted."""
    mounts = [line.split() for line in _text(root / "proc/self/mountinfo").splitlines()]
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        version_1 = controller in controllers.split(",")
        if not version_1 and (number != "0" or controllers):
            continue
        for words in mounts:
            rest = words[words.index("-") + 1 :]
            if rest[0] != ("cgroup" if version_1 else "cgroup2"):
                continue
            if version_1 and controller not in rest[2].split(","):
                continue
            # Within a container, the mount's root may be the group itself, named as the host sees it.
            inside = path.removeprefix(words[3].rstrip("/")) if path.startswith(words[3]) else ""
            top = root / words[4].lstrip("/")
            own = top / inside.strip("/")
            above = [own, *own.parents]
            found = above[: above.index(top) + 1]
            if version_1 or any(os.path.exists(each / f"{controller}.max") for each in found):
                return found
    return []


def _group(root: Path, path: Path, controller: str) -> Group | None:
    for limit_name, used_name in (
        (f"{controller}.max", f"{controller}.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        file = path / limit_name
        limit = _text(file).strip()
        used = _text(path / used_name).strip()
        if controller not in limit_name or not limit.isdecimal() or not used.isdecimal():
            continue
        if int(limit) >= 2**62:  # how version 1 says that there's none
            return None
        reclaimable = _file_cache(path) if controller == "memory" else 0
        shown = "/" + str(file.relative_to(root))
        return Group(shown, int(limit), max(int(used) - reclaimable, 0))
    return None


def _file_cache(path: Path) -> int:
    """The group's cached files, which make way when the memory is needed."""
    for line in _text(path / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0
