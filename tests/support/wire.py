"""A WebSocket client that sends exactly the bytes a test wants, right or wrong.

Blocking sockets with one time-out, nothing in the background: what a test reads is what the server wrote.
Outgoing frames are built byte by byte (`frame`), so they can break any rule of RFC 6455. Incoming frames are
held to every rule that binds a server (5.1, 5.2, 5.5): `Violation` is raised for one that breaks a rule,
whatever the test was about.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

TIMEOUT = float(os.environ.get("FASTCAST_TEST_TIMEOUT", "10"))
"""Seconds that any single wait in a test may take; raise it on slow machines and under sanitizers."""

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

MASK = b"\xa5\x1b\x80\x7f"
"""A fixed masking key, so that a failing row is the same bytes every time. All four bytes differ and have
different high bits, so a key applied at the wrong offset shows in text and in binary."""

MAX_HEAD = 65536
MAX_FRAMES = 100_000

Address = tuple[str, int]

T = TypeVar("T")


class Violation(AssertionError):
    """The server wrote something that RFC 6455 or RFC 9112 forbids."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as received: opcode, whole payload, FIN bit."""

    opcode: int
    payload: bytes = b""
    fin: bool = True

    @property
    def is_control(self) -> bool:
        """Whether the frame is a Close, Ping or Pong (5.5: opcodes with the high bit set)."""
        return bool(self.opcode & 0x8)


def apply_mask(key: bytes, payload: bytes) -> bytes:
    """Mask or unmask (5.3); the two are the same operation."""
    if not payload:
        return b""
    size = len(payload)
    stream = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(stream)).to_bytes(size)


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    length_bits: int | None = None,
    declared: int | None = None,
) -> bytes:
    """Build a frame.

    `rsv` is the three reserved bits as a number (4 is RSV1). `mask=None` leaves the frame unmasked.
    `length_bits` is 7, 16 or 64 and picks the length's encoding, by default the shortest. `declared` is the
    length that the header tells when it isn't the payload's own: the way to send a frame's header and only
    the beginning of its payload.
    """
    length = len(payload) if declared is None else declared
    if length_bits is None:
        length_bits = 7 if length < 126 else 16 if length < 65536 else 64
    first = fin << 7 | rsv << 4 | opcode
    masked = 0x80 if mask is not None else 0
    if length_bits == 7:
        head = struct.pack("!BB", first, masked | length)
    elif length_bits == 16:
        head = struct.pack("!BBH", first, masked | 126, length)
    else:
        head = struct.pack("!BBQ", first, masked | 127, length)
    if mask is None:
        return head + payload
    return head + mask + apply_mask(mask, payload)


def close_payload(code: int, reason: bytes = b"") -> bytes:
    """The payload of a Close frame (5.5.1): a code in network byte order, then the reason."""
    return struct.pack("!H", code) + reason


def close_code(received: Frame) -> int:
    """The connection close code that a received Close frame stands for (7.1.5); 1005 when it carries none."""
    if not received.payload:
        return 1005
    if len(received.payload) == 1:
        raise Violation("Close frame with a payload of one byte")
    received.payload[2:].decode("utf-8")
    return int(struct.unpack_from("!H", received.payload)[0])


def read_frame(read: Callable[[int], bytes]) -> Frame:
    """Parse one frame of a server through `read(n)`, which returns exactly n bytes or raises EOFError.

    Raises Violation for what a server must not send: RSV bits (no extension is negotiated), reserved
    opcodes, a mask, a length that is not in its shortest encoding, a long or fragmented control frame.
    """
    first, second = read(2)
    opcode, fin = first & 0x0F, bool(first & 0x80)
    if first & 0x70:
        raise Violation(f"reserved bits set in {first:#04x}")
    if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        raise Violation(f"reserved opcode {opcode:#x}")
    if second & 0x80:
        raise Violation("a server must not mask")
    length = second
    if length == 126:
        length = int.from_bytes(read(2))
        if length < 126:
            raise Violation(f"length {length} in 16 bits")
    elif length == 127:
        length = int.from_bytes(read(8))
        if not 65536 <= length < 1 << 63:
            raise Violation(f"length {length} in 64 bits")
    if opcode & 0x8 and (length > 125 or not fin):
        raise Violation("control frame long or fragmented")
    return Frame(opcode, read(length), fin)


def accept_value(key: str) -> str:
    """The Sec-WebSocket-Accept that answers a Sec-WebSocket-Key (4.2.2)."""
    digest = hashlib.sha1(key.encode("ascii") + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return base64.b64encode(digest).decode("ascii")


def upgrade_request(
    target: str = "/", *, host: str = "localhost", key: str = "", headers: Sequence[tuple[str, str]] = ()
) -> bytes:
    """The smallest correct upgrade request, with `headers` appended."""
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key or base64.b64encode(os.urandom(16)).decode('ascii')}",
        "Sec-WebSocket-Version: 13",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@dataclass(frozen=True, slots=True)
class Head:
    """A response's status line and header section; `headers` has lower-case names in the order received."""

    status: int
    headers: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str | None:
        """The value of a header, or None. Raises Violation when the header is repeated."""
        values = [value for key, value in self.headers if key == name.lower()]
        if len(values) > 1:
            raise Violation(f"{name} occurs {len(values)} times")
        return values[0] if values else None


def parse_head(raw: bytes) -> Head:
    """Parse a response head, through its final empty line. Raises Violation when it is not one (RFC 9112)."""
    try:
        status_line, *lines = raw.removesuffix(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status, _reason = status_line.split(" ", 2)
        if version != "HTTP/1.1":
            raise ValueError(version)
        fields = []
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name or name.strip() != name or "\r" in line or "\n" in line:
                raise ValueError(line)
            fields.append((name.lower(), value.strip(" \t")))
        return Head(int(status), tuple(fields))
    except ValueError as error:
        raise Violation(f"malformed response head: {error}: {raw!r}") from None


class Refused(Exception):
    """The server turned the opening handshake down; `head` is what it said."""

    def __init__(self, head: Head) -> None:
        super().__init__(f"handshake refused with {head.status}")
        self.head = head


class Stream:
    """A TCP connection with buffered, timed, exact reads. A context manager; leaving it closes the socket."""

    def __init__(self, address: Address, *, receive_buffer: int | None = None) -> None:
        """Connect. `receive_buffer` is SO_RCVBUF in bytes, set early enough to bound the window."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(TIMEOUT)
            # Without this, Nagle's algorithm would join the pieces that a test takes care to send apart.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if receive_buffer is not None:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self._socket.connect(address)
        except BaseException:
            self._socket.close()
            raise
        self._buffer = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()

    def send(self, *pieces: bytes) -> None:
        """Send each piece with a call of its own."""
        for piece in pieces:
            self._socket.sendall(piece)

    def send_while_open(self, pieces: Iterable[bytes]) -> None:
        """Send pieces until the peer refuses more. For tests whose peer is right to close half-way."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send(*pieces)

    def half_close(self) -> None:
        """End the outgoing direction (FIN) and keep reading."""
        self._socket.shutdown(socket.SHUT_WR)

    def drop(self) -> None:
        """Close the socket without a word."""
        self._socket.close()

    def reset(self) -> None:
        """Close the socket with a RST instead of a FIN."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def read_exactly(self, size: int) -> bytes:
        """Return exactly `size` bytes. Raises EOFError, TimeoutError, ConnectionResetError."""
        while len(self._buffer) < size:
            self._fill()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def read_head(self) -> Head:
        """Read and parse a response's head; what follows it stays in the buffer."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise Violation("endless response head")
            self._fill()
        return parse_head(self.read_exactly(end + 4))

    def read_rest(self) -> bytes:
        """Return everything up to the peer's end of stream."""
        with contextlib.suppress(EOFError):
            while True:
                self._fill()
        return self.read_exactly(len(self._buffer))

    def at_end(self) -> bool:
        """Wait for the next byte or the end of the stream; True at the end."""
        try:
            while not self._buffer:
                self._fill()
        except EOFError:
            return True
        return False

    def at_end_or_reset(self) -> bool:
        """Like `at_end`, with a reset by the peer counted as an end."""
        try:
            return self.at_end()
        except ConnectionResetError:
            return True

    def _fill(self) -> None:
        data = self._socket.recv(1 << 18)
        if not data:
            raise EOFError("end of stream")
        self._buffer += data


class Client(Stream):
    """An open WebSocket connection."""

    def __init__(
        self,
        address: Address,
        channel: str = "/",
        *,
        headers: Sequence[tuple[str, str]] = (),
        early: bytes = b"",
        receive_buffer: int | None = None,
    ) -> None:
        """Connect and shake hands. `early` is sent in one piece with the request, before the answer is known.

        Raises Refused when the server answers with anything but 101.
        """
        super().__init__(address, receive_buffer=receive_buffer)
        try:
            key = base64.b64encode(os.urandom(16)).decode("ascii")
            self.send(upgrade_request(channel, key=key, headers=headers) + early)
            self.response = self.read_head()
            if self.response.status != 101:
                raise Refused(self.response)
            if self.response.get("sec-websocket-accept") != accept_value(key):
                raise Violation("wrong Sec-WebSocket-Accept")
        except BaseException:
            self.drop()
            raise

    def read_frame(self) -> Frame:
        """Read the next frame. Raises EOFError at the end of the stream, Violation for a wrong frame."""
        return read_frame(self.read_exactly)

    def frames(self, *, reset: bool = False) -> Iterator[Frame]:
        """Yield frames until the end of the stream. Raises Violation when the stream ends inside a frame or
        when anything follows a Close (5.5.1).

        A reset is an error, unless `reset` says that the test gives the server a reason for one.
        """
        end = self.at_end_or_reset if reset else self.at_end
        for _ in range(MAX_FRAMES):
            if end():
                return
            try:
                received = self.read_frame()
            except EOFError:
                raise Violation("the stream ends inside a frame") from None
            yield received
            if received.opcode == CLOSE:
                if not end():
                    raise Violation("bytes after a Close frame")
                return
        raise Violation("endless stream of frames")

    def read_message(self) -> Frame:
        """Read frames until a text or binary message; Pings and Pongs are passed over.

        Raises Violation for a fragment: fastcast does not fragment what it sends.
        """
        for _ in range(MAX_FRAMES):
            received = self.read_frame()
            if received.opcode in (TEXT, BINARY) and received.fin:
                return received
            if received.opcode not in (PING, PONG):
                raise Violation(f"a message expected, not {received}")
        raise Violation("endless stream of control frames")

    def close(self, code: int = 1000) -> None:
        """Do the closing handshake (7.1.2) and check it: the same code comes back, then the stream ends.

        Data frames that were on their way are discarded.
        """
        self.send(frame(CLOSE, close_payload(code)))
        received = list(self.frames())
        if not received or received[-1] != Frame(CLOSE, close_payload(code)):
            raise Violation(f"Close {code} was answered with {received[-1:]}")
        self.drop()


def until(attempt: Callable[[], T | None], what: str) -> T:
    """Repeat `attempt` until it gives something else than None, and return that.

    Raises TimeoutError naming `what` after TIMEOUT seconds.
    """
    deadline = time.monotonic() + TIMEOUT
    while (result := attempt()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"still waiting for {what}")
        time.sleep(0.005)
    return result
