"""Histories of channels, in one server: who comes back gets what it missed, or is told that it can't."""

from __future__ import annotations

import threading
from random import Random
from typing import Any

import pytest

import fastcast
from tests.support.hosting import ServerFactory, address_of, await_true, on_loop, publish
from tests.support.resume import Headed, Resumer, headed
from tests.support.wire import BINARY, TEXT, Client, Frame, Refused, close_code, frame


def said(*numbers: int) -> list[bytes]:
    """The payloads of numbered messages."""
    return [b"%d" % number for number in numbers]


def say(running: fastcast.Server, *numbers: int, channel: str = "/a") -> None:
    """Publish numbered messages."""
    for number in numbers:
        publish(running, str(number), channel)


class TestResuming:
    def test_who_comes_back_gets_what_it_missed(self, server: ServerFactory) -> None:
        with server(history="100") as running:
            with Resumer(address_of(running)) as client:
                assert client.read()[:3:2] == ("at", 0)
                say(running, 1, 2, 3)
                assert client.payloads(2) == said(1, 2)
                position = client.position
            say(running, 4, 5)
            with Resumer(address_of(running), since=position) as client:
                at = client.read()
                assert (at.what, f"{at.epoch}:{at.offset}") == ("at", position)
                assert client.payloads(3) == said(3, 4, 5)
                say(running, 6)
                assert client.payloads(1) == said(6)

    def test_others_hear_what_was_published_and_nothing_else(self, server: ServerFactory) -> None:
        with (
            server(history="100") as running,
            Client(address_of(running), "/a") as plain,
            Resumer(address_of(running)) as client,
        ):
            running.publish("/a", "text")
            running.publish("/a", b"binary")
            assert [plain.read_message() for _ in range(2)] == [
                Frame(TEXT, b"text"),
                Frame(BINARY, b"binary"),
            ]
            frames = [client.read_message() for _ in range(3)]
            assert [each.opcode for each in frames] == [TEXT, TEXT, BINARY]
            assert [headed(each).payload for each in frames] == [b"", b"text", b"binary"]

    def test_all_that_is_kept_is_there_for_who_wants_it(self, server: ServerFactory) -> None:
        with server(history="3") as running:
            say(running, 1, 2, 3, 4, 5)
            with Resumer(address_of(running), since="all") as client:
                assert client.read()[:3:2] == ("at", 2)
                assert client.payloads(3) == said(3, 4, 5)

    def test_a_gap_is_told_of_and_what_is_kept_follows(self, server: ServerFactory) -> None:
        with server(history="3") as running:
            with Resumer(address_of(running)) as client:
                say(running, 1)
                client.read()
                assert client.payloads(1) == said(1)
            say(running, 2, 3, 4)
            with Resumer(address_of(running), since=client.position) as other:
                assert other.read().what == "at"
                assert other.payloads(3) == said(2, 3, 4)
            say(running, 5)
            with Resumer(address_of(running), since=client.position) as other:
                assert other.read()[:3:2] == ("gap", 2)
                assert other.payloads(3) == said(3, 4, 5)
            assert running.stats()["gaps"] == 1

    @pytest.mark.parametrize("position", ["abcdefghijkl:7", "zzzzzzzzzzzz:0"])
    def test_a_position_of_another_life_is_a_gap(self, server: ServerFactory, position: str) -> None:
        with server(history="3") as running, Resumer(address_of(running), since=position) as client:
            assert client.read()[:3:2] == ("gap", 0)

    def test_an_offset_that_never_was_is_a_gap(self, server: ServerFactory) -> None:
        with server(history="3") as running:
            with Resumer(address_of(running)) as client:
                epoch = client.read().epoch
            with Resumer(address_of(running), since=f"{epoch}:1") as client:
                assert client.read()[:3:2] == ("gap", 0)

    def test_time_limits_a_history_as_well(self, server: ServerFactory) -> None:
        with server(history="300ms") as running:
            say(running, 1)
            await_true(lambda: running.stats()["history_messages"] == 0, "the message to be dropped")
            with Resumer(address_of(running), since="all") as client:
                assert client.read().what == "at"
                say(running, 2)
                assert client.payloads(1) == said(2)

    def test_a_channel_has_its_own_rule(self, server: ServerFactory) -> None:
        with server(history="1", channel=["/b history=2", "/c history=off"]) as running:
            for channel in ("/a", "/b", "/c"):
                say(running, 1, 2, 3, channel=channel)
            with Resumer(address_of(running), "/a", "all") as client:
                client.read()
                assert client.payloads(1) == said(3)
            with Resumer(address_of(running), "/b", "all") as client:
                client.read()
                assert client.payloads(2) == said(2, 3)
            with Resumer(address_of(running), "/c", "all") as client:
                say(running, 4, channel="/c")
                assert client.read_message() == Frame(TEXT, b"4")

    def test_the_memory_for_all_of_them_is_bounded(self, server: ServerFactory) -> None:
        with server(history="1000", max_history="64KiB") as running:
            for number in range(100):
                running.publish(f"/{number}", b"x" * 1000)
            stats = running.stats()
            assert stats["history_bytes"] <= 64 * 1024
            assert 30 <= stats["history_messages"] < 60
            with Resumer(address_of(running), "/0", "all") as client:  # the one that was quiet for longest
                assert client.read().what == "at"
                running.publish("/0", b"now")
                assert client.payloads(1) == [b"now"]

    def test_names_that_would_break_the_line_are_escaped(self, server: ServerFactory) -> None:
        name = "a\nb% ü"

        def prepare(running: fastcast.Server) -> None:
            running.on_connect(lambda request: fastcast.Accept(channels=[name]))

        with server(prepare, history="5") as running, Resumer(address_of(running)) as client:
            assert client.read_message().payload.decode().split(" ", 2)[2] == "a%0Ab%25 ü\n"
            running.publish(name, "there")
            assert client.read()[3:] == (name, b"there")

    def test_without_a_history_nobody_asks(self, server: ServerFactory) -> None:
        with server() as running, Client(address_of(running), "/a?since=nonsense") as client:
            running.publish("/a", "as ever")
            assert client.read_message() == Frame(TEXT, b"as ever")

    @pytest.mark.parametrize(
        "since", ["x", "abcdefabcdef", "abcdefabcdef:", "abcdefabcdef:-1", "ABCDEFABCDEF:1"]
    )
    def test_a_position_that_is_none_is_refused(self, server: ServerFactory, since: str) -> None:
        with server(history="5") as running, pytest.raises(Refused) as refused:
            Client(address_of(running), f"/a?since={since}")
        assert refused.value.head.status == 400


class TestSubscriptions:
    """Channels that a client joins and leaves."""

    def test_several_channels_with_a_position_each(self, server: ServerFactory) -> None:
        def prepare(running: fastcast.Server) -> None:
            running.on_connect(lambda request: fastcast.Accept(channels=["a", "b", "plain.*"]))

        with server(prepare, history="10", channel=["plain.* history=off"]) as running:
            with Resumer(address_of(running)) as client:
                starts = {each.channel: each for each in (client.read(), client.read())}
                assert set(starts) == {"a", "b"}
                say(running, 1, channel="a")
                assert client.read().channel == "a"
                running.publish("plain.x", "plain")
                assert client.read_message() == Frame(TEXT, b"plain")
            say(running, 2, channel="a")
            say(running, 3, channel="b")
            since = f"{starts['a'].epoch}:1,{starts['b'].epoch}:0"
            with Resumer(address_of(running), since=since) as client:
                received = [client.read() for _ in range(4)]
                assert [(each.what, each.channel, each.payload) for each in received] == [
                    ("at", "a", b""),
                    ("msg", "a", b"2"),
                    ("at", "b", b""),
                    ("msg", "b", b"3"),
                ]

    def test_who_is_subscribed_later_gets_what_is_published_from_then_on(self, server: ServerFactory) -> None:
        with server(_identify, history="10") as running, Resumer(address_of(running)) as client:
            client.read()
            client.send(frame(TEXT, b"who?"))
            me = running.client(int(client.read_message().payload))
            say(running, 1, channel="b")
            me.subscribe("b")
            say(running, 2, 3, channel="b")
            at = client.read()
            assert (at.what, at.channel, at.offset) == ("at", "b", 1)
            assert client.payloads(2) == said(2, 3)
            assert running.count("b") == 1
            me.unsubscribe("b")
            await_true(lambda: running.count("b") == 0, "the subscription to end")
            say(running, 4, channel="b")
            say(running, 5)
            assert client.payloads(1) == said(5)

    def test_a_pattern_that_takes_the_channel_in_brings_nothing_twice(self, server: ServerFactory) -> None:
        def prepare(running: fastcast.Server) -> None:
            running.on_connect(lambda request: fastcast.Accept(channels=["a.*", "a.b"]))

        with server(prepare, history="10") as running, Resumer(address_of(running)) as client:
            client.read()
            for number in range(50):
                say(running, number, channel="a.b")
            assert client.payloads(50) == said(*range(50))

    def test_members_are_counted_whether_they_resume_or_not(self, server: ServerFactory) -> None:
        joined: list[tuple[int, str]] = []

        def prepare(running: fastcast.Server) -> None:
            running.on_join(lambda client, channel: joined.append((client.id, channel)))

        with (
            server(prepare, history="10", presence=True) as running,
            Client(address_of(running), "/a") as plain,
            Resumer(address_of(running)) as client,
        ):
            await_true(lambda: len(joined) == 2, "both to have joined")
            assert {channel for _, channel in joined} == {"/a"}
            assert running.count("/a") == 2
            assert running.channels() == {"/a": 2}
            assert {each.id for each in running.clients("/a")} == {id for id, _ in joined}
            assert running.publish("/a", "x") == 2
            on_loop(running, running.flush())
            stats = running.stats("/a")
            assert (stats["members"], stats["sent"], stats["delivered"]) == (2, 2, 2)
            assert plain.read_message().payload == b"x"
            assert client.read().what == "at"

    def test_what_clients_send_is_kept(self, server: ServerFactory) -> None:
        with server(history="10") as running:
            with Resumer(address_of(running)) as client:
                client.read()
                client.send(frame(TEXT, b"mine"))
                assert client.payloads(1) == [b"mine"]
            with Resumer(address_of(running), since="all") as client:
                client.read()
                assert client.payloads(1) == [b"mine"]


class TestLagging:
    """Who resumes would rather be cut off than miss something."""

    def test_it_is_closed_whatever_the_policy_and_resumes(self, server: ServerFactory) -> None:
        block = b"x" * 20_000
        with server(history="1000", slow="drop-oldest", max_queue="100KB") as running:
            with Resumer(address_of(running), receive_buffer=4096) as client:
                first = client.read()
                for _ in range(400):
                    publish(running, block, "/a")
                await_true(lambda: running.stats()["slow"] == 1, "the client to be closed")
                heard = 0
                for message in client.frames():
                    if message.is_control:
                        assert close_code(message) == 1008
                        break
                    heard += 1
                    assert headed(message).offset == heard
                position = f"{first.epoch}:{heard}"
            assert 0 < heard < 400
            with Resumer(address_of(running), since=position) as client:
                assert client.read().what == "at"
                assert client.payloads(400 - heard) == [block] * (400 - heard)

    def test_a_long_history_does_not_make_it_slow(self, server: ServerFactory) -> None:
        block = b"x" * 20_000
        with server(history="1000", max_queue="100KB") as running:
            for _ in range(400):
                publish(running, block, "/a")
            with Resumer(address_of(running), since="all", receive_buffer=4096) as client:
                say(running, 1)
                client.read()
                assert client.payloads(401) == [*[block] * 400, b"1"]
            assert running.stats()["slow"] == 0


def _identify(running: fastcast.Server) -> None:
    running.on_message(lambda client, message: client.send(str(client.id)))


class _Returning(threading.Thread):
    """Comes and goes at random, and notes all that it hears; it must be a piece of what is published."""

    def __init__(self, address: Any, seed: int, last: int) -> None:
        super().__init__()
        self._address = address
        self._random = Random(seed)
        self._last = last
        self.heard: list[Headed] = []
        self.gaps = 0

    def run(self) -> None:
        since = "new"
        while not self.heard or self.heard[-1].offset < self._last:
            with Resumer(self._address, since=since) as client:
                for _ in range(self._random.randrange(1, 200)):
                    message = client.read()
                    since = client.position
                    if message.what == "msg":
                        self.heard.append(message)
                        if message.offset == self._last:
                            break
                    self.gaps += message.what == "gap"
                if self._random.random() < 0.3:
                    client.reset()


def test_nothing_is_missed_or_doubled_however_often_somebody_comes_back(server: ServerFactory) -> None:
    publishers, each = 3, 1500
    with server(history="100000") as running:
        clients = [_Returning(address_of(running), seed, publishers * each) for seed in range(6)]
        plain = Client(address_of(running), "/a")
        for client in clients:
            client.start()

        def speak(publisher: int) -> None:
            for number in range(each):
                publish(running, f"{publisher} {number}", "/a")

        threads = [threading.Thread(target=speak, args=(publisher,)) for publisher in range(publishers)]
        for thread in threads:
            thread.start()
        for thread in [*threads, *clients]:
            thread.join()
        order = [plain.read_message().payload for _ in range(publishers * each)]
        plain.close()
        for client in clients:
            assert client.gaps == 0
            offsets = [message.offset for message in client.heard]
            assert offsets == list(range(offsets[0], publishers * each + 1))
            # One order for everybody, with a head or without.
            assert [message.payload for message in client.heard] == order[offsets[0] - 1 :]
