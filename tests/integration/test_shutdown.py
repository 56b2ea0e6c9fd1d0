"""A server that is told to end delivers what it has taken on, says goodbye, and is gone in time."""

from __future__ import annotations

import signal

import pytest

from tests.support.hosting import MIB, ServerFactory, address_of, await_true, publish, stop_in_background
from tests.support.server import ServerProcess, running
from tests.support.swarm import Swarm
from tests.support.wire import (
    BINARY,
    TEXT,
    Address,
    Client,
    Frame,
    Stream,
    close_code,
    close_payload,
    frame,
    upgrade_request,
)

GOING_AWAY = close_payload(1001)

PATIENT = (
    "--shutdown-timeout",
    "1h",
    "--close-timeout",
    "1h",
    "--max-queue",
    "1GiB",
    "--max-backlog",
    "1GiB",
)


def stall(address: Address) -> Client:
    """A client that doesn't read, and for whom more waits than the kernel takes."""
    client = Client(address, receive_buffer=4096)
    with Client(address) as sender:
        for _ in range(16):
            sender.send(frame(BINARY, bytes(MIB)))
            sender.read_message()
        sender.close()
    return client


def await_log(server: ServerProcess, words: str) -> None:
    """Wait until the server has logged something."""
    await_true(lambda: words in server.log(), f"{words!r} in the log")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
class TestSignal:
    """SIGTERM and SIGINT are the same."""

    def test_ends_a_server_without_clients(self, number: signal.Signals) -> None:
        with running() as server:
            server.signal(number)
            assert server.wait() == 0

    def test_under_load_everything_that_was_published_is_delivered_before_the_close(
        self, number: signal.Signals
    ) -> None:
        with running("--shards", "3") as server, Swarm(server.address, 30) as swarm:
            for member in range(30):
                swarm.send(member, *(frame(TEXT, b"%d %d " % (member, k) * 100) for k in range(300)))
            swarm.receive_while(lambda: len(swarm.sequence) < 1000)
            server.signal(number)
            published = len(swarm.sequence)
            swarm.await_close(GOING_AWAY)
            assert swarm.received >= published
            assert server.wait() == 0

    def test_who_has_not_read_yet_still_gets_everything(self, number: signal.Signals) -> None:
        with running(*PATIENT) as server, Client(server.address, receive_buffer=4096) as late:
            with Client(server.address) as sender:
                for k in range(16):
                    sender.send(frame(BINARY, bytes([k]) * MIB))
                    sender.read_message()
                sender.close()
            server.signal(number)
            await_log(server, "stopping")
            for k in range(16):
                assert late.read_message().payload.__eq__(bytes([k]) * MIB) is True
            goodbye = late.read_frame()
            assert close_code(goodbye) == 1001
            late.send(frame(goodbye.opcode, goodbye.payload))
            assert late.at_end()
            assert server.wait() == 0

    def test_stalled_clients_do_not_hold_it_up_for_longer_than_the_time_out(
        self, number: signal.Signals
    ) -> None:
        # The later flag wins: with an hour to wait, the test would end in a time-out.
        with running(*PATIENT, "--shutdown-timeout", "500ms") as server, stall(server.address) as stalled:
            server.signal(number)
            assert server.wait() == 0
            with pytest.raises(ConnectionResetError):
                stalled.read_rest()

    def test_second_signal_ends_it_at_once_and_still_with_0(self, number: signal.Signals) -> None:
        with running(*PATIENT) as server, stall(server.address):
            server.signal(number)
            await_log(server, "stopping within 3600 s")
            server.signal(number)
            assert server.wait() == 0

    def test_listening_ends_at_once(self, number: signal.Signals) -> None:
        with running(*PATIENT) as server, stall(server.address):
            server.signal(number)

            def refused() -> bool:
                try:
                    Stream(server.address).drop()
                except ConnectionRefusedError:
                    return True
                except ConnectionResetError:  # it came to the listener just before its end
                    return False
                return False

            await_true(refused, "the server to stop listening")
            assert not server.exited
            server.signal(number)
            assert server.wait() == 0


class TestStop:
    """Server.stop()."""

    def test_everything_that_was_broadcast_comes_before_the_close(self, server: ServerFactory) -> None:
        with server(shards=3) as running, Swarm(address_of(running), 60) as swarm:
            for number in range(500):
                publish(running, f"message {number}")
            # The end of this block comes back when the server has stopped: the clients must go on meanwhile.
            stopping = stop_in_background(running)
            swarm.await_close(GOING_AWAY)
            assert [message.payload for message in swarm.sequence] == [b"message %d" % n for n in range(500)]
            assert swarm.received == 500
            stopping()

    def test_what_the_flush_interval_holds_back_is_delivered(self, server: ServerFactory) -> None:
        with server(flush_interval="60s") as running, Client(address_of(running)) as client:
            messages = [Frame(TEXT, b"%d" % number) for number in range(50)]
            for message in messages:
                publish(running, message.payload.decode())
            stopping = stop_in_background(running)
            assert [client.read_frame() for _ in messages] == messages
            assert [close_code(received) for received in closing_frames(client)] == [1001]
            stopping()

    def test_request_under_way_is_turned_down(self, server: ServerFactory) -> None:
        with server() as running, Stream(address_of(running)) as half, Client(address_of(running)) as client:
            half.send(upgrade_request()[:-2])
            await_true(lambda: running.stats()["connections"] == 2, "both to be accepted")
            stopping = stop_in_background(running)
            assert half.read_head().status == 503
            assert [close_code(received) for received in closing_frames(client)] == [1001]
            stopping()

    def test_stopped_server_has_its_last_numbers(self, server: ServerFactory) -> None:
        with server() as running:
            with Client(address_of(running)) as client:
                client.send(frame(TEXT, b"counted"))
                assert client.read_message() == Frame(TEXT, b"counted")
                client.close()
            stop_in_background(running)()
            stats = running.stats()
            assert (stats["opened"], stats["received"], stats["delivered"], stats["threads"]) == (1, 1, 1, 0)


def closing_frames(client: Client) -> list[Frame]:
    """The last frames of a client that answers the server's Close."""
    received = [client.read_frame()]
    client.send(frame(received[0].opcode, received[0].payload))
    assert client.at_end()
    return received
