"""The watch of a running server, on a machine that is made up."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fastcast.watch import FILES_INTERVAL, QUIET, Watch

COUNTERS = (
    "ListenOverflows",
    "ListenDrops",
    "TCPReqQFullDoCookies",
    "TCPReqQFullDrop",
    "TCPMemoryPressures",
    "TCPAbortOnMemory",
)
CONNTRACK = "entries drop chainlength\n{entries:08x} {drop:08x} {chainlength:08x}\n"


class World:
    """A machine, a server's counters, and a clock, with a watch on them."""

    def __init__(self, root: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.root = root
        self.caplog = caplog
        self.now = 1000.0
        self.stats: dict[str, Any] = {"no_files": 3, "no_memory": 0, "full": 5, "connections": 700}
        self.counters = dict.fromkeys(COUNTERS, 100)
        self.sysctls = {
            "fs/file-nr": "1000 0 100000",
            "net/core/somaxconn": "4096",
            "net/ipv4/tcp_syncookies": "1",
            "net/ipv4/tcp_mem": "100 200 300",
            "net/netfilter/nf_conntrack_max": "1000",
            "net/netfilter/nf_conntrack_count": "10",
            "net/netfilter/nf_conntrack_buckets": "256",
        }
        self.pages = 10
        self.drops = {"entries": 10, "drop": 7, "chainlength": 0}
        self.write()
        self.watch = Watch(self.read_stats, logging.getLogger("test"), clock=lambda: self.now, root=root)

    def read_stats(self) -> Mapping[str, Any]:
        """As the server would."""
        return self.stats

    def write(self) -> None:
        """Bring the files up to date."""
        names, values = " ".join(self.counters), " ".join(map(str, self.counters.values()))
        self.put("net/netstat", f"TcpExt: {names}\nTcpExt: {values}\n")
        self.put("net/sockstat", f"TCP: inuse 5 orphan 0 tw 0 alloc 7 mem {self.pages}\n")
        self.put("net/stat/nf_conntrack", CONNTRACK.format(**self.drops))
        for name, value in self.sysctls.items():
            self.put(f"sys/{name}", f"{value}\n")

    def put(self, path: str, content: str) -> None:
        """Write a file below /proc."""
        file = self.root / "proc" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, "utf-8")

    def look(self, after: float = FILES_INTERVAL) -> list[str]:
        """Let time pass, and poll; what the log says."""
        self.write()
        self.now += after
        self.caplog.clear()
        self.watch.poll()
        assert {record.levelname for record in self.caplog.records} <= {"WARNING"}
        return self.caplog.messages


@pytest.fixture
def world(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> World:
    """Everything is well."""
    return World(tmp_path, caplog)


def only(messages: list[str]) -> str:
    """The one message."""
    assert len(messages) == 1, messages
    return messages[0]


class TestQuiet:
    """Nothing is said without reason, and nothing twice."""

    def test_what_happened_before_the_start_is_not_told(self, world: World) -> None:
        assert world.look() == []

    def test_a_limit_that_is_met_all_the_time_is_told_once(self, world: World) -> None:
        told = []
        for _ in range(2 * int(QUIET / 60)):
            world.stats["no_files"] += 1
            told += world.look(60)
        assert len(told) == 1

    def test_it_is_told_again_after_a_quiet_time(self, world: World) -> None:
        world.stats["no_files"] += 1
        assert len(world.look()) == 1
        assert world.look(QUIET - 1) == []
        world.stats["no_files"] += 1
        assert len(world.look(1)) == 1

    def test_one_limit_does_not_silence_another(self, world: World) -> None:
        world.stats["no_files"] += 1
        world.stats["full"] += 1
        world.counters["ListenOverflows"] += 1
        assert len(world.look()) == 3

    def test_a_counter_that_starts_again_is_no_rise(self, world: World) -> None:
        world.counters["ListenOverflows"] = 0
        assert world.look() == []
        world.counters["ListenOverflows"] = 1
        assert len(world.look()) == 1


class TestCost:
    """A look is cheap, and never the end of the server."""

    def test_files_are_read_every_few_seconds_only(self, world: World) -> None:
        world.counters["ListenOverflows"] += 1
        assert world.look(FILES_INTERVAL / 2) == []
        assert len(world.look(FILES_INTERVAL / 2)) == 1

    def test_a_machine_without_proc_is_not_watched(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock = iter(range(0, 1000, 100))
        watch = Watch(dict, logging.getLogger("test"), clock=lambda: next(clock), root=tmp_path)
        watch.poll()
        watch.poll()
        assert caplog.messages == []

    def test_a_server_that_cannot_tell_its_stats_is_no_error(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        def stats() -> Mapping[str, Any]:
            raise RuntimeError("stopped")

        caplog.set_level(logging.DEBUG)
        watch = Watch(stats, logging.getLogger("test"), root=tmp_path)
        for _ in range(3):
            watch.poll()
        assert [record.levelname for record in caplog.records] == ["DEBUG"]

    def test_garbage_is_not_watched(self, world: World) -> None:
        world.put("net/netstat", "TcpExt: ListenOverflows\nTcpExt: many\n")
        world.now += FILES_INTERVAL
        world.watch.poll()
        assert world.caplog.messages == []


class TestServer:
    """The server's own counters."""

    def test_no_files(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("resource.getrlimit", lambda _: (500, 1000))
        world.stats["no_files"] += 1
        message = only(world.look(1))
        assert "(EMFILE)" in message
        assert "`ulimit -n 1024`" in message
        assert "LimitNOFILE=1024" in message

    def test_no_files_where_there_can_be_no_more(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("resource.getrlimit", lambda _: (500, 500))
        world.sysctls["fs/nr_open"] = "512"
        world.stats["no_files"] += 1
        assert "run `sysctl -w fs.nr_open=1024`, and start the server after" in only(world.look(1))

    def test_no_files_on_the_whole_machine(self, world: World) -> None:
        world.stats["no_files"] += 1
        world.sysctls["fs/file-nr"] = "99500 0 100000"
        message = only(world.look(1))
        assert "(ENFILE)" in message
        assert "`sysctl -w fs.file-max=200000`" in message

    def test_no_memory(self, world: World) -> None:
        world.stats["no_memory"] += 1
        assert "`fastcast doctor --connections 700`" in only(world.look(1))

    def test_full(self, world: World) -> None:
        world.stats["full"] += 1
        message = only(world.look(1))
        assert "503" in message
        assert "--max-connections 1400" in message


class TestKernel:
    """The kernel's counters."""

    def test_a_listeners_queue(self, world: World) -> None:
        world.counters["ListenOverflows"] += 1
        world.counters["ListenDrops"] += 1
        message = only(world.look())
        assert "`sysctl -w net.core.somaxconn=65535`, and start the server again" in message

    def test_a_listeners_queue_that_cannot_be_longer(self, world: World) -> None:
        world.sysctls["net/core/somaxconn"] = "65535"
        world.counters["ListenOverflows"] += 1
        assert "more --shards" in only(world.look())

    def test_half_open_connections_with_cookies(self, world: World) -> None:
        world.counters["TCPReqQFullDoCookies"] += 1
        assert "SYN cookies are sent" in only(world.look())

    def test_cookies_that_are_always_sent_tell_nothing(self, world: World) -> None:
        world.sysctls["net/ipv4/tcp_syncookies"] = "2"
        world.counters["TCPReqQFullDoCookies"] += 1
        assert world.look() == []

    @pytest.mark.parametrize("counter", ["TCPReqQFullDrop", "ListenDrops"])
    def test_half_open_connections_without_cookies(self, world: World, counter: str) -> None:
        world.sysctls["net/ipv4/tcp_syncookies"] = "0"
        world.counters[counter] += 1
        message = only(world.look())
        assert "SYNs were dropped" in message
        assert "`sysctl -w net.ipv4.tcp_syncookies=1`" in message

    def test_drops_of_another_reason_are_not_explained(self, world: World) -> None:
        world.counters["ListenDrops"] += 1
        assert world.look() == []

    @pytest.mark.parametrize("counter", ["TCPMemoryPressures", "TCPAbortOnMemory"])
    def test_tcp_memory_that_was_short(self, world: World, counter: str) -> None:
        world.counters[counter] += 1
        assert "`sysctl -w net.ipv4.tcp_mem='200 400 600'`" in only(world.look())

    @pytest.mark.parametrize(("pages", "messages"), [(200, 0), (201, 1)])
    def test_tcp_memory_that_is_short(self, world: World, pages: int, messages: int) -> None:
        world.pages = pages
        assert len(world.look()) == messages

    def test_tcp_memory_that_is_set_elsewhere(self, world: World) -> None:
        world.counters["TCPMemoryPressures"] += 1
        del world.sysctls["net/ipv4/tcp_mem"]
        (world.root / "proc/sys/net/ipv4/tcp_mem").unlink()
        assert "outside this network namespace" in only(world.look())

    @pytest.mark.parametrize(("count", "messages"), [(999, 0), (1000, 1)])
    def test_a_full_table_of_connections(self, world: World, count: int, messages: int) -> None:
        world.sysctls["net/netfilter/nf_conntrack_count"] = str(count)
        told = world.look()
        assert len(told) == messages
        assert all("`sysctl -w net.netfilter.nf_conntrack_max=2000`" in message for message in told)

    def test_a_table_of_connections_that_was_full(self, world: World) -> None:
        world.sysctls["net/netfilter/nf_conntrack_count"] = "950"
        world.drops["drop"] += 1
        assert "nf_conntrack_max=2000" in only(world.look())

    def test_chains_that_are_too_long(self, world: World) -> None:
        world.drops["chainlength"] += 1
        assert "`sysctl -w net.netfilter.nf_conntrack_buckets=1024`" in only(world.look())

    def test_no_connection_tracking(self, world: World) -> None:
        for name in ("max", "count"):
            del world.sysctls[f"net/netfilter/nf_conntrack_{name}"]
            (world.root / f"proc/sys/net/netfilter/nf_conntrack_{name}").unlink()
        world.drops["drop"] += 1
        assert world.look() == []
