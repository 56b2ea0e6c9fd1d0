"""RFC 6455, 5.5 and 7.1, where the server acts on its own account.

Shutdown (1001), slow clients (1008), keep-alive, and what a client still reads when its connection ends.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from tests.support.server import ServerProcess, running
from tests.support.wire import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Client,
    Frame,
    close_code,
    close_payload,
    frame,
)

SMALL_WINDOW = 131072
"""SO_RCVBUF of a client that is meant to be slow, in bytes. With less than two loopback segments TCP would
wait for its persist timer between them."""


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    """A server of its own for each test."""
    with running("--shards", "2") as process:
        yield process


def test_shutdown_sends_1001_and_takes_the_answer(server: ServerProcess) -> None:
    with Client(server.address, "/a") as one, Client(server.address, "/b") as two:
        server.signal(signal.SIGTERM)
        for client in (one, two):
            farewell = client.read_frame()
            assert farewell.opcode == CLOSE
            assert close_code(farewell) == 1001
            client.send(frame(CLOSE, farewell.payload))
            assert client.at_end()
            client.drop()
        assert server.wait() == 0


def test_shutdown_ends_a_client_that_does_not_answer() -> None:
    with running("--close-timeout", "100ms") as server, Client(server.address) as silent:
        server.signal(signal.SIGTERM)
        assert [close_code(item) for item in silent.frames(reset=True)] == [1001]
        assert server.wait() == 0


def test_slow_client_gets_1008_after_whole_messages_without_a_gap() -> None:
    size, total = 65536, 400
    messages = [Frame(BINARY, number.to_bytes(4) + bytes(size - 4)) for number in range(total)]
    limits = ("--max-message", str(size), "--max-queue", "256KiB", "--close-timeout", "1m")
    with (
        running("--shards", "2", *limits) as server,
        Client(server.address, "/news", receive_buffer=SMALL_WINDOW) as slow,
        Client(server.address, "/news") as sender,
    ):
        for message in messages:
            sender.send(frame(message.opcode, message.payload))
            assert sender.read_message() == message
        received = []
        while (item := slow.read_frame()).opcode != CLOSE:
            received.append(item)
        assert close_code(item) == 1008
        slow.send(frame(CLOSE, item.payload))
        assert slow.at_end()
        assert len(received) < total
        assert received == messages[: len(received)]
        sender.close()


def test_close_code_reaches_a_client_that_goes_on_sending(server: ServerProcess) -> None:
    # 7.1.1: closing a socket with unread bytes in it resets the connection, and a reset overtakes the Close.
    with Client(server.address) as client:
        client.send_while_open([frame(0x3), *(bytes(65536) for _ in range(64))])
        assert [close_code(item) for item in client.frames()] == [1002]


def test_nothing_follows_the_close_while_others_go_on_publishing(server: ServerProcess) -> None:
    messages = [Frame(TEXT, b"%04d" % number) for number in range(2000)]
    with Client(server.address, "/busy") as leaver, Client(server.address, "/busy") as sender:
        half = len(messages) // 2
        sender.send(b"".join(frame(item.opcode, item.payload) for item in messages[:half]))
        assert leaver.read_message() == messages[0]
        leaver.send(frame(CLOSE, close_payload(1000)))
        sender.send(b"".join(frame(item.opcode, item.payload) for item in messages[half:]))
        *received, farewell = leaver.frames()
        assert close_code(farewell) == 1000
        assert received == messages[1 : len(received) + 1]
        assert [sender.read_message() for _ in messages] == messages
        sender.close()


@pytest.mark.parametrize("ending", [Client.drop, Client.reset])
def test_abrupt_end_of_one_client_disturbs_no_other(
    server: ServerProcess, ending: Callable[[Client], None]
) -> None:
    with Client(server.address, "/x") as stays, Client(server.address, "/x") as goes:
        goes.send(frame(TEXT, b"last words"))
        assert goes.read_message() == Frame(TEXT, b"last words")
        ending(goes)
        assert stays.read_message() == Frame(TEXT, b"last words")
        stays.send(frame(TEXT, b"still here"))
        assert stays.read_message() == Frame(TEXT, b"still here")
        stays.close()


def test_idle_client_is_pinged_and_stays_as_long_as_it_answers() -> None:
    with (
        running("--ping-interval", "100ms", "--ping-timeout", "1m") as server,
        Client(server.address) as client,
    ):
        for _ in range(3):
            received = client.read_frame()
            assert received.opcode == PING
            client.send(frame(PONG, received.payload))
        client.close()


def test_client_that_answers_no_ping_is_disconnected() -> None:
    with (
        running("--ping-interval", "100ms", "--ping-timeout", "100ms", "--close-timeout", "100ms") as server,
        Client(server.address) as client,
    ):
        received = [item.opcode for item in client.frames(reset=True)]
        assert received[:1] == [PING]
        assert set(received) <= {PING, CLOSE}
