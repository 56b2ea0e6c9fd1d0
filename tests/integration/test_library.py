"""What a program can send and ask for while its server runs."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any

import pytest

import fastcast
from tests.support.hosting import ServerFactory, address_of, await_true, on_loop, publish
from tests.support.slow import payload, stalled
from tests.support.swarm import Swarm
from tests.support.wire import (
    BINARY,
    CLOSE,
    TEXT,
    TIMEOUT,
    Client,
    Frame,
    close_payload,
    frame,
)


def only(running: fastcast.Server, channel: str) -> fastcast.Client:
    """The one client of a channel."""
    await_true(lambda: running.count(channel) == 1, f"a client on {channel}")
    [client] = running.clients(channel)
    return client


def let_go(running: fastcast.Server, client: fastcast.Client) -> None:
    """Wait until the core knows nothing of a client."""
    await_true(lambda: on_loop(running, running.inspect(client)) is None, "the client to be gone")


class TestPublish:
    """Server.publish and Server.broadcast."""

    def test_publish_goes_to_one_channel_and_tells_for_how_many_it_is(self, server: ServerFactory) -> None:
        with (
            server(shards=3) as running,
            Swarm(address_of(running), 20, "/a") as a,
            Swarm(address_of(running), 5, "/b") as b,
        ):
            assert running.publish("/a", "for a") == 20
            assert running.publish("/b", b"for b") == 5
            assert running.publish("/c", "for nobody") == 0
            a.receive(1)
            b.receive(1)
            assert (a.sequence, b.sequence) == ([Frame(TEXT, b"for a")], [Frame(BINARY, b"for b")])

    def test_broadcast_goes_to_everyone_once(self, server: ServerFactory) -> None:
        with (
            server(shards=3) as running,
            Swarm(address_of(running), 20, "/a") as a,
            Swarm(address_of(running), 5, "/b") as b,
        ):
            for client in running.clients("/a"):
                client.subscribe("/b")
                client.subscribe(">")
            await_true(lambda: running.count(">") == 20, "all to have subscribed")
            assert running.broadcast("for all") == 25
            for swarm in (a, b):
                swarm.receive(1)
                assert swarm.sequence == [Frame(TEXT, b"for all")]

    def test_broadcast_with_a_channel_is_publish(self, server: ServerFactory) -> None:
        with (
            server() as running,
            Client(address_of(running), "/a") as a,
            Client(address_of(running), "/b") as b,
        ):
            assert running.broadcast("for b", "/b") == 1
            assert running.broadcast("for all") == 2
            assert a.read_message() == Frame(TEXT, b"for all")
            assert b.read_message() == Frame(TEXT, b"for b")

    def test_who_has_no_channel_hears_what_is_for_everyone(self, server: ServerFactory) -> None:
        def prepare(running: fastcast.Server) -> None:
            running.on_connect(lambda request: fastcast.Accept(channels=[]))

        with server(prepare) as running, Client(address_of(running)) as client:
            assert running.count() == 1
            assert (running.publish("/", "nobody's"), running.broadcast("all")) == (0, 1)
            assert client.read_message() == Frame(TEXT, b"all")

    @pytest.mark.parametrize(
        ("channel", "complaint"),
        [("prices.*", "is a pattern"), (">", "is a pattern"), ("", "is empty"), ("x" * 1025, "1025 bytes")],
    )
    def test_what_is_no_channel_is_an_error(
        self, server: ServerFactory, channel: str, complaint: str
    ) -> None:
        with server() as running, pytest.raises(ValueError, match=complaint):
            running.publish(channel, "x")

    def test_broadcasts_have_one_order(self, server: ServerFactory) -> None:
        number = 300
        with server(shards=3) as running, Swarm(address_of(running), 30) as swarm:
            for n in range(number):
                running.broadcast(f"{n}")
            swarm.receive(number)
            assert [int(message.payload) for message in swarm.sequence] == list(range(number))


class TestAsk:
    """clients, count, channels, stats."""

    def test_counts_and_clients_follow_who_comes_and_goes(self, server: ServerFactory) -> None:
        with server(shards=3) as running, ExitStack() as stack:
            assert (running.count(), running.channels()) == (0, {})
            clients = [stack.enter_context(Client(address_of(running), f"/{n % 3}")) for n in range(9)]
            assert (running.count(), running.count("/0"), running.count("/9")) == (9, 3, 0)
            assert running.channels() == {"/0": 3, "/1": 3, "/2": 3}
            assert len(set(running.clients("/0"))) == 3
            clients[0].close()
            await_true(lambda: running.count() == 8, "one to be gone")
            assert (running.count("/0"), len(running.clients("/0"))) == (2, 2)
            for client in clients[1:]:
                client.close()
            await_true(lambda: running.channels() == {}, "all to be gone")

    def test_patterns_count_where_they_take_in_the_channel(self, server: ServerFactory) -> None:
        with (
            server() as running,
            Client(address_of(running), "/a.b"),
            Client(address_of(running), "/other"),
        ):
            only(running, "/other").subscribe("/a.*")
            await_true(lambda: running.count("/a.*") == 1, "the pattern to be there")
            assert (running.count("/a.b"), running.count("/a.c"), running.count("/a")) == (2, 1, 0)
            assert len(running.clients("/a.b")) == 2
            assert running.clients("/a.*") == running.clients("/other")
            assert running.channels() == {"/a.b": 1, "/a.*": 1, "/other": 1}
            assert running.publish("/a.b", "x") == 2

    def test_each_channel_has_its_own_account(self, server: ServerFactory) -> None:
        with (
            server() as running,
            Swarm(address_of(running), 10, "/a") as a,
            Swarm(address_of(running), 3, "/b") as b,
        ):
            for _ in range(5):
                running.publish("/a", "x")
            running.publish("/b", "y")
            a.receive(5)
            b.receive(1)
            assert on_loop(running, running.flush()) == 0
            expected = {"dropped": 0, "gone": 0, "queued": 0}
            assert running.stats("/a") == {"members": 10, "sent": 50, "delivered": 50, **expected}
            assert running.stats("/b") == {"members": 3, "sent": 3, "delivered": 3, **expected}
            assert set(running.stats("/c").values()) == {0}

    def test_asking_from_many_threads_at_once_is_safe(self, server: ServerFactory) -> None:
        ended = threading.Event()
        failures: list[BaseException] = []

        def ask(running: fastcast.Server) -> None:
            try:
                while not ended.is_set():
                    for client in running.clients("/a"):
                        assert client.id
                    assert 0 <= running.count("/a") <= 50
                    running.channels()
                    running.stats("/a")
            except BaseException as error:
                failures.append(error)

        with server(shards=3) as running:
            threads = [threading.Thread(target=ask, args=(running,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            try:
                for _ in range(20):
                    with Swarm(address_of(running), 50, "/a") as swarm:
                        publish(running, "x", "/a")
                        swarm.receive(1)
                    await_true(lambda: running.count() == 0, "all to be gone")
            finally:
                ended.set()
                for thread in threads:
                    thread.join(TIMEOUT)
            assert failures == []


class TestFlush:
    """Server.flush."""

    def test_all_that_was_published_is_written_then(self, server: ServerFactory) -> None:
        with (
            server(shards=3, flush_interval="50ms") as running,
            Swarm(address_of(running), 50) as swarm,
        ):
            for number in range(1, 6):
                for _ in range(20):
                    publish(running, "x")
                assert on_loop(running, running.flush()) == 0
                assert running.stats()["delivered"] == number * 1000
            swarm.receive(100)

    def test_who_lags_is_not_waited_for_and_counts(self, server: ServerFactory) -> None:
        with (
            server(max_queue="1GiB", max_backlog="1GiB") as running,
            Client(address_of(running)) as witness,
            stalled(address_of(running)) as slow,
        ):
            for number in range(200):
                publish(running, payload(number))
                witness.read_message()
            queued = on_loop(running, running.flush())
            stats = running.stats()
            assert 0 < queued == stats["queued"]
            assert stats["sent"] == stats["delivered"] + queued == 400
            slow.reset()
            await_true(lambda: running.count() == 1, "the slow one to be gone")
            assert on_loop(running, running.flush()) == 0


class TestInspect:
    """Server.inspect."""

    def test_it_tells_what_the_core_knows(self, server: ServerFactory) -> None:
        with server() as running, Client(address_of(running), "/a"):
            client = only(running, "/a")
            client.subscribe("news.>")
            await_true(lambda: running.count("news.>") == 1, "the subscription")
            told = on_loop(running, running.inspect(client))
            assert told is not None
            assert told["id"] == client.id
            assert told["state"] == "open"
            assert sorted(told["channels"]) == ["/a", "news.>"]
            assert (told["queued"], told["queued_bytes"], told["remote"]) == (0, 0, "127.0.0.1")
            assert 0 <= told["idle"] < TIMEOUT

    def test_it_tells_what_waits_for_a_client(self, server: ServerFactory) -> None:
        with (
            server(max_queue="1GiB", max_backlog="1GiB") as running,
            stalled(address_of(running)) as slow,
        ):
            for number in range(200):
                publish(running, payload(number))
            queued = on_loop(running, running.flush())
            told: Any = on_loop(running, running.inspect(only(running, "/")))
            assert told["queued"] == queued > 0
            assert told["queued_bytes"] == running.stats()["queued_bytes"] > 0
            slow.reset()

    def test_of_who_has_gone_there_is_nothing_to_tell(self, server: ServerFactory) -> None:
        with server() as running:
            with Client(address_of(running)) as client:
                kept = only(running, "/")
                client.close()
            let_go(running, kept)
            assert on_loop(running, running.inspect(running.client(2**64 - 1))) is None
            assert on_loop(running, running.inspect(running.client(0))) is None


class TestClient:
    """What can be done to one client."""

    def test_send_comes_between_what_was_published_before_and_what_is_afterwards(
        self, server: ServerFactory
    ) -> None:
        number = 200
        with (
            server(shards=2, flush_interval="20ms") as running,
            Client(address_of(running), "/a") as a,
            Client(address_of(running), "/b") as b,
        ):
            client = only(running, "/a")
            for n in range(number):
                publish(running, f"{n} channel", "/a")
                assert client.send(f"{n} alone") == 1
                running.broadcast(f"{n} all")
            place = {a.read_message().payload.decode(): at for at in range(3 * number)}
            for n in range(1, number):
                # Messages of a channel, and those for all, have no order between them.
                before = max(place[f"{n - 1} all"], place[f"{n} channel"])
                behind = min(place[f"{n} all"], place.get(f"{n + 1} channel", 3 * number))
                assert before < place[f"{n} alone"] < behind
            assert [b.read_message().payload.decode() for _ in range(number)] == [
                f"{n} all" for n in range(number)
            ]

    def test_close_comes_behind_all_that_was_sent(self, server: ServerFactory) -> None:
        with server(flush_interval="60s") as running, Client(address_of(running)) as client:
            for number in range(50):
                publish(running, f"{number}")
            only(running, "/").close(4000, "good-bye")
            assert [int(client.read_message().payload) for _ in range(50)] == list(range(50))
            assert client.read_frame() == Frame(CLOSE, close_payload(4000, b"good-bye"))
            client.send(frame(CLOSE, close_payload(4000)))
            assert client.at_end()

    def test_who_has_gone_is_nobody_and_its_place_may_be_another_s(self, server: ServerFactory) -> None:
        with server(shards=1) as running:
            with Client(address_of(running)) as client:
                kept = only(running, "/")
                client.close()
            let_go(running, kept)
            with Client(address_of(running)) as other:
                assert only(running, "/") != kept
                kept.send("not for the other")
                kept.subscribe("/b")
                kept.unsubscribe("/")
                kept.close()
                publish(running, "for the other")
                assert other.read_frame() == Frame(TEXT, b"for the other")
                assert running.count("/b") == 0

    def test_it_is_the_same_wherever_it_comes_from(self, server: ServerFactory) -> None:
        seen: list[fastcast.Client] = []

        def prepare(running: fastcast.Server) -> None:
            running.on_message(lambda client, message: seen.append(client))

        with server(prepare) as running, Client(address_of(running), "/a") as client:
            client.send(frame(TEXT, b"x"))
            await_true(lambda: len(seen) == 1, "the message")
            assert seen[0] == only(running, "/a") == running.client(seen[0].id)
            assert seen[0].channel == "/a"
