"""The handshake against mutated requests, with a second reading of the rules as the oracle.

The oracle takes requests apart by splitting text and comparing characters, where the handshake uses regular
expressions, and answers one question only: is this an upgrade to accept, and if so to what?
"""

from __future__ import annotations

import base64
import hashlib
import re
import string
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastcast import handshake
from fastcast.handshake import Accept, Handshake, Refuse

bounded = settings(deadline=None, max_examples=1500, database=None)

ORIGIN = "http://example.org:8000"
SUBPROTOCOLS = ("news", "chat")
PAGE = b"<!doctype html><title>page</title>"
SUBJECTS = (
    Handshake(page=PAGE),
    Handshake(subprotocols=SUBPROTOCOLS),
    Handshake(origins=[ORIGIN, "https://a.example"], subprotocols=SUBPROTOCOLS),
)
ORIGINS = (None, None, [("http", "example.org", 8000), ("https", "a.example", 443)])
NAMES = ((), SUBPROTOCOLS, SUBPROTOCOLS)

CHROMIUM = (
    b"GET /room?token=x HTTP/1.1\r\n"
    b"Host: example.org:8000\r\n"
    b"Connection: Upgrade\r\n"
    b"Pragma: no-cache\r\n"
    b"Cache-Control: no-cache\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/126.0.0.0 Safari/537.36\r\n"
    b"Upgrade: websocket\r\n"
    b"Origin: http://example.org:8000\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    b"Sec-WebSocket-Protocol: soap, chat\r\n"
    b"\r\n"
)
FIREFOX = (
    b"GET / HTTP/1.1\r\n"
    b"Host: example.org:8000\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    b"Accept: */*\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Origin: http://example.org:8000\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Connection: keep-alive, Upgrade\r\n"
    b"Sec-Fetch-Mode: websocket\r\n"
    b"Upgrade: websocket\r\n"
    b"\r\n"
)
LIBRARY = (
    b"GET /a/b/c HTTP/1.1\r\n"
    b"Host: 127.0.0.1:8000\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: +/+/+/+/+/+/+/+/+/+/+w==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)
PROXY = (
    b"\r\nGET ws://[::1]/caf%C3%A9?x HTTP/1.1\r\n"
    b"host: [::1]\r\n"
    b"upgrade:WebSocket\r\n"
    b"connection: keep-alive\r\n"
    b"connection: , upgrade\t\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"sec-websocket-version: 13\r\n"
    b"sec-websocket-protocol: chat\r\n"
    b"sec-websocket-protocol: news\r\n"
    b"content-length: 0\r\n"
    b"origin: https://A.example:443\r\n"
    b"\r\n"
)


# --- requests -----------------------------------------------------------------------------------------------

FRAGMENTS = st.sampled_from(
    [
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b":",
        b",",
        b", ",
        b"%",
        b"%2f",
        b"%00",
        b"%ff",
        b"#",
        b"?",
        b"/",
        b"//",
        b"[",
        b"]",
        b"=",
        b"0",
        b"\x00",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"HTTP/1.0",
        b"upgrade",
        b"websocket",
        b"null",
        b"13",
    ]
)
LINES = st.sampled_from(
    [
        b"Host: example.org",
        b"HOST:",
        b"Connection: close",
        b"Connection: Upgrade",
        b"Upgrade: h2c",
        b"Upgrade: websocket",
        b"Upgrade: websocket/13",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Version: 8",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Key: short",
        b"Sec-WebSocket-Protocol: news",
        b"Sec-WebSocket-Protocol: a, ,b",
        b"Sec-WebSocket-Protocol: chat chat",
        b"Origin: http://example.org:8000",
        b"Origin: http://evil.example",
        b"Content-Length: 0",
        b"Content-Length: 0, 00",
        b"Content-Length: 5",
        b"content-length: x",
        b"Transfer-Encoding: chunked",
        b"X-Opaque: \xe9",
        b"X-Empty:",
        b" folded",
        b"no colon",
        b"Sec-WebSocket-Key : x",
    ]
)
INDEX = st.integers(0, 2**16)
BYTE_CHANGES = st.one_of(
    st.tuples(st.just("flip"), INDEX, st.integers(1, 255)),
    st.tuples(st.just("delete"), INDEX, st.integers(1, 8)),
    st.tuples(st.just("insert"), INDEX, FRAGMENTS | st.binary(min_size=1, max_size=3)),
    st.tuples(st.just("swap case"), INDEX, st.integers(1, 24)),
)
LINE_CHANGES = st.one_of(
    st.tuples(st.just("duplicate"), INDEX, INDEX),
    st.tuples(st.just("remove"), INDEX, st.none()),
    st.tuples(st.just("move"), INDEX, INDEX),
    st.tuples(st.just("add"), INDEX, LINES),
)


def change_bytes(head: bytes, kind: str, index: int, what: object) -> bytes:
    index %= len(head) + 1
    before, after = head[:index], head[index:]
    match kind, what:
        case "flip", int(mask):
            return before + bytes(byte ^ mask for byte in after[:1]) + after[1:]
        case "delete", int(count):
            return before + after[count:]
        case "insert", bytes(fragment):
            return before + fragment + after
        case "swap case", int(count):
            return before + after[:count].swapcase() + after[count:]
    raise AssertionError(kind)


def change_lines(head: bytes, kind: str, index: int, what: object) -> bytes:
    """Change one header line; the request line and the empty line at the end stay where they are."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    index %= len(lines) or 1
    match kind, what:
        case "duplicate", int(place):
            lines[place % (len(lines) + 1) : 0] = lines[index : index + 1]
        case "remove", None:
            del lines[index : index + 1]
        case "move", int(place):
            moved = lines[index : index + 1]
            del lines[index : index + 1]
            place %= len(lines) + 1
            lines[place:place] = moved
        case "add", bytes(line):
            lines.insert(index, line)
        case _:
            raise AssertionError(kind)
    return b"\r\n".join([first, *lines, b"\r\n"])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A real request after up to three changes of lines and up to three of bytes, either often none."""
    head = draw(st.sampled_from([CHROMIUM, FIREFOX, LIBRARY, PROXY]))
    for change in draw(st.lists(LINE_CHANGES, max_size=3)):
        head = change_lines(head, *change)
    for change in draw(st.lists(BYTE_CHANGES, max_size=3)):
        head = change_bytes(head, *change)
    return head


# --- oracle -------------------------------------------------------------------------------------------------

ALPHANUMERIC = string.ascii_letters + string.digits
TOKEN = ALPHANUMERIC + "!#$%&'*+-.^_`|~"
TARGET = ALPHANUMERIC + "-._~" + ":/?[]@" + "!$&'()*+,;=" + "%"
NAME = ALPHANUMERIC + "-._~" + "!$&'()*+,;="


def only(text: str, alphabet: str) -> bool:
    return text != "" and set(text) <= set(alphabet)


def unescape(text: str) -> bytes | None:
    parts = text.split("%")
    decoded = bytearray(parts[0].encode("latin-1"))
    for part in parts[1:]:
        if len(part) < 2 or not only(part[:2], string.hexdigits):
            return None
        decoded.append(int(part[:2], 16))
        decoded += part[2:].encode("latin-1")
    return bytes(decoded)


def is_authority(text: str) -> bool:
    if text.startswith("["):
        address, end, port = text[1:].partition("]")
        return (
            end != ""
            and only(address, string.hexdigits + ":.")
            and port[:1] in ("", ":")
            and is_port(port[1:])
        )
    name, _, port = text.partition(":")
    return only(name, NAME + "%") and unescape(name) is not None and is_port(port)


def is_port(text: str) -> bool:
    return text == "" or only(text, string.digits)


def channel_of(target: str) -> str | None:
    if not only(target, TARGET):
        return None
    path = target.split("?", maxsplit=1)[0]
    if not path.startswith("/"):
        scheme, _, rest = target.partition("://")
        authority = rest.split("/")[0].split("?")[0]
        if scheme.lower() not in ("http", "https", "ws", "wss") or not is_authority(authority):
            return None
        path = rest[len(authority) :].split("?")[0] or "/"
    decoded = unescape(path)
    try:
        channel = None if decoded is None else decoded.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if channel is None or any(ord(char) < 32 or 127 <= ord(char) < 160 for char in channel):
        return None
    return channel


def members(values: list[str]) -> list[str]:
    return [member.strip(" \t") for value in values for member in value.split(",")]


def origin_of(text: str) -> tuple[str, str, int] | None:
    scheme, separator, authority = text.lower().partition("://")
    host, _, port = authority.partition(":")
    if (
        not separator
        or any(char in authority for char in " /,")
        or (authority != host and not only(port, string.digits))
    ):
        return None
    return scheme, host, int(port) if port else {"http": 80, "https": 443}.get(scheme, 0)


def expected(
    head: bytes, origins: list[tuple[str, str, int]] | None, names: tuple[str, ...]
) -> tuple[str, str | None, str] | None:
    """Channel, subprotocol and key of an upgrade that has to be accepted; None for everything else."""
    text = head.decode("latin-1")
    while text.startswith("\r\n"):
        text = text[2:]
    if len(head) > 8192 or not text.endswith("\r\n\r\n"):
        return None
    line, *rest = text[:-4].split("\r\n")

    words = line.split(" ")
    if len(words) != 3 or words[0] != "GET" or words[2] not in [f"HTTP/1.{minor}" for minor in "123456789"]:
        return None
    channel = channel_of(words[1])

    fields: dict[str, list[str]] = {}
    for field in rest:
        name, colon, value = field.partition(":")
        if not only(name, TOKEN) or not colon:
            return None
        if any((ord(char) < 32 and char != "\t") or ord(char) == 127 for char in value):
            return None
        fields.setdefault(name.lower(), []).append(value.strip(" \t"))

    def get(name: str) -> list[str]:
        return fields.get(name, [])

    keys = get("sec-websocket-key")
    offered = [name for name in members(get("sec-websocket-protocol")) if name]
    allowed = (
        channel is not None
        and len(get("host")) == 1
        and is_authority(get("host")[0])
        and "transfer-encoding" not in fields
        and all(only(length, "0") for length in members(get("content-length")))
        and "upgrade" in [member.lower() for member in members(get("connection"))]
        and "websocket" in [member.lower() for member in members(get("upgrade"))]
        and set(members(get("sec-websocket-version"))) == {"13"}
        and len(keys) == 1
        and len(keys[0]) == 24
        and keys[0].endswith("==")
        and only(keys[0][:22], ALPHANUMERIC + "+/")
        and (origins is None or (len(get("origin")) == 1 and origin_of(get("origin")[0]) in origins))
        and (offered != [] or "sec-websocket-protocol" not in fields)
        and all(only(name, TOKEN) for name in offered)
        and len(offered) == len(set(offered))
    )
    if not allowed or channel is None:
        return None
    agreed = [name for name in names if name in offered]
    return channel, agreed[0] if agreed else None, keys[0]


# --- properties ---------------------------------------------------------------------------------------------


def check_response(answer: Accept | Refuse, head: bytes) -> None:
    """Fail unless the response is well formed and says what the answer says."""
    section, end, content = answer.response.partition(b"\r\n\r\n")
    assert end
    line, *rest = section.decode("ascii").split("\r\n")
    version, status, phrase = line.split(" ", 2)
    assert version == "HTTP/1.1"
    assert phrase
    fields = {}
    for field in rest:
        name, separator, value = field.partition(": ")
        assert separator
        assert only(name, TOKEN)
        assert value.isprintable()
        assert name not in fields
        fields[name] = value
    if isinstance(answer, Accept):
        assert (status, fields["Upgrade"], fields["Connection"], content) == (
            "101",
            "websocket",
            "Upgrade",
            b"",
        )
        assert answer.channel.startswith("/")
        assert fields.get("Sec-WebSocket-Protocol") == answer.subprotocol
        return
    assert status == str(answer.status) != "101"
    assert "close" in fields["Connection"].split(", ")
    without_content = head.lstrip(b"\r\n").startswith(b"HEAD ") and content == b""
    assert without_content or fields["Content-Length"] == str(len(content)) != "0"


@bounded
@given(mutated(), st.sampled_from(range(len(SUBJECTS))))
@example(CHROMIUM, 0)
@example(CHROMIUM, 2)
@example(FIREFOX, 1)
@example(LIBRARY, 0)
@example(LIBRARY, 2)
@example(PROXY, 1)
@example(PROXY, 2)
def test_exactly_the_upgrades_that_the_oracle_allows_are_accepted(head: bytes, subject: int) -> None:
    answer = SUBJECTS[subject].answer(head)
    check_response(answer, head)
    wanted = expected(head, ORIGINS[subject], NAMES[subject])
    if wanted is None:
        assert isinstance(answer, Refuse)
    else:
        channel, subprotocol, key = wanted
        assert isinstance(answer, Accept)
        assert (answer.channel, answer.subprotocol) == (channel, subprotocol)
        proof = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest())
        assert b"\r\nSec-WebSocket-Accept: " + proof + b"\r\n" in answer.response


@bounded
@given(mutated(), st.sampled_from(SUBJECTS))
@example(CHROMIUM, SUBJECTS[1])
@example(FIREFOX, SUBJECTS[2])
@example(LIBRARY, SUBJECTS[2])
def test_the_short_way_gives_the_answer_of_the_general_rules(head: bytes, subject: Handshake) -> None:
    answer = subject.answer(head)
    with mock.patch.object(handshake, "_USUAL_UPGRADE", re.compile(rb"(?!)")):
        assert subject.answer(head) == answer


@bounded
@given(mutated(), st.sampled_from(SUBJECTS))
@example(CHROMIUM, SUBJECTS[1])
@example(PROXY, SUBJECTS[2])
def test_to_read_and_then_to_accept_gives_the_same_answer(head: bytes, subject: Handshake) -> None:
    answer = subject.answer(head)
    upgrade = subject.read(head)
    if isinstance(upgrade, Refuse):
        assert upgrade == answer
        return
    assert isinstance(answer, Accept)
    agreed = subject.choose(upgrade.offered)
    assert (upgrade.path, agreed) == (answer.channel, answer.subprotocol)
    assert subject.accept(upgrade, agreed) == answer.response
    # Header by header, the same as taken apart in another way.
    lines = head.decode("latin-1").lstrip("\r\n").split("\r\n")
    expected_names = {line.partition(":")[0].lower() for line in lines[1:] if line}
    assert upgrade.fields().keys() == expected_names
    assert upgrade.query == lines[0].split(" ")[1].partition("?")[2]


@pytest.mark.parametrize("head", [CHROMIUM, FIREFOX, LIBRARY])
def test_what_most_clients_send_takes_the_short_way(head: bytes) -> None:
    with mock.patch.object(Handshake, "_decide", side_effect=AssertionError):
        assert isinstance(SUBJECTS[0].answer(head), Accept)


@bounded
@given(st.one_of(st.binary(max_size=300), st.lists(FRAGMENTS | LINES, max_size=20).map(b"".join)))
@example(b"")
def test_any_bytes_get_a_well_formed_refusal(garbage: bytes) -> None:
    for head in (garbage, b"GET / HTTP/1.1\r\nHost: a\r\n" + garbage, b"HEAD " + garbage + b"\r\n\r\n"):
        answer = SUBJECTS[0].answer(head)
        assert isinstance(answer, Refuse) or expected(head, None, ()) is not None
        check_response(answer, head)
