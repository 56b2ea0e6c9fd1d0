"""Histories that several servers share, as the broker keeps them; and those over a broker that keeps none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import nats
import pytest

import fastcast
from tests.support.brokers import Broker, broker, cluster
from tests.support.cut import line_to
from tests.support.hosting import ServerFactory, address_of, await_true, on_loop
from tests.support.resume import Resumer
from tests.support.wire import TEXT, Client, Frame, frame

JETSTREAM = ("-js", "-sd", "store")


@pytest.fixture(scope="module")
def bus() -> Iterator[Broker]:
    """A broker that all tests of this module may use, each with a prefix of its own, but not harm."""
    with broker("nats", *JETSTREAM) as running:
        yield running


@pytest.fixture
def mortal() -> Iterator[Broker]:
    """A broker of the test's own."""
    with broker("nats", *JETSTREAM) as running:
        yield running


@pytest.fixture
def shared(bus: Broker, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The options of servers on the shared broker."""
    return {
        "bus": (bus.url,),
        "bus_prefix": f"t{abs(hash(request.node.nodeid))}",
        "history": "100",
        "max_history": "4MiB",
    }


def alone(mortal: Broker, **more: Any) -> dict[str, Any]:
    """Of servers that have a broker for themselves."""
    return {"bus": (mortal.url,), "history": "1000", "max_history": "16MiB"} | more


def counts(node: fastcast.Server) -> dict[str, Any]:
    """What a server tells of its bus."""
    found: dict[str, Any] = node.stats()["bus"]
    return found


def is_up(*running: fastcast.Server) -> bool:
    """Whether all of them reach the bus."""
    return all(counts(node)["up"] for node in running)


@contextmanager
def all_is_heard(one: fastcast.Server, two: fastcast.Server) -> Iterator[list[bytes]]:
    """Publish on both servers throughout the block; what was accepted stands in the list that is returned.

    In the end, a client of each must have heard all of it, once, in the same order.
    """
    published: list[bytes] = []
    over = threading.Event()

    def speak(node: fastcast.Server, name: str) -> None:
        number = 0
        while not over.wait(0.002):
            try:
                node.publish("/a", text := f"{name}{number}")
            except (fastcast.BusError, fastcast.OverloadError):
                continue
            published.append(text.encode())
            number += 1

    with Resumer(address_of(one)) as here, Resumer(address_of(two)) as there:
        here.read()
        there.read()
        speakers = [
            threading.Thread(target=speak, args=(one, "a")),
            threading.Thread(target=speak, args=(two, "b")),
        ]
        for speaker in speakers:
            speaker.start()
        try:
            yield published
        finally:
            over.set()
            for speaker in speakers:
                speaker.join()
        for node in (one, two):
            await_stored(node)
        on_loop(one, one.flush())
        on_loop(two, two.flush())
        one.publish("/a", "end")
        heard: list[list[bytes]] = [[], []]
        for client, each in zip((here, there), heard, strict=True):
            while (message := client.read()).payload != b"end":
                assert message.what == "msg"
                each.append(message.payload)
        assert heard[0] == heard[1]
        assert sorted(heard[0]) == sorted(published)
        assert counts(one)["unlogged"] == counts(two)["unlogged"] == 0


def await_stored(node: fastcast.Server) -> None:
    """Wait until the stream has all that was published here; brokers take their time to agree on a leader."""
    with suppress(TimeoutError):
        await_true(lambda: counts(node)["unconfirmed"] == 0, "the stream")
    await_true(lambda: counts(node)["unconfirmed"] == 0, "the stream")


def await_more(published: list[bytes]) -> None:
    """Wait until a hundred more messages were accepted."""
    before = len(published)
    await_true(lambda: len(published) > before + 100, "messages")


class TestResuming:
    def test_on_another_server(self, server: ServerFactory, shared: dict[str, Any]) -> None:
        with server(**shared) as one, server(**shared) as other:
            with Resumer(address_of(one)) as client:
                assert client.read().what == "at"
                one.publish("/a", "1")
                other.publish("/a", b"2")
                assert sorted(client.payloads(2)) == [b"1", b"2"]
            one.publish("/a", "3")
            on_loop(one, one.flush())
            with Resumer(address_of(other), since=client.position) as again:
                at = again.read()
                assert (at.what, f"{at.epoch}:{at.offset}") == ("at", client.position)
                assert again.payloads(1) == [b"3"]
                again.send(frame(TEXT, b"4"))
                assert again.payloads(1) == [b"4"]

    def test_on_a_server_that_has_only_just_started(
        self, server: ServerFactory, shared: dict[str, Any]
    ) -> None:
        with server(**shared) as one:
            for number in range(150):
                one.publish("/a", f"{number}")
            on_loop(one, one.flush())
        with server(**shared) as other, Resumer(address_of(other), since="all") as client:
            at = client.read()
            assert at.what == "at"
            assert client.payloads(100) == [b"%d" % number for number in range(50, 150)]
            with Resumer(address_of(other), since=f"{at.epoch}:{at.offset}") as reaching:
                assert reaching.read().what == "at"
            with Resumer(address_of(other), since=f"{at.epoch}:{at.offset - 1}") as late:
                assert late.read().what == "gap"
                assert len(late.payloads(100)) == 100

    def test_with_what_any_program_publishes(
        self, server: ServerFactory, bus: Broker, shared: dict[str, Any]
    ) -> None:
        with (
            server(**shared) as one,
            Resumer(address_of(one)) as client,
            Client(address_of(one), "/a") as plain,
        ):
            client.read()
            bus.publish(f"{shared['bus_prefix']}./a", b"from anywhere")
            assert client.payloads(1) == [b"from anywhere"]
            assert plain.read_message() == Frame(TEXT, b"from anywhere")

    def test_channels_without_a_history_are_as_ever(
        self, server: ServerFactory, shared: dict[str, Any]
    ) -> None:
        options = shared | {"history": "off", "channel": ["kept.> history=10"]}

        def prepare(running: fastcast.Server) -> None:
            running.on_connect(lambda request: fastcast.Accept(channels=["kept.a", "other"]))

        with (
            server(prepare, **options) as one,
            server(prepare, **options) as two,
            Resumer(address_of(two)) as client,
        ):
            assert client.read().channel == "kept.a"
            one.publish("other", "plain")
            assert client.read_message() == Frame(TEXT, b"plain")
            one.publish("kept.a", "headed")
            assert client.payloads(1) == [b"headed"]

    def test_patterns_hear_each_message_once(self, server: ServerFactory, shared: dict[str, Any]) -> None:
        def prepare(running: fastcast.Server) -> None:
            running.on_connect(lambda request: fastcast.Accept(channels=request.path[1:].split(",")))

        with (
            server(prepare, **shared) as one,
            server(prepare, **shared) as two,
            Client(address_of(two), "/a.*,a.%3E") as patterns,
            Resumer(address_of(two), "/a.*,a.b") as both,
        ):
            both.read()
            with Resumer(address_of(two), "/a.b,a.c") as third:
                third.read()
                third.read()
            for number in range(100):
                one.publish("a.b", f"{number}")
                one.publish("a.x", f"x{number}")
            one.publish("a.b", "end")
            # Each channel has its order; among each other they have none.
            heard = [patterns.read_message().payload for _ in range(201)]
            numbers = [b"%d" % number for number in range(100)]
            assert [each for each in heard if each[:1] != b"x"] == [*numbers, b"end"]
            assert [each for each in heard if each[:1] == b"x"] == [b"x" + each for each in numbers]
            mine = []
            while (message := both.read_message().payload).endswith(b"\nend") is False:
                if message.startswith(b"\x1e"):
                    mine.append(message.partition(b"\n")[2])
            assert mine == numbers

    @pytest.mark.parametrize(
        ("rules", "kept", "others"),
        [
            (["* history=5m"], "/a", "a.b"),
            (["chat.* history=100", "chat.> history=10"], "chat.a", "chat.a.b"),
            (["prices.* history=5", "> history=100"], "prices.a", "a"),
            (["kept.off history=off", "kept.> history=10"], "kept.on", "kept.off"),
            (["a.* history=10", "*.b history=10", "> history=off"], "a.x", "x.x"),
        ],
    )
    def test_whatever_the_rules_each_message_is_heard_once(
        self, server: ServerFactory, shared: dict[str, Any], rules: list[str], kept: str, others: str
    ) -> None:
        def admit(node: fastcast.Server) -> None:
            @node.on_connect
            def channels(request: fastcast.Request) -> fastcast.Accept:
                return fastcast.Accept(channels=request.query["channel"].split(","))

        with (
            server(admit, **shared | {"channel": rules}) as one,
            server(admit, **shared | {"channel": rules}) as two,
            Client(address_of(two), f"/?channel={kept}") as client,
            Client(address_of(two), f"/?channel={others}") as other,
            Client(address_of(two), "/?channel=%3E") as everything,
        ):
            for channel in (kept, others, kept, others):
                one.publish(channel, channel)
            on_loop(one, one.flush())
            on_loop(two, two.flush())
            two.broadcast("end")
            for each, expected in (
                (client, [kept] * 2),
                (other, [others] * 2),
                (everything, 2 * [kept, others]),
            ):
                heard = [each.read_message().payload.decode() for _ in range(len(expected) + 1)]
                assert sorted(heard) == sorted([*expected, "end"])

    def test_it_takes_jetstream(self, server: ServerFactory) -> None:
        with (
            broker("nats") as plain,
            pytest.raises(fastcast.StartError, match="JetStream"),
            server(**alone(plain)),
        ):
            pass


class TestLoss:
    """The broker goes and comes."""

    @pytest.mark.parametrize("history", ["100000", "20s"])
    def test_nothing_is_lost_or_doubled_however_often_it_is_killed(
        self, server: ServerFactory, mortal: Broker, history: str
    ) -> None:
        options = alone(mortal, bus_alone="refuse", history=history)
        with server(**options) as one, server(**options) as two, all_is_heard(one, two) as published:
            for kills in range(1, 4):
                await_more(published)
                mortal.kill()
                await_true(lambda: not is_up(one) and not is_up(two), "the loss to be seen")
                mortal.start()
                await_true(lambda: is_up(one, two), "the bus to be back")
                assert counts(one)["losses"] >= kills

    def test_nor_when_one_of_three_brokers_is(self, server: ServerFactory) -> None:
        async def replicate(url: str) -> int:
            """Have the stream on all three brokers, and say which of them leads it."""
            client = await nats.connect(url)
            jetstream = client.jetstream()
            config = (await jetstream.stream_info("fastcast-history")).config
            info = await jetstream.update_stream(config, num_replicas=3)
            while not (
                info.cluster and info.cluster.leader and all(r.current for r in info.cluster.replicas or [])
            ):
                await asyncio.sleep(0.05)
                info = await jetstream.stream_info("fastcast-history")
            await client.close()
            return int(info.cluster.leader.removeprefix("n"))

        async def replicas(url: str) -> int | None:
            client = await nats.connect(url)
            info = await client.jetstream().stream_info("fastcast-history")
            await client.close()
            return info.config.num_replicas

        with cluster(3) as brokers:
            options = alone(brokers[0], bus_alone="refuse", history="100000")
            options["bus"] = tuple(each.url for each in brokers)
            with server(**options) as one, server(**options) as two:
                leader = asyncio.run(replicate(brokers[0].url))
                with all_is_heard(one, two) as published:
                    await_more(published)
                    brokers[leader].kill()
                    await_more(published)
                    await_true(lambda: is_up(one, two), "the bus to be back")
                    await_more(published)
                    brokers[leader].start()
                    await_more(published)
            assert asyncio.run(replicas(brokers[leader - 1].url)) == 3

    @pytest.mark.slow
    def test_who_was_cut_off_gets_what_it_missed(
        self, server: ServerFactory, bus: Broker, shared: dict[str, Any]
    ) -> None:
        with (
            line_to(bus.port) as line,
            server(**shared | {"bus": (f"nats://127.0.0.1:{line.port}",)}) as cut_off,
            server(**shared) as other,
            Resumer(address_of(cut_off)) as here,
            Client(address_of(cut_off), "/a") as plain,
            Resumer(address_of(other)) as there,
        ):
            here.read()
            there.read()
            line.cut()
            await_true(lambda: not counts(cut_off)["up"], "the cut to be seen")
            for number in range(50):
                other.publish("/a", f"{number}")
            cut_off.publish("/a", "here alone")
            assert here.payloads(1) == [b"here alone"]
            assert there.payloads(50) == [b"%d" % number for number in range(50)]
            line.mend()
            assert here.payloads(50) == [b"%d" % number for number in range(50)]
            assert here.position == there.position
            assert [plain.read_message().payload for _ in range(51)][1:] == [b"%d" % n for n in range(50)]

    @pytest.mark.slow
    def test_more_than_is_kept_is_a_gap_that_is_told_of(
        self, server: ServerFactory, bus: Broker, shared: dict[str, Any]
    ) -> None:
        shared |= {"history": "5"}
        with (
            line_to(bus.port) as line,
            server(**shared | {"bus": (f"nats://127.0.0.1:{line.port}",)}) as cut_off,
            server(**shared) as other,
            Resumer(address_of(cut_off)) as here,
        ):
            here.read()
            line.cut()
            await_true(lambda: not counts(cut_off)["up"], "the cut to be seen")
            for number in range(50):
                other.publish("/a", f"{number}")
            on_loop(other, other.flush())
            line.mend()
            assert here.read().what == "gap"
            assert here.payloads(6)[-5:] == [b"%d" % number for number in range(45, 50)]

    def test_a_stream_that_is_made_anew_is_another_epoch(self, server: ServerFactory, mortal: Broker) -> None:
        async def delete() -> None:
            client = await nats.connect(mortal.url)
            await client.jetstream().delete_stream("fastcast-history")
            await client.close()

        with server(**alone(mortal)) as one, Resumer(address_of(one)) as client:
            first = client.read()
            one.publish("/a", "1")
            assert client.payloads(1) == [b"1"]
            asyncio.run(delete())
            mortal.kill()
            await_true(lambda: not is_up(one), "the loss to be seen")
            mortal.start()
            await_true(lambda: is_up(one), "the bus to be back")
            on_loop(one, one.flush())
            one.publish("/a", "2")
            message = client.read()
            assert (message.payload, message.offset) == (b"2", 1)
            assert message.epoch != first.epoch
            with Resumer(address_of(one), since=f"{first.epoch}:1") as again:
                assert again.read().what == "gap"

    def test_a_stream_that_is_deleted_under_way_is_made_anew(
        self, server: ServerFactory, mortal: Broker
    ) -> None:
        async def delete() -> None:
            client = await nats.connect(mortal.url)
            await client.jetstream().delete_stream("fastcast-history")
            await client.close()

        with (
            server(**alone(mortal)) as one,
            server(**alone(mortal)) as two,
            Resumer(address_of(one)) as here,
            Resumer(address_of(two)) as there,
        ):
            begin = here.read()
            there.read()
            for number in range(5):
                one.publish("/a", f"{number}")
            assert here.payloads(5) == there.payloads(5)
            asyncio.run(delete())
            for number in range(5, 30):
                one.publish("/a", f"{number}")
                on_loop(one, one.flush())
            expected = [f"{number}".encode() for number in range(5, 30)]
            for client in (here, there):
                heard = [client.read() for _ in expected]
                assert [each.payload for each in heard] == expected
                assert {each.epoch for each in heard}.isdisjoint({begin.epoch})
                assert [each.offset for each in heard] == list(range(1, 26))


class TestRedis:
    """It keeps nothing: each server has a history of its own, while it hears the channel."""

    def test_resuming_on_the_same_server(self, server: ServerFactory) -> None:
        with broker("redis") as redis, server(**alone(redis)) as one, server(**alone(redis)) as other:
            with Resumer(address_of(one)) as client:
                client.read()
                other.publish("/a", "1")
                assert client.payloads(1) == [b"1"]
            other.publish("/a", "2")
            with Resumer(address_of(one), since=client.position) as again:
                assert again.read().what == "at"
                assert again.payloads(1) == [b"2"]
            with Resumer(address_of(other), since=client.position) as elsewhere:
                assert elsewhere.read().what == "gap"

    def test_what_a_loss_may_have_cost_is_a_gap(self, server: ServerFactory) -> None:
        with broker("redis") as redis, server(**alone(redis)) as one:
            with Resumer(address_of(one)) as client:
                client.read()
                one.publish("/a", "1")
                assert client.payloads(1) == [b"1"]
            redis.kill()
            await_true(lambda: not is_up(one), "the loss to be seen")
            redis.start()
            await_true(lambda: is_up(one), "the bus to be back")
            with Resumer(address_of(one), since=client.position) as again:
                assert again.read().what == "gap"
