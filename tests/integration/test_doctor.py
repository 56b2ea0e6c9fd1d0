"""`fastcast doctor` under limits that are really lowered: rlimits, sysctls of a namespace, control groups."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.namespace import TRACK_CONNECTIONS, in_namespace, needs_program, set_sysctl
from tests.support.wire import TIMEOUT

DOCTOR = (sys.executable, "-m", "fastcast", "doctor")


def shell(script: str, *arguments: str) -> tuple[str, ...]:
    """A command that runs after a script has set its limits."""
    return "sh", "-ec", f'{script}; exec "$@"', "sh", *arguments


def examine(connections: int, *flags: str, script: str = ":") -> dict[str, Any]:
    """The doctor's report, with its checks by name; asserts that the exit code says the same."""
    command = shell(script, *DOCTOR, "--connections", str(connections), "--json", "-", *flags)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=6 * TIMEOUT, check=False)
    assert ended.stderr == ""
    report: dict[str, Any] = json.loads(ended.stdout)
    assert ended.returncode == (0 if report["fits"] else 1)
    report["checks"] = {check["name"]: check for check in report["checks"]}
    return report


def check(name: str, connections: int, *flags: str, script: str = ":") -> dict[str, Any]:
    """One check of the report."""
    found: dict[str, Any] = examine(connections, *flags, script=script)["checks"][name]
    return found


def test_a_few_connections_fit_any_machine() -> None:
    report = examine(100)
    assert report["fits"]
    assert {each["verdict"] for each in report["checks"].values()} <= {"fits", "tight", "unknown"}


def test_a_thousand_million_fit_none() -> None:
    report = examine(1_000_000_000)
    assert not report["fits"]
    assert report["checks"]["memory"]["verdict"] == "short"


class TestOpenFiles:
    """RLIMIT_NOFILE, in a process whose limit is low."""

    def test_both_limits_are_those_of_the_process(self) -> None:
        checks = examine(10_000, script="ulimit -Sn 200; ulimit -Hn 300")["checks"]
        assert (checks["nofile soft"]["value"], checks["nofile hard"]["value"]) == (200, 300)
        assert checks["nofile hard"]["verdict"] == "short"

    def test_a_soft_limit_alone_is_no_obstacle(self) -> None:
        assert check("nofile hard", 10_000, script="ulimit -Sn 200")["verdict"] == "fits"

    @pytest.mark.parametrize("connections", [3000, 20_000])
    def test_a_server_has_room_with_what_is_needed_and_not_with_one_less(self, connections: int) -> None:
        need = check("nofile hard", connections)["need"]
        assert self.room(need, connections) == connections
        assert self.room(need - 1, connections) < connections

    @staticmethod
    def room(limit: int, connections: int) -> int:
        """For how many connections a server says to have room under a limit of open files."""
        serve = (sys.executable, "-m", "fastcast", "serve", "--port", "0", "--max-connections")
        process = subprocess.Popen(
            shell(f"ulimit -n {limit}", *serve, str(connections)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
        finally:
            process.terminate()
            _, log = process.communicate(timeout=TIMEOUT)
        found = re.search(r"room for (\d+) connections", line)
        assert found, log
        return int(found[1])


class TestSysctls:
    """Those of a network namespace; the line that the doctor gives is run, and then it fits."""

    def test_a_queue_of_new_connections(self) -> None:
        name = "net.core.somaxconn"

        def body() -> None:
            set_sysctl(name, 1)
            low = check(name, 100_000)
            assert (low["value"], low["verdict"]) == (1, "short")
            (line,) = low["lines"]
            assert check(name, 100_000, script=f"{line} >/dev/null")["verdict"] == "fits"

        needs_program("sysctl")
        in_namespace(body)

    def test_half_open_connections_without_cookies(self) -> None:
        name = "net.ipv4.tcp_max_syn_backlog"

        def body() -> None:
            set_sysctl(name, 1)
            assert check(name, 100_000)["verdict"] == "fits"
            set_sysctl("net.ipv4.tcp_syncookies", 0)
            low = examine(100_000)
            assert low["checks"][name]["verdict"] == "short"
            lines = [*low["checks"][name]["lines"], *low["checks"]["net.ipv4.tcp_syncookies"]["lines"]]
            checks = examine(100_000, script=" && ".join(f"{line} >/dev/null" for line in lines))["checks"]
            assert [checks[each]["verdict"] for each in (name, "net.ipv4.tcp_syncookies")] == ["fits", "fits"]

        needs_program("sysctl")
        in_namespace(body)

    def test_ports_of_a_load_client(self) -> None:
        name = "ports x addresses"

        def body() -> None:
            set_sysctl("net.ipv4.ip_local_port_range", 40_000, 40_999)
            nowhere = check(name, 5000, "--role", "load")
            assert (nowhere["value"], nowhere["verdict"]) == (0, "short")  # only loopback is here
            assert check(name, 5000, "--role", "both")["verdict"] == "fits"
            addresses = "ip addr add 192.0.2.1/32 dev lo && ip addr add 192.0.2.2/32 dev lo"
            two = check(name, 5000, "--role", "load", script=addresses)
            assert (two["value"], two["verdict"]) == (2000, "short")
            wider = f"{two['lines'][0]} >/dev/null"
            assert check(name, 5000, "--role", "load", script=wider)["verdict"] == "fits"
            reserved = "sysctl -w net.ipv4.ip_local_reserved_ports=40000-40009 >/dev/null"
            narrow = "sysctl -w net.ipv4.ip_local_port_range='40000 40999' >/dev/null"
            few = check(name, 5000, "--role", "load", script=f"{narrow}; {reserved}")
            assert few["value"] == 2 * 990

        needs_program("ip")
        needs_program("sysctl")
        in_namespace(body)

    def test_a_range_that_is_routed_to_this_machine_counts_as_addresses(self) -> None:
        def body() -> None:
            script = "ip route add local 198.51.100.0/24 dev lo"
            ports = check("ports x addresses", 5000, "--role", "load", script=script)
            first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split())
            assert ports["value"] == 256 * (last - first + 1)

        needs_program("ip")
        in_namespace(body)

    def test_time_wait(self) -> None:
        def body() -> None:
            set_sysctl("net.ipv4.tcp_max_tw_buckets", 10)
            set_sysctl("net.ipv4.tcp_tw_reuse", 0)
            checks = examine(5000, "--role", "load")["checks"]
            assert checks["net.ipv4.tcp_max_tw_buckets"]["verdict"] == "tight"
            assert checks["net.ipv4.tcp_tw_reuse"]["verdict"] == "tight"

        in_namespace(body)

    def test_memory_of_all_sockets_is_the_machines_affair(self) -> None:
        in_namespace(lambda: unseen("net.ipv4.tcp_mem"))

    def test_connections_are_tracked_as_soon_as_a_rule_asks_for_it(self) -> None:
        name = "net.netfilter.nf_conntrack_max"

        def body() -> None:
            assert check(name, 100_000_000)["verdict"] == "fits"
            report = examine(100_000_000, script=TRACK_CONNECTIONS)
            tracked = report["checks"][name]
            assert tracked["verdict"] == "short"
            assert tracked["need"] >= 100_000_000
            assert name in report["locked"]  # it is the machine's own namespace that has the number
            assert "net.core.somaxconn" not in report["locked"]

        needs_program("nft")
        if not Path("/proc/sys/net/netfilter/nf_conntrack_max").exists():
            pytest.skip("no connection tracking in this kernel")
        in_namespace(body)


class TestWrittenFiles:
    """What --write makes is taken by the programs that it is for."""

    def test_sysctls_are_in_force_once_loaded(self, tmp_path: Path) -> None:
        def body() -> None:
            set_sysctl("net.core.somaxconn", 1)
            set_sysctl("net.ipv4.tcp_syncookies", 0)
            before = examine(100_000, "--write", str(tmp_path))
            # What is the machine's own can't be set from here, and isn't to be.
            file = tmp_path / "90-fastcast.conf"
            lines = [line for line in file.read_text("utf-8").splitlines() if not line.startswith("#")]
            names = ("net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog", "net.ipv4.tcp_syncookies")
            file.write_text("\n".join(line for line in lines if line.startswith(names)), "utf-8")
            assert {before["checks"][name]["verdict"] for name in names} <= {"short", "tight"}
            after = examine(100_000, script=f"sysctl -p {file} >/dev/null")
            assert [after["checks"][name]["verdict"] for name in names] == ["fits"] * 3

        needs_program("sysctl")
        in_namespace(body)

    def test_the_unit_is_one(self, tmp_path: Path) -> None:
        needs_program("systemd-analyze")
        examine(100_000, "--write", str(tmp_path))
        unit = tmp_path / "fastcast.service"
        ended = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
        )
        assert "fastcast.service" not in ended.stderr, ended.stderr


class TestControlGroups:
    """Limits of the group that the process is in."""

    def test_processes(self) -> None:
        with group("pids") as path:
            (path / "pids.max").write_text("20", "ascii")
            found = check("cgroup pids", 1000, script=f"echo $$ > {path}/cgroup.procs")
            assert found["value"] < 20
            low = check("cgroup pids", 1_000_000, script=f"echo $$ > {path}/cgroup.procs; ulimit -n 20000")
            assert low["verdict"] == "short"
            assert low["lines"][0].endswith(f" > {path}/pids.max")

    def test_memory(self) -> None:
        with group("memory") as path:
            limit = next(path / name for name in LIMITS["memory"] if (path / name).exists())
            limit.write_text(str(256 * 2**20), "ascii")
            found = check("cgroup memory", 100_000, script=f"echo $$ > {path}/cgroup.procs")
            assert found["verdict"] == "short"
            assert 0 < found["value"] < 256 * 2**20
            (line,) = found["lines"]
            raised = check("cgroup memory", 100_000, script=f"echo $$ > {path}/cgroup.procs; {line}")
            assert raised["verdict"] in ("fits", "tight")


LIMITS = {"memory": ("memory.max", "memory.limit_in_bytes"), "pids": ("pids.max",)}


@contextmanager
def group(controller: str) -> Iterator[Path]:
    """A control group for processes of the test; skips where none can be made."""
    for top in (Path("/sys/fs/cgroup") / controller, Path("/sys/fs/cgroup")):
        path = top / f"fastcast-test-{os.getpid()}"
        with suppress(OSError):
            path.mkdir()
            if any((path / name).exists() for name in LIMITS[controller]):
                try:
                    yield path
                finally:
                    path.rmdir()
                return
            path.rmdir()
    pytest.skip(f"no control group for {controller} can be made here")


def unseen(name: str) -> None:
    """Assert that a check's number is not to be seen here."""
    found = check(name, 1000)
    assert (found["value"], found["verdict"]) == (None, "unknown")
