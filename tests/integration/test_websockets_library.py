"""An ordinary client, the `websockets` library's, finds nothing unusual about fastcast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, suppress

import pytest
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.support.server import ServerProcess, running
from tests.support.wire import TIMEOUT

MIB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """Two shards, so that the clients of a channel are on different threads."""
    with running("--shards", "2", "--max-message", "4MiB", "--max-queue", "16MiB") as process:
        yield process


def client(
    server: ServerProcess, channel: str, *, subprotocols: tuple[str, ...] = ()
) -> AbstractContextManager[ClientConnection]:
    """A connection as an application would open it: compression is offered, keep-alive is on."""
    host, port = server.address
    return connect(
        f"ws://{host}:{port}{channel}",
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        open_timeout=TIMEOUT,
        close_timeout=TIMEOUT,
        max_size=8 * MIB,
        proxy=None,
    )


@pytest.mark.parametrize(
    "message",
    ["", "hello", "κόσμε 🌍", "x" * 125, "x" * 126, b"", b"\x00\xff", bytes(range(256)) * 256, b"y" * 65535],
    ids=lambda message: f"{type(message).__name__}-{len(message)}",
)
def test_message_comes_back_and_reaches_the_others(server: ServerProcess, message: str | bytes) -> None:
    with client(server, "/message") as sender, client(server, "/message") as other:
        sender.send(message)
        assert sender.recv(TIMEOUT) == message
        assert other.recv(TIMEOUT) == message


@pytest.mark.parametrize("size", [MIB, 4 * MIB])
def test_big_message_arrives_whole(server: ServerProcess, size: int) -> None:
    message = bytes(i * i % 251 for i in range(65536)) * (size // 65536)
    with client(server, "/big") as sender, client(server, "/big") as other:
        sender.send(message)
        assert sender.recv(TIMEOUT) == message
        assert other.recv(TIMEOUT) == message


def test_message_over_the_limit_closes_with_1009(server: ServerProcess) -> None:
    with client(server, "/too-big") as sender:
        # The server may end the connection while the message is still being sent.
        with suppress(ConnectionClosedError):
            sender.send(bytes(4 * MIB + 1))
        with pytest.raises(ConnectionClosedError) as closed:
            sender.recv(TIMEOUT)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


def test_fragments_arrive_as_one_message(server: ServerProcess) -> None:
    with client(server, "/fragments") as sender, client(server, "/fragments") as other:
        sender.send(["frag", "", "ments ", "of text"])
        sender.send(iter([b"and", b" of", b" bytes"]))
        for receiver in (sender, other):
            assert list(receiver.recv_streaming()) == ["fragments of text"]
            assert list(receiver.recv_streaming()) == [b"and of bytes"]


def test_many_messages_arrive_once_and_in_one_order_everywhere(server: ServerProcess) -> None:
    rounds = 200
    with (
        client(server, "/order") as one,
        client(server, "/order") as two,
        client(server, "/order") as three,
    ):
        for number in range(rounds):
            one.send(f"one {number}")
            two.send(f"two {number}")
        seen = [[receiver.recv(TIMEOUT) for _ in range(2 * rounds)] for receiver in (one, two, three)]
        assert seen[0] == seen[1] == seen[2]
        for name in ("one", "two"):
            own = [message for message in seen[0] if str(message).startswith(name)]
            assert own == [f"{name} {number}" for number in range(rounds)]


def test_ping_is_answered(server: ServerProcess) -> None:
    with client(server, "/ping") as one:
        assert one.ping("are you there?").wait(TIMEOUT)
        assert one.ping().wait(TIMEOUT)


def test_ping_among_messages_is_answered(server: ServerProcess) -> None:
    with client(server, "/ping/busy") as one:
        for number in range(50):
            one.send(str(number))
        answered = one.ping("midst")
        assert [one.recv(TIMEOUT) for _ in range(50)] == [str(number) for number in range(50)]
        assert answered.wait(TIMEOUT)


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_close_is_answered_with_its_code(server: ServerProcess, code: int) -> None:
    with client(server, "/close") as one:
        one.close(code, "going")
        assert one.protocol.close_rcvd is not None
        assert one.protocol.close_rcvd.code == code
        expected = ConnectionClosedOK if code in (1000, 1001) else ConnectionClosedError
        with pytest.raises(expected):
            one.recv(TIMEOUT)


def test_many_channels_keep_to_themselves(server: ServerProcess) -> None:
    channels = [f"/many/{number}" for number in range(60)]
    with ExitStack() as stack:
        members = {
            channel: [stack.enter_context(client(server, channel)) for _ in range(3)] for channel in channels
        }
        for channel in channels:
            members[channel][0].send(f"first in {channel}")
        for channel in reversed(channels):
            members[channel][1].send(f"last in {channel}")
        for channel, receivers in members.items():
            for receiver in receivers:
                # The last message was published later, so nothing of another channel can hide behind it.
                assert {receiver.recv(TIMEOUT), receiver.recv(TIMEOUT)} == {
                    f"first in {channel}",
                    f"last in {channel}",
                }


def test_reader_that_left_does_not_hold_up_the_rest(server: ServerProcess) -> None:
    with client(server, "/leaving") as stays:
        for number in range(30):
            with client(server, "/leaving") as visitor:
                visitor.send(f"visit {number}")
                assert visitor.recv(TIMEOUT) == f"visit {number}"
        assert [stays.recv(TIMEOUT) for _ in range(30)] == [f"visit {number}" for number in range(30)]


def test_subprotocol_is_negotiated() -> None:
    with (
        running("--subprotocol", "chat.v2", "--subprotocol", "chat.v1") as own,
        client(own, "/", subprotocols=("chat.v1", "chat.v2")) as both,
        client(own, "/", subprotocols=("chat.v1",)) as old,
        client(own, "/") as none,
    ):
        assert [one.subprotocol for one in (both, old, none)] == ["chat.v2", "chat.v1", None]


def test_refused_handshake_shows_its_status() -> None:
    with (
        running("--origin", "https://good.example") as own,
        pytest.raises(InvalidStatus) as refused,
        client(own, "/"),
    ):
        pass
    assert refused.value.response.status_code == 403


def test_shutdown_is_seen_as_going_away() -> None:
    with running() as own, client(own, "/") as one:
        own.stop()
        with pytest.raises(ConnectionClosedOK) as closed:
            one.recv(TIMEOUT)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
