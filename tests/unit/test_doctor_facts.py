"""What the doctor reads of a machine, from files that are made up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastcast.doctor import facts
from fastcast.doctor.facts import Group, Probe

FIB = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.0.0.0/24 2 0 2
        |-- 10.0.0.7
           /32 host LOCAL
        |-- 10.0.0.255
           /32 link BROADCAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
     |-- 10.9.0.0
        /20 host LOCAL
Local:
     +-- 10.0.0.0/24 2 0 2
        |-- 10.0.0.7
           /32 host LOCAL
"""

NETSTAT = """\
TcpExt: SyncookiesSent ListenOverflows ListenDrops
TcpExt: 1 22 333
IpExt: InNoRoutes InTruncatedPkts
IpExt: 4 5
"""

CONNTRACK = """\
entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error
00000010  00000000 00000000 0 0 0 0 00000002 0 00000000 0000000a 00000000 0
00000010  00000000 00000000 0 0 0 0 00000001 0 00000000 00000001 00000000 0
"""


class Machine:
    """A root directory to fill."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, path: str, content: str) -> None:
        """Write a file, with the directories above it."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, "utf-8")

    def read(self) -> facts.Facts:
        """Its facts."""
        return facts.read(self.root)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine without anything."""
    return Machine(tmp_path)


def test_nothing_to_read_is_no_error(machine: Machine) -> None:
    found = machine.read()
    assert (found.sysctls, found.kernel, found.memory_available, found.threads) == ({}, "", None, None)
    assert (found.commit_room, found.tcp_pages, found.addresses, found.privileged) == (None, None, 0, False)
    assert (found.cgroup_memory, found.cgroup_pids, found.probe) == (None, None, Probe())


def test_this_machine_can_be_read() -> None:
    found = facts.read()
    assert found.memory_available
    assert found.threads
    assert found.sysctl("fs.nr_open")
    assert found.cores >= 1


def test_sysctls_are_numbers(machine: Machine) -> None:
    machine.put("proc/sys/net/ipv4/tcp_mem", "287901\t383868\t575802\n")
    machine.put("proc/sys/net/ipv4/tcp_ehash_entries", "-262144\n")
    machine.put("proc/sys/fs/nr_open", "not a number\n")
    found = machine.read()
    assert found.sysctls["net.ipv4.tcp_mem"] == (287_901, 383_868, 575_802)
    assert found.sysctl("net.ipv4.tcp_mem", 2) == 575_802
    assert found.sysctl("net.ipv4.tcp_mem", 3) is None
    assert found.sysctl("net.ipv4.tcp_ehash_entries") == -262_144
    assert found.sysctl("fs.nr_open") is None


def test_memory_and_threads(machine: Machine) -> None:
    machine.put(
        "proc/meminfo",
        "MemTotal: 2000 kB\nMemAvailable:    1000 kB\nHugePages_Total: 0\n"
        "CommitLimit: 900 kB\nCommitted_AS: 1000 kB\n",
    )
    machine.put("proc/loadavg", "0.00 0.01 0.05 2/345 6789\n")
    machine.put("proc/net/sockstat", "sockets: used 9\nTCP: inuse 5 orphan 0 tw 1 alloc 7 mem 42\n")
    found = machine.read()
    assert (found.memory_total, found.memory_available) == (2_048_000, 1_024_000)
    assert (found.commit_room, found.threads, found.tcp_pages) == (-102_400, 345, 42)


@pytest.mark.parametrize(
    ("mask", "privileged"),
    [("000001ffffffffff", True), ("0000000000200000", True), ("00000000a80425fb", False)],
)
def test_who_may_pass_file_max(machine: Machine, mask: str, privileged: bool) -> None:
    machine.put("proc/self/status", f"Name:\tpython\nCapEff:\t{mask}\n")
    assert machine.read().privileged is privileged


def test_root_of_a_container_only_may_not_pass_file_max(machine: Machine) -> None:
    machine.put("proc/self/status", "CapEff:\t000001ffffffffff\n")
    machine.put("proc/self/uid_map", "         0          0 4294967295\n")
    assert machine.read().privileged
    machine.put("proc/self/uid_map", "         0     100000      65536\n")
    assert not machine.read().privileged


def test_threads_of_this_user_only_count_for_it(machine: Machine) -> None:
    mine, other = os.getuid(), os.getuid() + 1
    for number, user, threads in ((1, other, 100), (20, mine, 3), (21, mine, 4)):
        machine.put(f"proc/{number}/status", f"Name:\tx\nUid:\t{user}\t0\t0\t0\nThreads:\t{threads}\n")
    machine.put("proc/self/status", f"Uid:\t{mine}\nThreads:\t1000\n")
    assert machine.read().own_threads == 7


def test_a_sysctl_that_root_has_no_permission_to_write_is_locked(machine: Machine) -> None:
    machine.put("proc/sys/net/core/somaxconn", "4096\n")
    machine.put("proc/sys/net/netfilter/nf_conntrack_max", "262144\n")
    (machine.root / "proc/sys/net/netfilter/nf_conntrack_max").chmod(0o444)
    assert machine.read().locked == {"net.netfilter.nf_conntrack_max"}


class TestAddresses:
    """Source addresses for connections to elsewhere."""

    def test_each_counts_once_and_a_local_range_as_many(self, machine: Machine) -> None:
        machine.put("proc/net/fib_trie", FIB)
        assert machine.read().addresses == 1 + 4096

    def test_the_family_with_more_counts(self, machine: Machine) -> None:
        machine.put("proc/net/fib_trie", FIB.replace("/20 host LOCAL", "/20 link UNICAST"))
        machine.put(
            "proc/net/if_inet6",
            "00000000000000000000000000000001 01 80 10 80       lo\n"
            "fe800000000000000000000000000001 02 40 20 80     eth0\n"
            "20010db8000000000000000000000001 02 40 00 80     eth0\n"
            "20010db8000000000000000000000002 02 40 00 80     eth0\n",
        )
        assert machine.read().addresses == 2

    def test_the_device_is_that_of_the_default_route(self, machine: Machine) -> None:
        machine.put(
            "proc/net/route",
            "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
            "docker0 000011AC 00000000 0001 0 0 0 0000FFFF 0 0 0\n"
            "ens5 00000000 0100000A 0003 0 0 0 00000000 0 0 0\n",
        )
        assert machine.read().device == "ens5"

    @pytest.mark.parametrize(
        ("reserved", "count"),
        [("\n", 0), ("8080\n", 0), ("32768,60999\n", 2), ("30000-32770,40000-40009\n", 13)],
    )
    def test_reserved_ports_within_the_range(self, machine: Machine, reserved: str, count: int) -> None:
        machine.put("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n")
        machine.put("proc/sys/net/ipv4/ip_local_reserved_ports", reserved)
        assert machine.read().reserved_ports == count


class TestGroups:
    """Control groups, of both versions."""

    def version_2(self, machine: Machine, path: str = "/system.slice/x.service", root: str = "/") -> None:
        machine.put("proc/self/cgroup", f"0::{path}\n")
        machine.put("proc/self/mountinfo", f"25 1 0:22 {root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")

    def test_the_tightest_of_all_levels_counts(self, machine: Machine) -> None:
        self.version_2(machine)
        top = "sys/fs/cgroup/system.slice"
        machine.put(f"{top}/memory.max", "3000\n")
        machine.put(f"{top}/memory.current", "2500\n")
        machine.put(f"{top}/x.service/memory.max", "2000\n")
        machine.put(f"{top}/x.service/memory.current", "1200\n")
        machine.put(f"{top}/x.service/memory.stat", "anon 100\ninactive_file 200\n")
        machine.put(f"{top}/x.service/pids.max", "max\n")
        machine.put(f"{top}/x.service/pids.current", "7\n")
        found = machine.read()
        assert found.cgroup_memory == Group(f"/{top}/memory.max", 3000, 2500)
        assert found.cgroup_memory.room == 500
        assert found.cgroup_pids is None

    @pytest.mark.parametrize(
        ("own", "above", "quota"),
        [
            ("50000 100000", "max 100000", 0.5),
            ("max 100000", "max 100000", None),
            ("300000 100000", "200000 100000", 2),
        ],
    )
    def test_the_tightest_share_of_the_processors_counts(
        self, machine: Machine, own: str, above: str, quota: float | None
    ) -> None:
        self.version_2(machine)
        machine.put("sys/fs/cgroup/system.slice/x.service/cpu.max", f"{own}\n")
        machine.put("sys/fs/cgroup/system.slice/cpu.max", f"{above}\n")
        assert machine.read().quota == quota

    def test_a_share_of_the_processors_in_version_1(self, machine: Machine) -> None:
        machine.put("proc/self/cgroup", "2:cpu,cpuacct:/docker/x\n")
        machine.put(
            "proc/self/mountinfo",
            "25 1 0:22 /docker/x /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n",
        )
        machine.put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n")
        machine.put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
        assert machine.read().quota == 1.5
        machine.put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
        assert machine.read().quota is None

    def test_cached_files_make_way(self, machine: Machine) -> None:
        self.version_2(machine)
        path = "sys/fs/cgroup/system.slice/x.service"
        machine.put(f"{path}/memory.max", "2000\n")
        machine.put(f"{path}/memory.current", "1200\n")
        machine.put(f"{path}/memory.stat", "anon 100\ninactive_file 200\n")
        assert machine.read().cgroup_memory == Group(f"/{path}/memory.max", 2000, 1000)

    def test_a_container_is_mounted_as_the_root(self, machine: Machine) -> None:
        self.version_2(machine, "/docker/abc", "/docker/abc")
        machine.put("sys/fs/cgroup/pids.max", "100\n")
        machine.put("sys/fs/cgroup/pids.current", "40\n")
        assert machine.read().cgroup_pids == Group("/sys/fs/cgroup/pids.max", 100, 40)

    def test_version_1_has_a_tree_for_each_controller(self, machine: Machine) -> None:
        machine.put("proc/self/cgroup", "5:pids:/a\n4:cpu,memory:/a/b\n0::/\n")
        machine.put(
            "proc/self/mountinfo",
            "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
            "39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
            "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        )
        machine.put("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n")
        machine.put("sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", "10\n")
        machine.put("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "5000\n")
        machine.put("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "1000\n")
        machine.put("sys/fs/cgroup/memory/a/memory.stat", "total_inactive_file 300\n")
        machine.put("sys/fs/cgroup/pids/a/pids.max", "64\n")
        machine.put("sys/fs/cgroup/pids/a/pids.current", "60\n")
        found = machine.read()
        assert found.cgroup_memory == Group("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", 5000, 700)
        assert found.cgroup_pids == Group("/sys/fs/cgroup/pids/a/pids.max", 64, 60)


class TestCounters:
    """What the kernel counts as it meets limits."""

    def test_of_tcp(self, machine: Machine) -> None:
        machine.put("proc/net/netstat", NETSTAT)
        assert facts.read_netstat(machine.root) == {
            "SyncookiesSent": 1,
            "ListenOverflows": 22,
            "ListenDrops": 333,
        }

    def test_of_connection_tracking_over_all_processors(self, machine: Machine) -> None:
        machine.put("proc/net/stat/nf_conntrack", CONNTRACK)
        assert facts.read_conntrack_drops(machine.root) == 10 + 1 + 2 + 1

    def test_that_are_not_there(self, machine: Machine) -> None:
        assert facts.read_netstat(machine.root) == {}
        assert facts.read_conntrack_drops(machine.root) == 0
