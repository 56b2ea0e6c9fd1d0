"""The opening handshake and plain HTTP, over real sockets: what a peer sees of fastcast before any frame."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator

import pytest

from tests.support.http import Response, exchange, read_response, request
from tests.support.server import ServerProcess, running
from tests.support.wire import (
    CLOSE,
    PONG,
    TEXT,
    Address,
    Client,
    Frame,
    Refused,
    Stream,
    close_code,
    close_payload,
    frame,
    until,
    upgrade_request,
)

KEY = base64.b64encode(b"sixteen bytes ok").decode("ascii")

UPGRADE = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
)


def without(name: str) -> tuple[tuple[str, str], ...]:
    """The upgrade headers without one of them."""
    return tuple(header for header in UPGRADE if header[0] != name)


def replaced(name: str, value: str) -> tuple[tuple[str, str], ...]:
    """The upgrade headers with another value for one of them."""
    return tuple((key, value if key == name else old) for key, old in UPGRADE)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server with nothing but defaults."""
    with running() as process:
        yield process


@pytest.fixture
def address(server: ServerProcess) -> Address:
    """Where that server listens."""
    return server.address


@pytest.fixture(scope="module")
def picky() -> Iterator[Address]:
    """A server that knows one origin."""
    with running("--origin", "https://good.example") as process:
        yield process.address


@pytest.fixture(scope="module")
def impatient() -> Iterator[Address]:
    """A server with a short time for request heads."""
    with running("--handshake-timeout", "0.5s") as process:
        yield process.address


class TestUpgrade:
    """RFC 6455, 4.2."""

    def test_answer_is_101_with_the_right_headers_and_no_others_that_matter(self, address: Address) -> None:
        with Client(address, "/room") as client:
            response = client.response
            assert (response.get("upgrade") or "").lower() == "websocket"
            assert (response.get("connection") or "").lower() == "upgrade"
            # 1.3: neither a subprotocol nor an extension that was not offered.
            assert response.get("sec-websocket-protocol") is None
            assert response.get("sec-websocket-extensions") is None
            # RFC 9110, 8.6: no Content-Length in a 1xx.
            assert response.get("content-length") is None
            client.close()

    def test_offered_compression_is_not_negotiated(self, address: Address) -> None:
        offer = ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
        with Client(address, headers=[offer]) as client:
            assert client.response.get("sec-websocket-extensions") is None
            client.close()

    def test_head_sent_byte_by_byte_is_accepted(self, address: Address) -> None:
        head = upgrade_request("/slowly")
        with Stream(address) as stream:
            stream.send(*(head[i : i + 1] for i in range(len(head))))
            assert stream.read_head().status == 101

    @pytest.mark.parametrize("cut", range(1, 5))
    def test_head_cut_inside_its_end_is_accepted(self, address: Address, cut: int) -> None:
        head = upgrade_request("/cut")
        with Stream(address) as stream:
            stream.send(head[:-cut], head[-cut:])
            assert stream.read_head().status == 101

    def test_frames_in_the_request_segment_are_taken_after_the_101(self, address: Address) -> None:
        early = frame(0x9, b"early") + frame(TEXT, b"bird")
        with Client(address, "/early", early=early) as client:
            received = [client.read_frame(), client.read_frame()]
            assert sorted(received, key=lambda item: item.opcode) == [
                Frame(TEXT, b"bird"),
                Frame(PONG, b"early"),
            ]
            client.close()

    def test_large_early_message_that_follows_the_request_arrives_whole(self, address: Address) -> None:
        payload = bytes(range(256)) * 1024
        with Client(address, "/early/large", early=frame(0x2, payload)) as client:
            assert client.read_message() == Frame(0x2, payload)
            client.close()

    def test_close_in_the_request_segment_is_echoed_after_the_101(self, address: Address) -> None:
        with Client(address, "/early/close", early=frame(CLOSE, close_payload(4000))) as client:
            assert [close_code(item) for item in client.frames()] == [4000]

    def test_absolute_form_names_the_channel_by_its_path(self, address: Address) -> None:
        with Client(address, "/absolute") as one, Stream(address) as other:
            other.send(upgrade_request("http://localhost/absolute", key=KEY))
            assert other.read_head().status == 101
            one.send(frame(TEXT, b"same room"))
            assert one.read_message() == Frame(TEXT, b"same room")
            assert other.read_exactly(11) == b"\x81\x09same room"
            one.close()

    def test_query_is_no_part_of_the_channel(self, address: Address) -> None:
        with Client(address, "/query?token=a") as one, Client(address, "/query") as other:
            other.send(frame(TEXT, b"hello"))
            assert one.read_message() == Frame(TEXT, b"hello")
            one.close()
            other.close()

    def test_percent_encoded_and_plain_spellings_are_one_channel(self, address: Address) -> None:
        with Client(address, "/caf%C3%A9/%41") as one, Client(address, "/caf%c3%a9/A") as other:
            other.send(frame(TEXT, b"hello"))
            assert one.read_message() == Frame(TEXT, b"hello")
            one.close()
            other.close()

    def test_channels_are_apart_even_where_one_is_a_prefix(self, address: Address) -> None:
        with Client(address, "/apart") as one, Client(address, "/apart/") as other:
            other.send(frame(TEXT, b"not for one"))
            assert other.read_message() == Frame(TEXT, b"not for one")
            one.send(frame(TEXT, b"mine"))
            assert one.read_message() == Frame(TEXT, b"mine")
            one.close()
            other.close()

    def test_upgrade_at_healthz_is_a_channel(self, address: Address) -> None:
        with Client(address, "/healthz") as client:
            client.close()

    def test_header_names_and_tokens_are_case_insensitive_and_lists_may_be_long(
        self, address: Address
    ) -> None:
        headers = (
            ("UPGRADE", "WebSocket"),
            ("connection", "keep-alive, uPGRADE"),
            ("sec-websocket-KEY", KEY),
            ("SEC-websocket-version", "13"),
        )
        with Stream(address) as stream:
            stream.send(request("/", headers=headers))
            assert stream.read_head().status == 101

    def test_subprotocol_of_the_server_s_preference_is_chosen(self) -> None:
        offer = ("Sec-WebSocket-Protocol", "one, two, three")
        with (
            running("--subprotocol", "three", "--subprotocol", "two") as server,
            Client(server.address, headers=[offer]) as client,
        ):
            assert client.response.get("sec-websocket-protocol") == "three"
            client.close()


# Request bytes that must be refused, with the status that says why.
REFUSED = {
    "no Host": (400, request(host=None, headers=UPGRADE)),
    "two Hosts": (400, request(headers=[("Host", "other"), *UPGRADE])),
    "not HTTP": (400, b"hello there\r\n\r\n"),
    "no version": (400, b"GET /\r\nHost: localhost\r\n\r\n"),
    "lower-case version": (400, request(version="http/1.1", headers=UPGRADE)),
    "another major version": (505, request(version="HTTP/2.0", headers=UPGRADE)),
    "white space before a colon": (400, request(headers=[("X ", "y"), *UPGRADE])),
    "folded header": (400, request(headers=[("X", "a\r\n b"), *UPGRADE])),
    "header without a name": (400, request(headers=[("", "y"), *UPGRADE])),
    "NUL in a value": (400, request(headers=[("X", "a\0b"), *UPGRADE])),
    "bare CR in a value": (400, request(headers=[("X", "a\rb"), *UPGRADE])),
    "bare LF in a head": (400, request(headers=[("X", "a\nY: b"), *UPGRADE])),
    "fragment in the target": (400, request("/#there", headers=UPGRADE)),
    "asterisk-form": (400, request("*", headers=UPGRADE)),
    "malformed escape": (400, request("/%zz", headers=UPGRADE)),
    "escape that is not UTF-8": (400, request("/%ff", headers=UPGRADE)),
    "control character by escape": (400, request("/%00", headers=UPGRADE)),
    "no key": (400, request(headers=without("Sec-WebSocket-Key"))),
    "short key": (400, request(headers=replaced("Sec-WebSocket-Key", "c2hvcnQ="))),
    "key that is not base64": (400, request(headers=replaced("Sec-WebSocket-Key", "!" * 24))),
    "two keys": (400, request(headers=[*UPGRADE, ("Sec-WebSocket-Key", KEY)])),
    "no version of WebSocket": (400, request(headers=without("Sec-WebSocket-Version"))),
    "old version of WebSocket": (426, request(headers=replaced("Sec-WebSocket-Version", "8"))),
    "plain GET of a channel": (426, request("/room")),
    "Upgrade without Connection": (426, request("/room", headers=without("Connection"))),
    "Connection without Upgrade": (426, request("/room", headers=without("Upgrade"))),
    "upgrade to another protocol": (426, request("/room", headers=replaced("Upgrade", "h2c"))),
    "upgrade in HTTP/1.0": (426, request("/room", version="HTTP/1.0", headers=UPGRADE)),
    "POST": (405, request(method="POST", headers=[("Content-Length", "0")])),
    "upgrade by POST": (405, request(method="POST", headers=UPGRADE)),
    "content": (413, request(headers=[*UPGRADE, ("Content-Length", "5")], body=b"hello")),
    "chunked content": (413, request(headers=[("Transfer-Encoding", "chunked")], body=b"0\r\n\r\n")),
    "two lengths": (400, request(headers=[("Content-Length", "0"), ("Content-Length", "1")])),
    "a length and chunks": (
        400,
        request(headers=[("Content-Length", "0"), ("Transfer-Encoding", "chunked")]),
    ),
}


class TestRefusal:
    """RFC 9110, 9112, and 6455, 4.2.2: everything that is not an upgrade gets one answer and the end."""

    @pytest.mark.parametrize(("status", "raw"), REFUSED.values(), ids=REFUSED)
    def test_request_is_refused(self, address: Address, status: int, raw: bytes) -> None:
        response = exchange(address, raw)
        assert response.status == status
        assert response.get("content-type") == "text/plain; charset=utf-8"
        assert response.body.decode("utf-8").count("\n") <= 1
        assert response.body.strip()

    @pytest.mark.parametrize(
        "raw", [request("/room"), request(headers=replaced("Sec-WebSocket-Version", "8"))]
    )
    def test_426_says_what_to_upgrade_to(self, address: Address, raw: bytes) -> None:
        response = exchange(address, raw)
        options = {option.strip().lower() for option in (response.get("connection") or "").split(",")}
        assert response.get("upgrade") == "websocket"
        assert options == {"upgrade", "close"}
        assert response.get("sec-websocket-version") == "13"

    def test_405_names_the_allowed_methods(self, address: Address) -> None:
        response = exchange(address, request(method="DELETE"))
        assert response.status == 405
        assert response.get("allow") == "GET, HEAD"

    def test_frames_after_a_refused_request_are_not_processed(self, address: Address) -> None:
        with Client(address, "/refused") as witness:
            early = frame(TEXT, b"smuggled")
            assert exchange(address, request("/refused", headers=without("Upgrade")) + early).status == 426
            witness.send(frame(TEXT, b"mark"))
            assert witness.read_message() == Frame(TEXT, b"mark")
            witness.close()

    def test_second_request_behind_a_refused_one_gets_no_answer(self, address: Address) -> None:
        response = exchange(address, request("/healthz") + request("/healthz"))
        assert response.status == 200
        assert response.body == b"ok\n"

    @pytest.mark.parametrize("origin", ["https://evil.example", "http://good.example", "null", ""])
    def test_origin_that_is_not_listed_is_forbidden(self, picky: Address, origin: str) -> None:
        assert exchange(picky, request(headers=[*UPGRADE, ("Origin", origin)])).status == 403

    def test_missing_origin_is_forbidden_where_origins_are_listed(self, picky: Address) -> None:
        assert exchange(picky, request(headers=UPGRADE)).status == 403

    def test_listed_origin_is_admitted(self, picky: Address) -> None:
        with Client(picky, headers=[("Origin", "https://good.example")]) as client:
            client.close()


class TestHeadLimits:
    """What a peer may take its time and space for before it is a client."""

    def test_head_over_the_limit_gets_431(self, address: Address) -> None:
        assert exchange(address, request(headers=[("X", "x" * 9000), *UPGRADE])).status == 431

    def test_endless_head_gets_431_before_its_end(self, address: Address) -> None:
        assert exchange(address, b"GET / HTTP/1.1\r\nX: ", b"x" * 9000).status == 431

    def test_431_reaches_a_client_that_sends_far_more(self, address: Address) -> None:
        assert exchange(address, b"GET / HTTP/1.1\r\nX: ", *(b"x" * 65536 for _ in range(16))).status == 431

    def test_head_below_the_limit_is_accepted(self, address: Address) -> None:
        with Client(address, headers=[("Cookie", "c" * 7000)]) as client:
            client.close()

    @pytest.mark.parametrize("part", [b"", b"G", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
    def test_head_that_never_ends_gets_408(self, impatient: Address, part: bytes) -> None:
        assert exchange(impatient, part).status == 408

    def test_client_outlives_the_handshake_timeout(self, impatient: Address) -> None:
        with Client(impatient) as client:
            # Its answer proves that the time has passed for a connection that is younger than the client's.
            assert exchange(impatient, b"GET").status == 408
            client.close()

    def test_end_of_stream_inside_a_head_ends_the_connection(self, address: Address) -> None:
        with Stream(address) as stream:
            stream.send(b"GET / HTTP/1.1\r\n")
            stream.half_close()
            # The server may say 400 or nothing, but it must not wait for the rest of the head.
            assert stream.read_rest()[:13] in (b"", b"HTTP/1.1 400 ")


class TestFullServer:
    """--max-connections."""

    def test_third_of_two_gets_503_until_one_leaves(self) -> None:
        with (
            running("--shards", "2", "--max-connections", "2") as server,
            Client(server.address) as one,
            Client(server.address) as two,
        ):
            refusal = exchange(server.address, upgrade_request())
            assert refusal.status == 503
            assert (refusal.get("retry-after") or "").isdecimal()
            one.close()
            with admitted(server.address) as newcomer:
                newcomer.send(frame(TEXT, b"in"))
                assert two.read_message() == newcomer.read_message() == Frame(TEXT, b"in")
                newcomer.close()
            two.close()

    def test_place_of_a_client_that_vanished_is_given_away(self) -> None:
        with running("--max-connections", "1") as server:
            with Client(server.address) as gone:
                gone.reset()
            with admitted(server.address) as newcomer:
                newcomer.close()


def admitted(address: Address) -> Client:
    """A client that was let in, if need be after some refusals with 503."""

    def attempt() -> Client | None:
        try:
            return Client(address)
        except Refused as refusal:
            if refusal.head.status != 503:
                raise
            return None

    return until(attempt, "a free place")


class TestPages:
    """What a browser or a load balancer gets."""

    def test_healthz_is_ok(self, address: Address) -> None:
        response = exchange(address, request("/healthz"))
        assert (response.status, response.body) == (200, b"ok\n")

    def test_healthz_answers_http_1_0_without_host(self, address: Address) -> None:
        response = exchange(address, request("/healthz", version="HTTP/1.0", host=None))
        assert (response.status, response.body) == (200, b"ok\n")

    def test_page_is_html_whose_policy_covers_its_own_script_and_style(self, address: Address) -> None:
        response = exchange(address, request("/"))
        assert response.status == 200
        assert response.get("content-type") == "text/html; charset=utf-8"
        policy = directives(response)
        assert policy["default-src"] == ["'none'"]
        assert policy["connect-src"] == ["'self'", "ws:", "wss:"]
        for tag, directive in (("script", "script-src"), ("style", "style-src")):
            inline = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>".encode(), response.body, re.DOTALL)
            assert inline
            assert sorted(policy[directive]) == sorted(csp_hash(content) for content in inline)

    def test_page_tells_the_browser_to_be_careful(self, address: Address) -> None:
        response = exchange(address, request("/"))
        assert response.get("x-content-type-options") == "nosniff"
        assert response.get("referrer-policy") == "no-referrer"
        assert response.get("cache-control") == "no-cache"

    @pytest.mark.parametrize("target", ["/", "/healthz", "/room"])
    def test_head_has_the_headers_of_get_and_no_body(self, address: Address, target: str) -> None:
        got = exchange(address, request(target))
        head = exchange(address, request(target, method="HEAD"), head_only=True)
        assert head.head == got.head

    def test_page_can_be_turned_off(self) -> None:
        with running("--no-page") as server:
            assert exchange(server.address, request("/")).status == 426
            assert exchange(server.address, request("/healthz")).status == 200

    def test_query_does_not_hide_the_page(self, address: Address) -> None:
        assert exchange(address, request("/?from=mail")).status == 200

    def test_absolute_form_is_understood(self, address: Address) -> None:
        assert exchange(address, request("http://localhost/healthz")).body == b"ok\n"

    def test_response_comes_even_if_the_client_has_ended_its_side(self, address: Address) -> None:
        with Stream(address) as stream:
            stream.send(request("/healthz"))
            stream.half_close()
            assert read_response(stream).body == b"ok\n"


def directives(response: Response) -> dict[str, list[str]]:
    """The Content-Security-Policy of a response, by directive."""
    policy = response.get("content-security-policy")
    assert policy is not None
    words = [directive.split() for directive in policy.split(";") if directive.strip()]
    return {name: values for name, *values in words}


def csp_hash(content: bytes) -> str:
    """The source expression that allows one inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode('ascii')}'"
