"""What a handler is asked, and which answers can be made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fastcast.handshake import Handshake, Upgrade
from fastcast.request import Accept, Refuse, Request


def request_of(target: str = "/room", *fields: str, offer: str = "") -> Request:
    lines = [
        f"GET {target} HTTP/1.1",
        "Host: example.org",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *([f"Sec-WebSocket-Protocol: {offer}"] if offer else []),
        *fields,
        "\r\n",
    ]
    upgrade = Handshake().read("\r\n".join(lines).encode("latin-1"))
    assert isinstance(upgrade, Upgrade)
    return Request(upgrade)


class TestRequest:
    @pytest.mark.parametrize(
        ("target", "path", "query"),
        [
            ("/", "/", ""),
            ("/caf%C3%A9?a=%C3%A9", "/caf\u00e9", "a=%C3%A9"),
            ("/a?", "/a", ""),
            ("/a?b?c", "/a", "b?c"),
            ("http://example.org/a?b=/c", "/a", "b=/c"),
            ("ws://example.org?x", "/", "x"),
        ],
    )
    def test_the_path_is_decoded_and_the_query_string_is_as_it_was_sent(
        self, target: str, path: str, query: str
    ) -> None:
        request = request_of(target)
        assert (request.path, request.query_string) == (path, query)

    def test_parameters_are_decoded_and_the_first_of_a_name_counts(self) -> None:
        query = request_of("/?name=Ada%20L+b&name=Bob&empty=&bare&e=%C3%A9%ff&a=b=c").query
        assert dict(query) == {"name": "Ada L b", "empty": "", "bare": "", "e": "\u00e9\ufffd", "a": "b=c"}

    def test_headers_have_no_case(self) -> None:
        headers = request_of("/", "X-User: Ada", "x-eMPTY:").headers
        assert (headers["x-user"], headers["X-USER"], headers["X-Empty"]) == ("Ada", "Ada", "")
        assert "HOST" in headers
        assert headers.get("X-Missing") is None
        assert 7 not in headers
        assert "x-user" in list(headers)
        assert len(headers) == 7

    def test_repeated_headers_are_joined(self) -> None:
        headers = request_of("/", "X-A: 1", "Via: b", "x-a:\t 2 \t").headers
        assert headers["X-A"] == "1, 2"

    def test_bytes_above_ascii_in_headers_are_latin_1(self) -> None:
        assert request_of("/", "X-Name: J\xfcrgen").headers["X-Name"] == "J\u00fcrgen"

    def test_empty_lines_in_front_change_nothing(self) -> None:
        upgrade = Handshake().read(
            b"\r\n\r\nGET /a?b HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert isinstance(upgrade, Upgrade)
        request = Request(upgrade)
        assert (request.query_string, request.headers["host"], len(request.headers)) == ("b", "h", 5)

    def test_cookies_are_taken_apart_and_the_first_of_a_name_counts(self) -> None:
        cookies = request_of("/", 'Cookie: a=1; b="x y";c=d=e ; bare; =no', "Cookie: a=2; f=").cookies
        assert dict(cookies) == {"a": "1", "b": "x y", "c": "d=e", "f": ""}

    def test_without_cookies_there_are_none(self) -> None:
        assert dict(request_of().cookies) == {}

    def test_what_is_offered_keeps_its_order(self) -> None:
        assert request_of(offer="news, chat").subprotocols == ("news", "chat")
        assert request_of().subprotocols == ()

    def test_what_is_parsed_is_parsed_once(self) -> None:
        request = request_of("/?a=b", "Cookie: c=d")
        assert request.query is request.query
        assert request.headers is request.headers
        assert request.cookies is request.cookies

    def test_nobody_can_write_into_it(self) -> None:
        request: Any = request_of("/?a=b", "Cookie: c=d")
        for mapping in (request.query, request.headers, request.cookies):
            with pytest.raises(TypeError):
                mapping["a"] = "x"

    def test_its_text_has_no_place_for_a_token(self) -> None:
        request = request_of("/a?token=sesame", "Cookie: token=sesame", "Authorization: Bearer sesame")
        request.remote = "192.0.2.1"
        assert repr(request) == "<Request '/a' of 192.0.2.1>"


class TestAccept:
    def test_without_arguments_everything_is_left_to_the_server(self) -> None:
        accept = Accept()
        assert (accept.channels, accept.state, accept.subprotocol) == (None, None, None)
        assert (accept.headers, accept.hello) == ((), ())

    @pytest.mark.parametrize(
        ("channels", "kept"),
        [
            ([], ()),
            (["a", "b.*", "c.>"], ("a", "b.*", "c.>")),
            (("b", "a", "b"), ("b", "a")),
            ((name for name in "ab"), ("a", "b")),
        ],
    )
    def test_channels_are_names_and_patterns_in_order_and_once_each(
        self, channels: Any, kept: tuple[str, ...]
    ) -> None:
        assert Accept(channels).channels == kept

    @pytest.mark.parametrize(
        ("hello", "kept"),
        [
            ("hi", ("hi",)),
            (b"hi", (b"hi",)),
            (bytearray(b"hi"), (b"hi",)),
            (["a", b"b", memoryview(b"c")], ("a", b"b", b"c")),
            ([], ()),
            ("", ("",)),
        ],
    )
    def test_hello_is_a_message_or_several(self, hello: Any, kept: tuple[str | bytes, ...]) -> None:
        assert Accept(hello=hello).hello == kept

    def test_headers_may_be_pairs_so_that_a_name_can_be_repeated(self) -> None:
        pairs = (("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"))
        assert Accept(headers=pairs).headers == pairs
        assert Accept(headers={"X-A": "1"}).headers == (("X-A", "1"),)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"channels": "news"}, TypeError, r"a list of names: \['news'\], not 'news'"),
            ({"channels": [7]}, TypeError, "a channel is a str, not int"),
            ({"channels": [""]}, ValueError, "is empty"),
            ({"channels": ["a.>.b"]}, ValueError, "isn't its last token"),
            ({"channels": ["x" * 1025]}, ValueError, "1025 bytes"),
            ({"channels": 7}, TypeError, "not iterable"),
            ({"subprotocol": "a b"}, ValueError, "'a b' is not a subprotocol name"),
            ({"subprotocol": ""}, ValueError, "'' is not a subprotocol name"),
            ({"subprotocol": "caf\u00e9"}, ValueError, "is not a subprotocol name"),
            ({"subprotocol": "a\r\nX: y"}, ValueError, "is not a subprotocol name"),
            ({"subprotocol": b"a"}, TypeError, "a subprotocol is a str, not bytes"),
            ({"hello": 7}, TypeError, "not iterable"),
            ({"hello": [7]}, TypeError, "a message is str or bytes, not int"),
            ({"hello": "\ud800"}, ValueError, "surrogates not allowed"),
        ],
    )
    def test_what_cannot_be_done_is_an_error_where_it_is_written(
        self, arguments: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            Accept(**arguments)


class TestRefuse:
    def test_by_default_it_is_forbidden(self) -> None:
        refusal = Refuse()
        assert (refusal.status, refusal.reason, refusal.headers) == (403, "", ())

    @pytest.mark.parametrize("status", [400, 401, 499, 599])
    def test_its_status_is_an_error_s(self, status: int) -> None:
        assert Refuse(status).status == status

    @pytest.mark.parametrize("status", [-1, 0, 101, 200, 302, 399, 600, 1000])
    def test_another_status_is_an_error(self, status: int) -> None:
        with pytest.raises(ValueError, match=f"between 400 and 599, not {status}"):
            Refuse(status)

    @pytest.mark.parametrize("status", ["403", True, None, 403.0])
    def test_a_status_is_a_whole_number(self, status: Any) -> None:
        with pytest.raises(TypeError, match="a status is an int"):
            Refuse(status)

    def test_a_reason_is_text(self) -> None:
        with pytest.raises(TypeError, match="a reason is a str, not bytes"):
            Refuse(403, b"no")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="surrogates not allowed"):
            Refuse(403, "\ud800")

    def test_its_text_is_status_and_reason(self) -> None:
        assert (str(Refuse(401, "log in first")), str(Refuse(404))) == ("401 log in first", "404")


@pytest.mark.parametrize(
    "make", [lambda headers: Accept(headers=headers), lambda headers: Refuse(headers=headers)]
)
class TestHeaders:
    @pytest.mark.parametrize("value", ["", "a", "a b\tc", "!~", 'a="b"; c'])
    def test_a_value_is_printable(self, make: Callable[[Any], Accept | Refuse], value: str) -> None:
        assert make({"X-A": value}).headers == (("X-A", value),)

    @pytest.mark.parametrize(
        "value",
        ["a\r\nX: y", "a\r", "a\n", "\na", "a\x00", "a\x7f", "a\x85b", "caf\u00e9", "a\u2028b", " a", "a\t"],
    )
    def test_a_value_cannot_begin_another_header(
        self, make: Callable[[Any], Accept | Refuse], value: str
    ) -> None:
        with pytest.raises(ValueError, match="the header X-A has a value that is not printable"):
            make({"X-A": value})

    @pytest.mark.parametrize("name", ["", "X A", "X:", "X\r\nY", "X\n", "caf\u00e9", "(x)"])
    def test_a_name_is_a_token(self, make: Callable[[Any], Accept | Refuse], name: str) -> None:
        with pytest.raises(ValueError, match="is not the name of a header"):
            make({name: "a"})

    @pytest.mark.parametrize(
        "name",
        [
            "Connection",
            "UPGRADE",
            "content-length",
            "Transfer-Encoding",
            "Trailer",
            "Sec-WebSocket-Accept",
            "sec-websocket-protocol",
            "Sec-WebSocket-Extensions",
        ],
    )
    def test_the_handshake_keeps_its_own(self, make: Callable[[Any], Accept | Refuse], name: str) -> None:
        with pytest.raises(ValueError, match=f"the header {name} is the handshake's own"):
            make({name: "a"})

    @pytest.mark.parametrize("headers", [{"X-A": 7}, {7: "a"}, [("X-A", b"a")]])
    def test_name_and_value_are_text(self, make: Callable[[Any], Accept | Refuse], headers: Any) -> None:
        with pytest.raises(TypeError, match="a header is a str for a str"):
            make(headers)
