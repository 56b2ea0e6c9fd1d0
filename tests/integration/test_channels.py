"""Channels and patterns: who hears what, each message once, from subscribing to the end of that."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from random import Random

import pytest

import fastcast
from tests.support.hosting import ServerFactory, address_of, await_true, on_loop, publish
from tests.support.swarm import Swarm
from tests.support.wire import TEXT, TIMEOUT, Client, Frame, Refused, frame, until

END = "the end"


def subscribed(running: fastcast.Server, client: Client, *channels: str) -> fastcast.Client:
    """The client as the server knows it, once it is subscribed to these channels as well.

    Its server has to be `identified`.
    """
    client.send(frame(TEXT, b"who am I?"))
    found = running.client(int(client.read_message().payload))
    for channel in channels:
        found.subscribe(channel)
    await_subscribed(running, found, *channels)
    return found


def await_subscribed(running: fastcast.Server, client: fastcast.Client, *channels: str) -> None:
    """Wait until the client is subscribed to all of these."""

    def told() -> bool | None:
        found = on_loop(running, running.inspect(client))
        assert found is not None
        return set(channels) <= set(found["channels"]) or None

    until(told, f"subscriptions to {channels}")


def identified(running: fastcast.Server) -> None:
    """Have each client told its id when it asks."""
    running.on_message(lambda client, message: client.send(str(client.id)))


def end(running: fastcast.Server) -> None:
    """Let everyone know that there are no more messages, behind all of them."""
    on_loop(running, running.flush())
    running.broadcast(END)


def heard(client: Client) -> list[str]:
    """All messages of a client up to END."""
    messages = []
    while (message := client.read_message().payload.decode()) != END:
        messages.append(message)
    return messages


PATTERNS = {
    "prices.*": {"prices.eur", "prices.usd", "prices.*x"},
    "prices.>": {
        "prices.eur",
        "prices.usd",
        "prices.*x",
        "prices.eur.spot",
        "prices.eur.spot.now",
        "prices..a",
    },
    "*.eur": {"prices.eur", "rates.eur"},
    "*.*.spot": {"prices.eur.spot", "rates.usd.spot"},
    "*": {"prices", "rates", "/rooms/7"},
    ">": {
        *{"prices", "rates", "/rooms/7", "prices.eur", "prices.usd", "prices.*x", "rates.eur"},
        *{"prices.eur.spot", "rates.usd.spot", "prices.eur.spot.now", "prices..a"},
    },
    "prices.*.>": {"prices.eur.spot", "prices.eur.spot.now", "prices..a"},
    "prices.eur": {"prices.eur"},
    "/rooms/7": {"/rooms/7"},
}
NAMES = sorted(PATTERNS[">"])


class TestPatterns:
    @pytest.mark.parametrize("shards", [1, 3])
    def test_each_hears_exactly_what_its_pattern_takes_in(self, server: ServerFactory, shards: int) -> None:
        with server(identified, shards=shards) as running, ExitStack() as stack:
            clients = {}
            for pattern in PATTERNS:
                clients[pattern] = stack.enter_context(Client(address_of(running), "/none"))
                subscribed(running, clients[pattern], pattern)
            for name in NAMES:
                assert running.publish(name, name) == sum(name in names for names in PATTERNS.values())
            end(running)
            for pattern, names in PATTERNS.items():
                assert heard(clients[pattern]) == [name for name in NAMES if name in names], pattern

    def test_overlapping_subscriptions_bring_a_message_once(self, server: ServerFactory) -> None:
        with server(identified) as running, Client(address_of(running), "/a.b.c") as client:
            subscribed(running, client, "/a.*.c", "/a.>", ">", "*.b.*")
            for number in range(100):
                publish(running, f"{number}", "/a.b.c")
                publish(running, f"{number} d", "/a.b.d")
            end(running)
            assert heard(client) == [f"{n}{end}" for n in range(100) for end in ("", " d")]

    def test_a_path_that_is_a_pattern_is_refused(self, server: ServerFactory) -> None:
        with server() as running:
            for path in ("/a.*", "/a.>", "/*.*", "/.%2A", "/a.%3E"):
                with pytest.raises(Refused) as refused:
                    Client(address_of(running), path)
                assert refused.value.head.status == 400
            # A token has to be nothing but the wildcard.
            with Client(address_of(running), "/*") as client:
                client.close()

    def test_no_pattern_is_left_when_all_have_gone(self, server: ServerFactory) -> None:
        with server(identified, shards=3) as running:
            for _ in range(3):
                with ExitStack() as stack:
                    for number in range(30):
                        client = stack.enter_context(Client(address_of(running), "/none"))
                        subscribed(running, client, f"a.{number % 5}.*", f"*.{number}.>", ">")
                    assert len(running.channels()) == 37
                await_true(lambda: running.count() == 0, "all to be gone")
                assert running.channels() == {}
                assert running.publish("a.1.b", "x") == 0


class TestSubscribing:
    def test_it_takes_effect_between_two_messages_and_is_exact(self, server: ServerFactory) -> None:
        with server(identified) as running, Client(address_of(running), "/none") as client:
            found = subscribed(running, client)
            for turn in range(50):
                publish(running, f"before {turn}", "news")
                found.subscribe("news")
                await_subscribed(running, found, "news")
                publish(running, f"heard {turn}", "news")
                found.unsubscribe("news")
                await_true(lambda: running.count("news") == 0, "the subscription to end")
                publish(running, f"after {turn}", "news")
            end(running)
            assert heard(client) == [f"heard {turn}" for turn in range(50)]

    def test_twice_is_once(self, server: ServerFactory) -> None:
        with server(identified) as running, Client(address_of(running), "/none") as client:
            found = subscribed(running, client, "news", "news", "n*", "n*")
            assert running.count("news") == 1
            publish(running, "x", "news")
            found.unsubscribe("news")
            await_true(lambda: running.count("news") == 0, "the subscription to end")
            found.unsubscribe("news")
            publish(running, "y", "news")
            end(running)
            assert heard(client) == ["x"]

    def test_under_load_everyone_hears_one_stretch_without_a_gap(self, server: ServerFactory) -> None:
        ended = threading.Event()
        published = 0

        def talk(running: fastcast.Server) -> None:
            nonlocal published
            while not ended.is_set():
                publish(running, f"{published}", "news")
                published += 1

        with server(identified, shards=3) as running, ExitStack() as stack:
            clients = [stack.enter_context(Client(address_of(running), "/none")) for _ in range(20)]
            found = [subscribed(running, client) for client in clients]
            talker = threading.Thread(target=talk, args=(running,))
            talker.start()
            try:
                for each in found:
                    each.subscribe("news")
                for each in found:
                    await_subscribed(running, each, "news")
                first = published
                await_true(lambda: published > first + 200, "some more messages")
                last = published
                for each in found:
                    each.unsubscribe("news")
                await_true(lambda: running.count("news") == 0, "all subscriptions to end")
            finally:
                ended.set()
                talker.join(TIMEOUT)
            end(running)
            for client in clients:
                numbers = [int(message) for message in heard(client)]
                assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
                assert numbers[0] <= first
                assert numbers[-1] >= last - 1

    @pytest.mark.parametrize("seed", range(4))
    def test_any_order_of_steps_leaves_everyone_with_exactly_its_messages(
        self, server: ServerFactory, seed: int
    ) -> None:
        random = Random(seed)
        names = ["a", "a.b", "a.c", "a.b.c"]
        patterns = {"a.*": {"a.b", "a.c"}, "a.>": {"a.b", "a.c", "a.b.c"}, "*.b": {"a.b"}, ">": set(names)}
        takes_in = {name: {name} for name in names} | patterns
        with server(identified, shards=3) as running, ExitStack() as stack:
            clients = [stack.enter_context(Client(address_of(running), "/none")) for _ in range(8)]
            found = [subscribed(running, client) for client in clients]
            mine: list[set[str]] = [set() for _ in clients]
            expected: list[list[tuple[str, int]]] = [[] for _ in clients]
            for step in range(300):
                if random.random() < 0.5:
                    name = random.choice(names)
                    publish(running, f"{name} {step}", name)
                    for number, channels in enumerate(mine):
                        if any(name in takes_in[channel] for channel in channels):
                            expected[number].append((name, step))
                    continue
                number, channel = random.randrange(len(clients)), random.choice(list(takes_in))
                if channel in mine[number]:
                    found[number].unsubscribe(channel)
                    mine[number].discard(channel)
                else:
                    found[number].subscribe(channel)
                    mine[number].add(channel)
                # The same shard answers behind the step itself.
                told = on_loop(running, running.inspect(found[number]))
                assert told is not None
                assert set(told["channels"]) == {"/none", *mine[number]}
            end(running)
            for number, client in enumerate(clients):
                messages = [(name, int(step)) for name, step in map(str.split, heard(client))]
                assert len(messages) == len(expected[number])
                # Each channel has an order; between channels there is none.
                for name in names:
                    of_name = [step for each, step in messages if each == name]
                    assert of_name == [step for each, step in expected[number] if each == name]


class TestRelay:
    """--relay."""

    def test_to_the_sender_s_first_channel_by_default(self, server: ServerFactory) -> None:
        def prepare(running: fastcast.Server) -> None:
            running.on_connect(lambda request: fastcast.Accept(channels=[request.path, "all"]))

        with (
            server(prepare) as running,
            Client(address_of(running), "/a") as a,
            Client(address_of(running), "/b") as b,
        ):
            a.send(frame(TEXT, b"on a"))
            assert a.read_message() == Frame(TEXT, b"on a")
            b.send(frame(TEXT, b"on b"))
            assert b.read_message() == Frame(TEXT, b"on b")

    def test_to_all_clients(self, server: ServerFactory) -> None:
        with (
            server(relay="all") as running,
            Swarm(address_of(running), 10, "/a") as a,
            Swarm(address_of(running), 10, "/b") as b,
        ):
            a.send(0, frame(TEXT, b"to all"))
            for swarm in (a, b):
                swarm.receive(1)
                assert swarm.sequence == [Frame(TEXT, b"to all")]

    def test_to_nobody(self, server: ServerFactory) -> None:
        with server(relay="off") as running, Client(address_of(running)) as client:
            client.send(frame(TEXT, b"to nobody"))
            await_true(lambda: running.stats()["ignored"] == 1, "the message to be read")
            publish(running, "published")
            assert client.read_message() == Frame(TEXT, b"published")

    @pytest.mark.parametrize("channels", [[], ["news.*"]], ids=["none", "a pattern"])
    def test_a_message_of_a_client_without_a_channel_of_its_own_is_for_nobody(
        self, server: ServerFactory, channels: list[str]
    ) -> None:
        def prepare(running: fastcast.Server) -> None:
            running.on_connect(lambda request: fastcast.Accept(channels=channels))

        with server(prepare) as running, Client(address_of(running)) as client:
            client.send(frame(TEXT, b"to nobody"))
            await_true(lambda: running.stats()["ignored"] == 1, "the message to be read")
            running.broadcast("all")
            assert client.read_message() == Frame(TEXT, b"all")


class TestRate:
    """--rate-limit and --rate-burst."""

    def test_who_sends_too_much_is_closed_and_nobody_else(self, server: ServerFactory) -> None:
        with (
            server(rate_limit=0.001, rate_burst=5) as running,
            Client(address_of(running)) as witness,
            Client(address_of(running)) as eager,
        ):
            eager.send(*(frame(TEXT, b"%d" % number) for number in range(6)))
            for client in (witness, eager):
                assert [client.read_message() for _ in range(5)] == [Frame(TEXT, b"%d" % n) for n in range(5)]
            assert len(list(eager.frames(reset=True))) == 1
            await_true(lambda: running.count() == 1, "the eager one to be gone")
            assert running.stats()["rate_limited"] == 1
            witness.send(frame(TEXT, b"within its limit"))
            assert witness.read_message() == Frame(TEXT, b"within its limit")
