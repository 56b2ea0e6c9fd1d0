"""What a row of the conformance table says. See README.md in this directory for how to read one."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, close_payload, frame

MAX_MESSAGE = 131072
"""The server's --max-message in the table's runs, in bytes: above 65,535, so that a message may need the
64-bit length, and small enough to send many."""

OPEN = 0
"""The connection is still open, and in step, after the row."""

NO_STATUS = 1005
"""The server sends a Close frame without a code (7.1.5)."""

ABNORMAL = 1006
"""The server ends the TCP connection without a Close frame (7.1.5)."""

CLOSE_IN_MESSAGE = (
    "counts a Close inside a fragmented message as a protocol error (1002), though 5.4 allows it there"
)


@dataclass(frozen=True)
class Case:
    """One row: what a client sends, and what must come of it."""

    section: str
    """The section of RFC 6455 that decides."""
    name: str
    """What the row shows, as a sentence about the server."""
    chunks: tuple[bytes, ...]
    """What the client sends, usually one frame per chunk."""
    delivers: tuple[Frame, ...] = ()
    """The messages that every client of the channel must receive: these, in this order, nothing else."""
    pongs: tuple[bytes, ...] = ()
    """The payloads of the Pings to be answered, in order. 5.5.3 lets a server skip all but the last."""
    closes: int = OPEN
    """The close code that the client must see (7.1.5), or OPEN."""
    half_close: bool = False
    """Whether the client ends its direction of the TCP connection after the chunks."""
    differs: str = ""
    """Why the `websockets` library comes to another result, where it does."""

    def __str__(self) -> str:
        return f"{self.section} {self.name}"


def text(payload: bytes | str = b"", *, fin: bool = True) -> bytes:
    """A text frame; `fin=False` starts a fragmented message."""
    return frame(TEXT, payload.encode() if isinstance(payload, str) else payload, fin=fin)


def binary(payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A binary frame; `fin=False` starts a fragmented message."""
    return frame(BINARY, payload, fin=fin)


def more(payload: bytes = b"") -> bytes:
    """A continuation frame that is not the last one."""
    return frame(CONTINUATION, payload, fin=False)


def last(payload: bytes = b"") -> bytes:
    """The final continuation frame of a message."""
    return frame(CONTINUATION, payload)


def ping(payload: bytes = b"") -> bytes:
    """A Ping frame."""
    return frame(PING, payload)


def pong(payload: bytes = b"") -> bytes:
    """A Pong frame."""
    return frame(PONG, payload)


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    """A Close frame; without a code its payload is empty."""
    return frame(CLOSE, b"" if code is None else close_payload(code, reason))


def as_text(payload: bytes | str) -> Frame:
    """A text message as it must arrive."""
    return Frame(TEXT, payload.encode() if isinstance(payload, str) else payload)


def as_binary(payload: bytes) -> Frame:
    """A binary message as it must arrive."""
    return Frame(BINARY, payload)
