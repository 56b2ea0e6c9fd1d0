"""The admin port over real HTTP, before a server that only writes down what it is asked."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from urllib.parse import quote

import pytest

from fastcast.admin import Admin
from fastcast.admin.attempts import MOST_KEYS, MOST_NUMBERS, SECONDS, Attempts
from fastcast.admin.messages import MOST_MESSAGES, body_limit
from fastcast.admin.problem import Problem
from fastcast.config import Config
from fastcast.errors import FastcastError, StartError
from tests.support.fake_server import OPEN, TOKEN, FakeServer, Port, admin_port
from tests.support.hosting import Run
from tests.support.wire import TIMEOUT

ENDPOINTS = (
    ("POST", "/publish"),
    ("GET", "/channels"),
    ("GET", "/channels/news"),
    ("GET", "/clients?channel=news"),
    ("GET", f"/clients/{OPEN}"),
    ("DELETE", f"/clients/{OPEN}"),
    ("GET", "/stats"),
    ("GET", "/openapi.json"),
    ("GET", "/nowhere"),
)


@pytest.fixture
def port(nothing_left: None) -> Iterator[Port]:
    with admin_port() as port:
        yield port


@pytest.fixture
def server(port: Port) -> FakeServer:
    return port.server


class TestToken:
    """Who may ask."""

    @pytest.mark.parametrize(("method", "target"), ENDPOINTS)
    def test_nothing_is_told_or_done_without_the_token(self, port: Port, method: str, target: str) -> None:
        answer = port.ask(method, target, "hello", Authorization=None)
        assert answer.problem == (401, "a token is needed (Authorization: Bearer TOKEN)")
        assert answer.headers["www-authenticate"] == 'Bearer realm="fastcast"'
        assert (port.server.published, port.server.closed) == ([], [])

    @pytest.mark.parametrize(
        "given",
        ["Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, "Bearer \xe9"],
    )
    def test_another_token_is_none(self, port: Port, given: str) -> None:
        status, detail = port.ask("GET", "/stats", Authorization=given).problem
        assert (status, TOKEN in detail) == (401, False)

    def test_scheme_may_be_in_any_case(self, port: Port) -> None:
        assert port.ask("GET", "/stats", Authorization=f"bearer {TOKEN}").status == 200

    def test_large_body_is_not_read_without_the_token(self, port: Port) -> None:
        with socket.create_connection(port.address, TIMEOUT) as client:
            client.sendall(b"POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 401 ")


class TestPublish:
    """POST /publish, and what it makes of bodies."""

    def test_message_in_json_goes_to_its_channel(self, port: Port, server: FakeServer) -> None:
        answer = port.publish({"channel": "news", "data": "hällo", "key": "k"})
        assert (answer.status, answer.json) == (200, {"subscribers": [3]})
        assert server.published == [("news", "hällo", "k")]

    def test_base64_is_binary(self, port: Port, server: FakeServer) -> None:
        data = bytes(range(256))
        port.publish({"channel": "news", "base64": base64.b64encode(data).decode()})
        assert server.published == [("news", data, None)]

    def test_message_without_a_channel_is_for_everybody(self, port: Port, server: FakeServer) -> None:
        assert port.publish({"data": "all"}).json == {"subscribers": [6]}
        assert port.ask("POST", "/publish", "all").json == {"subscribers": [6]}
        assert server.published == [(None, "all", None)] * 2

    def test_many_messages_keep_their_order(self, port: Port, server: FakeServer) -> None:
        messages = [
            {"channel": "news", "data": "1"},
            {"data": "2"},
            {"channel": "/rooms/7", "base64": "Aw==", "key": "k"},
            {"channel": "nobody", "data": "4"},
        ]
        assert port.publish({"messages": messages}).json == {"subscribers": [3, 6, 2, 0]}
        assert server.published == [
            ("news", "1", None),
            (None, "2", None),
            ("/rooms/7", b"\x03", "k"),
            ("nobody", "4", None),
        ]

    def test_channel_and_key_of_the_query_are_for_messages_without_them(
        self, port: Port, server: FakeServer
    ) -> None:
        messages = [{"data": "1"}, {"channel": "b", "data": "2"}, {"key": "m", "data": "3"}]
        port.publish({"messages": messages}, "/publish?channel=a&key=k")
        assert server.published == [("a", "1", "k"), ("b", "2", "k"), ("a", "3", "m")]

    @pytest.mark.parametrize(
        ("kind", "body", "data"),
        [
            (None, b"h\xc3\xa4llo", "hällo"),
            (None, b"\xff", b"\xff"),
            (None, b"", ""),
            ("text/plain", b"h\xc3\xa4llo", "hällo"),
            ("text/csv; charset=UTF-8", b"a,b", "a,b"),
            ("application/octet-stream", b"text", b"text"),
            ("Application/Octet-Stream; x=y", b"", b""),
        ],
    )
    def test_body_may_be_the_message(
        self, port: Port, server: FakeServer, kind: str | None, body: bytes, data: str | bytes
    ) -> None:
        name = "/räume/7 & 8"
        answer = port.ask("POST", f"/publish?channel={quote(name, safe='')}&key=k", body, Content_Type=kind)
        assert answer.json == {"subscribers": [0]}
        assert server.published == [(name, data, "k")]

    @pytest.mark.parametrize(
        ("body", "detail"),
        [
            ("{", "the body is not valid JSON: "),
            ("", "the body is not valid JSON: "),
            ("[" * 100_000, "the body is not valid JSON: "),
            ("1" * 10_000, "the body is not valid JSON: "),
            (b'{"data": "\xff"}', "the body is not valid JSON: "),
            ("[]", "expected an object, not an array"),
            ("null", "expected an object, not null"),
            ("{}", "expected either data or base64"),
            ('{"data": "x", "base64": ""}', "expected either data or base64"),
            ('{"data": {"a": 1}}', "data is a string, not an object: what is to reach clients as JSON is"),
            ('{"data": 1}', "data is a string, not a number"),
            ('{"data": "x", "channel": null}', "channel is a string, not null"),
            ('{"data": "x", "key": true, "channel": "a"}', "key is a string, not a boolean"),
            ('{"data": "x", "chanel": "a"}', "there is no 'chanel' in a message"),
            ('{"data": "x", "channel": ""}', "the name of a channel is empty"),
            ('{"data": "x", "channel": "a.*"}', "'a.*' is a pattern: a message goes to one channel"),
            ('{"data": "x", "key": "k"}', "a key needs a channel"),
            ('{"data": "\\ud800"}', "half of a surrogate pair is no text"),
            ('{"data": "x", "channel": "\\udfff"}', "half of a surrogate pair is no text"),
            ('{"data": "x", "channel": "a", "key": "\\udfff"}', "half of a surrogate pair is no text"),
            ('{"base64": "?"}', "base64: "),
            ('{"base64": "YQ"}', "base64: "),
            ('{"base64": "\\u00e9"}', "base64: "),
            ('{"messages": {}}', "messages is an array, not an object"),
            ('{"messages": []}', f"0 messages are not between 1 and {MOST_MESSAGES}"),
            ('{"messages": [], "channel": "a"}', "nothing else may stand beside messages"),
            ('{"messages": [{"data": "x"}, 7]}', "messages[1]: expected an object, not a number"),
            ('{"messages": [{"data": "x"}, {"data": "y", "channel": ">"}]}', "messages[1]: '>' is a pattern"),
        ],
    )
    def test_wrong_json_is_told_and_nothing_published(
        self, port: Port, server: FakeServer, body: str | bytes, detail: str
    ) -> None:
        status, told = port.ask("POST", "/publish", body, Content_Type="application/json").problem
        assert (status, told[: len(detail)]) == (400, detail)
        assert server.published == []

    @pytest.mark.parametrize(
        ("kind", "body", "status", "detail"),
        [
            ("application/x-www-form-urlencoded", b"hello", 415, "Content-Type 'application/x-www-form-urle"),
            ("text/plain; charset=latin-1", b"hello", 415, "text is UTF-8, not 'latin-1'"),
            ("text/plain", b"abc\xff", 400, "the text is not valid UTF-8: invalid start byte at byte 3"),
        ],
    )
    def test_wrong_body_is_told(
        self, port: Port, server: FakeServer, kind: str, body: bytes, status: int, detail: str
    ) -> None:
        problem = port.ask("POST", "/publish?channel=a", body, Content_Type=kind).problem
        assert (problem[0], problem[1][: len(detail)]) == (status, detail)
        assert server.published == []

    @pytest.mark.parametrize(
        ("query", "detail"),
        [
            ("chanel=a", "there is no parameter 'chanel' here"),
            ("channel=a&channel=b", "a parameter is there twice"),
            ("channel=%ff", "the query is not valid: percent-encoded UTF-8 is expected"),
            ("channel=", "the name of a channel is empty"),
            ("channel=a.%3E", "'a.>' is a pattern: a message goes to one channel"),
            ("key=k", "a key needs a channel"),
        ],
    )
    def test_wrong_query_is_told(self, port: Port, server: FakeServer, query: str, detail: str) -> None:
        assert port.ask("POST", f"/publish?{query}", "x").problem == (400, detail)
        assert server.published == []

    def test_body_with_an_encoding_is_refused(self, port: Port) -> None:
        assert port.ask("POST", "/publish", b"\x1f\x8b", Content_Encoding="gzip").problem[0] == 415

    def test_message_may_be_as_long_as_max_message(self, nothing_left: None) -> None:
        with admin_port(max_message=100) as port:
            wide = "\x01" * 100
            assert port.ask("POST", "/publish", "x" * 100).status == 200
            assert port.publish({"messages": [{"data": wide}, {"data": 50 * "ä"}]}).status == 200
            for body in ("x" * 101, json.dumps({"messages": [{"data": "x"}, {"data": 51 * "ä"}]})):
                kind = "application/json" if body.startswith("{") else "text/plain"
                status, detail = port.ask("POST", "/publish", body, Content_Type=kind).problem
                assert (status, detail.endswith("bytes is longer than max_message, 100")) == (413, True)
            assert len(port.server.published) == 3

    def test_body_has_a_limit(self, nothing_left: None) -> None:
        with admin_port(max_message=100) as port:
            limit = body_limit(100)
            known = f"a body of {limit + 1} bytes is longer than {limit}"
            assert port.ask("POST", "/publish", b"x" * (limit + 1)).problem == (413, known)
            with socket.create_connection(port.address, TIMEOUT) as client:
                head = "POST /publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                client.sendall(f"{head}Authorization: Bearer {TOKEN}\r\n\r\n{limit + 1:x}\r\n".encode())
                client.sendall(b"x" * (limit + 1))
                assert client.recv(100).startswith(b"HTTP/1.1 413 ")

    def test_message_that_does_not_come_whole_is_not_published(self, port: Port) -> None:
        with socket.create_connection(port.address, TIMEOUT) as client:
            head = f"POST /publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            client.sendall(f"{head}Content-Length: 10\r\n\r\nhello".encode())
            client.shutdown(socket.SHUT_WR)
            client.recv(100)
        assert port.ask("GET", "/stats").status == 200
        assert port.server.published == []

    def test_overload_is_told_with_when_to_come_again(self, port: Port, server: FakeServer) -> None:
        server.room = 0
        answer = port.ask("POST", "/publish?channel=news", "x")
        assert answer.problem == (503, "too much is under way")
        assert answer.headers["retry-after"] == "1"
        assert answer.json["subscribers"] == []

    def test_what_was_published_before_the_overload_is_told(self, port: Port, server: FakeServer) -> None:
        server.room = 2
        answer = port.publish({"messages": [{"data": str(n)} for n in range(5)]})
        assert (answer.status, answer.json["subscribers"]) == (503, [6, 6])

    def test_message_that_the_server_does_not_take_is_told(
        self, port: Port, server: FakeServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.error = ValueError("the message is longer than the bus takes, 5 bytes")
        for target in ("/publish?channel=news", "/publish"):
            answer = port.ask("POST", target, "longer")
            assert answer.problem == (413, "the message is longer than the bus takes, 5 bytes")
            assert answer.json["subscribers"] == []
        assert not caplog.records

    def test_server_that_stops_is_told_like_overload(self, port: Port, server: FakeServer) -> None:
        server.error = FastcastError("the server is not running")
        answer = port.ask("POST", "/publish", "x")
        assert answer.problem == (503, "the server is not running")
        assert "retry-after" in answer.headers

    def test_failure_is_logged_and_says_nothing(
        self, port: Port, server: FakeServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.error = RuntimeError("a secret")
        assert port.ask("GET", "/stats").problem == (500, "the server failed, and its log says how")
        assert "a secret" in caplog.text


class TestAgain:
    """Idempotency-Key."""

    def test_request_that_comes_again_gets_the_first_answer_and_publishes_nothing(
        self, port: Port, server: FakeServer
    ) -> None:
        message = {"channel": "news", "data": "x"}
        first = port.publish(message, Idempotency_Key="a")
        server.names["news"] = 99
        again = port.publish(message, Idempotency_Key="a")
        assert (first.status, first.body) == (again.status, again.body)
        assert len(server.published) == 1

    def test_other_keys_are_other_requests(self, port: Port, server: FakeServer) -> None:
        for key in ("a", "b", "a"):
            port.ask("POST", "/publish", "x", Idempotency_Key=key)
        assert len(server.published) == 2

    @pytest.mark.parametrize(
        ("target", "body", "kind"),
        [
            ("/publish?channel=a", "y", "text/plain"),
            ("/publish?channel=b", "x", "text/plain"),
            ("/publish?channel=a", "x", "application/octet-stream"),
        ],
    )
    def test_another_request_under_the_key_is_refused(
        self, port: Port, server: FakeServer, target: str, body: str, kind: str
    ) -> None:
        first = "/publish?channel=a"
        assert port.ask("POST", first, "x", Content_Type="text/plain", Idempotency_Key="k").status == 200
        answer = port.ask("POST", target, body, Content_Type=kind, Idempotency_Key="k")
        assert answer.problem == (422, "Idempotency-Key: another request had this key")
        assert len(server.published) == 1

    def test_request_goes_on_where_it_was_cut_short(self, port: Port, server: FakeServer) -> None:
        document = {"messages": [{"data": str(n)} for n in range(5)]}
        server.room = 2
        cut = port.publish(document, Idempotency_Key="k")
        assert (cut.status, cut.json["subscribers"]) == (503, [6, 6])
        server.room = None
        assert port.publish(document, Idempotency_Key="k").json == {"subscribers": [6] * 5}
        assert [data for _, data, _ in server.published] == list("01234")

    def test_request_that_failed_leaves_its_key_free(self, port: Port, server: FakeServer) -> None:
        assert port.publish({}, Idempotency_Key="k").status == 400
        server.room = 0
        assert port.publish({"data": "x"}, Idempotency_Key="k").status == 503
        server.room = None
        assert port.publish({"data": "y"}, Idempotency_Key="k").status == 200

    @pytest.mark.parametrize("key", ["", "a b", "x" * 256, "\xe9"])
    def test_key_has_a_form(self, port: Port, server: FakeServer, key: str) -> None:
        status, detail = port.ask("POST", "/publish", "x", Idempotency_Key=key).problem
        assert (status, detail.split(":")[0]) == (400, "Idempotency-Key")
        assert server.published == []


class TestAttempts:
    """What is remembered, and for how long."""

    def keep(self, attempts: Attempts, key: str, messages: int = 1) -> None:
        attempt = attempts.find(key, b"request")
        attempt.subscribers.extend([1] * (messages - len(attempt.subscribers)))
        attempts.keep(key, attempt)

    def test_key_is_remembered_for_a_time_after_its_last_use(self) -> None:
        now = 0.0
        attempts = Attempts(lambda: now)
        self.keep(attempts, "a")
        now = SECONDS - 1
        self.keep(attempts, "a")
        now = 2 * SECONDS - 2
        assert list(attempts.find("a", b"request").subscribers) == [1]
        now = 2 * SECONDS
        assert list(attempts.find("a", b"other").subscribers) == []
        assert len(attempts) == 0

    def test_number_of_keys_has_a_limit_and_the_least_recently_used_goes_first(self) -> None:
        attempts = Attempts(lambda: 0.0)
        for number in range(MOST_KEYS):
            self.keep(attempts, str(number))
        self.keep(attempts, "0")
        self.keep(attempts, "new")
        assert len(attempts) == MOST_KEYS
        assert len(attempts.find("0", b"request").subscribers) == 1
        assert len(attempts.find("1", b"request").subscribers) == 0

    def test_number_of_messages_has_a_limit(self) -> None:
        attempts = Attempts(lambda: 0.0)
        most = MOST_NUMBERS // MOST_MESSAGES
        for number in range(most + 10):
            self.keep(attempts, str(number), MOST_MESSAGES // 2)
            self.keep(attempts, str(number), MOST_MESSAGES)
        assert len(attempts) == most

    def test_parts_of_a_request_do_not_run_together(self) -> None:
        attempts = Attempts(lambda: 0.0)
        attempt = attempts.find("a", b"xy", b"z")
        attempt.subscribers.append(1)
        attempts.keep("a", attempt)
        with pytest.raises(Problem):
            attempts.find("a", b"x", b"yz")


class TestChannels:
    """GET /channels and /channels/{name}."""

    def test_names_are_told_in_order_with_their_clients(self, port: Port) -> None:
        answer = port.ask("GET", "/channels").json
        assert answer == {"channels": {"/rooms/7": 2, "news": 3, "prices.*": 1}, "next": None}
        assert list(answer["channels"]) == ["/rooms/7", "news", "prices.*"]

    def test_prefix_chooses(self, port: Port) -> None:
        assert port.ask("GET", "/channels?prefix=pri").json["channels"] == {"prices.*": 1}
        assert port.ask("GET", "/channels?prefix=x").json == {"channels": {}, "next": None}

    def test_pages_have_every_name_once(self, port: Port, server: FakeServer) -> None:
        server.names = {f"r.{number:03}": number + 1 for number in range(250)} | {"other & name": 1}
        found: dict[str, int] = {}
        cursor: str | None = ""
        while cursor is not None:
            page = port.ask("GET", f"/channels?prefix=r.&limit=100&cursor={quote(cursor)}").json
            assert not found.keys() & page["channels"].keys()
            found |= page["channels"]
            cursor = page["next"]
        assert found == {f"r.{number:03}": number + 1 for number in range(250)}

    def test_last_page_may_be_full(self, port: Port) -> None:
        assert port.ask("GET", "/channels?limit=3").json["next"] is None
        assert port.ask("GET", "/channels?limit=2").json["next"] == "news"

    @pytest.mark.parametrize("limit", ["0", "10001", "x", "", "-1", "%D9%A3", "1" * 5000])
    def test_wrong_limit_is_told(self, port: Port, limit: str) -> None:
        status, detail = port.ask("GET", f"/channels?limit={limit}").problem
        assert (status, detail.endswith("is not a number between 1 and 10000")) == (400, True)

    @pytest.mark.parametrize("path", ["/rooms/7", "%2Frooms%2F7", "%2frooms/7"])
    def test_name_may_have_slashes(self, port: Port, path: str) -> None:
        answer = port.ask("GET", f"/channels/{path}").json
        assert (answer["name"], answer["members"]) == ("/rooms/7", 2)

    @pytest.mark.parametrize("name", ["räume", "a?b#c", "100%", "%41", "a+b c", "{x}", ".."])
    def test_name_is_percent_encoded(self, port: Port, server: FakeServer, name: str) -> None:
        server.names[name] = 5
        answer = port.ask("GET", f"/channels/{quote(name, safe='').replace('.', '%2E')}").json
        assert (answer["name"], answer["members"]) == (name, 5)

    def test_channel_without_subscribers_has_zeros(self, port: Port) -> None:
        numbers = dict.fromkeys(("members", "sent", "delivered", "dropped", "gone", "queued"), 0)
        assert port.ask("GET", "/channels/nobody").json == {"name": "nobody"} | numbers

    @pytest.mark.parametrize("path", ["%ff", "a.%3E.b", "x" * 1025])
    def test_what_is_no_name_is_told(self, port: Port, path: str) -> None:
        assert port.ask("GET", f"/channels/{path}").problem[0] == 400


class TestClients:
    """GET /clients, GET and DELETE /clients/{id}."""

    def test_ids_of_a_channel_are_told_in_order(self, port: Port) -> None:
        answer = port.ask("GET", "/clients?channel=news").json
        assert answer == {"clients": [str(OPEN), str(OPEN + 1), str(OPEN + 2)], "next": None}
        assert port.ask("GET", "/clients?channel=prices.*").json["clients"] == [str(OPEN)]
        assert port.ask("GET", "/clients?channel=nobody").json == {"clients": [], "next": None}

    def test_pages_have_every_client_once(self, port: Port, server: FakeServer) -> None:
        server.names["many"] = 250
        first = port.ask("GET", "/clients?channel=many&limit=200").json
        assert first["next"] == first["clients"][-1]
        second = port.ask("GET", f"/clients?channel=many&limit=200&cursor={first['next']}").json
        assert second["next"] is None
        assert first["clients"] + second["clients"] == [str(OPEN + number) for number in range(250)]

    @pytest.mark.parametrize(
        ("query", "detail"),
        [
            ("", "channel: whose clients? Expected the name of a channel or pattern"),
            ("channel=news&limit=0", "limit: '0' is not a number between 1 and 10000"),
            ("channel=news&cursor=x", f"cursor: 'x' is not a number between 0 and {2**64 - 1}"),
            (f"channel=news&cursor={2**64}", f"cursor: '{2**64}' is not a number between 0 and {2**64 - 1}"),
        ],
    )
    def test_wrong_question_is_told(self, port: Port, query: str, detail: str) -> None:
        assert port.ask("GET", f"/clients?{query}").problem == (400, detail)
        assert port.ask("GET", "/clients?channel=a.%3E.b").problem[0] == 400

    def test_client_is_told_with_its_id_as_a_string(self, port: Port) -> None:
        assert port.ask("GET", f"/clients/{OPEN}").json == {
            "id": "9007199254740993",
            "state": "open",
            "channels": ["news", "prices.*"],
            "queued": 2,
            "queued_bytes": 300,
            "idle": 0.25,
            "remote": "127.0.0.1",
        }

    @pytest.mark.parametrize("id", ["7", "x", "-1", str(2**64), "9" * 5000, "%D9%A3"])
    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    def test_who_is_not_there_is_not_found(self, port: Port, method: str, id: str) -> None:
        status, detail = port.ask(method, f"/clients/{id}").problem
        assert (status, detail[:18]) == (404, "there is no client")
        assert port.server.closed == []

    def test_client_is_closed_with_code_and_reason(self, port: Port, server: FakeServer) -> None:
        answer = port.ask("DELETE", f"/clients/{OPEN}?code=4001&reason=go%20%C3%A4way")
        assert (answer.status, answer.body) == (204, b"")
        assert port.ask("DELETE", f"/clients/{OPEN}").status == 204
        assert server.closed == [(OPEN, 4001, "go äway"), (OPEN, 1000, "")]

    @pytest.mark.parametrize(
        ("query", "detail"),
        [
            ("code=999", "code: '999' is not a number between 1000 and 4999"),
            ("code=x", "code: 'x' is not a number between 1000 and 4999"),
            ("code=1006", "1006 is no code to close with"),
            (f"reason={'x' * 124}", "the reason is longer than 123 bytes"),
            ("reasn=x", "there is no parameter 'reasn' here"),
        ],
    )
    def test_wrong_close_is_told(self, port: Port, server: FakeServer, query: str, detail: str) -> None:
        assert port.ask("DELETE", f"/clients/{OPEN}?{query}").problem == (400, detail)
        assert server.closed == []


class TestRest:
    """What else there is, and what there isn't."""

    def test_stats_are_those_of_the_server(self, port: Port, server: FakeServer) -> None:
        assert port.ask("GET", "/stats").json == server.stats()

    def test_document_is_served_without_the_token_in_it(self, port: Port) -> None:
        answer = port.ask("GET", "/openapi.json")
        assert answer.json["openapi"].startswith("3.1")
        assert TOKEN.encode() not in answer.body

    def test_unknown_path_is_not_found(self, port: Port) -> None:
        detail = "there is no /nowhere here (GET /openapi.json tells what is)"
        assert port.ask("GET", "/nowhere").problem == (404, detail)

    @pytest.mark.parametrize(
        ("method", "target", "allowed"),
        [("GET", "/publish", "POST"), ("POST", "/clients/1", "DELETE, GET"), ("HEAD", "/stats", "GET")],
    )
    def test_other_methods_are_refused(self, port: Port, method: str, target: str, allowed: str) -> None:
        answer = port.ask(method, target)
        assert (answer.status, answer.headers["allow"]) == (405, allowed)

    def test_start_fails_in_one_line_when_the_port_is_taken(self, run: Run) -> None:
        async def start() -> None:
            with socket.create_server(("127.0.0.1", 0)) as taken:
                number = taken.getsockname()[1]
                admin = Admin(FakeServer(), Config(admin_port=number, admin_token=TOKEN))
                with pytest.raises(
                    StartError, match=f"^admin port: cannot listen on 127.0.0.1 port {number}: "
                ):
                    await admin.start()

        run(start())

    def test_it_ends_although_a_connection_is_idle_and_another_is_amid_a_request(self, run: Run) -> None:
        async def scenario() -> None:
            admin = Admin(FakeServer(), Config(admin_port=0, admin_token=TOKEN))
            await admin.start()
            idle = await asyncio.open_connection("127.0.0.1", admin.port)
            amid = await asyncio.open_connection("127.0.0.1", admin.port)
            head = f"Host: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            idle[1].write(f"GET /stats HTTP/1.1\r\n{head}\r\n".encode())
            await idle[0].readuntil(b"]}")
            amid[1].write(f"POST /publish HTTP/1.1\r\n{head}Content-Length: 9\r\n\r\nx".encode())
            await amid[1].drain()
            await admin.stop()
            for reader, writer in (idle, amid):
                await reader.read()
                writer.close()
                await writer.wait_closed()

        run(scenario())

    def test_it_may_be_stopped_before_it_was_started_and_twice(self, run: Run) -> None:
        async def scenario() -> None:
            admin = Admin(FakeServer(), Config(admin_port=0, admin_token=TOKEN))
            await admin.stop()
            await admin.start()
            await admin.stop()
            await admin.stop()

        run(scenario())

    def test_address_is_logged_and_the_token_is_not(
        self, nothing_left: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        with admin_port() as port:
            port.ask("GET", "/stats")
            port.ask("GET", "/stats", Authorization="Bearer another")
        assert f"admin port at {port.url}/" in caplog.text
        assert TOKEN not in caplog.text

    @pytest.mark.parametrize(
        "head", [b"GET / HTTP/1.1\r\nHost: a\r\nno header\r\n\r\n", b"\x16\x03\x01\r\n\r\n"]
    )
    def test_what_is_not_http_is_one_line_in_the_log_at_most(
        self, port: Port, caplog: pytest.LogCaptureFixture, head: bytes
    ) -> None:
        with socket.create_connection(port.address, TIMEOUT) as client:
            client.sendall(head)
            answer = b"".join(iter(lambda: client.recv(1000), b""))
        assert answer.startswith(b"HTTP/1.0 400 ")
        if head.startswith(b"GET"):
            assert "Error handling request from 127.0.0.1: " in caplog.text
        assert "Traceback" not in caplog.text

    def test_host_name_with_several_addresses_has_one_port(self, nothing_left: None) -> None:
        with admin_port(admin_host="localhost") as port:
            assert port.ask("GET", "/stats").status == 200


class TestDocument:
    """openapi.json against the running port."""

    @pytest.mark.slow
    def test_port_does_what_the_document_says(self, port: Port, tmp_path: Path) -> None:
        document = tmp_path / "openapi.json"
        document.write_bytes((resources.files("fastcast.admin") / "openapi.json").read_bytes())
        told = port.ask("GET", "/openapi.json").json
        assert told == json.loads(document.read_text("utf-8"))
        # Keys come again, with other bodies.
        accepted = '["2xx", "401", "404", "422"]'
        (tmp_path / "schemathesis.toml").write_text(
            f"[checks.positive_data_acceptance]\nexpected-statuses = {accepted}\n", "utf-8"
        )
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "--no-color", "run", str(document)),
                *("--url", port.url, "--header", f"Authorization: Bearer {TOKEN}"),
                *("--checks", "all", "--max-examples", "30", "--seed", "1", "--generation-deterministic"),
                *("--request-timeout", str(TIMEOUT)),
            ],
            cwd=tmp_path,
            env=os.environ | {"NO_PROXY": "*"},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert port.server.published
        assert port.server.closed
