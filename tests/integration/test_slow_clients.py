"""A client that doesn't keep up harms nobody but itself, and gets only so much memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest

import fastcast
from tests.support.hosting import MIB, ServerFactory, address_of, await_true, publish
from tests.support.slow import CHUNK, payload, stalled
from tests.support.swarm import Swarm
from tests.support.wire import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Client,
    Frame,
    Stream,
    close_payload,
    frame,
    until,
)


def broadcast_until(
    running: fastcast.Server, witness: Client, enough: Callable[[], bool], *, limit: int = 3000
) -> int:
    """Broadcast until `enough()`; returns how many messages. After each, the witness must get it at once,
    whoever else does not."""
    for number in range(limit):
        if enough():
            return number
        publish(running, payload(number))
        assert witness.read_message().payload.__eq__(payload(number)) is True
    raise AssertionError(f"not enough after {limit} messages")


def read_to_close(client: Client) -> list[Frame]:
    """What the client gets before a Close 1008, which it answers; then its stream must end."""
    received = []
    while (last := client.read_frame()).opcode != CLOSE:
        received.append(last)
    assert last == Frame(CLOSE, close_payload(1008))
    client.send(frame(CLOSE, last.payload))
    assert client.at_end()
    return received


class TestQueueLimit:
    """--max-queue."""

    def test_who_does_not_read_is_closed_with_1008_behind_whole_messages(self, server: ServerFactory) -> None:
        with (
            server(max_queue="2MiB") as running,
            Client(address_of(running)) as witness,
            stalled(address_of(running)) as slow,
        ):
            total = broadcast_until(running, witness, lambda: running.stats()["slow"] == 1)
            # It hasn't read a byte up to now, and all that time the witness has got every message.
            messages = read_to_close(slow)
            assert len(messages) < total
            assert messages == [Frame(BINARY, payload(number)) for number in range(len(messages))]
            await_true(lambda: running.stats()["clients"] == 1, "the slow client to be gone")
            assert running.stats()["gone"] > 0
            publish(running, b"still here")
            assert witness.read_message() == Frame(BINARY, b"still here")

    def test_closed_client_that_goes_on_not_reading_is_cut_off(self, server: ServerFactory) -> None:
        with (
            server(max_queue="1MiB", close_timeout="300ms") as running,
            Client(address_of(running)) as witness,
            stalled(address_of(running)) as slow,
        ):
            broadcast_until(running, witness, lambda: running.stats()["slow"] == 1)
            await_true(lambda: running.stats()["connections"] == 1, "the slow client to be cut off")
            assert running.stats()["dead"] == 1
            with pytest.raises(ConnectionResetError):
                slow.read_rest()

    def test_who_lags_within_the_limit_loses_nothing(self, server: ServerFactory) -> None:
        with (
            server(max_queue="1GiB", max_backlog="1GiB") as running,
            Client(address_of(running)) as witness,
            stalled(address_of(running)) as slow,
        ):
            enough = 8 * MIB
            total = broadcast_until(running, witness, lambda: running.stats()["queued_bytes"] > enough)
            assert running.stats()["lagging"] == 1
            for number in range(total):
                assert slow.read_message().payload.__eq__(payload(number)) is True
            publish(running, b"caught up")
            assert slow.read_message() == witness.read_message() == Frame(BINARY, b"caught up")
            stats = running.stats()
            assert (stats["slow"], stats["gone"], stats["lagging"], stats["queued"]) == (0, 0, 0, 0)

    def test_single_message_may_be_larger_than_the_queue(self, server: ServerFactory) -> None:
        large = payload(0) * 128
        with server(max_queue="64KiB") as running, stalled(address_of(running)) as slow:
            publish(running, large)
            await_true(lambda: running.stats()["queued_bytes"] > MIB, "the message to be queued")
            assert slow.read_message().payload.__eq__(large) is True
            assert running.stats()["slow"] == 0

    def test_ping_is_answered_ahead_of_what_is_queued(self, server: ServerFactory) -> None:
        with (
            server(max_queue="1GiB", max_backlog="1GiB") as running,
            Client(address_of(running)) as witness,
            stalled(address_of(running)) as slow,
        ):
            total = broadcast_until(running, witness, lambda: running.stats()["queued_bytes"] > 2 * MIB)
            slow.send(frame(PING, b"are you there?"))
            # What the Ping is followed by comes out at the witness when the server has dealt with the Ping.
            marks = [Frame(TEXT, b"one"), Frame(TEXT, b"two")]
            for mark in marks:
                slow.send(frame(mark.opcode, mark.payload))
                assert witness.read_message() == mark
            queued = running.stats()["queued"]
            frames = [slow.read_frame() for _ in range(total + 3)]
            place = frames.index(Frame(PONG, b"are you there?"))
            del frames[place]
            assert frames == [*(Frame(BINARY, payload(number)) for number in range(total)), *marks]
            # All that waited is behind it, but for a message that was partly written.
            assert queued >= 2 * MIB // CHUNK // 2
            assert len(frames) - place >= queued - 1

    def test_pings_of_a_client_that_does_not_read_take_no_memory(self, server: ServerFactory) -> None:
        with (
            server(max_queue="1GiB", max_backlog="1GiB") as running,
            Client(address_of(running)) as witness,
            stalled(address_of(running)) as slow,
        ):
            broadcast_until(running, witness, lambda: running.stats()["lagging"] == 1)
            before = running.stats()
            for number in range(1000):
                slow.send(frame(PING, b"%d" % number))
            # A message of its own, which the witness gets, is the sign that all its Pings are read.
            slow.send(frame(TEXT, b"done"))
            assert witness.read_message() == Frame(TEXT, b"done")
            assert running.stats()["messages"] <= before["messages"] + 2


class TestBacklog:
    """--max-backlog."""

    def test_memory_is_bounded_whatever_number_stalls(self, server: ServerFactory) -> None:
        limit = 8 * MIB
        with (
            server(max_queue="1GiB", max_backlog=limit, max_message="128KiB") as running,
            Client(address_of(running)) as witness,
            ExitStack() as stack,
        ):
            number = 12
            slow = [stack.enter_context(stalled(address_of(running))) for _ in range(number)]
            peak = 0

            def all_closed() -> bool:
                nonlocal peak
                stats = running.stats()
                peak = max(peak, stats["message_bytes"])
                return bool(stats["slow"] == number)

            broadcast_until(running, witness, all_closed)
            # Messages are let go while those who held them have still not read.
            assert limit / 2 < peak < limit + 2 * MIB
            await_true(lambda: running.stats()["message_bytes"] < 2 * MIB, "memory to be given back")
            for client in slow:
                read_to_close(client)

    def test_burst_of_many_senders_is_held_back_and_nothing_is_lost(self, server: ServerFactory) -> None:
        # The shards hold senders back at 2 MiB. All is 3 MiB, and at 4 MiB a slow client would be cut off.
        members, each = 100, 20
        size = 3 * 512
        with (
            server(max_backlog="8MiB", max_message="64KiB", shards=2) as running,
            Swarm(address_of(running), members) as swarm,
        ):
            for number in range(members):
                swarm.send(number, *(frame(BINARY, payload(number * each + k)[:size]) for k in range(each)))
            swarm.receive(members * each)
            assert {message.payload for message in swarm.sequence} == {
                payload(number)[:size] for number in range(members * each)
            }
            stats = running.stats()
            assert (stats["slow"], stats["dropped"], stats["gone"]) == (0, 0, 0)

    def test_far_more_than_the_limit_passes_while_everyone_keeps_up(self, server: ServerFactory) -> None:
        # Each of the senders has one message under way: 512 KiB of the 2 MiB that the server may hold.
        senders, rounds = 8, 100
        with (
            server(max_backlog="2MiB", max_message="64KiB") as running,
            Swarm(address_of(running), 20) as swarm,
        ):
            for turn in range(rounds):
                for number in range(senders):
                    swarm.send(number, frame(BINARY, payload(turn * senders + number)))
                swarm.receive((turn + 1) * senders)
            assert {message.payload for message in swarm.sequence} == {
                payload(number) for number in range(senders * rounds)
            }
            assert running.stats()["slow"] == 0

    def test_broadcast_says_when_it_is_too_far_ahead_and_works_again_later(
        self, server: ServerFactory
    ) -> None:
        with (
            server(max_backlog="4MiB", max_message="64KiB") as running,
            Swarm(address_of(running), 200) as swarm,
        ):
            accepted = 0

            def broadcast_all() -> None:
                nonlocal accepted
                for number in range(1000):
                    running.publish("/", payload(number)[: CHUNK - 64])
                    accepted += 1

            # 1 MiB may be ahead of the shards, for whom each message is two hundred times the work.
            with pytest.raises(fastcast.OverloadError):
                broadcast_all()
            swarm.receive(accepted)
            assert [message.payload for message in swarm.sequence] == [
                payload(number)[: CHUNK - 64] for number in range(accepted)
            ]
            publish(running, b"again")
            swarm.receive(accepted + 1)
            assert running.stats()["slow"] == 0


class TestSilence:
    """--ping-interval and --ping-timeout."""

    def test_who_does_not_answer_a_ping_is_given_up(self, server: ServerFactory) -> None:
        with (
            server(ping_interval="300ms", ping_timeout="300ms") as running,
            Client(address_of(running)) as witness,
            Client(address_of(running)) as dead,
        ):

            def given_up() -> bool | None:
                witness.send(frame(PONG))
                return running.stats()["connections"] == 1 or None

            until(given_up, "the client to be given up")
            assert running.stats()["dead"] == 1
            assert [received.opcode for received in dead.frames(reset=True)] == [PING]
            witness.send(frame(TEXT, b"alive"))
            assert witness.read_message() == Frame(TEXT, b"alive")

    def test_who_answers_pings_stays(self, server: ServerFactory) -> None:
        with (
            server(ping_interval="200ms", ping_timeout="200ms") as running,
            Client(address_of(running)) as client,
        ):
            for _ in range(5):
                received = client.read_frame()
                assert received.opcode == PING
                client.send(frame(PONG, received.payload))
            assert running.stats()["dead"] == 0
            assert running.stats()["pings"] >= 5

    def test_who_neither_reads_nor_sends_is_given_up_with_all_that_waits(self, server: ServerFactory) -> None:
        with (
            server(ping_interval="300ms", ping_timeout="300ms", max_queue="1GiB") as running,
            Client(address_of(running)) as witness,
            stalled(address_of(running)),
        ):

            def lags() -> bool:
                witness.send(frame(PONG))
                # More than the kernel may yet find room for.
                return bool(running.stats()["queued"] >= 8)

            def given_up() -> bool | None:
                witness.send(frame(PONG))
                return running.stats()["connections"] == 1 or None

            broadcast_until(running, witness, lags)
            until(given_up, "the client to be given up")
            stats = running.stats()
            assert stats["dead"] == 1
            assert stats["gone"] > 0
            assert stats["queued"] == 0

    def test_no_ping_where_none_is_wanted(self, server: ServerFactory) -> None:
        with (
            server(ping_interval=0, ping_timeout="100ms", handshake_timeout="500ms") as running,
            Client(address_of(running)) as client,
            Client(address_of(running)) as other,
        ):
            # A connection that is younger than theirs is ended for its silence: theirs has lasted as long.
            with Stream(address_of(running)) as silent:
                assert silent.read_head().status == 408
            other.send(frame(TEXT, b"now"))
            assert client.read_frame() == Frame(TEXT, b"now")
            assert running.stats()["pings"] == 0


def test_reset_of_a_client_with_a_full_queue_frees_it(server: ServerFactory) -> None:
    with server(max_queue="1GiB", max_backlog="1GiB") as running, Client(address_of(running)) as witness:
        slow = stalled(address_of(running))
        broadcast_until(running, witness, lambda: running.stats()["queued_bytes"] > 2 * MIB)
        slow.reset()
        await_true(lambda: running.stats()["connections"] == 1, "the client to be gone")
        stats = running.stats()
        assert (stats["queued"], stats["queued_bytes"], stats["lagging"]) == (0, 0, 0)
        assert stats["gone"] >= 2 * MIB // CHUNK
