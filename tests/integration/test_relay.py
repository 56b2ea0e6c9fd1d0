"""Every message reaches every client of its channel, the sender included, exactly once and unchanged."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import pairwise

import pytest

from tests.support.hosting import MIB, ServerFactory, address_of, await_true, publish
from tests.support.wire import BINARY, CONTINUATION, PING, PONG, TEXT, Client, Frame, frame

END = Frame(TEXT, b"this is the end")


def contents(size: int) -> bytes:
    """Bytes in which no stretch looks like its neighbours, so that a block out of place shows."""
    words = b"".join(number.to_bytes(4) for number in range(min(size, MIB) // 4 + 1))
    return (words * (size // MIB + 1))[:size]


def everyone_gets(clients: list[Client], *expected: Frame) -> None:
    """Each client's next messages are these, sent by the first; one too many would show before END."""
    clients[0].send(frame(END.opcode, END.payload))
    for client in clients:
        assert [client.read_message() for _ in (*expected, END)] == [*expected, END]


@pytest.mark.parametrize(
    "message",
    [
        Frame(TEXT),
        Frame(BINARY),
        Frame(TEXT, "κόσμε 🌍\0".encode()),
        Frame(BINARY, bytes(range(256))),
        *(Frame(BINARY, contents(size)) for size in (125, 126, 65535, 65536, MIB)),
    ],
    ids=lambda message: f"{'text' if message.opcode == TEXT else 'binary'}-{len(message.payload)}",
)
def test_message_reaches_everyone_once(server: ServerFactory, message: Frame) -> None:
    with server(shards=3) as running, ExitStack() as stack:
        clients = [stack.enter_context(Client(address_of(running))) for _ in range(12)]
        clients[0].send(frame(message.opcode, message.payload))
        everyone_gets(clients, message)
        # A delivery is counted behind the system call that makes it.
        await_true(lambda: running.stats()["delivered"] == 24, "all deliveries to be counted")
        assert (running.stats()["received"], running.stats()["sent"]) == (2, 24)


@pytest.mark.parametrize("pieces", [1, 3])
def test_message_of_64_mib_reaches_everyone(server: ServerFactory, pieces: int) -> None:
    payload = contents(64 * MIB)
    cuts = [len(payload) * number // pieces for number in range(pieces + 1)]
    with (
        server(max_message="64MiB") as running,
        Client(address_of(running)) as sender,
        Client(address_of(running)) as other,
    ):
        for start, end in pairwise(cuts):
            opcode = BINARY if start == 0 else CONTINUATION
            sender.send(frame(opcode, payload[start:end], fin=end == len(payload)))
        for client in (sender, other):
            # Not `==` on frames: a failure would print both.
            received = client.read_message()
            assert received.opcode == BINARY
            assert received.payload.__eq__(payload) is True


def test_fragments_arrive_as_one_message_whatever_comes_between(server: ServerFactory) -> None:
    with server() as running, ExitStack() as stack:
        clients = [stack.enter_context(Client(address_of(running))) for _ in range(6)]
        fragments = [b"", b"\xf0\x9f", b"\x8c\x8d", b" ", b""]
        for number, fragment in enumerate(fragments):
            clients[0].send(
                frame(PING, b"%d" % number),
                frame(CONTINUATION if number else TEXT, fragment, fin=number == len(fragments) - 1),
            )
            assert clients[0].read_frame() == Frame(PONG, b"%d" % number)
        everyone_gets(clients, Frame(TEXT, "🌍 ".encode()))


def test_every_ping_of_a_burst_is_answered_in_order(server: ServerFactory) -> None:
    payloads = [f"ping {number}".encode() for number in range(10)]
    with server() as running, Client(address_of(running)) as client:
        client.send(b"".join(frame(PING, payload) for payload in payloads))
        assert [client.read_frame() for _ in payloads] == [Frame(PONG, payload) for payload in payloads]


def test_latest_ping_of_a_flood_is_answered(server: ServerFactory) -> None:
    payloads = [number.to_bytes(4) * 30 for number in range(5000)]
    with server() as running, Client(address_of(running)) as client:
        client.send(b"".join(frame(PING, payload) for payload in payloads))
        answers = []
        while not answers or answers[-1] != payloads[-1]:
            answered = client.read_frame()
            assert answered.opcode == PONG
            answers.append(answered.payload)
        assert answers == sorted(set(answers))
        assert set(answers) <= set(payloads)


def test_channels_are_separate(server: ServerFactory) -> None:
    channels = ["/", "/a", "/A", "/a/b", "/a/", "//", "/%E2%82%AC", "/%2F", "/a%3Fb"]
    with server() as running, ExitStack() as stack:
        members = {
            channel: [stack.enter_context(Client(address_of(running), channel)) for _ in range(3)]
            for channel in channels
            if channel != "/%2F"
        }
        # A slash that is spelled by its code is a slash still.
        members["//"].append(stack.enter_context(Client(address_of(running), "/%2F")))
        for channel, clients in members.items():
            clients[0].send(frame(TEXT, f"only for {channel}".encode()))
        for channel, clients in members.items():
            everyone_gets(clients, Frame(TEXT, f"only for {channel}".encode()))
        assert running.stats()["channels"] == len(members)


def test_broadcast_names_a_channel_as_it_reads_without_escapes(server: ServerFactory) -> None:
    with server() as running, Client(address_of(running), "/caf%C3%A9/100%25?from=mail") as client:
        publish(running, "not for you", "/caf%C3%A9/100%25")
        publish(running, "for you", "/café/100%")
        assert client.read_message() == Frame(TEXT, b"for you")


def test_message_to_a_channel_without_members_goes_nowhere(server: ServerFactory) -> None:
    with server() as running:
        publish(running, "too early")
        with Client(address_of(running)) as client:
            publish(running, "in time")
            assert client.read_message() == Frame(TEXT, b"in time")
            client.close()
        publish(running, "too late")
        assert running.stats()["published"] == 3
        assert running.stats()["sent"] == 1
