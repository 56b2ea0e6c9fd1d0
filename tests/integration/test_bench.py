"""`fastcast bench` against real servers: one that is right, and others that are wrong in ways it must see."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import pytest
from websockets.asyncio.server import ServerConnection, serve

from tests.support.hosting import Host
from tests.support.load import bench, started, url
from tests.support.server import ServerProcess, running
from tests.support.wire import Address

Fault: TypeAlias = Callable[[int, bytes], list[bytes]]
"""What one client gets instead of the message with this number, counted from 1."""


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server as it is by default."""
    with running() as process:
        yield process


def deliver(_number: int, message: bytes) -> list[bytes]:
    return [message]


def lose(number: int, message: bytes) -> list[bytes]:
    return [] if number == 3 else [message]


def duplicate(number: int, message: bytes) -> list[bytes]:
    return [message, message] if number == 3 else [message]


def damage(number: int, message: bytes) -> list[bytes]:
    return [message[:-1] + bytes([message[-1] ^ 1])] if number == 3 else [message]


class Reorder:
    """Keeps the third message back until after the fourth."""

    def __init__(self) -> None:
        self._kept: list[bytes] = []

    def __call__(self, number: int, message: bytes) -> list[bytes]:
        if number == 3:
            self._kept = [message]
            return []
        kept, self._kept = self._kept, []
        return [message, *kept]


@contextmanager
def relay(fault: Fault) -> Iterator[Address]:
    """A server that relays every message to all, except that one client who sends nothing has a fault."""
    clients: set[ServerConnection] = set()
    victims: list[ServerConnection] = []
    counted = 0

    async def handle(client: ServerConnection) -> None:
        nonlocal counted
        clients.add(client)
        async for message in client:
            assert isinstance(message, bytes)
            counted += 1
            if not victims:
                victims.append(next(other for other in clients if other is not client))
            for other in clients:
                for each in fault(counted, message) if other is victims[0] else [message]:
                    await other.send(each)
        clients.discard(client)

    with hosted(handle) as address:
        yield address


@contextmanager
def hosted(handle: Callable[[ServerConnection], Any]) -> Iterator[Address]:
    """A server of the websockets library on a thread of its own."""
    host = Host()
    try:

        async def begin() -> Any:
            return await serve(handle, "127.0.0.1", 0, compression=None)

        async def end() -> None:
            made.close()
            await made.wait_closed()

        made = host.run(begin())
        try:
            yield made.sockets[0].getsockname()
        finally:
            host.run(end())
    finally:
        host.end()


class TestCleanRuns:
    def test_ten_messages_reach_everybody(self, server: ServerProcess) -> None:
        ended = bench(url(server.address), "--connections", "2000")
        assert ended.code == 0, ended.stdout + ended.stderr
        assert "2,000 of 2,000" in ended.stdout
        assert "20,000 of 20,000" in ended.stdout
        assert ended.stdout.splitlines()[-1].startswith("Verdict       clean")

    @pytest.mark.parametrize(
        "options",
        [
            ("--rate", "100", "--messages", "20", "--senders", "4"),
            ("--in-flight", "16", "--senders", "10"),
            ("--text", "--size", "1000"),
            ("--think", "20ms", "--think-fixed", "--senders", "3"),
            ("--arrivals", "100@1000,400"),
            ("--churn", "50", "--rate", "50", "--messages", "25"),
            ("--storm",),
            ("--storm", "--storm-reset", "--retry", "100ms"),
            ("--stalled", "5"),
            ("--messages", "0", "--hold", "200ms"),
        ],
        ids=" ".join,
    )
    def test_every_way_to_put_load_on_it(self, server: ServerProcess, options: tuple[str, ...]) -> None:
        connections = () if "--arrivals" in options else ("--connections", "500")
        ended = bench(url(server.address, "/" + options[0]), *connections, *options, "--quiet")
        assert ended.code == 0, ended.stdout + ended.stderr

    def test_subprotocol_header_and_query_reach_the_server(self) -> None:
        seen: list[tuple[str | None, str, str]] = []

        async def handle(client: ServerConnection) -> None:
            request = client.request
            assert request is not None
            headers = request.headers
            seen.append((headers.get("Sec-WebSocket-Protocol"), headers["X-Name"], request.path))
            await client.wait_closed()

        with hosted(handle) as address:
            bench(
                url(address, "/room"),
                *("--connections", "1", "--messages", "0", "--settle", "0"),
                *("--subprotocol", "one", "--subprotocol", "two", "--header", "X-Name: Ada"),
                *("--query", "token=a b"),
            )
        assert seen == [("one, two", "Ada", "/room?token=a+b")]

    def test_an_echo_server_answers_the_sender_only(self) -> None:
        async def echo(client: ServerConnection) -> None:
            async for message in client:
                await client.send(message)

        with hosted(echo) as address:
            ended = bench(
                url(address), "--connections", "50", "--senders", "20", "--expect", "sender", "--json", "-"
            )
        assert ended.code == 0, ended.stderr
        assert ended.figures["deliveries"]["received"] == 200

    def test_what_a_server_publishes_of_itself_is_counted(self) -> None:
        async def publish_for_a_while(client: ServerConnection) -> None:
            for _ in range(20):
                await client.send("news")
            await client.wait_closed()

        with hosted(publish_for_a_while) as address:
            ended = bench(
                url(address), "--connections", "50", "--expect", "any", "--hold", "300ms", "--json", "-"
            )
        assert ended.code == 0, ended.stderr
        assert ended.figures["deliveries"]["received"] == 1000

    def test_the_server_is_measured(self, server: ServerProcess) -> None:
        ended = bench(
            url(server.address),
            *("--connections", "500", "--hold", "1s", "--server-pid", str(server.pid), "--json", "-"),
        )
        figures = ended.figures
        assert figures["cpu"]["server_us_per_delivery"] > 0
        assert figures["series"][-1]["server_pss"] > 1 << 20
        assert "fastcast serve" in figures["environment"]["server"]

    def test_json_is_all_there_is_on_standard_output(self, server: ServerProcess) -> None:
        ended = bench(url(server.address), "--connections", "500", "--json", "-")
        figures = ended.figures
        assert figures["verdict"]["clean"] is True
        assert figures["deliveries"]["received"] == 5000
        assert sum(count for _, count in figures["histograms"]["latency"]) == 5000
        assert "Verdict" in ended.stderr


class TestFaults:
    def test_the_relay_of_these_tests_can_be_right(self) -> None:
        with relay(deliver) as address:
            assert bench(url(address), "--connections", "20", "--quiet").code == 0

    @pytest.mark.parametrize(
        ("fault", "finding"),
        [
            (lose, "1 of 200 deliveries lost"),
            (duplicate, "1 of 200 deliveries duplicated"),
            (damage, "1 of 200 deliveries damaged"),
            (Reorder(), "1 of 200 deliveries reordered"),
        ],
        ids=["lost", "duplicated", "damaged", "reordered"],
    )
    def test_one_wrong_delivery_is_found(self, fault: Fault, finding: str) -> None:
        with relay(fault) as address:
            ended = bench(
                url(address), "--connections", "20", "--in-flight", "10", "--patience", "500ms", "--quiet"
            )
        assert ended.code == 1, ended.stdout
        assert finding in ended.stdout

    def test_a_server_that_hangs_up_is_found(self) -> None:
        async def hang_up(client: ServerConnection) -> None:
            await client.recv()
            await client.close(1011)

        with hosted(hang_up) as address:
            ended = bench(url(address), "--connections", "5", "--patience", "500ms", "--quiet")
        assert ended.code == 1
        assert "1 connection ended too early" in ended.stdout

    def test_nobody_listens(self) -> None:
        ended = bench("ws://127.0.0.1:1/", "--connections", "5")
        assert ended.code == 1
        assert "5 of 5 connections not made (5 connection refused (ECONNREFUSED))" in ended.stdout

    def test_a_server_that_refuses_says_with_what(self) -> None:
        with running("--max-connections", "7") as small:
            ended = bench(url(small.address), "--connections", "10", "--threads", "1")
        assert ended.code == 1
        assert "503" in ended.stdout


class TestEnd:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_an_interrupted_run_closes_its_connections_and_tells(
        self, server: ServerProcess, number: signal.Signals
    ) -> None:
        with started(url(server.address), "--connections", "500", "--hold", "1h") as run:
            run.await_stderr(r" s  hold ")
            run.signal(number)
            ended = run.wait()
        assert ended.code == 130
        assert "500 of 500" in ended.stdout
        assert ended.stdout.splitlines()[-1] == "Verdict       interrupted"

    def test_a_host_that_does_not_exist_is_3_and_one_line(self) -> None:
        ended = bench("ws://no-such-host.invalid/")
        assert (ended.code, ended.stdout) == (3, "")
        assert len(ended.stderr.splitlines()) == 1
        assert "no-such-host.invalid" in ended.stderr

    def test_too_few_ports_are_told_before_anything_is_opened(self, server: ServerProcess) -> None:
        ended = bench(url(server.address), "--connections", "100000", "--source", "127.9.9.9")
        assert (ended.code, ended.stdout) == (3, "")
        assert len(ended.stderr.splitlines()) == 1
        assert "port" in ended.stderr

    def test_a_mistake_is_2_and_one_line(self) -> None:
        ended = bench("wss://127.0.0.1/")
        assert (ended.code, ended.stdout) == (2, "")
        assert len(ended.stderr.splitlines()) == 1
