"""Rows for RFC 6455, 5.5.1, 7.1 and 7.4: the closing handshake, begun by the client."""

from __future__ import annotations

from tests.conformance.case import CLOSE_IN_MESSAGE, NO_STATUS, Case, as_text, binary, close, last, ping, text
from tests.support.wire import CLOSE, frame

# 7.4.1 and the registry that 11.7 sets up: codes that an endpoint may put into a Close frame.
ALLOWED = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)

# 7.4.1: 1004 to 1006 and 1015 are never in a frame. 7.4.2: 0 to 999 are not used, 1016 to 2999 not assigned,
# and nothing is defined from 5000 on.
FORBIDDEN = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 9999, 65535)

CLOSING_CASES = [
    Case("5.5.1", "an empty Close is answered with an empty Close", (close(),), closes=NO_STATUS),
    *(
        Case("7.4", f"a Close with {code} is answered with {code}", (close(code),), closes=code)
        for code in ALLOWED
    ),
    *(
        Case("7.4", f"a Close with {code} fails the connection", (close(code),), closes=1002)
        for code in FORBIDDEN
    ),
    Case("7.4", "a forbidden code with a reason fails the connection", (close(1005, b"why"),), closes=1002),
    Case(
        "5.5.1",
        "a Close with a payload of one byte fails the connection",
        (frame(CLOSE, b"\x03"),),
        closes=1002,
    ),
    Case(
        "5.5.1", "a Close with a reason is answered with its code", (close(1000, b"going home"),), closes=1000
    ),
    Case("5.5.1", "a reason of 123 bytes is allowed", (close(1000, b"r" * 123),), closes=1000),
    Case("5.5.1", "a reason in UTF-8 is allowed", (close(4001, "bis später €𝄞".encode()),), closes=4001),
    *(
        Case("8.1", f"a reason with {name} fails the connection", (close(1000, reason),), closes=1007)
        for name, reason in (
            ("a wrong byte", b"bye\xff"),
            ("a surrogate", b"\xed\xa0\x80"),
            ("an overlong character", b"\xc0\xaf"),
            ("half a character at its end", b"bye\xe2\x82"),
        )
    ),
    Case("5.5.1", "a text after a Close is ignored", (close(1000), text("too late")), closes=1000),
    Case("5.5.1", "a second Close is ignored", (close(1000), close(1001)), closes=1000),
    Case("5.5.1", "a wrong frame after a Close is ignored", (close(3000), frame(0x3, b"x")), closes=3000),
    Case(
        "5.5.1",
        "an unmasked frame after a Close is ignored",
        (close(1001), frame(0x1, b"x", mask=None)),
        closes=1001,
    ),
    Case("5.5.1", "many bytes after a Close are ignored", (close(1000), binary(bytes(100_000))), closes=1000),
    Case(
        "5.5.1",
        "the end of a fragmented message after a Close delivers nothing",
        (text("a", fin=False), close(1000), last(b"b")),
        closes=1000,
        differs=CLOSE_IN_MESSAGE,
    ),
    Case(
        "5.5.1",
        "messages before a Close are delivered",
        (text("one"), text("two"), close(1000)),
        (as_text("one"), as_text("two")),
        closes=1000,
    ),
    Case(
        "7.1.1",
        "a Close followed by the end of the stream is still answered",
        (close(1000),),
        closes=1000,
        half_close=True,
    ),
    Case(
        "7.1.1",
        "a message, a Close and the end of the stream in one go are all honoured",
        (text("last words"), close(4000)),
        (as_text("last words"),),
        closes=4000,
        half_close=True,
    ),
    Case(
        "7.1.7",
        "a failing frame followed by the end of the stream is still answered",
        (frame(0x7),),
        closes=1002,
        half_close=True,
    ),
    Case(
        "5.5.1",
        "a Ping before a Close does not delay it",
        (ping(b"p"), close(1000)),
        pongs=(b"p",),
        closes=1000,
    ),
]
