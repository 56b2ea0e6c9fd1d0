"""Many clients in one thread, each of whose messages is compared with what all the others got.

A swarm's clients are members of one channel. The channel's messages have one order, so that one list of them
is enough to hold every client to: the first client to get its n-th message writes down what the n-th message
is, and every other one must get the same.

``python -m tests.support.swarm`` is a swarm in a process of its own; see `SwarmProcess`.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import resource
import secrets
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from tests.support.wire import (
    CLOSE,
    PING,
    PONG,
    TIMEOUT,
    Address,
    Frame,
    Violation,
    accept_value,
    frame,
    parse_head,
    read_frame,
    upgrade_request,
)

PER_SOURCE = 1000
"""Connections from one source address to one port; with more, the kernel's search for a free port shows."""

HANDSHAKES = 200
"""Handshakes that are under way at a time: below any listener's backlog."""

IP_BIND_ADDRESS_NO_PORT = 24  # not in the socket module before Python 3.12


def _sources() -> Iterator[str]:
    """Loopback addresses, each as often as it may be used.

    They are in a network of their own in each run: sockets in TIME_WAIT, which the last run left, would be in
    the way.
    """
    network, start = 64 + secrets.randbelow(190), secrets.randbelow(65536)
    for number in itertools.count():
        third, fourth = divmod((start + number // PER_SOURCE) % 65536, 256)
        yield f"127.{network}.{third}.{fourth}"


_SOURCES = _sources()


def allow_descriptors() -> None:
    """Use all the fds that the hard limit gives."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connect(address: Address) -> socket.socket:
    """A blocking socket that is connected to an IPv4 loopback address, from one of many source addresses."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        opened.settimeout(TIMEOUT)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        opened.bind((next(_SOURCES), 0))
        opened.connect(address)
    except BaseException:
        opened.close()
        raise
    return opened


class Member:
    """One client of a swarm."""

    __slots__ = ("buffer", "close", "ended", "messages", "outgoing", "socket")

    def __init__(self, opened: socket.socket) -> None:
        self.socket = opened
        self.buffer = bytearray()
        self.outgoing = bytearray()
        self.messages = 0
        """How many it got."""
        self.close: Frame | None = None
        self.ended = False
        """Whether its stream has, after a Close; nothing else ends it without an error."""


class _Cursor:
    """Reads a buffer for `read_frame`; EOFError while a frame isn't complete."""

    __slots__ = ("at", "buffer")

    def __init__(self, buffer: bytearray) -> None:
        self.buffer = buffer
        self.at = 0

    def read(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.buffer):
            raise EOFError
        data = bytes(self.buffer[self.at : end])
        self.at = end
        return data


class Swarm:
    """Open clients of one channel; a context manager that closes their sockets without a word.

    They answer Pings and Closes while one of the methods runs.
    """

    def __init__(self, address: Address, size: int, channel: str = "/") -> None:
        """Connect all. Raises Violation when a handshake isn't answered with 101."""
        self.sequence: list[Frame] = []
        """The channel's messages, as far as any of the clients has got them."""
        self.members: list[Member] = []
        self._poll = select.epoll()
        try:
            while len(self.members) < size:
                self._open(address, channel, min(HANDSHAKES, size - len(self.members)))
        except BaseException:
            self.drop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()

    def drop(self) -> None:
        """Close all sockets."""
        for member in self.members:
            member.socket.close()
        self._poll.close()

    @property
    def received(self) -> int:
        """How many messages every client has got."""
        return min(member.messages for member in self.members)

    def send(self, number: int, *frames: bytes) -> None:
        """Have a client send frames, as fast as the server takes them while one of the other methods runs."""
        member = self.members[number]
        member.outgoing += b"".join(frames)
        self._watch(member, number)

    def receive(self, total: int) -> None:
        """Go on until every client has got `total` messages since it connected, and all is sent.

        Raises AssertionError for a client whose messages aren't those of the others, who gets more than
        `total`, or who is closed; TimeoutError if nothing comes for TIMEOUT seconds.
        """
        self._run(lambda: self.received >= total and not any(member.outgoing for member in self.members))
        assert [member for member in self.members if member.messages != total] == []

    def receive_while(self, busy: Callable[[], bool]) -> None:
        """Go on for as long as `busy()` is true."""
        self._run(lambda: not busy(), idle=0.005)

    def await_close(self, payload: bytes) -> None:
        """Go on until every client's stream has ended after a Close with this payload."""
        self._run(lambda: all(member.ended for member in self.members), may_end=True)
        assert {member.close for member in self.members} == {Frame(CLOSE, payload)}

    def _open(self, address: Address, channel: str, count: int) -> None:
        key = base64.b64encode(os.urandom(16)).decode("ascii")
        request, proof = upgrade_request(channel, key=key), accept_value(key)
        new = []
        for _ in range(count):
            member = Member(connect(address))
            self.members.append(member)
            new.append(member)
            member.socket.sendall(request)
        for number, member in enumerate(new, len(self.members) - count):
            while (end := member.buffer.find(b"\r\n\r\n")) < 0:
                data = member.socket.recv(65536)
                if not data:
                    raise Violation(f"the stream ends in a response head: {member.buffer!r}")
                member.buffer += data
            head = parse_head(bytes(member.buffer[: end + 4]))
            if head.status != 101 or head.get("sec-websocket-accept") != proof:
                raise Violation(f"the handshake was answered with {head}")
            del member.buffer[: end + 4]
            self._take(member)
            member.socket.setblocking(False)
            self._poll.register(member.socket, select.EPOLLIN)
            self._watch(member, number)

    def _run(self, done: Callable[[], bool], *, may_end: bool = False, idle: float | None = None) -> None:
        numbers = {member.socket.fileno(): number for number, member in enumerate(self.members)}
        heard = time.monotonic()
        while not done():
            events = self._poll.poll(TIMEOUT if idle is None else idle, len(self.members))
            now = time.monotonic()
            if events:
                heard = now
            elif now - heard >= TIMEOUT:
                raise TimeoutError(
                    f"silence; some got {len(self.sequence)} messages, some only {self.received}"
                )
            for fd, event in events:
                member = self.members[numbers[fd]]
                if event & select.EPOLLOUT:
                    self._write(member)
                if event & ~select.EPOLLOUT:
                    self._read(member)
                if member.ended and not may_end:
                    raise AssertionError(f"client {numbers[fd]} was closed: {member.close}")
                self._watch(member, numbers[fd])

    def _watch(self, member: Member, number: int) -> None:
        if member.ended:
            return
        self._poll.modify(member.socket, select.EPOLLIN | (select.EPOLLOUT if member.outgoing else 0))

    def _write(self, member: Member) -> None:
        try:
            sent = member.socket.send(memoryview(member.outgoing)[: 1 << 18])
        except BlockingIOError:
            return
        del member.outgoing[:sent]

    def _read(self, member: Member) -> None:
        try:
            data = member.socket.recv(1 << 18)
        except BlockingIOError:
            return
        if data:
            member.buffer += data
            self._take(member)
            return
        if member.close is None or member.buffer:
            raise Violation(
                f"the stream ends after {member.messages} messages and {len(member.buffer)} bytes"
            )
        member.ended = True
        self._poll.unregister(member.socket)
        member.socket.shutdown(socket.SHUT_WR)

    def _take(self, member: Member) -> None:
        """Take all complete frames from a client's buffer."""
        cursor = _Cursor(member.buffer)
        taken = 0
        while True:
            try:
                received = read_frame(cursor.read)
            except EOFError:
                break
            taken = cursor.at
            if member.close is not None:
                raise Violation(f"{received} after a Close")
            if not received.is_control:
                self._compare(member, received)
            elif received.opcode == PING:
                member.outgoing += frame(PONG, received.payload)
            elif received.opcode == CLOSE:
                member.close = received
                member.outgoing += frame(CLOSE, received.payload)
        del member.buffer[:taken]

    def _compare(self, member: Member, received: Frame) -> None:
        if member.messages == len(self.sequence):
            self.sequence.append(received)
        elif self.sequence[member.messages] != received:
            raise AssertionError(
                f"message {member.messages} is {received!r:.200} for one client"
                f" and {self.sequence[member.messages]!r:.200} for others"
            )
        member.messages += 1


def digest(messages: Sequence[Frame]) -> str:
    """A number for a sequence of messages: opcodes, lengths, payloads, order."""
    total = hashlib.sha256()
    for message in messages:
        total.update(b"%d %d %d\n" % (message.opcode, message.fin, len(message.payload)))
        total.update(message.payload)
    return total.hexdigest()


class SwarmProcess:
    """A swarm in a process of its own: more fds, and another interpreter. A context manager that ends it."""

    def __init__(self, address: Address, size: int, channel: str = "/") -> None:
        """Begin to connect; `await_open` waits for the end of that."""
        host, port = address
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.swarm", host, str(port), str(size), channel],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.kill()
        self._process.communicate()
        assert error is not None or self._process.returncode == 0

    def await_open(self) -> None:
        """Wait until all clients are open. Raises AssertionError if one can't be; why is on stderr."""
        assert self._read_line() == "open"

    def expect(self, messages: Sequence[Frame]) -> None:
        """Have every client read until it has got these messages, since it connected, and no others."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{len(messages)}\n")
        self._process.stdin.flush()
        assert self._read_line() == digest(messages)

    def _read_line(self) -> str:
        # Bounded there and not here: every wait of the process has a time-out, and its end ends the line.
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def main() -> None:
    """Arguments: HOST PORT SIZE CHANNEL.

    Says "open"; for each line with a number of messages, reads them and says their digest; ends with its
    standard input.
    """
    host, port, size, channel = sys.argv[1:]
    allow_descriptors()
    with Swarm((host, int(port)), int(size), channel) as swarm:
        print("open", flush=True)
        for line in sys.stdin:
            swarm.receive(int(line))
            print(digest(swarm.sequence), flush=True)


if __name__ == "__main__":
    main()
