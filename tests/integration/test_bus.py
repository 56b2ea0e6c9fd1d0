"""Servers that a bus connects, over real brokers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

import fastcast
from tests.support.brokers import KINDS, Broker, broker
from tests.support.cut import line_to
from tests.support.hosting import ServerFactory, address_of, await_true, on_loop
from tests.support.swarm import Swarm
from tests.support.wire import BINARY, TEXT, TIMEOUT, Client, Frame, frame

TOKEN = "a token for the test"


@pytest.fixture(scope="module", params=KINDS)
def bus(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A broker that all tests of this module may use, but not harm."""
    with broker(request.param) as running:
        yield running


@pytest.fixture(params=KINDS)
def mortal(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A broker of the test's own."""
    with broker(request.param) as running:
        yield running


def numbers(client: Client) -> Iterator[int]:
    """What a client hears up to the end."""
    while (message := client.read_message().payload) != b"end":
        yield int(message)


@contextmanager
def nodes(server: ServerFactory, bus: Broker, number: int, **options: Any) -> Iterator[list[fastcast.Server]]:
    """So many servers on the bus."""
    with ExitStack() as stack:
        yield [stack.enter_context(server(bus=(bus.url,), **options)) for _ in range(number)]


def counts(node: fastcast.Server) -> dict[str, Any]:
    """What a server tells of its bus."""
    found: dict[str, Any] = node.stats()["bus"]
    return found


def post(node: fastcast.Server, message: bytes) -> object:
    """Publish a message to /a over HTTP; what the server answers."""
    request = Request(
        f"http://127.0.0.1:{node.admin_port}/publish?channel=/a",
        message,
        {"Authorization": f"Bearer {TOKEN}", "Content-Type": "text/plain"},
    )
    with urlopen(request, timeout=TIMEOUT) as answer:
        return json.load(answer)


class TestMessages:
    """A message reaches each subscriber on each server once, wherever it was published."""

    def test_published_by_python(self, server: ServerFactory, bus: Broker) -> None:
        with (
            nodes(server, bus, 3) as running,
            Client(address_of(running[0]), "/a") as first,
            Client(address_of(running[1]), "/a") as second,
            Client(address_of(running[2]), "/b") as third,
        ):
            assert running[0].publish("/a", "text") == 1
            assert running[2].publish("/a", b"binary") == 0
            running[1].broadcast("all")
            running[1].publish("/b", "last")
            # One publisher's messages keep their order; those of several have the broker's.
            for client in (first, second):
                heard = [client.read_message() for _ in range(3)]
                assert sorted(heard, key=str) == sorted(
                    [Frame(TEXT, b"text"), Frame(BINARY, b"binary"), Frame(TEXT, b"all")], key=str
                )
            assert [third.read_message().payload for _ in range(2)] == [b"all", b"last"]

    def test_published_by_a_client(self, server: ServerFactory, bus: Broker) -> None:
        with (
            nodes(server, bus, 2) as running,
            Client(address_of(running[0]), "/a") as sender,
            Client(address_of(running[1]), "/a") as receiver,
        ):
            sender.send(frame(TEXT, b"one"), frame(BINARY, b"two"))
            for client in (sender, receiver):
                assert [client.read_message() for _ in range(2)] == [
                    Frame(TEXT, b"one"),
                    Frame(BINARY, b"two"),
                ]

    def test_relayed_to_all(self, server: ServerFactory, bus: Broker) -> None:
        with (
            nodes(server, bus, 2, relay="all") as running,
            Client(address_of(running[0]), "/a") as sender,
            Client(address_of(running[1]), "/b") as receiver,
        ):
            sender.send(frame(TEXT, b"all"))
            assert sender.read_message() == receiver.read_message() == Frame(TEXT, b"all")

    def test_published_by_a_program_in_any_language(self, server: ServerFactory, bus: Broker) -> None:
        with (
            nodes(server, bus, 2) as running,
            Client(address_of(running[0]), "/a%20b") as first,
            Client(address_of(running[1]), "/a%20b") as second,
        ):
            # The channel is "/a b": what a subject may not have is written with a percent sign.
            for payload in (b"plain", b"\xff\xfe", "ü".encode()):
                bus.publish("fastcast./a%20b", payload)
            for client in (first, second):
                assert [client.read_message() for _ in range(3)] == [
                    Frame(TEXT, b"plain"),
                    Frame(BINARY, b"\xff\xfe"),
                    Frame(TEXT, "ü".encode()),
                ]

    def test_a_handler_s_publish_goes_everywhere(self, server: ServerFactory, bus: Broker) -> None:
        def prepare(running: fastcast.Server) -> None:
            running.on_message(lambda client, message: running.publish("/a", f"<{message}>"))

        with (
            server(prepare, bus=(bus.url,)) as one,
            server(bus=(bus.url,)) as other,
            Client(address_of(one), "/a") as sender,
            Client(address_of(other), "/a") as receiver,
        ):
            sender.send(frame(TEXT, b"x"))
            assert sender.read_message() == receiver.read_message() == Frame(TEXT, b"<x>")

    def test_one_publisher_s_messages_keep_their_order(self, server: ServerFactory, bus: Broker) -> None:
        number = 2000
        with (
            nodes(server, bus, 2) as running,
            Swarm(address_of(running[0]), 20) as here,
            Swarm(address_of(running[1]), 20) as there,
        ):
            for n in range(number):
                running[0].publish("/", f"{n}")
            for swarm in (here, there):
                swarm.receive(number)
                assert [int(message.payload) for message in swarm.sequence] == list(range(number))

    def test_what_was_published_before_a_stop_reaches_the_others(
        self, server: ServerFactory, bus: Broker
    ) -> None:
        with server(bus=(bus.url,)) as other, Client(address_of(other), "/a") as receiver:
            with server(bus=(bus.url,)) as one:
                for n in range(100):
                    one.publish("/a", f"{n}")
            assert [receiver.read_message().payload for _ in range(100)] == [b"%d" % n for n in range(100)]

    def test_flush_waits_for_the_way_there_and_back(self, server: ServerFactory, bus: Broker) -> None:
        with nodes(server, bus, 1) as [one], Client(address_of(one), "/a"):
            for n in range(500):
                one.publish("/a", f"{n}")
            on_loop(one, one.flush())
            assert one.stats("/a")["delivered"] == 500

    def test_a_prefix_keeps_applications_apart(self, server: ServerFactory, bus: Broker) -> None:
        with (
            server(bus=(bus.url,), bus_prefix="one") as one,
            server(bus=(bus.url,), bus_prefix="two") as two,
            Client(address_of(one), "/a") as client,
        ):
            two.publish("/a", "not for one")
            two.broadcast("neither")
            on_loop(two, two.flush())
            one.publish("/a", "for one")
            assert client.read_message() == Frame(TEXT, b"for one")


class TestPatterns:
    """Several subscriptions of a server take in the same message, and its clients hear it once."""

    NAMES = ("prices.eur", "prices.*", "prices.>", "prices.eur.spot", "news")

    def test_each_subscriber_hears_each_message_once(self, server: ServerFactory, bus: Broker) -> None:
        def prepare(running: fastcast.Server) -> None:
            running.on_connect(lambda request: fastcast.Accept(channels=[request.query["c"]]))

        expected = {
            "prices.eur": ["prices.eur"],
            "prices.*": ["prices.eur"],
            "prices.>": ["prices.eur", "prices.eur.spot"],
            "prices.eur.spot": ["prices.eur.spot"],
            "news": ["news"],
        }
        with (
            server(prepare, bus=(bus.url,)) as one,
            server(prepare, bus=(bus.url,)) as other,
            ExitStack() as stack,
        ):
            clients = [
                (name, stack.enter_context(Client(address_of(node), f"/?c={quote(name)}")))
                for node in (one, other)
                for name in self.NAMES
            ]
            rounds = 50
            for _ in range(rounds):
                for name in ("prices.eur", "prices.eur.spot", "news"):
                    one.publish(name, name)  # the same text again and again: nothing tells copies apart
            one.broadcast("end")
            for name, client in clients:
                heard = []
                while (message := client.read_message().payload.decode()) != "end":
                    heard.append(message)
                assert sorted(heard) == sorted(expected[name] * rounds), name
            assert counts(one)["twins"] >= 2 * rounds

    def test_a_pattern_that_comes_takes_nothing_from_another(
        self, server: ServerFactory, bus: Broker
    ) -> None:
        with (
            nodes(server, bus, 1) as [one],
            Client(address_of(one), "/deep") as deep,
            Client(address_of(one), "/flat") as flat,
        ):
            for channel, pattern in (("/deep", "new.>"), ("/flat", "new.*")):
                [handle] = one.clients(channel)
                handle.subscribe(pattern)
            for channel in ("new.a.b", "new.a"):
                one.publish(channel, channel)
            assert sorted(deep.read_message().payload for _ in range(2)) == [b"new.a", b"new.a.b"]
            assert flat.read_message().payload == b"new.a"
            one.broadcast("end")
            assert deep.read_message().payload == flat.read_message().payload == b"end"

    def test_nothing_is_lost_or_doubled_while_subscriptions_come_and_go(
        self, server: ServerFactory, bus: Broker
    ) -> None:
        with nodes(server, bus, 2) as running, Client(address_of(running[1]), "/x.y") as listener:
            other = Client(address_of(running[1]), "/z")
            with other:
                [mover] = running[1].clients("/z")
                for n in range(300):
                    running[0].publish("/x.y", "same")
                    if n % 10 == 0:
                        mover.subscribe(("/x.*", "/x.>", "*.y", ">")[n // 10 % 4])
                    if n % 10 == 5:
                        mover.unsubscribe(("/x.*", "/x.>", "*.y", ">")[n // 10 % 4])
                on_loop(running[0], running[0].flush())
                running[0].publish("/x.y", "end")
                heard = 0
                while listener.read_message().payload != b"end":
                    heard += 1
                assert heard == 300

    def test_who_subscribes_and_publishes_hears_itself(self, server: ServerFactory, bus: Broker) -> None:
        with nodes(server, bus, 1) as [one], Client(address_of(one), "/a") as client:
            [handle] = one.clients("/a")
            for n in range(50):
                handle.subscribe(f"new.{n}")
                one.publish(f"new.{n}", f"{n}")
            assert [client.read_message().payload for _ in range(50)] == [b"%d" % n for n in range(50)]

    def test_who_has_been_admitted_hears_what_is_published_elsewhere(
        self, server: ServerFactory, bus: Broker
    ) -> None:
        with nodes(server, bus, 2) as running:
            for n in range(30):
                with Client(address_of(running[0]), f"/fresh/{n}") as client:
                    running[1].publish(f"/fresh/{n}", "heard")
                    assert client.read_message() == Frame(TEXT, b"heard")


class TestLoss:
    """The broker goes, and comes back."""

    def test_clients_stay_and_hear_their_own_server(self, server: ServerFactory, mortal: Broker) -> None:
        with (
            nodes(server, mortal, 2, admin_port=0, admin_token=TOKEN) as running,
            Client(address_of(running[0]), "/a") as here,
            Client(address_of(running[1]), "/a") as there,
        ):
            mortal.kill()
            await_true(lambda: not any(counts(node)["up"] for node in running), "the loss to be seen")
            reached = running[0].publish("/a", "alone")
            assert isinstance(reached, fastcast.Unshared)
            assert reached == 1
            assert here.read_message() == Frame(TEXT, b"alone")
            assert counts(running[0])["unshared"] == 1
            assert post(running[0], b"over HTTP") == {"subscribers": [1], "unshared": 1}
            assert here.read_message() == Frame(TEXT, b"over HTTP")
            mortal.start()
            await_true(lambda: all(counts(node)["up"] for node in running), "the bus to be back")
            shared = running[0].publish("/a", "together")
            assert not isinstance(shared, fastcast.Unshared)
            assert here.read_message() == there.read_message() == Frame(TEXT, b"together")
            assert counts(running[0])["losses"] == 1

    def test_it_may_refuse(self, server: ServerFactory, mortal: Broker) -> None:
        with server(bus=(mortal.url,), bus_alone="refuse") as one, Client(address_of(one), "/a") as client:
            mortal.kill()
            await_true(lambda: not counts(one)["up"], "the loss to be seen")
            with pytest.raises(fastcast.BusError, match="can't be reached"):
                one.publish("/a", "x")
            client.send(frame(TEXT, b"y"))
            await_true(lambda: counts(one)["refused"] == 2, "the client's message to be refused")
            mortal.start()
            await_true(lambda: counts(one)["up"], "the bus to be back")
            one.publish("/a", "z")
            assert client.read_message() == Frame(TEXT, b"z")

    def test_who_comes_meanwhile_is_subscribed_afterwards(
        self, server: ServerFactory, mortal: Broker
    ) -> None:
        with nodes(server, mortal, 2) as running:
            mortal.kill()
            await_true(lambda: not any(counts(node)["up"] for node in running), "the loss to be seen")
            with Client(address_of(running[0]), "/new") as client:
                mortal.start()
                await_true(lambda: all(counts(node)["up"] for node in running), "the bus to be back")
                running[1].publish("/new", "heard")
                assert client.read_message() == Frame(TEXT, b"heard")

    def test_nothing_is_doubled_or_out_of_order_while_it_goes_and_comes(
        self, server: ServerFactory, mortal: Broker
    ) -> None:
        with (
            nodes(server, mortal, 2) as running,
            Client(address_of(running[0]), "/a") as here,
            Client(address_of(running[1]), "/a") as there,
        ):
            sent = 0

            def publish_some() -> None:
                nonlocal sent
                for _ in range(200):
                    running[0].publish("/a", f"{sent}")
                    sent += 1

            for _ in range(2):
                publish_some()
                mortal.kill()
                publish_some()  # also before anybody has noticed
                await_true(lambda: not any(counts(node)["up"] for node in running), "the loss to be seen")
                publish_some()
                mortal.start()
                await_true(lambda: all(counts(node)["up"] for node in running), "the bus to be back")
            publish_some()
            running[0].publish("/a", "end")
            for client in (here, there):
                heard = list(numbers(client))
                assert heard == sorted(set(heard))
                assert heard[-200:] == list(range(sent - 200, sent))

    @pytest.mark.slow
    def test_a_line_that_is_cut_doubles_nothing(self, server: ServerFactory, bus: Broker) -> None:
        with (
            line_to(bus.port) as line,
            server(bus=(f"{bus.kind}://127.0.0.1:{line.port}",)) as cut_off,
            server(bus=(bus.url,)) as other,
            Client(address_of(cut_off), "/a") as here,
            Client(address_of(other), "/a") as there,
        ):
            sent = iter(range(1000))

            def publish_some() -> list[int]:
                some = [next(sent) for _ in range(20)]
                for n in some:
                    cut_off.publish("/a", f"{n}")
                return some

            before = publish_some()
            on_loop(cut_off, cut_off.flush())
            line.cut()
            unnoticed = publish_some()
            await_true(lambda: not counts(cut_off)["up"], "the cut to be seen")
            alone = publish_some()
            other.publish("/a", "999")
            line.mend()
            await_true(lambda: counts(cut_off)["up"], "the bus to be back")
            after = publish_some()
            cut_off.publish("/a", "end")
            heard = [list(numbers(client)) for client in (here, there)]
            for each in heard:
                assert len(each) == len(set(each))
            # What was sent into the cut, from either side, may have arrived when it was mended.
            assert [n for n in heard[0] if n not in (*unnoticed, 999)] == before + alone + after
            assert [n for n in heard[1] if n not in unnoticed] == [*before, 999, *after]

    def test_a_server_that_finds_no_bus_does_not_start(self, server: ServerFactory, mortal: Broker) -> None:
        mortal.kill()
        with pytest.raises(fastcast.StartError, match="cannot reach the bus"), server(bus=(mortal.url,)):
            pass


class TestKey:
    """The key of a message crosses the bus."""

    def test_latest_holds_on_every_server(self, server: ServerFactory, bus: Broker) -> None:
        with (
            nodes(server, bus, 2, slow="latest") as running,
            Client(address_of(running[1]), "/prices") as client,
        ):
            running[0].publish("/prices", json.dumps({"eur": 1}), key="eur")
            running[0].publish("/prices", b"\x00", key="usd")
            assert [client.read_message() for _ in range(2)] == [
                Frame(TEXT, b'{"eur": 1}'),
                Frame(BINARY, b"\x00"),
            ]
