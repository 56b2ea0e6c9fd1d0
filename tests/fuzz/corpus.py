"""Makes the corpus files that have a name: one small input for each thing that the parsers tell apart."""

from __future__ import annotations

import sys
from pathlib import Path

MASK = bytes([0x37, 0xFA, 0x21, 0x3D])
TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A client's frame (RFC 6455 section 5.2), its length in as few bytes as possible."""
    n = len(payload)
    if n <= 125:
        length = bytes([0x80 | n])
    elif n <= 65535:
        length = bytes([0xFE]) + n.to_bytes(2, "big")
    else:
        length = bytes([0xFF]) + n.to_bytes(8, "big")
    masked = bytes(byte ^ MASK[i % 4] for i, byte in enumerate(payload))
    return bytes([opcode | (0x80 if fin else 0)]) + length + MASK + masked


INBOUND = {
    "text": frame(TEXT, b"hello"),
    "text-not-ascii": frame(
        TEXT, "h\u00e9llo \u20ac \U0001f600 and some more text to fill a vector \u00e9\u00e8".encode()
    ),
    "empty": frame(TEXT) + frame(BINARY),
    "binary-16-bit-length": frame(BINARY, bytes(range(200))),
    "fragments": frame(TEXT, b"one ", fin=False)
    + frame(CONTINUATION, b"two ", fin=False)
    + frame(CONTINUATION, b"three"),
    "fragments-with-control": frame(TEXT, b"a", fin=False) + frame(PING, b"ping") + frame(CONTINUATION, b"b"),
    "character-cut": frame(TEXT, b"\xf0\x9f", fin=False) + frame(CONTINUATION, b"\x98\x80"),
    "ping-pong": frame(PING, b"x" * 125) + frame(PONG, b"y"),
    "close": frame(CLOSE, b"\x03\xe8bye"),
    "close-empty": frame(CLOSE),
    "close-half-a-code": frame(CLOSE, b"\x03"),
    "close-code-reserved": frame(CLOSE, b"\x03\xed"),
    "close-reason-no-text": frame(CLOSE, b"\x03\xe8\xff"),
    "no-text": frame(TEXT, b"ok \xff"),
    "text-ends-in-character": frame(TEXT, b"\xe2\x82"),
    "surrogate": frame(TEXT, b"\xed\xa0\x80"),
    "not-masked": b"\x81\x05hello",
    "reserved-bit": b"\xc1\x80" + MASK,
    "reserved-opcode": b"\x83\x80" + MASK,
    "ping-fragment": frame(PING, fin=False),
    "ping-too-long": b"\x89\xfe\x00\x7e" + MASK,
    "continuation-of-nothing": frame(CONTINUATION, b"x"),
    "message-amid-fragments": frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
    "length-16-bit-too-short": b"\x81\xfe\x00\x7d" + MASK,
    "length-64-bit-too-short": b"\x81\xff" + (65535).to_bytes(8, "big") + MASK,
    "length-highest-bit": b"\x81\xff\x80" + bytes(7) + MASK,
    "too-big": b"\x82\xff" + (1 << 40).to_bytes(8, "big") + MASK,
}

HEAD = {
    "crlf": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "lf": b"GET / HTTP/1.1\nHost: a\n\n",
    "mixed": b"GET / HTTP/1.1\r\n\nmore",
    "frames-behind": b"GET /a HTTP/1.1\r\n\r\n" + frame(TEXT, b"early"),
    "empty-lines-first": b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "cr-alone": b"GET / HTTP/1.1\r\r\n\r \n\r\r\n\n",
    "not-complete": b"GET / HTTP/1.1\r\nHost: a\r\n",
    "no-http": b"\x16\x03\x01\x02\x00\x01",
    "only-lines": b"\r\n\r\n\n\n\r",
}


def main(directory: Path) -> None:
    for name, content in INBOUND.items():
        limit, chunks = 16, len(name)
        (directory / "inbound" / name).write_bytes(bytes([limit, chunks]) + content)
    for name, content in HEAD.items():
        (directory / "head" / name).write_bytes(bytes([len(name)]) + content)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "corpus")
