"""The words for each limit, and the lines that raise it: one home for the doctor and for a running server.

Sources: proc_sys_fs(5), getrlimit(2), epoll(7), accept(2), systemd.exec(5), and the kernel's documentation
under ``admin-guide/sysctl`` and ``networking`` (``ip-sysctl``, ``nf_conntrack-sysctl``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_ULIMITS: Final = {"LimitNOFILE": "ulimit -n", "LimitNPROC": "ulimit -u"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing to set: a sysctl, a line of a systemd unit, or a command.

    ``kind`` is ``"sysctl"``, ``"unit"`` or ``"command"``. ``key`` and ``value`` are the two sides of the
    line; a command has only a value.
    """

    kind: str
    key: str
    value: str

    @property
    def line(self) -> str:
        """The exact line for a root shell; a unit's line is the shell's equivalent."""
        if self.kind == "sysctl":
            value = f"'{self.value}'" if " " in self.value else self.value
            return f"sysctl -w {self.key}={value}"
        return self.value if self.kind == "command" else f"{_ULIMITS[self.key]} {self.value}"


def sysctl(key: str, *values: int) -> Setting:
    """A sysctl with one or more numbers."""
    return Setting("sysctl", key, " ".join(map(str, values)))


def unit(key: str, value: int) -> Setting:
    """A line of the [Service] section of a systemd unit."""
    return Setting("unit", key, str(value))


def command(line: str) -> Setting:
    """What only a command of its own can set."""
    return Setting("command", "", line)


def rounded(number: int, step: int = 1024) -> int:
    """The next multiple of ``step``, for values that a person is to read."""
    return -(-number // step) * step


def power_of_two(number: int) -> int:
    """The least power of two that isn't smaller."""
    return 1 << max(number - 1, 0).bit_length()


WHY: Final = {
    "nofile hard": (
        "Open files of one fd table. Each connection is one. When they are used up, accept() fails with"
        " EMFILE and clients wait in the listener's queue until somebody leaves."
    ),
    "nofile soft": (
        "The part of the hard limit that is in force. The commands of fastcast raise it to the hard limit"
        " when they start; a program that uses fastcast as a library does that itself (resource.setrlimit)."
    ),
    "fs.nr_open": "The highest that the limit of open files can be set to, by anybody.",
    "fs.file-max": (
        "Open files of the whole machine, whatever the fd tables. When they are used up, every program's"
        " open() and accept() fails with ENFILE; those of root still succeed."
    ),
    "fs.epoll.max_user_watches": (
        "Fds that all epoll sets of one user may watch, root included. Each connection is one; beyond it"
        " epoll_ctl() fails with ENOSPC and the connection is closed."
    ),
    "memory": (
        "Kernel memory of the sockets, which no server can lower, and the process's own. When it runs out,"
        " the kernel kills processes."
    ),
    "cgroup memory": (
        "What the control group of this process may use; the kernel's memory for its sockets counts. Beyond"
        " it the kernel kills processes of the group."
    ),
    "net.ipv4.tcp_mem": (
        "Pages for data that waits in all TCP sockets: pressure begins at the second number, at the third"
        " sending stalls and received data is thrown away. A socket with anything in it takes at least one"
        " page; an idle one takes none."
    ),
    "net.ipv4.tcp_wmem": (
        "The third number is what the kernel keeps, at most, for one client that doesn't read. If many"
        " clients stall at once, their buffers use up tcp_mem for all."
    ),
    "net.ipv4.tcp_rmem": (
        "The second number is what one connection's unread data may take where the program doesn't read: a"
        " stalled client, or a server that is behind. The third only those reach that read fast."
    ),
    "vm.overcommit_memory": (
        "With 2, memory must be covered when it is reserved, stacks of threads included; what isn't covered"
        " fails with ENOMEM."
    ),
    "net.core.somaxconn": (
        "Connections that wait in one listener's queue until they are accepted; each shard has a listener."
        " When all clients come back at once, those beyond it are dropped and try again after a second."
    ),
    "net.ipv4.tcp_max_syn_backlog": (
        "Half-open connections of one listener, when SYN cookies are off: beyond three quarters of it, SYNs"
        " are dropped. With SYN cookies, the listener's own queue (somaxconn) is the limit instead."
    ),
    "net.ipv4.tcp_syncookies": (
        "What happens when a listener's queue of half-open connections is full: with 1 the kernel answers"
        " without keeping state, with 0 it drops the SYN, and with 2 it always does without state, at the"
        " cost of TCP options."
    ),
    "net.netfilter.nf_conntrack_max": (
        "Connections that the firewall keeps track of; one between two programs of this machine is one"
        " entry. When the table is full, packets of new connections vanish, and the kernel log says 'table"
        " full, dropping packet'. It can be set in the machine's own network namespace only."
    ),
    "net.netfilter.nf_conntrack_buckets": (
        "Hash buckets of the tracked connections, each of which has two entries. From Linux 5.15 on, a"
        " connection whose chain is longer than 50 to 80 entries is refused, long before the table is full."
        " It can be set in the machine's own network namespace only."
    ),
    "net.ipv4.tcp_ehash_entries": (
        "Hash buckets of all TCP connections, searched for every packet: a number for CPU time, not a limit."
        " With eight connections in a bucket a broadcast takes some 1.5 times the CPU. The kernel sizes it at"
        " boot; since Linux 6.1 a network namespace can have one of its own."
    ),
    "ports x addresses": (
        "One source address has one port of ip_local_port_range for each connection to the same address and"
        " port. Without a free one, connect() fails with EADDRNOTAVAIL. Loopback (--role both) brings its own"
        " addresses."
    ),
    "net.ipv4.tcp_tw_reuse": (
        "Ports of closed connections are kept for a minute (TIME_WAIT). With 1 a new connection may use them"
        " after a second, with 2 only over loopback."
    ),
    "net.ipv4.tcp_max_tw_buckets": (
        "Closed connections that are kept in TIME_WAIT. Beyond it they are forgotten at once, and the kernel"
        " log says 'time wait bucket table overflow'; stray packets may then reset a new connection."
    ),
    "kernel.threads-max": "Threads of the whole machine; beyond it a thread can't be started (EAGAIN).",
    "kernel.pid_max": "Numbers for processes and threads of the whole machine; each thread needs one.",
    "nproc": "Processes and threads of this user. Root is exempt.",
    "cgroup pids": (
        "Processes and threads of the control group; beyond it a thread can't be started (EAGAIN)."
    ),
    "vm.max_map_count": (
        "Memory mappings of one process. Each shard has up to five: a stack and its guard, its heap, and"
        " io_uring's."
    ),
    "io_uring": (
        "The faster way to send to many sockets, from Linux 6.1 on; its rings don't count as locked memory"
        " there. Where it isn't allowed (Docker's default profile, kernel.io_uring_disabled), epoll holds as"
        " many connections and needs more CPU for each message."
    ),
    "cores": "A figure, not a limit: to hold connections takes none, messages and new connections do.",
}
"""What each limit is, and what is seen when it's met; by the name of the check."""

MET: Final = {
    "no files": (
        "No file descriptor is free for a new client (EMFILE): who comes waits in the listener's queue until"
        " somebody leaves"
    ),
    "no files on the machine": (
        "The machine's open files are used up (ENFILE): no program can open another, and new clients wait"
        " until one is closed"
    ),
    "no memory": (
        "There is no memory for a new client (ENOBUFS, ENOMEM), or epoll may watch no more sockets of this"
        " user (ENOSPC): who comes waits in the listener's queue, or is turned away"
    ),
    "full": "The server is full: clients get a 503 until somebody leaves",
    "listen queue": (
        "A listener's queue in this network namespace has overflowed: connections were dropped, and the"
        " clients try again after a second or more"
    ),
    "half-open, dropped": (
        "A listener's queue of half-open connections has overflowed in this network namespace, and SYNs were"
        " dropped: the clients try again after a second or more"
    ),
    "half-open, cookies": (
        "A listener's queue of half-open connections has overflowed in this network namespace, and SYN"
        " cookies are sent: connections are made, but without some TCP options"
    ),
    "tcp memory": (
        "The memory for all TCP sockets of the machine is nearly used up (tcp_mem): buffers shrink, sending"
        " stalls, and what arrives may be thrown away. Clients that don't read are the usual reason"
    ),
    "conntrack": (
        "The firewall's table of connections (conntrack) is full: packets of new connections vanish without"
        " a trace"
    ),
    "conntrack chains": (
        "The firewall's table of connections (conntrack) refuses some: its hash table is too small for them"
    ),
}
"""What a running server says when it meets a limit; without a full stop, for the advice to follow."""


def more_files(limit: int, most: int | None = None) -> str:
    """For a server that has used up a limit of open files. ``most`` is fs.nr_open, if it is known."""
    twice = rounded(2 * limit)
    first = f"run `{sysctl('fs.nr_open', twice).line}`, and " if most is not None and twice > most else ""
    how = f"start the server after `ulimit -n {twice}`, or with LimitNOFILE={twice} in its systemd unit"
    return first + how


def more_room(connections: int) -> str:
    """For a server that is full."""
    twice = 2 * max(connections, 1)
    takes = f"`fastcast doctor --connections {twice}` tells what that takes"
    return f"start the server with --max-connections {twice}; {takes}"


def what_is_short(connections: int) -> str:
    """For a lack that has several possible reasons."""
    return f"`fastcast doctor --connections {max(connections, 1)}` tells what is short"


def run(*settings: Setting, restart: bool = False) -> str:
    """For a running server: lines for a root shell. Some numbers count only for what is made afterwards."""
    lines = " and ".join(f"`{setting.line}`" for setting in settings)
    return f"run {lines}, and start the server again" if restart else f"run {lines}"
