"""A running server that meets limits of the machine: it says so once, in words, and goes on."""

from __future__ import annotations

import resource
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.namespace import TRACK_CONNECTIONS, in_namespace, needs_program, set_sysctl
from tests.support.server import ServerProcess, running
from tests.support.wire import TEXT, TIMEOUT, Address, Client, Frame, Refused, frame, until, upgrade_request

CONNTRACK_MAX = Path("/proc/sys/net/netfilter/nf_conntrack_max")


def await_words(server: ServerProcess, words: str) -> None:
    """Wait until the server has said so, as a warning, exactly once."""
    until(lambda: words in server.log() or None, f"{words!r} in the log")
    lines = [line for line in server.log().splitlines() if words in line]
    assert len(lines) == 1, lines
    assert "WARNING" in lines[0]
    assert "To change that: " in lines[0]


def assert_once(server: ServerProcess, words: str) -> None:
    """Assert that the server hasn't said so again in the meantime."""
    assert server.log().count(words) == 1, server.log()


def assert_goes_on(server: ServerProcess, client: Client) -> None:
    """Assert that the server still relays a client's messages."""
    client.send(frame(TEXT, b"still there?"))
    assert client.read_message() == Frame(TEXT, b"still there?")


def freeze(server: ServerProcess) -> None:
    """Stop all of the server's threads until SIGCONT; the signal alone may come a moment later."""
    server.signal(signal.SIGSTOP)
    threads = list(Path(f"/proc/{server.pid}/task").glob("*/stat"))

    def stopped() -> bool | None:
        states = {thread.read_text("ascii").rpartition(") ")[2][0] for thread in threads}
        return states == {"T"} or None

    until(stopped, "the server to stop")


@contextmanager
def knocking(address: Address, number: int) -> Iterator[list[socket.socket]]:
    """Sockets that have begun to connect, and don't wait for it."""
    with ExitStack() as stack:
        sockets = []
        for _ in range(number):
            each = stack.enter_context(socket.socket())
            each.setblocking(False)
            each.connect_ex(address)
            sockets.append(each)
        yield sockets


def assert_let_in(each: socket.socket) -> None:
    """Assert that a socket that has begun to connect gets its WebSocket."""
    each.settimeout(2 * TIMEOUT)
    each.sendall(upgrade_request())
    assert each.recv(12) == b"HTTP/1.1 101"


def test_no_files_for_new_clients() -> None:
    words = "(EMFILE)"
    with running("--shards", "2") as server, Client(server.address) as client:
        before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (64, before[1]))
        with knocking(server.address, 200) as sockets:
            await_words(server, words)
            assert "LimitNOFILE=" in server.log()
            assert_goes_on(server, client)
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, before)
            for each in sockets:
                assert_let_in(each)
        assert_once(server, words)


def test_no_room_for_new_clients() -> None:
    with running("--max-connections", "1") as server, Client(server.address) as client:
        for _ in range(3):
            with pytest.raises(Refused):
                Client(server.address)
        await_words(server, "get a 503")
        assert "--max-connections 2;" in server.log()
        assert_goes_on(server, client)


def test_a_listeners_queue_overflows() -> None:
    words = "A listener's queue in this network namespace has overflowed"

    def overflows(server: ServerProcess) -> int:
        lines = Path(f"/proc/{server.pid}/net/netstat").read_text("ascii").splitlines()
        return int(dict(zip(lines[0].split(), lines[1].split(), strict=True))["ListenOverflows"])

    def body() -> None:
        set_sysctl("net.core.somaxconn", 4)
        with running("--shards", "1") as server, Client(server.address) as client:
            freeze(server)
            try:
                with knocking(server.address, 40) as sockets:
                    until(lambda: overflows(server) or None, "the queue to overflow")
                    server.signal(signal.SIGCONT)
                    await_words(server, words)
                    assert "sysctl -w net.core.somaxconn=65535" in server.log()
                    assert_goes_on(server, client)
                    for each in sockets:
                        assert_let_in(each)
            finally:
                server.signal(signal.SIGCONT)
            assert_once(server, words)

    in_namespace(body)


def test_the_firewalls_table_of_connections_is_full() -> None:
    words = "The firewall's table of connections (conntrack) is full"

    def body() -> None:
        subprocess.run(TRACK_CONNECTIONS, shell=True, check=True)
        with running() as server, Client(server.address) as client:
            with knocking(server.address, 40):
                await_words(server, words)
            assert "sysctl -w net.netfilter.nf_conntrack_max=32" in server.log()
            assert_goes_on(server, client)
            assert_once(server, words)

    needs_program("nft")
    if not CONNTRACK_MAX.exists() or int(CONNTRACK_MAX.with_name("nf_conntrack_count").read_text("ascii")):
        pytest.skip("no connection tracking in this kernel, or others use it: the limit is the machine's")
    with conntrack_max(16):
        in_namespace(body)


@contextmanager
def conntrack_max(number: int) -> Iterator[None]:
    """Lower the limit of every namespace's table, which only the machine's own namespace can do."""
    before = CONNTRACK_MAX.read_text("ascii")
    try:
        CONNTRACK_MAX.write_text(str(number), "ascii")
    except OSError as error:
        pytest.skip(f"the limit cannot be lowered here: {error.strerror}")
    try:
        yield
    finally:
        CONNTRACK_MAX.write_text(before, "ascii")
