"""Rows for RFC 6455, 5.1 to 5.5, 6.2 and 10.4: frames, masking, lengths, fragments, Ping and Pong."""

from __future__ import annotations

from tests.conformance.case import (
    ABNORMAL,
    CLOSE_IN_MESSAGE,
    MAX_MESSAGE,
    Case,
    as_binary,
    as_text,
    binary,
    close,
    last,
    more,
    ping,
    pong,
    text,
)
from tests.support.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame

LENGTHS_UNCHECKED = "does not check that a length is in its shortest encoding"
LENGTH_IS_SIZE = "reads a length with the top bit set as a number and finds the message too big (1009)"

# Every byte value, and a length that no masking key divides.
ALL_BYTES = bytes(range(256)) + b"\x00\xff\x80"


def pattern(size: int) -> bytes:
    """`size` bytes of a sequence with a long period, so that a lost or moved piece shows."""
    block = bytes(i * i % 251 for i in range(4093))
    return (block * (size // len(block) + 1))[:size]


MASKING = [
    Case(
        "5.1", "an unmasked text frame fails the connection", (frame(TEXT, b"bare", mask=None),), closes=1002
    ),
    Case(
        "5.1",
        "an unmasked binary frame fails the connection",
        (frame(BINARY, b"\1", mask=None),),
        closes=1002,
    ),
    Case("5.1", "an unmasked empty frame fails the connection", (frame(TEXT, mask=None),), closes=1002),
    Case(
        "5.1",
        "an unmasked Ping fails the connection and gets no Pong",
        (frame(PING, b"p", mask=None),),
        closes=1002,
    ),
    Case("5.1", "an unmasked Pong fails the connection", (frame(PONG, mask=None),), closes=1002),
    Case(
        "5.1",
        "an unmasked Close fails the connection and is not echoed",
        (frame(CLOSE, b"\x03\xe8", mask=None),),
        closes=1002,
    ),
    Case(
        "5.1",
        "an unmasked continuation fails the connection and the message is lost",
        (text("a", fin=False), frame(CONTINUATION, b"b", mask=None)),
        closes=1002,
    ),
    Case(
        "5.1",
        "an unmasked frame after a good one fails the connection, the good one is delivered",
        (text("good"), frame(TEXT, b"bad", mask=None)),
        delivers=(as_text("good"),),
        closes=1002,
    ),
    Case("5.1", "an unmasked frame is refused by its header alone", (b"\x81\x7d",), closes=1002),
    Case(
        "5.3",
        "a masking key of zeros masks nothing",
        (frame(TEXT, b"plain", mask=bytes(4)),),
        (as_text("plain"),),
    ),
    Case(
        "5.3",
        "each frame is unmasked with its own key",
        (
            frame(TEXT, b"one", mask=b"\x01\x02\x03\x04"),
            frame(TEXT, b"two", mask=b"\xff\xfe\xfd\xfc"),
            frame(TEXT, b"three", mask=b"\x80\x00\x7f\xff"),
        ),
        (as_text("one"), as_text("two"), as_text("three")),
    ),
    Case(
        "5.3",
        "each fragment is unmasked from its own first byte",
        (
            frame(BINARY, ALL_BYTES[:5], fin=False, mask=b"\x11\x22\x33\x44"),
            frame(CONTINUATION, ALL_BYTES[5:12], fin=False, mask=b"\x88\x77\x66\x55"),
            frame(CONTINUATION, ALL_BYTES[12:], mask=b"\xf0\x0f\xaa\x55"),
        ),
        (as_binary(ALL_BYTES),),
    ),
    *(
        Case(
            "5.3",
            f"a payload of {size} bytes is unmasked whole",
            (binary(ALL_BYTES[:size]),),
            (as_binary(ALL_BYTES[:size]),),
        )
        for size in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65)
    ),
    Case(
        "5.6",
        "every byte value passes through a binary message",
        (binary(ALL_BYTES),),
        (as_binary(ALL_BYTES),),
    ),
]

BITS_AND_OPCODES = [
    *(
        Case(
            "5.2",
            f"reserved bits {rsv:03b} on a {kind} frame fail the connection",
            (frame(opcode, b"x", rsv=rsv),),
            closes=1002,
        )
        for rsv in range(1, 8)
        for kind, opcode in (("text", TEXT), ("Ping", PING))
    ),
    *(
        Case(
            "5.2",
            f"reserved bits {rsv:03b} on a {kind} frame fail the connection",
            (frame(opcode, rsv=rsv),),
            closes=1002,
        )
        for rsv in (4, 2, 1)
        for kind, opcode in (("binary", BINARY), ("Pong", PONG), ("Close", CLOSE))
    ),
    Case(
        "5.2",
        "a reserved bit on a continuation fails the connection",
        (text("a", fin=False), frame(CONTINUATION, b"b", rsv=4)),
        closes=1002,
    ),
    *(
        Case("5.2", f"opcode {opcode:#x} fails the connection", (frame(opcode),), closes=1002)
        for opcode in (0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF)
    ),
    Case(
        "5.2",
        "a reserved data opcode with a payload fails the connection",
        (frame(0x3, b"data"),),
        closes=1002,
    ),
    Case(
        "5.2",
        "a reserved control opcode with a payload fails the connection",
        (frame(0xB, b"data"),),
        closes=1002,
    ),
    Case(
        "5.2",
        "a reserved opcode inside a fragmented message fails the connection",
        (text("a", fin=False), frame(0x4, b"b"), last(b"c")),
        closes=1002,
    ),
    Case(
        "7.1.7",
        "nothing after a failing frame is processed",
        (frame(0x3), text("too late"), ping(b"too late"), close(1000)),
        closes=1002,
    ),
    Case(
        "7.1.7",
        "what came before a failing frame is delivered",
        (text("first"), binary(b"second"), frame(0xF)),
        (as_text("first"), as_binary(b"second")),
        closes=1002,
    ),
]

LENGTHS = [
    *(
        Case(
            "5.2", f"{size} bytes of {kind} arrive unchanged", (frame(opcode, payload),), (deliver(payload),)
        )
        for size in (0, 1, 124, 125, 126, 127, 128, 255, 256, 65534, 65535, 65536, 65537)
        for kind, opcode, deliver, payload in (
            (
                "text",
                TEXT,
                as_text,
                b"abcdefghijklmnopqrstuvwxyz0123456789-" * (size // 37) + b"." * (size % 37),
            ),
            ("binary", BINARY, as_binary, pattern(size)),
        )
    ),
    *(
        Case(
            "5.2",
            f"length {size} in {bits} bits is not the shortest encoding and fails the connection",
            (frame(BINARY, pattern(size), length_bits=bits),),
            closes=1002,
            differs=LENGTHS_UNCHECKED,
        )
        for size, bits in ((0, 16), (1, 16), (125, 16), (0, 64), (125, 64), (126, 64), (65535, 64))
    ),
    Case(
        "5.2",
        "a length with the top bit set fails the connection",
        (frame(BINARY, declared=1 << 63),),
        closes=1002,
        differs=LENGTH_IS_SIZE,
    ),
    Case(
        "5.2",
        "a length of all ones fails the connection",
        (frame(BINARY, declared=(1 << 64) - 1),),
        closes=1002,
        differs=LENGTH_IS_SIZE,
    ),
    Case(
        "5.2",
        "several frames in one segment are taken apart",
        (text("a"), text("b"), binary(b"c"), text(), text("d")),
        (as_text("a"), as_text("b"), as_binary(b"c"), as_text(""), as_text("d")),
    ),
    Case(
        "6.2",
        "a hundred small messages in one segment all arrive in order",
        tuple(text(f"{i:03}") for i in range(100)),
        tuple(as_text(f"{i:03}") for i in range(100)),
    ),
    Case(
        "7.1.1",
        "a frame cut off by the end of the stream delivers nothing",
        (text("whole"), text("cut off")[:-1]),
        (as_text("whole"),),
        closes=ABNORMAL,
        half_close=True,
    ),
    Case(
        "7.1.1",
        "a header cut off by the end of the stream delivers nothing",
        (b"\x81",),
        closes=ABNORMAL,
        half_close=True,
    ),
    Case(
        "7.1.1",
        "a fragmented message cut off by the end of the stream delivers nothing",
        (text("start", fin=False), more(b"more")),
        closes=ABNORMAL,
        half_close=True,
    ),
    Case(
        "7.1.1",
        "messages before an end of stream without Close are delivered",
        (text("one"), binary(b"two")),
        (as_text("one"), as_binary(b"two")),
        closes=ABNORMAL,
        half_close=True,
    ),
]

FRAGMENTS = [
    Case(
        "5.4",
        "a message in two fragments arrives whole",
        (text("Hel", fin=False), last(b"lo")),
        (as_text("Hello"),),
    ),
    Case(
        "5.4",
        "a binary message in four fragments arrives whole, as binary",
        (binary(b"\0\1", fin=False), more(b"\2"), more(b"\3\4\5"), last(b"\xff")),
        (as_binary(b"\0\1\2\3\4\5\xff"),),
    ),
    Case("5.4", "empty fragments are allowed", (text(fin=False), more(), more(), last()), (as_text(""),)),
    Case(
        "5.4",
        "empty fragments between others add nothing",
        (binary(fin=False), more(b"a"), more(), more(b"b"), last()),
        (as_binary(b"ab"),),
    ),
    Case(
        "5.4",
        "fifty fragments of one byte arrive as one message",
        (text("x", fin=False), *(more(b"x") for _ in range(48)), last(b"x")),
        (as_text("x" * 50),),
    ),
    Case(
        "5.4",
        "fragments with 16- and 64-bit lengths are joined",
        (binary(pattern(300), fin=False), more(pattern(65536)), last(pattern(126))),
        (as_binary(pattern(300) + pattern(65536) + pattern(126)),),
    ),
    Case(
        "5.4",
        "a fragmented message is followed by another one and by a whole one",
        (text("a", fin=False), last(b"b"), binary(b"c", fin=False), last(b"d"), text("e")),
        (as_text("ab"), as_binary(b"cd"), as_text("e")),
    ),
    Case(
        "5.4",
        "a Ping between fragments is answered before the message ends",
        (text("never ", fin=False), ping(b"now")),
        pongs=(b"now",),
    ),
    Case(
        "5.4",
        "Ping and Pong between fragments leave the message whole",
        (text("a", fin=False), ping(b"1"), more(b"b"), pong(b"2"), last(b"c"), text("d")),
        (as_text("abc"), as_text("d")),
        pongs=(b"1",),
    ),
    Case(
        "5.4",
        "a Close between fragments is echoed and the message is lost",
        (text("a", fin=False), close(1000)),
        closes=1000,
        differs=CLOSE_IN_MESSAGE,
    ),
    Case("5.4", "a continuation without a start fails the connection", (more(b"lost"),), closes=1002),
    Case("5.4", "a final continuation without a start fails the connection", (last(b"lost"),), closes=1002),
    Case("5.4", "an empty continuation without a start fails the connection", (last(),), closes=1002),
    Case(
        "5.4",
        "a continuation after a whole message fails the connection",
        (text("whole"), last(b"lost")),
        (as_text("whole"),),
        closes=1002,
    ),
    Case(
        "5.4",
        "a continuation after a finished fragmented message fails the connection",
        (text("a", fin=False), last(b"b"), last(b"c")),
        (as_text("ab"),),
        closes=1002,
    ),
    *(
        Case(
            "5.4",
            f"a {kind} frame {how} inside a fragmented message fails the connection",
            (text("a", fin=False), frame(opcode, b"b", fin=fin), last(b"c")),
            closes=1002,
        )
        for kind, opcode in (("text", TEXT), ("binary", BINARY))
        for how, fin in (("with FIN", True), ("without FIN", False))
    ),
]

CONTROL = [
    *(
        Case(
            "5.5", f"a fragmented {kind} fails the connection", (frame(opcode, b"", fin=False),), closes=1002
        )
        for kind, opcode in (("Ping", PING), ("Pong", PONG), ("Close", CLOSE))
    ),
    Case(
        "5.5",
        "a Ping continued by a final fragment fails the connection",
        (frame(PING, b"a", fin=False), last(b"b")),
        closes=1002,
    ),
    *(
        Case("5.5", f"a {kind} of 126 bytes fails the connection", (frame(opcode, payload),), closes=1002)
        for kind, opcode, payload in (
            ("Ping", PING, b"p" * 126),
            ("Pong", PONG, b"p" * 126),
            ("Close", CLOSE, b"\x03\xe8" + b"r" * 124),
        )
    ),
    Case("5.5", "a Ping of 65,536 bytes fails the connection", (frame(PING, bytes(65536)),), closes=1002),
    Case(
        "5.5",
        "a Ping that declares more than the message limit is a protocol error all the same",
        (frame(PING, declared=MAX_MESSAGE + 1),),
        closes=1002,
        differs="holds control frames to the message limit first (1009)",
    ),
    Case("5.5.2", "a Ping is answered with its payload", (ping(b"payload"),), pongs=(b"payload",)),
    Case("5.5.2", "an empty Ping is answered with an empty Pong", (ping(),), pongs=(b"",)),
    Case("5.5.2", "a Ping of 125 bytes is answered whole", (ping(pattern(125)),), pongs=(pattern(125),)),
    Case(
        "5.5.2",
        "a Ping's payload need not be text",
        (ping(b"\x00\xff\xfe\x80"),),
        pongs=(b"\x00\xff\xfe\x80",),
    ),
    Case(
        "5.5.2",
        "a Ping between messages is answered and disturbs neither",
        (text("before"), ping(b"p"), text("after")),
        (as_text("before"), as_text("after")),
        pongs=(b"p",),
    ),
    Case(
        "5.5.3",
        "of many Pings at least the last is answered",
        tuple(ping(b"%d" % i) for i in range(20)),
        pongs=tuple(b"%d" % i for i in range(20)),
    ),
    Case(
        "5.5.2",
        "a Ping after a Close gets no Pong",
        (close(1000), ping(b"late")),
        closes=1000,
    ),
    Case(
        "5.5.3", "an unsolicited Pong is not answered", (pong(b"nobody asked"), text("on")), (as_text("on"),)
    ),
    Case("5.5.3", "an unsolicited Pong of 125 bytes is not answered", (pong(pattern(125)),)),
    Case(
        "5.5.3",
        "an unsolicited empty Pong before a Ping changes nothing",
        (pong(), ping(b"p")),
        pongs=(b"p",),
    ),
]

LIMITS = [
    Case(
        "10.4",
        "a message of exactly the limit arrives",
        (binary(pattern(MAX_MESSAGE)),),
        (as_binary(pattern(MAX_MESSAGE)),),
    ),
    Case(
        "10.4",
        "fragments that add up to exactly the limit arrive",
        (binary(pattern(MAX_MESSAGE)[:-7], fin=False), more(pattern(MAX_MESSAGE)[-7:]), last()),
        (as_binary(pattern(MAX_MESSAGE)),),
    ),
    Case("10.4", "one byte above the limit is refused", (binary(bytes(MAX_MESSAGE + 1)),), closes=1009),
    Case(
        "10.4",
        "a message above the limit is refused by its header alone",
        (frame(TEXT, declared=MAX_MESSAGE + 1),),
        closes=1009,
    ),
    Case(
        "10.4",
        "the largest length that a frame can tell is refused as too big",
        (frame(BINARY, declared=(1 << 63) - 1),),
        closes=1009,
    ),
    Case(
        "10.4",
        "a length of 2 to the 32 is not taken modulo 32 bits",
        (frame(BINARY, declared=1 << 32),),
        closes=1009,
    ),
    Case(
        "10.4",
        "fragments that add up to one byte above the limit are refused by the last one's header",
        (binary(pattern(MAX_MESSAGE), fin=False), frame(CONTINUATION, declared=1)),
        closes=1009,
    ),
    Case(
        "10.4",
        "a fragment whose length would overflow the sum is refused",
        (binary(b"a", fin=False), frame(CONTINUATION, declared=(1 << 63) - 1)),
        closes=1009,
    ),
    Case(
        "10.4",
        "a message that is small in bytes is not refused for its number of fragments",
        (binary(b"a", fin=False), *(more() for _ in range(300)), last(b"b")),
        (as_binary(b"ab"),),
    ),
]

FRAMING_CASES = MASKING + BITS_AND_OPCODES + LENGTHS + FRAGMENTS + CONTROL + LIMITS
