"""Rows for RFC 6455, 5.6 and 8.1: text is UTF-8 (RFC 3629), and the first wrong byte ends the connection."""

from __future__ import annotations

from tests.conformance.case import Case, as_binary, as_text, binary, last, more, ping, text
from tests.support.wire import TEXT, frame

ONLY_AT_END = "judges a text when the message is complete, and this one never is"

VALID = [
    ("plain letters", "Hello"),
    ("U+0000", "\x00"),
    ("U+007F, the last of one byte", "\x7f"),
    ("U+0080, the first of two bytes", "\x80"),
    ("U+07FF, the last of two bytes", "\u07ff"),
    ("U+0800, the first of three bytes", "\u0800"),
    ("U+D7FF, the last before the surrogates", "\ud7ff"),
    ("U+E000, the first after the surrogates", "\ue000"),
    ("U+FFFD", "\ufffd"),
    ("U+FFFF, a noncharacter", "\uffff"),
    ("U+10000, the first of four bytes", "\U00010000"),
    ("U+10FFFF, the last code point", "\U0010ffff"),
    ("U+FEFF at the start, which is not removed", "\ufeffx"),
    ("words of many scripts", "Grüße, κόσμε, мир, 世界, 🌍!"),
    ("wide characters past every chunk of a vector loop", "é" * 17 + "€" * 23 + "𝄞" * 31 + "a" * 64 + "ß"),
]

INVALID = [
    ("a lone continuation byte", b"\x80"),
    ("a lone last continuation byte", b"\xbf"),
    ("an overlong NUL", b"\xc0\x80"),
    ("an overlong slash", b"\xc0\xaf"),
    ("the largest overlong of two bytes", b"\xc1\xbf"),
    ("an overlong of three bytes", b"\xe0\x80\xaf"),
    ("the largest overlong of three bytes", b"\xe0\x9f\xbf"),
    ("an overlong of four bytes", b"\xf0\x80\x80\xaf"),
    ("the largest overlong of four bytes", b"\xf0\x8f\xbf\xbf"),
    ("the first surrogate", b"\xed\xa0\x80"),
    ("the last surrogate", b"\xed\xbf\xbf"),
    ("a pair of surrogates", b"\xed\xa0\xbd\xed\xb8\x80"),
    ("the first number above U+10FFFF", b"\xf4\x90\x80\x80"),
    ("a lead byte of F5", b"\xf5\x80\x80\x80"),
    ("a sequence of five bytes", b"\xf8\x88\x80\x80\x80"),
    ("a sequence of six bytes", b"\xfc\x84\x80\x80\x80\x80"),
    ("the byte FE", b"\xfe"),
    ("the byte FF", b"\xff"),
    ("a letter where a second byte belongs", b"\xc3("),
    ("a letter where a third byte belongs", b"\xe2\x82("),
    ("a letter where a fourth byte belongs", b"\xf0\x9f\x98("),
    ("a lead byte after a lead byte", b"\xe2\xe2\x82\xac"),
    ("a wrong byte after 200 good ones", b"good" * 50 + b"\xff"),
    ("a wrong byte before 200 good ones", b"\xff" + b"good" * 50),
]

CUT_SHORT = [
    ("one byte of two", b"abc\xc3"),
    ("one byte of three", b"abc\xe2"),
    ("two bytes of three", b"abc\xe2\x82"),
    ("one byte of four", b"abc\xf0"),
    ("two bytes of four", b"abc\xf0\x9f"),
    ("three bytes of four", b"abc\xf0\x9f\x98"),
]

# The shortest beginnings that no valid text can have: the byte that shows it is the last one.
HOPELESS = [
    ("a continuation byte", b"\x80"),
    ("the byte C0", b"\xc0"),
    ("the byte C1", b"\xc1"),
    ("the byte F5", b"\xf5"),
    ("the byte FF", b"\xff"),
    ("E0 80, overlong", b"\xe0\x80"),
    ("E0 9F, overlong", b"\xe0\x9f"),
    ("ED A0, a surrogate", b"\xed\xa0"),
    ("F0 8F, overlong", b"\xf0\x8f"),
    ("F4 90, above U+10FFFF", b"\xf4\x90"),
    ("a wrong third byte", b"\xf0\x9f\x28"),
]


def in_two(whole: bytes, at: int) -> tuple[bytes, ...]:
    """A text message in two fragments, cut before byte `at`."""
    return text(whole[:at], fin=False), last(whole[at:])


EURO_AND_CLEF = "€𝄞".encode()

TEXT_CASES = [
    *(
        Case("5.6", f"text with {name} arrives unchanged", (text(value),), (as_text(value),))
        for name, value in VALID
    ),
    *(
        Case("8.1", f"text with {name} fails the connection", (text(value),), closes=1007)
        for name, value in INVALID
    ),
    *(
        Case("8.1", f"text that ends after {name} fails the connection", (text(value),), closes=1007)
        for name, value in CUT_SHORT
    ),
    *(
        Case(
            "8.1",
            f"{name} ends the connection before the frame is complete",
            (frame(TEXT, b"ok" + value, declared=1000),),
            closes=1007,
            differs=ONLY_AT_END,
        )
        for name, value in HOPELESS
    ),
    *(
        Case(
            "5.6",
            f"a fragment may end inside a character, here after byte {at}",
            in_two(EURO_AND_CLEF, at),
            (as_text(EURO_AND_CLEF),),
        )
        for at in range(1, len(EURO_AND_CLEF))
    ),
    Case(
        "5.6",
        "characters may be spread over fragments of one byte with Pings between",
        (
            text(EURO_AND_CLEF[:1], fin=False),
            *(piece for at in range(1, 7) for piece in (ping(b"%d" % at), more(EURO_AND_CLEF[at : at + 1]))),
            last(),
        ),
        (as_text(EURO_AND_CLEF),),
        pongs=tuple(b"%d" % at for at in range(1, 7)),
    ),
    Case(
        "5.6",
        "a Ping's bytes are not mistaken for the rest of a character",
        (text(b"\xe2\x82", fin=False), ping(b"\xac\xff"), last(b"\xac")),
        (as_text("€"),),
        pongs=(b"\xac\xff",),
    ),
    Case(
        "8.1",
        "a wrong byte in the first fragment ends the connection before the next",
        (text(b"ok\xff", fin=False),),
        closes=1007,
        differs=ONLY_AT_END,
    ),
    Case(
        "8.1",
        "a wrong byte in a middle fragment ends the connection before the next",
        (text(b"ok", fin=False), more(b"\xc0\x80")),
        closes=1007,
        differs=ONLY_AT_END,
    ),
    Case(
        "8.1",
        "a character that the next fragment does not go on with ends the connection",
        (text(b"\xe2\x82", fin=False), more(b"a")),
        closes=1007,
        differs=ONLY_AT_END,
    ),
    Case(
        "8.1",
        "a surrogate split over two fragments ends the connection",
        (text(b"\xed", fin=False), more(b"\xa0")),
        closes=1007,
        differs=ONLY_AT_END,
    ),
    Case(
        "8.1",
        "a message whose last fragment ends inside a character fails the connection",
        (text(b"\xe2", fin=False), last(b"\x82")),
        closes=1007,
    ),
    Case(
        "8.1",
        "an empty last fragment does not excuse half a character",
        (text(b"\xc3", fin=False), last()),
        closes=1007,
    ),
    Case(
        "8.1",
        "half a character in one message is not completed by the next",
        (text(b"\xc3"), text(b"\xa4")),
        closes=1007,
    ),
    Case(
        "8.1",
        "a wrong text after a good one fails the connection, the good one is delivered",
        (text("good"), text(b"\xff")),
        (as_text("good"),),
        closes=1007,
    ),
    Case(
        "5.6",
        "binary messages are not held to UTF-8",
        (binary(b"\xff\xc0\x80"),),
        (as_binary(b"\xff\xc0\x80"),),
    ),
    Case(
        "5.6",
        "the continuation of a binary message is not held to UTF-8",
        (text("text"), binary(b"\xff", fin=False), last(b"\xc0")),
        (as_text("text"), as_binary(b"\xff\xc0")),
    ),
    Case(
        "5.6",
        "text after a fragmented binary message is held to UTF-8 again",
        (binary(b"\xe2", fin=False), last(b"\x82"), text(b"\xac")),
        (as_binary(b"\xe2\x82"),),
        closes=1007,
    ),
]
