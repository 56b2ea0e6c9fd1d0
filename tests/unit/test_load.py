"""The load client against servers that do right, and against servers that do wrong in a known way."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from fastcast import _load
from tests.support.hosting import Host, ServerFactory, address_of, await_true
from tests.support.wire import TIMEOUT

pytestmark = pytest.mark.usefixtures("nothing_left")

Handler = Callable[[ServerConnection], Awaitable[None]]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Spoil = Callable[[int, int, bytes], list[bytes]]

LARGEST = 1 << 41
"""Nanoseconds: what the histograms have room for."""


def url_of(server: Any) -> str:
    """The URL of a hosted server."""
    host, port = address_of(server)
    return f"ws://{host}:{port}/"


@contextmanager
def websockets_server(handler: Handler, host: str = "127.0.0.1", **options: Any) -> Iterator[str]:
    """A server of the websockets library on a thread of its own; gives its URL."""
    thread = Host()

    async def start() -> Any:
        return await serve(handler, host, 0, close_timeout=1, compression=None, **options)

    async def stop() -> None:
        server.close()
        await server.wait_closed()

    try:
        server = thread.run(start())
        port = next(iter(server.sockets)).getsockname()[1]
        try:
            yield f"ws://[{host}]:{port}/" if ":" in host else f"ws://{host}:{port}/"
        finally:
            thread.run(stop())
    finally:
        thread.end()


class Relay:
    """Sends what a client sends to all; `spoil` says what the client at a place gets of a message."""

    def __init__(self, spoil: Spoil = lambda number, place, message: [message]) -> None:
        self.clients: list[ServerConnection] = []
        self.number = 0
        self._spoil = spoil

    async def __call__(self, connection: ServerConnection) -> None:
        self.clients.append(connection)
        try:
            async for message in connection:
                assert isinstance(message, bytes)
                for place, client in enumerate(self.clients):
                    for copy in self._spoil(self.number, place, message):
                        await client.send(copy)
                self.number += 1
        except ConnectionClosed:
            pass
        finally:
            self.clients.remove(connection)


async def echo(connection: ServerConnection) -> None:
    """Sends each client what it sent."""
    async for message in connection:
        await connection.send(message)


async def listen(connection: ServerConnection) -> None:
    """Reads, and says nothing."""
    async for _ in connection:
        pass


@contextmanager
def asyncio_server(handler: Talk) -> Iterator[str]:
    """A server of plain streams on a thread of its own; gives its URL."""
    thread = Host()
    try:
        server = thread.run(asyncio.start_server(handler, "127.0.0.1", 0))
        try:
            yield "ws://{}:{}/".format(*server.sockets[0].getsockname())
        finally:

            async def stop() -> None:
                server.close()
                await server.wait_closed()

            thread.run(stop())
    finally:
        thread.end()


async def closing_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Agrees to the upgrade, and hangs up at the first frame, whatever it is."""
    protocol = ServerProtocol()
    protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
    for event in protocol.events_received():
        assert isinstance(event, Request)
        protocol.send_response(protocol.accept(event))
    writer.writelines(protocol.data_to_send())
    await reader.read(1)
    writer.close()
    await writer.wait_closed()


class LateCloser:
    """A relay that takes its time to answer a Close."""

    DELAY = 0.1

    def __init__(self) -> None:
        self._open: dict[ServerProtocol, asyncio.StreamWriter] = {}

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol = ServerProtocol()
        while data := await reader.read(65536):
            protocol.receive_data(data)
            for event in protocol.events_received():
                if isinstance(event, Request):
                    protocol.send_response(protocol.accept(event))
                    self._open[protocol] = writer
                    continue
                assert isinstance(event, Frame)
                if event.opcode is Opcode.BINARY:
                    self._relay(bytes(event.data))
                elif event.opcode is Opcode.CLOSE:
                    del self._open[protocol]
                    await asyncio.sleep(self.DELAY)
            writer.writelines(protocol.data_to_send())
            if protocol not in self._open:
                break
        writer.close()
        await writer.wait_closed()

    def _relay(self, message: bytes) -> None:
        for protocol, writer in self._open.items():
            protocol.send_binary(message)
            writer.writelines(protocol.data_to_send())


def load(url: str, **options: Any) -> dict[str, Any]:
    """A short run; what isn't said otherwise is bounded in time."""
    return _load.run({"url": url, "settle": 0, "timeout": TIMEOUT} | options)


def counts(pairs: list[list[int]]) -> int:
    """How many values the pairs of a histogram stand for."""
    return sum(count for _, count in pairs)


@contextmanager
def soft_limit(descriptors: int) -> Iterator[None]:
    """The process's limit on fds, lowered for a while."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


class TestCleanRun:
    """A server that does everything right."""

    def test_everything_is_accounted_for(self, server: ServerFactory) -> None:
        with server() as running:
            report = load(url_of(running), connections=50, senders=3, messages=7)
        assert report["clean"]
        assert report["errors"] == []
        assert report["connections"]["made"] == report["connections"]["attempts"] == 50
        assert report["messages"]["sent"] == 21
        assert report["deliveries"]["received"] == report["deliveries"]["expected"] == 21 * 50
        assert report["closes"] == {"1000": 50}
        assert report["storm"] is None

    def test_histograms_hold_every_delivery_and_handshake(self, server: ServerFactory) -> None:
        with server() as running:
            histograms = load(url_of(running), connections=20, messages=5)["histograms"]
        assert {name: counts(pairs) for name, pairs in histograms.items()} == {
            "latency": 100,
            "handshake": 20,
            "first_receiver": 5,
            "last_receiver": 5,
            "spread": 5,
            "storm_handshake": 0,
            "storm_back": 0,
        }

    def test_buckets_are_those_of_hdr_histogram(self, server: ServerFactory) -> None:
        with server() as running:
            pairs = load(url_of(running), connections=100, messages=20)["histograms"]["latency"]
        library = HdrHistogram(1, LARGEST, 2)
        for value, count in pairs:
            assert library.get_highest_equivalent_value(value) == value
            library.record_value(value, count)
        assert library.get_total_count() == counts(pairs)
        recorded = [item.value_iterated_to for item in library.get_recorded_iterator()]
        assert recorded == [value for value, _ in pairs]

    def test_snapshots_add_up_to_the_report(self, server: ServerFactory) -> None:
        snapshots: list[dict[str, Any]] = []
        options = {"connections": 50, "messages": 200, "settle": 0, "server_pid": os.getpid()}
        with server() as running:
            report = _load.run({"url": url_of(running), **options}, snapshots.append, interval=0.001)
        for name in ("latency", "handshake"):
            assert sum(counts(each[name]) for each in snapshots) == counts(report["histograms"][name])
        last = snapshots[-1]
        assert last["phase"] == "close"
        assert last["connections"] == {
            "made": 50,
            "failed": 0,
            "open": 0,
            "in_progress": 0,
            "waiting": 0,
            "closed_unexpectedly": 0,
        }
        assert (last["sent"], last["received"]) == (200, 200 * 50)
        assert last["server"]["threads"] > 0
        assert last["server"]["pss"] > 0
        assert last["kernel"]["slab"] > 0
        assert [each["seconds"] for each in snapshots] == sorted(each["seconds"] for each in snapshots)

    @pytest.mark.parametrize(
        "options",
        [
            {"rate": 2000},
            {"think": 0.001},
            {"think": 0.001, "think_fixed": True},
            {"in_flight": 4, "text": True},
            {"churn": 50, "rate": 500},
            {"stalled": 5},
            {"arrivals": [(20, 2000), (10, 0), (20, 1000)]},
            {"connect_rate": 2000},
            {"threads": 5},
        ],
        ids=lambda options: "-".join(options),
    )
    def test_every_way_to_put_load_on_it_is_clean(
        self, server: ServerFactory, options: dict[str, Any]
    ) -> None:
        with server() as running:
            report = load(url_of(running), connections=50, senders=4, messages=10, **options)
        assert report["clean"], report
        assert report["deliveries"]["received"] == 40 * report["deliveries"]["receivers"]

    def test_request_has_what_the_options_say(self) -> None:
        seen: list[Request] = []

        async def look(connection: ServerConnection) -> None:
            assert connection.request is not None
            seen.append(connection.request)
            await echo(connection)

        with websockets_server(look, subprotocols=["chat"]) as url:
            report = load(
                url + "rooms?token=a%20b&x",
                connections=1,
                messages=1,
                headers="X-One: 1\r\nX-Two: 2\r\n",
                subprotocol="chat",
            )
        assert report["clean"]
        assert seen[0].path == "/rooms?token=a%20b&x"
        assert (seen[0].headers["X-One"], seen[0].headers["X-Two"]) == ("1", "2")

    def test_ipv6(self) -> None:
        with websockets_server(Relay(), "::1") as url:
            assert load(url, connections=5, messages=3)["clean"]

    def test_host_name_and_chosen_sources(self) -> None:
        sources: list[str] = []

        async def look(connection: ServerConnection) -> None:
            sources.append(connection.remote_address[0])
            await listen(connection)

        with websockets_server(look) as url:
            report = load(
                url.replace("127.0.0.1", "localhost"),
                connections=6,
                messages=0,
                sources="127.77.1.1-2,127.77.2.0/30",
            )
        assert report["clean"]
        assert report["connections"]["sources"] == 4
        assert set(sources) == {"127.77.1.1", "127.77.1.2", "127.77.2.1", "127.77.2.2"}


class TestWrongServer:
    """A server that fails in one place, and a report that says so."""

    @staticmethod
    def verdict(spoil: Spoil, **options: Any) -> dict[str, Any]:
        """The deliveries that a run counts at a relay that is wrong in one place."""
        with websockets_server(Relay(spoil)) as url:
            report = load(url, connections=4, messages=10, patience=0.5, **options)
        assert not report["clean"]
        return {
            name: report["deliveries"][name]
            for name in ("lost", "duplicated", "reordered", "damaged", "unexpected")
            if report["deliveries"][name]
        }

    def test_loss(self) -> None:
        lost = self.verdict(lambda n, place, message: [message] * ((n, place) != (3, 1)), rate=1000)
        assert lost == {"lost": 1}

    def test_duplicate(self) -> None:
        def spoil(n: int, place: int, message: bytes) -> list[bytes]:
            return [message, message] if (n, place) == (3, 1) else [message]

        assert self.verdict(spoil) == {"duplicated": 1}

    def test_order(self) -> None:
        kept: list[bytes] = []

        def spoil(n: int, place: int, message: bytes) -> list[bytes]:
            if (n, place) == (3, 1):
                kept.append(message)
                return []
            return [message, *kept] if (n, place) == (4, 1) else [message]

        assert self.verdict(spoil, rate=1000) == {"reordered": 1}

    def test_damage(self) -> None:
        def spoil(n: int, place: int, message: bytes) -> list[bytes]:
            return [message[:-1] + bytes([message[-1] ^ 1])] if (n, place) == (3, 1) else [message]

        assert self.verdict(spoil, rate=1000) == {"damaged": 1, "lost": 1}

    def test_relay_in_place_of_an_echo(self) -> None:
        assert self.verdict(lambda n, place, message: [message], senders=2, expect="sender") == {
            "unexpected": 2 * 10 * 3
        }

    def test_refused_handshakes(self) -> None:
        def refuse(connection: ServerConnection, request: Request) -> Response:
            return connection.respond(503, "not now\n")

        with websockets_server(listen, process_request=refuse) as url:
            report = load(url, connections=5)
        assert report["connections"]["failed"] == {"http 503": 5}
        assert report["connections"]["made"] == 0
        assert not report["clean"]

    def test_nobody_listens(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            report = load(f"ws://127.0.0.1:{unused.getsockname()[1]}/", connections=3)
        assert report["connections"]["failed"] == {"connection refused (ECONNREFUSED)": 3}

    def test_no_answer(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"ws://127.0.0.1:{silent.getsockname()[1]}/"
            report = load(url, connections=3, handshake_timeout=0.1)
        assert report["connections"]["failed"] == {"handshake timed out": 3}

    def test_what_was_never_begun_is_counted(self) -> None:
        with websockets_server(listen) as url:
            report = load(url, connections=5, connect_rate=0.001, timeout=0.2, messages=0)
        assert report["connections"]["made"] == 1
        assert report["connections"]["failed"] == {"never begun": 4}
        assert report["errors"] == ["connecting: timed out"]


class TestExpectations:
    """Who is to receive what."""

    def test_echo(self) -> None:
        with websockets_server(echo) as url:
            report = load(url, connections=6, senders=6, messages=10, in_flight=3, expect="sender")
        assert report["clean"]
        assert report["deliveries"]["received"] == report["deliveries"]["expected"] == 60
        assert report["latency_us"]["count"] == 60
        assert report["order_digest"] is None

    def test_server_that_publishes_of_itself(self) -> None:
        async def publish(connection: ServerConnection) -> None:
            for number in range(5):
                await connection.send(f"news {number}")
            await listen(connection)

        with websockets_server(publish) as url:
            report = _load.run(
                {"url": url, "connections": 4, "messages": 0, "expect": "any", "hold": TIMEOUT},
                lambda snapshot: snapshot["received"] == 20,
                interval=0.01,
            )
        assert report["deliveries"]["received"] == 20
        assert report["deliveries"]["damaged"] == 0

    def test_latency_is_measured_from_when_a_message_was_due(self) -> None:
        messages, rate = 50, 1000

        async def withhold(connection: ServerConnection) -> None:
            kept = [await connection.recv() for _ in range(messages)]
            for message in kept:
                await connection.send(message)
            await listen(connection)

        with websockets_server(withhold) as url:
            report = load(url, connections=1, messages=messages, rate=rate, expect="sender")
        # The first comes back after the last was sent, which was not before its time.
        assert report["latency_us"]["max"] >= (messages - 1) / rate * 1e6
        assert report["clean"]

    def test_a_sender_that_is_not_read_from_holds_up_no_other(self) -> None:
        messages = 20
        others_done = asyncio.Event()
        blocked = False

        async def handle(connection: ServerConnection) -> None:
            nonlocal blocked
            if not blocked:
                blocked = True
                await others_done.wait()
                await echo(connection)
                return
            for _ in range(messages):
                await connection.send(await connection.recv())
            others_done.set()
            await listen(connection)

        # Far more than the buffers of a connection hold.
        options = {"connections": 2, "senders": 2, "messages": messages, "size": 1_000_000}
        with websockets_server(handle, max_queue=1) as url:
            report = load(url, **options, rate=1000, threads=1, expect="sender")
        assert report["clean"], report["errors"]

    def test_without_a_sender_there_are_no_messages(self) -> None:
        refused = False

        def refuse(connection: ServerConnection, request: Request) -> Response | None:
            nonlocal refused
            first, refused = not refused, True
            return connection.respond(503, "not now\n") if first else None

        with websockets_server(Relay(), process_request=refuse) as url:
            report = load(url, connections=3, messages=2, threads=1, connect_window=1)
        assert report["connections"]["made"] == 2
        assert report["errors"] == ["messages: none of the senders is connected"]

    def test_an_order_that_is_not_whole_has_no_digest(self) -> None:
        relay = Relay(lambda number, place, message: [] if number == 3 else [message])
        with websockets_server(relay) as url:
            report = load(url, connections=3, senders=2, messages=5, rate=1000, patience=0.2)
        assert report["deliveries"]["lost"] == 3
        assert report["order_digest"] is None


class TestClosing:
    """The closing handshake, when the server takes its own way."""

    def test_no_answer_is_counted(self) -> None:
        with asyncio_server(closing_at_once) as url:
            report = load(url, connections=5, messages=0)
        assert report["clean"]
        assert report["connections"]["unanswered"] == 5
        assert report["closes"] == {"1006": 5}

    def test_churn_ends_with_all_connections_there(self) -> None:
        with asyncio_server(LateCloser()) as url:
            report = load(url, connections=20, messages=20, rate=200, churn=100)
        assert report["clean"], report["errors"]
        assert report["churn"]["closed"] == report["churn"]["reopened"] > 0


class TestComingBack:
    """Retries and the storm."""

    def test_refused_handshakes_are_tried_again(self) -> None:
        refusals = 7

        def refuse(connection: ServerConnection, request: Request) -> Response | None:
            nonlocal refusals
            refusals -= 1
            return connection.respond(503, "not now\n") if refusals >= 0 else None

        with websockets_server(Relay(), process_request=refuse) as url:
            report = load(url, connections=5, messages=2, retry=0.01)
        assert report["clean"]
        assert report["connections"]["retried"] == {"http 503": 7}
        assert report["connections"]["attempts"] == 12

    def test_handshakes_without_an_answer_are_tried_again(self) -> None:
        asked = 0
        again = asyncio.Event()

        async def hang(connection: ServerConnection, request: Request) -> None:
            nonlocal asked
            asked += 1
            if asked > 1:
                again.set()
            await again.wait()

        with websockets_server(listen, process_request=hang, open_timeout=None) as url:
            report = load(url, connections=1, messages=0, retry=0.01, handshake_timeout=0.1)
        assert report["connections"]["made"] == 1
        assert report["connections"]["retried"] == {"handshake timed out": 1}

    def test_lost_connections_come_back(self) -> None:
        seen = 0

        async def throw_out(connection: ServerConnection) -> None:
            nonlocal seen
            seen += 1
            if seen > 3:
                await listen(connection)

        def is_done(snapshot: dict[str, Any]) -> bool:
            return seen == 6 and snapshot["connections"]["open"] == 3

        with websockets_server(throw_out) as url:
            report = _load.run(
                {"url": url, "connections": 3, "messages": 0, "retry": 0.01, "hold": TIMEOUT},
                is_done,
                interval=0.01,
            )
        assert report["connections"]["closed_unexpectedly"] == report["connections"]["reconnected"] == 3
        assert not report["clean"]

    def test_what_waits_at_the_end_has_failed(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"ws://127.0.0.1:{unused.getsockname()[1]}/"
            report = load(url, connections=2, retry=1000, timeout=0.2)
        assert report["connections"]["failed"] == {"still waiting to try again": 2}
        assert report["connections"]["retried"] == {"connection refused (ECONNREFUSED)": 2}

    @pytest.mark.parametrize("reset", [False, True])
    def test_storm(self, server: ServerFactory, reset: bool) -> None:
        with server() as running:
            report = load(
                url_of(running), connections=300, messages=3, storm=True, storm_reset=reset, stalled=3
            )
        storm = report["storm"]
        assert report["clean"]
        assert (storm["dropped"], storm["back"], storm["missing"]) == (300, 300, 0)
        assert storm["attempts"] == storm["handshake_us"]["count"] == storm["back_us"]["count"] == 300
        assert storm["refused"] == {}
        assert report["deliveries"]["received"] == 3 * 297
        assert report["phase_seconds"]["storm"] == pytest.approx(storm["seconds"])

    def test_storm_against_a_server_that_refuses_at_first(self) -> None:
        asked = 0

        def refuse(connection: ServerConnection, request: Request) -> Response | None:
            nonlocal asked
            asked += 1
            return connection.respond(503, "not now\n") if 10 < asked <= 15 else None

        with websockets_server(Relay(), process_request=refuse) as url:
            report = load(url, connections=10, messages=2, storm=True, retry=0.01)
        assert report["clean"]
        assert report["storm"]["back"] == 10
        assert report["storm"]["attempts"] == 15
        assert report["storm"]["refused"] == report["connections"]["retried"] == {"http 503": 5}

    def test_storm_without_retries_says_who_is_missing(self) -> None:
        asked = 0

        def refuse(connection: ServerConnection, request: Request) -> Response | None:
            nonlocal asked
            asked += 1
            return connection.respond(503, "not now\n") if 4 < asked <= 6 else None

        with websockets_server(Relay(), process_request=refuse) as url:
            report = load(url, connections=4, messages=0, storm=True)
        assert (report["storm"]["back"], report["storm"]["missing"]) == (2, 2)
        assert report["connections"]["made"] == 4
        assert not report["clean"]


class TestCallbacks:
    """Progress and gate."""

    PHASES = ("connect", "settle", "storm", "messages", "hold", "close")

    def test_gate_is_asked_before_each_phase(self, server: ServerFactory) -> None:
        asked: list[str] = []

        def gate(phase: str) -> bool:
            asked.append(phase)
            return asked.count(phase) == 2

        options = {"connections": 5, "messages": 2, "storm": True}
        with server() as running:
            report = _load.run({"url": url_of(running), **options}, gate=gate)
        assert asked == [phase for phase in self.PHASES for _ in range(2)]
        assert report["clean"]

    def test_connections_live_while_the_gate_is_closed(self) -> None:
        answered = threading.Event()

        async def ask(connection: ServerConnection) -> None:
            await (await connection.ping())
            answered.set()
            await listen(connection)

        with websockets_server(ask) as url:
            report = _load.run(
                {"url": url, "connections": 1, "messages": 0, "settle": 0},
                gate=lambda phase: phase != "hold" or answered.is_set(),
            )
        assert report["clean"]

    def test_waiting_at_a_gate_does_not_count(self, server: ServerFactory) -> None:
        snapshots: list[dict[str, Any]] = []
        with server() as running:
            report = _load.run(
                {"url": url_of(running), "connections": 5, "messages": 2, "settle": 0, "timeout": 0.5},
                snapshots.append,
                lambda phase: phase != "messages" or bool(snapshots and snapshots[-1]["seconds"] > 1),
                interval=0.01,
            )
        assert report["clean"]

    def test_progress_ends_the_run(self, server: ServerFactory) -> None:
        with server() as running:
            report = _load.run(
                {"url": url_of(running), "connections": 5, "messages": 0, "hold": 1000},
                lambda snapshot: snapshot["phase"] == "hold",
                interval=0.01,
            )
        assert report["cancelled"]
        assert report["errors"] == ["hold: cancelled"]
        assert report["closes"] == {"1000": 5}

    @pytest.mark.parametrize("callback", ["progress", "gate"])
    def test_exception_in_a_callback_ends_the_run(self, server: ServerFactory, callback: str) -> None:
        def fail(_: object) -> bool:
            raise LookupError("stop here")

        options = {"connections": 5, "messages": 0, "hold": 1000}
        with server() as running, pytest.raises(LookupError, match="stop here"):
            _load.run({"url": url_of(running), **options}, **{callback: fail}, interval=0.01)

    def test_signal_handlers_run(self) -> None:
        class Interrupted(Exception):
            pass

        def interrupt(number: int, frame: object) -> None:
            raise Interrupted

        async def shoot(connection: ServerConnection) -> None:
            os.kill(os.getpid(), signal.SIGUSR1)
            await listen(connection)

        before = signal.signal(signal.SIGUSR1, interrupt)
        try:
            with websockets_server(shoot) as url, pytest.raises(Interrupted):
                load(url, connections=1, messages=0, hold=1000)
        finally:
            signal.signal(signal.SIGUSR1, before)


class TestSeveralRuns:
    """Runs that share a server, as those of several machines do."""

    def test_two_runs_judge_each_others_messages(self, server: ServerFactory) -> None:
        barrier = threading.Barrier(2)
        reports: dict[int, dict[str, Any]] = {}

        def gate(phase: str) -> bool:
            barrier.wait(TIMEOUT)
            return True

        def one(number: int, url: str) -> None:
            options = {
                "connections": 20 + number,
                "senders": 2,
                "sender_base": 2 * number,
                "senders_total": 4,
                "messages": 25,
            }
            reports[number] = _load.run({"url": url, **options}, gate=gate)

        with server() as running:
            threads = [threading.Thread(target=one, args=(number, url_of(running))) for number in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert [reports[number]["clean"] for number in range(2)] == [True, True]
        assert [reports[number]["deliveries"]["received"] for number in range(2)] == [2000, 2100]
        # Of its own messages only: the other's have been timed by another clock.
        assert [reports[number]["latency_us"]["count"] for number in range(2)] == [1000, 1050]
        assert reports[0]["order_digest"] == reports[1]["order_digest"]

    def test_threads_keep_nothing_of_the_process_open(self, server: ServerFactory) -> None:
        done = threading.Event()
        with server() as running, socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            inside, outside = socket.socketpair()

            def look(snapshot: dict[str, Any]) -> bool:
                # Had a worker a copy of the other end, this one would never see its end.
                inside.close()
                outside.settimeout(TIMEOUT)
                assert outside.recv(1) == b""
                listener.close()
                with socket.socket() as client:
                    assert client.connect_ex(address) == errno.ECONNREFUSED
                done.set()
                return True

            with outside:
                _load.run(
                    {"url": url_of(running), "connections": 4, "messages": 0, "hold": 1000},
                    lambda snapshot: snapshot["phase"] == "hold" and look(snapshot),
                    interval=0.01,
                )
        assert done.is_set()


class TestRefusal:
    """What can't be run, and why, in one line."""

    URL = "ws://127.0.0.1:1/"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, "a URL is needed"),
            ({"url": "http://127.0.0.1/"}, "does not start with ws://"),
            ({"url": "ws://127.0.0.1/a b"}, "space"),
            ({"url": URL, "senders": 2000}, "senders"),
            ({"url": URL, "connections": -1}, "connections is out of range"),
            ({"url": URL, "connections": 1 << 32}, "connections is out of range"),
            ({"url": URL, "arrivals": [(1, 0)]}, "do not add up"),
            ({"url": URL, "expect": "none"}, "expect is all, sender or any"),
            ({"url": URL, "sources": "1.2.3"}, "not a source address"),
            ({"url": URL, "sources": "::1"}, "not a source address"),
            ({"url": URL, "headers": "a\0b"}, "NUL"),
            ({"url": URL, "rate": 1, "think": 1}, "think"),
            ({"url": URL, "timeout": 0}, "time-out"),
            ({"url": URL, "server_pid": 2**31 - 1}, "server_pid: there is no process 2147483647"),
        ],
    )
    def test_contradiction(self, options: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            _load.run(options)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "options", [{"no_such_option": 1}, {"url": b"ws://a"}, {"connections": "many"}, {"arrivals": [1]}]
    )
    def test_wrong_type(self, options: dict[str, object]) -> None:
        with pytest.raises(TypeError):
            _load.run(options)

    def test_too_few_ports(self) -> None:
        with pytest.raises(OSError, match=r"ports.*more address.* would do.*ip addr add") as caught:
            _load.run({"url": self.URL, "connections": 100_000, "sources": "127.8.0.1"})
        assert caught.value.errno == errno.EADDRNOTAVAIL

    def test_source_of_another_machine(self) -> None:
        with pytest.raises(
            OSError, match=r"192\.0\.2\.7 cannot be used.*ip addr add 192\.0\.2\.7/"
        ) as caught:
            _load.run({"url": self.URL, "connections": 3, "sources": "127.8.0.1,192.0.2.7"})
        assert caught.value.errno == errno.EADDRNOTAVAIL

    def test_too_few_descriptors(self) -> None:
        with soft_limit(256), pytest.raises(OSError, match=r"too few descriptors.*ulimit -n") as caught:
            _load.run({"url": self.URL, "connections": 20_000, "threads": 2})
        assert caught.value.errno == errno.EMFILE

    def test_unknown_host(self) -> None:
        with pytest.raises(OSError, match=r"cannot resolve no-such-host\.invalid"):
            _load.run({"url": "ws://no-such-host.invalid/"})


def test_more_threads_make_room_under_a_low_limit(server: ServerFactory) -> None:
    with server() as running, soft_limit(1024):
        report = load(url_of(running), connections=1500, messages=2)
        await_true(lambda: running.stats()["clients"] == 0, "the clients to go")
    assert report["clean"]
    assert report["connections"]["own_fd_tables"]
    assert report["connections"]["threads"] == 3
