"""What is longer than the bus takes, or none of its business: it's refused or left out, and the bus stays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import nats
import pytest

import fastcast
from tests.support.brokers import KINDS, Broker, broker
from tests.support.hosting import MIB, ServerFactory, address_of, await_true, on_loop
from tests.support.wire import BINARY, TEXT, TIMEOUT, Client, Frame, frame

TOKEN = "a token for the test"


@pytest.fixture(scope="module", params=KINDS)
def bus(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A broker that all tests of this module may use, but not harm."""
    with broker(request.param) as running:
        yield running


@pytest.fixture(scope="module")
def with_log() -> Iterator[Broker]:
    """The same, one that keeps histories."""
    with broker("nats", "-js", "-sd", "store") as running:
        yield running


def counts(node: fastcast.Server) -> dict[str, Any]:
    """What a server tells of its bus."""
    found: dict[str, Any] = node.stats()["bus"]
    return found


def meet(one: fastcast.Server, two: fastcast.Server) -> None:
    """Wait until the servers have heard of each other."""
    await_true(lambda: all(len(node.everywhere.servers) == 2 for node in (one, two)), "the servers to meet")


class TestQuestions:
    def test_more_is_told_of_all_clients_than_a_message_holds(
        self, server: ServerFactory, bus: Broker
    ) -> None:
        def prepare(running: fastcast.Server) -> None:
            running.on_presence(lambda client: "x" * 3000)

        with server(prepare, bus=(bus.url,)) as one, server(bus=(bus.url,)) as two, ExitStack() as stack:
            meet(one, two)
            for _ in range(400):
                stack.enter_context(Client(address_of(one), "/a"))
            present = on_loop(two, two.everywhere.presence("/a"))
            assert len({each.client for each in present}) == 400
            assert {each.told for each in present} == {"x" * 3000}
            assert counts(one)["losses"] == 0

    def test_a_handler_that_fails_does_no_harm(
        self, server: ServerFactory, bus: Broker, caplog: pytest.LogCaptureFixture
    ) -> None:
        def prepare(running: fastcast.Server) -> None:
            @running.on_connect
            def admit(request: fastcast.Request) -> fastcast.Accept:
                return fastcast.Accept(state=request.query.get("name"))

            @running.on_presence
            def tell(client: fastcast.Client) -> object:
                return client.state.upper()

        with (
            server(prepare, bus=(bus.url,)) as one,
            server(bus=(bus.url,)) as two,
            Client(address_of(one), "/a") as client,
            Client(address_of(one), "/a?name=ann"),
            Client(address_of(one), "/a"),
        ):
            meet(one, two)
            for node in (two, one, two):
                present = on_loop(node, node.everywhere.presence("/a"))
                assert sorted(str(each.told) for each in present) == ["ANN", "None", "None"]
                # One traceback, however many fail.
                (message,) = [record.message for record in caplog.records if record.exc_info]
                assert message.startswith("on_presence failed for client ")
                assert message.endswith(" of '/a'")
                assert "on_presence failed for 1 more clients of '/a'" in caplog.text
                caplog.clear()  # it holds the server, too
            two.publish("/a", "still heard")
            assert client.read_message() == Frame(TEXT, b"still heard")
            assert counts(one)["losses"] == 0

    def test_a_handler_that_fails_without_a_bus(
        self, server: ServerFactory, caplog: pytest.LogCaptureFixture
    ) -> None:
        def prepare(running: fastcast.Server) -> None:
            running.on_presence(lambda client: 1 // 0)

        with server(prepare) as one, Client(address_of(one), "/a"):
            (present,) = on_loop(one, one.everywhere.presence("/a"))
            assert present.told is None
        assert "ZeroDivisionError" in caplog.text
        caplog.clear()  # it holds the server, too

    def test_a_question_that_the_broker_does_not_take_is_not_sent(
        self, server: ServerFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "nats.conf").write_text("max_payload: 500\n")
        with (
            broker("nats", "-c", str(tmp_path / "nats.conf")) as small,
            server(bus=(small.url,)) as one,
            server(bus=(small.url,)) as two,
        ):
            meet(one, two)
            assert on_loop(one, one.everywhere.presence("x" * 1000)) == []
            on_loop(one, one.flush())
            assert counts(one)["losses"] == 0
            assert "aren't sent: the bus takes 500" in caplog.text


class TestMessages:
    """With a history, the bus takes a little less than `max_message` lets clients send."""

    def test_a_client_s_is_refused_and_counted(
        self, server: ServerFactory, with_log: Broker, caplog: pytest.LogCaptureFixture
    ) -> None:
        options = {"bus": (with_log.url,), "bus_prefix": "client", "history": "10", "max_history": "4MiB"}
        with server(**options) as one, Client(address_of(one), "/a") as client:
            client.send(*3 * [frame(BINARY, MIB * b"x")], frame(TEXT, b"short"))
            assert client.read_message() == Frame(TEXT, b"short")
            assert (counts(one)["refused"], counts(one)["losses"]) == (3, 0)
        (record,) = [record for record in caplog.records if "longer" in record.message]
        assert record.exc_info is None
        assert "Traceback" not in caplog.text

    def test_who_publishes_is_told(
        self, server: ServerFactory, with_log: Broker, caplog: pytest.LogCaptureFixture
    ) -> None:
        options = {"bus": (with_log.url,), "bus_prefix": "http", "history": "10", "max_history": "4MiB"}
        with (
            server(**options, admin_port=0, admin_token=TOKEN) as one,
            Client(address_of(one), "/a") as client,
        ):
            with pytest.raises(ValueError, match="longer than the bus takes, 1047552 bytes"):
                one.publish("/a", MIB * b"x")
            document = {
                "messages": [{"channel": "/a", "data": data} for data in ("short", MIB * "x", "last")]
            }
            for target, content_type, body, published in (
                ("/publish?channel=/a", "text/plain", MIB * b"x", []),
                ("/publish", "text/plain", MIB * b"x", []),
                ("/publish", "application/json", json.dumps(document).encode(), [1]),
            ):
                request = Request(
                    f"http://127.0.0.1:{one.admin_port}{target}",
                    body,
                    {"Authorization": f"Bearer {TOKEN}", "Content-Type": content_type},
                )
                with pytest.raises(HTTPError) as refused:
                    urlopen(request, timeout=TIMEOUT)
                with refused.value as answer:
                    told = json.load(answer)
                assert told["status"] == answer.code == 413
                assert "longer than the bus takes" in told["detail"]
                assert told["subscribers"] == published
            assert client.read_message() == Frame(TEXT, b"short")
            assert counts(one)["refused"] == 4
        assert "Traceback" not in caplog.text


def test_the_headers_of_another_stream_say_nothing_of_a_place(
    server: ServerFactory, with_log: Broker
) -> None:
    async def publish() -> None:
        client = await nats.connect(with_log.url)
        headers = {"Nats-Sequence": "7", "Nats-Stream": "orders", "Nats-Subject": "orders.7"}
        await client.publish("foreign./plain", b"with", headers=headers)
        await client.publish("foreign./plain", b"without")
        await client.close()

    options = {"bus": (with_log.url,), "bus_prefix": "foreign", "max_history": "4MiB"}
    with (
        server(**options, channel=["kept.> history=5"]) as one,
        Client(address_of(one), "/plain") as client,
    ):
        asyncio.run(publish())
        assert [client.read_message().payload for _ in range(2)] == [b"with", b"without"]
