"""A second opinion on a row: what the `websockets` library's server makes of the same bytes.

Its sans-I/O protocol leaves the text of a message unchecked; the library's connections decode it when the
message is complete and fail with 1007. So does this module.
"""

from __future__ import annotations

from dataclasses import dataclass

from websockets.frames import Frame as LibraryFrame
from websockets.frames import Opcode
from websockets.protocol import OPEN as STATE_OPEN
from websockets.server import ServerProtocol

from tests.conformance.case import ABNORMAL, MAX_MESSAGE, OPEN, Case
from tests.support.wire import CLOSE, PONG, TEXT, Frame, close_code, read_frame


@dataclass(frozen=True)
class Opinion:
    """What came of a row; the fields are those of `Case`."""

    delivers: tuple[Frame, ...]
    pongs: tuple[bytes, ...]
    closes: int


def second_opinion(case: Case) -> Opinion:
    """Run a row through the library."""
    protocol = ServerProtocol(state=STATE_OPEN, max_size=MAX_MESSAGE)
    delivered: list[Frame] = []
    fragments: list[LibraryFrame] = []
    for chunk in case.chunks:
        protocol.receive_data(chunk)
        for event in protocol.events_received():
            assert isinstance(event, LibraryFrame)
            if event.opcode not in (Opcode.CONT, Opcode.TEXT, Opcode.BINARY):
                continue
            fragments.append(event)
            if event.fin:
                message = Frame(fragments[0].opcode, b"".join(bytes(part.data) for part in fragments))
                fragments.clear()
                if message.opcode == TEXT and not is_utf8(message.payload):
                    protocol.fail(1007)
                else:
                    delivered.append(message)
    if case.half_close:
        protocol.receive_eof()
    sent = parse(b"".join(protocol.data_to_send()))
    closes = [close_code(frame) for frame in sent if frame.opcode == CLOSE]
    ended = closes[0] if closes else ABNORMAL if protocol.eof_sent or case.half_close else OPEN
    return Opinion(tuple(delivered), tuple(frame.payload for frame in sent if frame.opcode == PONG), ended)


def is_utf8(payload: bytes) -> bool:
    """Whether Python's own strict decoder accepts the bytes."""
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def parse(written: bytes) -> list[Frame]:
    """Take apart what a server wrote."""
    rest = memoryview(written)

    def read(size: int) -> bytes:
        nonlocal rest
        if len(rest) < size:
            raise EOFError
        data, rest = bytes(rest[:size]), rest[size:]
        return data

    frames = []
    while rest:
        frames.append(read_frame(read))
    return frames
