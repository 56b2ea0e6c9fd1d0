"""The handshake's rules, one test for each behaviour, named after it."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from hashlib import sha256

import pytest

from fastcast.handshake import Accept, Handshake, Refuse, Upgrade

# The example of RFC 6455 section 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

HOST = "Host: example.org"
CONNECTION = "Connection: Upgrade"
UPGRADE = "Upgrade: websocket"
VERSION = "Sec-WebSocket-Version: 13"
USUAL = (HOST, CONNECTION, UPGRADE, f"Sec-WebSocket-Key: {KEY}", VERSION)

PAGE = b"<!doctype html><title>page</title>"

BROWSER = (
    "Host: example.org:8000",
    "Connection: keep-alive, Upgrade",
    "Pragma: no-cache",
    "Cache-Control: no-cache",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Upgrade: websocket",
    "Origin: http://example.org:8000",
    "Sec-WebSocket-Version: 13",
    "Accept-Encoding: gzip, deflate, br",
    "Accept-Language: en-GB,en;q=0.5",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Extensions: permessage-deflate",
)


def head(line: str = "GET /room HTTP/1.1", fields: Sequence[str] = USUAL) -> bytes:
    return "\r\n".join([line, *fields, "\r\n"]).encode("latin-1")


def without(name: str) -> list[str]:
    return [field for field in USUAL if not field.startswith(f"{name}:")]


def replaced(name: str, *fields: str) -> list[str]:
    return [*without(name), *fields]


def accepted(request: bytes, handshake: Handshake | None = None) -> Accept:
    answer = (handshake or Handshake()).answer(request)
    assert isinstance(answer, Accept), answer
    return answer


def refused(request: bytes, handshake: Handshake | None = None) -> Refuse:
    answer = (handshake or Handshake()).answer(request)
    assert isinstance(answer, Refuse), answer
    return answer


def parse(response: bytes) -> tuple[int, dict[str, str], bytes]:
    section, _, content = response.partition(b"\r\n\r\n")
    line, *fields = section.decode("ascii").split("\r\n")
    match = re.fullmatch(r"HTTP/1\.1 ([0-9]{3}) [A-Za-z ]+", line)
    assert match
    pairs = [(name, value) for name, _, value in (field.partition(": ") for field in fields)]
    assert len({name for name, _ in pairs}) == len(pairs)
    return int(match[1]), dict(pairs), content


# --- the 101 response ---------------------------------------------------------------------------------------


def test_the_usual_upgrade_is_accepted_with_the_proof_of_its_key() -> None:
    answer = accepted(head())
    assert answer == Accept(
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n\r\n",
        "/room",
        None,
    )


def test_a_browser_s_upgrade_is_accepted() -> None:
    assert accepted(head("GET /room?token=x HTTP/1.1", BROWSER)).channel == "/room"


def test_extensions_are_not_negotiated() -> None:
    assert b"Extensions" not in accepted(head(fields=BROWSER)).response


def test_the_order_of_headers_does_not_matter() -> None:
    assert accepted(head(fields=USUAL[::-1])) == accepted(head())


@pytest.mark.parametrize("change", [str.lower, str.upper, str.title])
def test_the_case_of_header_names_does_not_matter(change: Callable[[str], str]) -> None:
    fields = [f"{change(name)}:{value}" for name, value in (field.split(":", 1) for field in USUAL)]
    assert accepted(head(fields=fields)) == accepted(head())


@pytest.mark.parametrize("around", ["", " ", "\t", " \t  "])
def test_blanks_around_values_do_not_matter(around: str) -> None:
    fields = [f"{name}:{around}{value}{around}" for name, value in (field.split(": ", 1) for field in USUAL)]
    assert accepted(head(fields=fields)) == accepted(head())


def test_other_headers_may_have_opaque_bytes() -> None:
    accepted(head(fields=[*USUAL, "X-Name: J\xfcrgen \x80\xff"]))


def test_other_headers_may_be_empty() -> None:
    accepted(head(fields=[*USUAL, "X-Empty:"]))


# --- request line -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_empty_lines_before_the_request_line_are_ignored(count: int) -> None:
    assert accepted(b"\r\n" * count + head()) == accepted(head())


@pytest.mark.parametrize(
    "line",
    [
        "",
        "GET",
        "GET /room",
        "GET  /room HTTP/1.1",
        "GET /room  HTTP/1.1",
        "GET /room HTTP/1.1 ",
        " GET /room HTTP/1.1",
        "GET\t/room\tHTTP/1.1",
        "GET /ro om HTTP/1.1",
        "GET /room http/1.1",
        "GET /room HTTP/1",
        "GET /room HTTP/1.",
        "GET /room HTTP/1.10",
        "GET /room HTTP/11",
        "GET /room HTTP 1.1",
        "GET /room HTTPS/1.1",
        "G(T /room HTTP/1.1",
        "/room HTTP/1.1",
    ],
)
def test_a_malformed_request_line_is_refused(line: str) -> None:
    assert refused(head(line)).status == 400


@pytest.mark.parametrize("version", ["0.9", "2.0", "3.0"])
def test_another_major_version_of_http_is_not_supported(version: str) -> None:
    assert refused(head(f"GET /room HTTP/{version}")).status == 505


def test_a_later_minor_version_of_http_counts_as_1_1() -> None:
    assert accepted(head("GET /room HTTP/1.2")) == accepted(head())


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "get", "QUERY", "GETS"])
def test_another_method_is_not_allowed_and_the_answer_lists_what_is(method: str) -> None:
    answer = refused(head(f"{method} /room HTTP/1.1"))
    assert answer.status == 405
    assert parse(answer.response)[1]["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("line", ["OPTIONS * HTTP/1.1", "CONNECT example.org:80 HTTP/1.1"])
def test_a_target_that_only_another_method_has_does_not_hide_the_method(line: str) -> None:
    assert refused(head(line)).status == 405


# --- target -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "channel"),
    [
        ("/", "/"),
        ("/room", "/room"),
        ("/room/", "/room/"),
        ("//room", "//room"),
        ("/a/../b", "/a/../b"),
        ("/room?", "/room"),
        ("/room?a=/b?c", "/room"),
        ("/room?%", "/room"),
        ("/room?filter[]=1", "/room"),
        ("/room[1]", "/room[1]"),
        ("/!$&'()*+,;=:@-._~", "/!$&'()*+,;=:@-._~"),
        ("/r%6fom", "/room"),
        ("/a%2Fb%3fc%23d%25", "/a/b?c#d%"),
        ("/caf%C3%A9", "/caf\u00e9"),
        ("/%F0%9F%8E%89", "/\U0001f389"),
        ("http://example.org", "/"),
        ("http://example.org/", "/"),
        ("http://example.org?query", "/"),
        ("http://example.org/room?query", "/room"),
        ("HTTPS://example.org:443/room", "/room"),
        ("ws://[::1]:8000/room", "/room"),
        ("wss://ex%61mple.org/caf%C3%A9", "/caf\u00e9"),
    ],
)
def test_the_channel_is_the_decoded_path_of_the_target(target: str, channel: str) -> None:
    assert accepted(head(f"GET {target} HTTP/1.1")).channel == channel


@pytest.mark.parametrize(
    "target",
    [
        "*",
        "room",
        "?query",
        "example.org:80",
        "ftp://example.org/room",
        "http:/room",
        "http://",
        "http:///room",
        "http://user@example.org/room",
        "http://exa<mple/room",
        "http://[::1/room",
        "http://example.org:http/room",
        "/room#part",
        "/room?query#part",
        "http://example.org/#part",
        '/ro"om',
        "/ro<om",
        "/ro\\om",
        "/ro^om",
        "/ro`om",
        "/ro{om",
        "/ro|om",
        '/room?"',
        "/r\xe9sum\xe9",
        "/ro\x00om",
        "/ro\x7fom",
    ],
)
def test_a_target_that_is_neither_a_path_nor_a_url_is_refused(target: str) -> None:
    assert refused(head(f"GET {target} HTTP/1.1")).status == 400


@pytest.mark.parametrize("path", ["/%", "/%4", "/%zz", "/100%", "/%-1", "/%%20", "/%u0041"])
def test_a_malformed_percent_escape_is_refused(path: str) -> None:
    assert refused(head(f"GET {path} HTTP/1.1")).status == 400


@pytest.mark.parametrize("path", ["/%FF", "/%C3", "/%C0%AF", "/%ED%A0%80", "/%F4%90%80%80"])
def test_a_path_that_is_not_utf_8_is_refused(path: str) -> None:
    assert refused(head(f"GET {path} HTTP/1.1")).status == 400


@pytest.mark.parametrize("path", ["/%00", "/a%0D%0Ab", "/%1f", "/%7F", "/%C2%85"])
def test_a_control_character_in_the_channel_is_refused(path: str) -> None:
    assert refused(head(f"GET {path} HTTP/1.1")).status == 400


# --- header lines -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_head", "complaint"),
    [
        (head().replace(b"\r\n", b"\n"), b"bare"),
        (head().replace(b"\r\nUpgrade", b"\nUpgrade"), b"bare"),
        (head().replace(b"\r\nUpgrade", b"\rUpgrade"), b"bare"),
        (head(fields=[*USUAL, "X: a\rb"]), b"bare"),
        (head(fields=[*USUAL, "X: a\nb"]), b"bare"),
        (head(fields=[*USUAL, "X: a", " b"]), b"folded"),
        (head(fields=[*USUAL, "X: a", "\tb: c"]), b"folded"),
        (head(fields=[" X: a", *USUAL]), b"folded"),
        (head(fields=[*USUAL, "X : a"]), b"between"),
        (head(fields=[*USUAL, "X\t: a"]), b"between"),
        (head(fields=[*USUAL, "X: a\x00b"]), b"control"),
        (head(fields=[*USUAL, "X: a\x1fb"]), b"control"),
        (head(fields=[*USUAL, "X: a\x7fb"]), b"control"),
        (head(fields=[*USUAL, "X"]), b"colon"),
        (head(fields=[*USUAL, ": a"]), b"token"),
        (head(fields=[*USUAL, "X Y: a"]), b"token"),
        (head(fields=[*USUAL, "X(Y): a"]), b"token"),
        (head(fields=[*USUAL, "\xdc: a"]), b"token"),
        (head()[:-2], b"empty line"),
        (head() + b"\x81\x80", b"empty line"),
        (head() + head(), b"empty line"),
        (b"G\xcbT / HTTP/1.1\r\n\r\n", b"printable"),
        (b"\r\n\r\nGET / HTTP/1.1\n\r\n", b"bare"),
        (b"\r\n\r\n", b"request line"),
        (b"", b"request line"),
    ],
)
def test_a_malformed_head_is_refused_and_the_answer_says_why(request_head: bytes, complaint: bytes) -> None:
    answer = refused(request_head)
    assert answer.status == 400
    assert re.search(complaint, parse(answer.response)[2])


def test_a_head_longer_than_the_limit_is_refused_and_one_as_long_is_not() -> None:
    request = head()
    assert refused(request, Handshake(max_head=len(request) - 1)).status == 431
    accepted(request, Handshake(max_head=len(request)))


# --- Host ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "example.org:8000",
        "example.org:",
        "127.0.0.1",
        "[::1]",
        "[::1]:80",
        "a_b",
        "a%2Db",
        "%41",
    ],
)
def test_a_valid_host_is_accepted(host: str) -> None:
    accepted(head(fields=replaced("Host", f"Host: {host}")))


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a b",
        "a/b",
        "user@a",
        "a:b",
        "a:1:2",
        "[::1",
        "::1",
        "[g::1]",
        "a,\tb",
        "a\xe4",
        "a?",
        "a%4",
        ":80",
    ],
)
def test_an_invalid_host_is_refused(host: str) -> None:
    assert refused(head(fields=replaced("Host", f"Host: {host}"))).status == 400


@pytest.mark.parametrize("second", ["example.org", "other.example", ""])
def test_a_second_host_is_refused(second: str) -> None:
    assert refused(head(fields=[*USUAL, f"Host: {second}"])).status == 400


def test_a_missing_host_is_refused() -> None:
    assert refused(head(fields=without("Host"))).status == 400


def test_an_absolute_target_does_not_excuse_a_missing_host() -> None:
    assert refused(head("GET http://example.org/ HTTP/1.1", without("Host"))).status == 400


def test_http_1_0_needs_no_host_but_a_valid_one_if_any() -> None:
    assert refused(b"GET /healthz HTTP/1.0\r\n\r\n").status == 200
    assert refused(b"GET /healthz HTTP/1.0\r\nHost: a b\r\n\r\n").status == 400


# --- content ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", ["0", "00", "0, 0", "0,00", "0\r\nContent-Length: 0"])
def test_a_content_length_of_zero_is_no_content(length: str) -> None:
    accepted(head(fields=[*USUAL, f"Content-Length: {length}"]))


@pytest.mark.parametrize("length", ["1", "007", "5, 5", "5\r\nContent-Length: 05", "9" * 6000])
def test_content_is_not_taken(length: str) -> None:
    assert refused(head(fields=[*USUAL, f"Content-Length: {length}"])).status == 413


@pytest.mark.parametrize(
    "length",
    ["", "-1", "+1", "-0", "0x0", "1.0", "a", "1 1", "0, 1", "0,", ",0", "0\r\nContent-Length: 1", "\xb2"],
)
def test_an_invalid_content_length_is_refused(length: str) -> None:
    assert refused(head(fields=[*USUAL, f"Content-Length: {length}"])).status == 400


@pytest.mark.parametrize("coding", ["chunked", "gzip, chunked", "identity", ""])
def test_transfer_encoding_is_not_taken(coding: str) -> None:
    assert refused(head(fields=[*USUAL, f"Transfer-Encoding: {coding}"])).status == 413


@pytest.mark.parametrize("length", ["0", "5", "x"])
def test_transfer_encoding_with_content_length_is_refused(length: str) -> None:
    fields = [*USUAL, "Transfer-Encoding: chunked", f"Content-Length: {length}"]
    assert refused(head(fields=fields)).status == 400


def test_transfer_encoding_in_http_1_0_is_refused() -> None:
    assert refused(head("GET /room HTTP/1.0", [*USUAL, "Transfer-Encoding: chunked"])).status == 400


def test_faulty_framing_is_reported_before_the_method_and_content_after_it() -> None:
    assert refused(head("POST / HTTP/1.1", [HOST, "Content-Length: x"])).status == 400
    assert refused(head("POST / HTTP/1.1", [HOST, "Content-Length: 5"])).status == 405


# --- what counts as asking for WebSocket --------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        ["Connection: upgrade"],
        ["Connection: UPGRADE"],
        ["Connection: keep-alive, Upgrade"],
        ["Connection: Upgrade,keep-alive"],
        ["Connection: ,, keep-alive\t,\tupgrade ,"],
        ["Connection: keep-alive", "Connection: Upgrade"],
    ],
)
def test_connection_is_a_list_without_case(fields: list[str]) -> None:
    accepted(head(fields=replaced("Connection", *fields)))


@pytest.mark.parametrize(
    "fields",
    [
        ["Upgrade: WebSocket"],
        ["Upgrade: h2c, websocket"],
        ["Upgrade: websocket/13, websocket"],
        ["Upgrade: h2c", "Upgrade: websocket"],
    ],
)
def test_upgrade_is_a_list_without_case(fields: list[str]) -> None:
    accepted(head(fields=replaced("Upgrade", *fields)))


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("GET /room HTTP/1.1", without("Connection")),
        ("GET /room HTTP/1.1", without("Upgrade")),
        ("GET /room HTTP/1.1", replaced("Connection", "Connection: keep-alive")),
        ("GET /room HTTP/1.1", replaced("Connection", "Connection: xupgrade")),
        ("GET /room HTTP/1.1", replaced("Connection", "Connection: upgrade x")),
        ("GET /room HTTP/1.1", replaced("Connection", 'Connection: "upgrade"')),
        ("GET /room HTTP/1.1", replaced("Upgrade", "Upgrade: h2c")),
        ("GET /room HTTP/1.1", replaced("Upgrade", "Upgrade: websocket/13")),
        ("GET /room HTTP/1.1", replaced("Upgrade", "Upgrade: websockets")),
        ("GET /room HTTP/1.1", replaced("Upgrade", "Upgrade: x websocket")),
        ("GET /room HTTP/1.1", replaced("Upgrade", "Upgrade: xwebsocket")),
        ("GET /room HTTP/1.1", replaced("Upgrade", "Upgrade:")),
        ("GET /room HTTP/1.0", USUAL),
        ("HEAD /room HTTP/1.1", USUAL),
    ],
)
def test_a_request_that_does_not_ask_for_websocket_is_told_to(line: str, fields: Sequence[str]) -> None:
    status, response_fields, _ = parse(refused(head(line, fields)).response)
    assert status == 426
    assert response_fields["Upgrade"] == "websocket"
    assert response_fields["Connection"] == "Upgrade, close"
    assert response_fields["Sec-WebSocket-Version"] == "13"


def test_an_upgrade_to_the_health_check_s_path_is_a_channel() -> None:
    assert accepted(head("GET /healthz HTTP/1.1")).channel == "/healthz"


def test_an_upgrade_to_the_page_s_path_is_a_channel() -> None:
    assert accepted(head("GET / HTTP/1.1"), Handshake(page=PAGE)).channel == "/"


# --- version and key ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [["13", "13"], ["13, 13"]])
def test_the_same_version_twice_is_accepted(fields: list[str]) -> None:
    lines = [f"Sec-WebSocket-Version: {value}" for value in fields]
    accepted(head(fields=replaced("Sec-WebSocket-Version", *lines)))


@pytest.mark.parametrize("fields", [[], [""], ["", ""], ["13", "8"], ["13, 8"], ["13", ""]])
def test_a_missing_or_contradictory_version_is_refused(fields: list[str]) -> None:
    lines = [f"Sec-WebSocket-Version: {value}" for value in fields]
    assert refused(head(fields=replaced("Sec-WebSocket-Version", *lines))).status == 400


@pytest.mark.parametrize("version", ["8", "0", "14", "013", "130", "thirteen"])
def test_another_version_is_answered_with_the_one_that_would_do(version: str) -> None:
    answer = refused(head(fields=replaced("Sec-WebSocket-Version", f"Sec-WebSocket-Version: {version}")))
    assert answer.status == 426
    assert parse(answer.response)[1]["Sec-WebSocket-Version"] == "13"


@pytest.mark.parametrize(
    "key",
    [
        "",
        KEY[:-1],
        KEY[:-2],
        "A" + KEY,
        "A" * 24,
        "A" * 23 + "=",
        "A" * 20 + "====",
        KEY[:21] + "*==",
        KEY.replace("I", "-"),
        KEY.replace("I", "_"),
        KEY.replace("I", " "),
        KEY + "\r\nSec-WebSocket-Key: " + KEY,
        f"{KEY}, {KEY}",
    ],
)
def test_a_key_that_is_not_16_bytes_in_base64_once_is_refused(key: str) -> None:
    assert refused(head(fields=replaced("Sec-WebSocket-Key", f"Sec-WebSocket-Key: {key}"))).status == 400


def test_a_missing_key_is_refused() -> None:
    assert refused(head(fields=without("Sec-WebSocket-Key"))).status == 400


def test_a_key_s_left_over_bits_are_ignored() -> None:
    accepted(head(fields=replaced("Sec-WebSocket-Key", "Sec-WebSocket-Key: abcdefghijklmnopqrstuv==")))


# --- subprotocols -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offer", "agreed"),
    [
        (["chat"], "chat"),
        (["soap"], None),
        (["Chat"], None),
        (["soap, chat"], "chat"),
        (["chat, news"], "news"),
        (["chat", "news"], "news"),
        (["chat,news"], "news"),
        (["\tchat ,, soap,"], "chat"),
    ],
)
def test_the_subprotocol_is_the_server_s_first_choice_of_those_offered(
    offer: list[str], agreed: str | None
) -> None:
    lines = [f"Sec-WebSocket-Protocol: {value}" for value in offer]
    answer = accepted(head(fields=[*USUAL, *lines]), Handshake(subprotocols=["news", "chat"]))
    assert answer.subprotocol == agreed
    assert parse(answer.response)[1].get("Sec-WebSocket-Protocol") == agreed


def test_without_an_offer_there_is_no_subprotocol() -> None:
    assert accepted(head(), Handshake(subprotocols=["chat"])).subprotocol is None


@pytest.mark.parametrize(
    "offer", ["", ",", "a b", "a/b", '"a"', "a\xe9", "a, b, a", "a\r\nSec-WebSocket-Protocol: a"]
)
@pytest.mark.parametrize("subprotocols", [(), ("a",)])
def test_an_offer_that_is_no_list_of_distinct_tokens_is_refused(
    offer: str, subprotocols: Sequence[str]
) -> None:
    request = head(fields=[*USUAL, f"Sec-WebSocket-Protocol: {offer}"])
    assert refused(request, Handshake(subprotocols=subprotocols)).status == 400


@pytest.mark.parametrize("name", ["", "a b", "a,b", "caf\u00e9", "a\r\nX: y"])
def test_a_subprotocol_that_could_never_be_offered_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="subprotocol"):
        Handshake(subprotocols=["chat", name])


# --- Origin -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origins", "origin"),
    [
        (["https://example.org"], "https://example.org"),
        (["https://example.org"], "HTTPS://Example.ORG"),
        (["HTTPS://Example.ORG"], "https://example.org"),
        (["https://example.org"], "https://example.org:443"),
        (["https://example.org:443"], "https://example.org"),
        (["http://example.org"], "http://example.org:80"),
        (["http://[::1]:80"], "http://[::1]"),
        (["http://localhost:8000"], "http://localhost:8000"),
        (["http://a.example", "http://b.example"], "http://b.example"),
        (["null"], "null"),
        (["https://example.org", "*"], "http://other.example"),
        (["*"], "null"),
        (["https://*.example.org"], "https://www.example.org"),
        (["https://*.example.org"], "https://a.b-c.Example.org:443"),
        (["HTTPS://*.Example.org:443"], "https://www.example.org"),
        (["http://*.example.org:8000"], "http://www.example.org:8000"),
        (["null", "https://*.a.example", "https://b.example"], "https://b.example"),
    ],
)
def test_a_listed_origin_may_connect(origins: list[str], origin: str) -> None:
    accepted(head(fields=[*USUAL, f"Origin: {origin}"]), Handshake(origins=origins))


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "*",
        "http://example.org",
        "https://example.org:80",
        "https://example.org:4430",
        "https://example.org.evil.example",
        "https://evil.example/https://example.org",
        "https://example.org/",
        "https://example.org, https://example.org",
        "https://example.org https://evil.example",
        "https://example.org\r\nOrigin: https://example.org",
        "https://example.org\r\nOrigin:",
        "https://ex\xe4mple.org",
    ],
)
def test_any_other_origin_may_not_connect(origin: str) -> None:
    request = head(fields=[*USUAL, f"Origin: {origin}"])
    assert refused(request, Handshake(origins=["https://example.org"])).status == 403


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://example.org",
        "https://.example.org",
        "https://*.example.org",
        "https://a..example.org",
        "https://www.example.org.evil.example",
        "https://evil.example/.example.org",
        "https://evil.example:443.example.org",
        "https://wwwexample.org",
        "https://www.example-org",
        "https://www.exampleXorg",
        "https://user@www.example.org",
        "https://www.example.org:8443",
        "http://www.example.org",
    ],
)
def test_a_pattern_admits_subdomains_and_nothing_else(origin: str) -> None:
    request = head(fields=[*USUAL, f"Origin: {origin}"])
    assert refused(request, Handshake(origins=["https://*.example.org"])).status == 403


def test_a_missing_origin_may_not_connect_where_origins_are_listed() -> None:
    assert refused(head(), Handshake(origins=["https://example.org"])).status == 403


def test_a_missing_origin_may_connect_where_all_origins_may() -> None:
    accepted(head(), Handshake(origins=["*"]))


def test_any_origin_may_connect_where_none_is_listed() -> None:
    accepted(head(fields=[*USUAL, "Origin: http://a.example", "Origin: http://b.example"]))


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "example.org",
        "https://",
        "https://example.org/",
        "https://a:b",
        "https://a b",
        "http://caf\u00e9",
        "https://*",
        "https://*.org",
        "https://www.*.org",
        "https://a*.example.org",
        "https://*.*.example.org",
        "\ud800",
    ],
)
def test_an_origin_that_no_browser_sends_is_an_error(origin: str) -> None:
    with pytest.raises(ValueError, match="origin"):
        Handshake(origins=["https://example.org", origin])


# --- plain HTTP ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/", "/?x=1", "http://example.org"])
def test_the_page_is_served_at_the_root(target: str) -> None:
    answer = refused(head(f"GET {target} HTTP/1.1", [HOST]), Handshake(page=PAGE))
    status, fields, content = parse(answer.response)
    assert answer.status == status == 200
    assert content == PAGE
    assert fields["Content-Type"] == "text/html; charset=utf-8"
    assert fields["X-Content-Type-Options"] == "nosniff"
    assert fields["Referrer-Policy"] == "no-referrer"
    assert fields["Cache-Control"] == "no-cache"


def test_the_page_is_served_to_http_1_0() -> None:
    assert refused(b"GET / HTTP/1.0\r\n\r\n", Handshake(page=PAGE)).response.endswith(PAGE)


@pytest.mark.parametrize(("path", "page"), [("/", None), ("/room", PAGE), ("//", PAGE)])
def test_there_is_no_page_elsewhere(path: str, page: bytes | None) -> None:
    assert refused(head(f"GET {path} HTTP/1.1", [HOST]), Handshake(page=page)).status == 426


def test_the_page_s_inline_scripts_and_styles_are_admitted_by_their_hashes() -> None:
    page = b"<style>\r\nbody{}\r</style><SCRIPT type=module>one()\n</SCRIPT ><p><script>two()</script>"

    def source(content: bytes) -> str:
        return f"'sha256-{b64encode(sha256(content).digest()).decode()}'"

    answer = refused(head("GET / HTTP/1.1", [HOST]), Handshake(page=page))
    policy = dict(
        directive.split(" ", 1)
        for directive in parse(answer.response)[1]["Content-Security-Policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["style-src"] == source(b"\nbody{}\n")
    assert policy["script-src"] == f"{source(b'one()' + bytes([10]))} {source(b'two()')}"
    assert policy["connect-src"] == "'self' ws: wss:"


def test_a_page_without_scripts_may_run_none() -> None:
    answer = refused(head("GET / HTTP/1.1", [HOST]), Handshake(page=PAGE))
    assert "script-src 'none'; style-src 'none'" in parse(answer.response)[1]["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/healthz", "/healthz?x", "/%68ealthz"])
def test_the_health_check_is_ok(path: str) -> None:
    answer = refused(head(f"GET {path} HTTP/1.1", [HOST]))
    assert answer.status == 200
    assert parse(answer.response)[2] == b"ok\n"


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("/ HTTP/1.1", [HOST]),
        ("/healthz HTTP/1.1", [HOST]),
        ("/room HTTP/1.1", [HOST]),
        ("/room HTTP/1.1", []),
        ("/room HTTP/1.1", [HOST, "X : a"]),
        ("/room HTTP/2.0", [HOST]),
        ("/room HTTP/1.1", [HOST, "Content-Length: 1"]),
    ],
)
def test_head_is_answered_like_get_without_the_content(line: str, fields: list[str]) -> None:
    handshake = Handshake(page=PAGE)
    get = refused(head(f"GET {line}", fields), handshake)
    answer = refused(head(f"HEAD {line}", fields), handshake)
    assert answer.status == get.status
    assert parse(get.response)[2]
    assert answer.response == get.response.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


# --- every response -----------------------------------------------------------------------------------------


def test_the_answers_that_need_no_head_are_complete() -> None:
    handshake = Handshake(max_head=1234, retry_after=7)
    for response, status in (
        (handshake.timeout, 408),
        (handshake.too_large, 431),
        (handshake.full, 503),
        (handshake.too_many, 429),
    ):
        actual, fields, content = parse(response)
        assert actual == status
        assert fields["Connection"] == "close"
        assert fields["Content-Length"] == str(len(content))
    assert b"1234" in parse(handshake.too_large)[2]
    assert parse(handshake.full)[1]["Retry-After"] == "7"
    assert parse(handshake.too_many)[1]["Retry-After"] == "7"


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (head("GET"), 400),
        (head(), 403),
        (head("POST / HTTP/1.1"), 405),
        (head(fields=[HOST, "Content-Length: 1"]), 413),
        (head(fields=[HOST]), 426),
        (head(fields=[*USUAL, "X: " + "x" * 10_000]), 431),
        (head("GET / HTTP/2.0"), 505),
    ],
)
def test_a_refusal_explains_itself_in_one_line_and_announces_the_close(
    request_head: bytes, status: int
) -> None:
    answer = refused(request_head, Handshake(origins=["https://example.org"]))
    actual, fields, content = parse(answer.response)
    assert answer.status == actual == status
    assert fields["Content-Type"] == "text/plain; charset=utf-8"
    assert fields["Content-Length"] == str(len(content))
    assert "close" in fields["Connection"].split(", ")
    assert re.fullmatch(rb"[ -~]+\n", content)


# --- with a stop between reading and answering --------------------------------------------------------------


def read(request: bytes, handshake: Handshake | None = None) -> Upgrade:
    upgrade = (handshake or Handshake()).read(request)
    assert isinstance(upgrade, Upgrade), upgrade
    return upgrade


def test_what_is_read_is_path_query_fields_and_offer() -> None:
    offer = ["Sec-WebSocket-Protocol: news", "Sec-WebSocket-Protocol: chat"]
    upgrade = read(head("GET /caf%C3%A9?a=%20&b HTTP/1.1", [*USUAL, *offer, "X-A: 1", "x-a: 2"]))
    assert (upgrade.path, upgrade.query, upgrade.offered) == ("/caf\u00e9", "a=%20&b", ("news", "chat"))
    assert upgrade.fields() == {
        "host": "example.org",
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": KEY,
        "sec-websocket-version": "13",
        "sec-websocket-protocol": "news, chat",
        "x-a": "1, 2",
    }


@pytest.mark.parametrize(
    "request_head",
    [
        head(fields=[*USUAL, "Origin: https://example.org"]),
        head(fields=[*USUAL, "Origin: https://example.org", "Sec-WebSocket-Protocol: chat, news"]),
        head(fields=[*USUAL, "Origin: https://example.org", "sec-websocket-protocol: soap"]),
    ],
)
def test_to_read_and_to_accept_is_to_answer(request_head: bytes) -> None:
    handshake = Handshake(origins=["https://example.org"], subprotocols=["news", "chat"])
    upgrade = read(request_head, handshake)
    response = handshake.accept(upgrade, handshake.choose(upgrade.offered))
    assert response == accepted(request_head, handshake).response


@pytest.mark.parametrize(
    "request_head",
    [
        b"",
        head("GET"),
        head("GET / HTTP/1.1", [HOST]),
        head("HEAD / HTTP/1.1", [HOST]),
        head("GET /healthz HTTP/1.1", [HOST]),
        head("POST / HTTP/1.1"),
        head(),
        head(fields=[*USUAL, "Origin: https://evil.example"]),
        head(fields=[*USUAL, "Origin: https://example.org", "Sec-WebSocket-Protocol: a, a"]),
        head(fields=[*USUAL, "X: " + "x" * 10_000]),
    ],
)
def test_what_is_not_to_be_accepted_is_answered_when_it_is_read(request_head: bytes) -> None:
    handshake = Handshake(origins=["https://example.org"], page=PAGE)
    assert handshake.read(request_head) == refused(request_head, handshake)


def test_accepting_takes_another_subprotocol_and_more_headers() -> None:
    upgrade = read(head(fields=[*USUAL, "Sec-WebSocket-Protocol: news, chat"]))
    response = Handshake(subprotocols=["news"]).accept(
        upgrade, "chat", (("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"))
    )
    assert response == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n"
        b"Sec-WebSocket-Protocol: chat\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n"
    )


@pytest.mark.parametrize("status", [400, 401, 402, 413, 418, 422, 451, 499, 500, 507, 511, 599])
def test_any_refusal_is_well_formed(status: int) -> None:
    answer = Handshake.refuse(status, "caf\u00e9 is closed")
    actual, fields, content = parse(answer.response.replace(b"I'm a", b"I am a"))
    assert answer.status == actual == status
    assert fields["Connection"] == "close"
    assert fields["Content-Length"] == str(len(content))
    assert content == "caf\u00e9 is closed\n".encode()


def test_a_refusal_without_a_reason_says_its_status_in_words() -> None:
    assert Handshake.refuse(404, "").response.endswith(b"\r\n\r\nNot Found\n")
    assert Handshake.refuse(499, "").response.endswith(b"\r\n\r\nRefused\n")


def test_a_refusal_s_headers_replace_the_usual_ones() -> None:
    answer = Handshake.refuse(401, "{}", (("content-type", "application/json"), ("WWW-Authenticate", "X")))
    _, fields, _ = parse(answer.response)
    assert "Content-Type" not in fields
    assert (fields["content-type"], fields["WWW-Authenticate"]) == ("application/json", "X")
    assert fields["Cache-Control"] == "no-store"
