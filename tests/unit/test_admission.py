"""Who is admitted: the order of the checks, and what each of them answers."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from fastcast.admission import Admission, Answer
from fastcast.config import Config
from fastcast.errors import ConfigError
from fastcast.request import Accept, Refuse, Request

USUAL = (
    "Host: example.org",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
PAGE = b"<!doctype html><title>page</title>"
SECRET = "a secret that is long enough for HS256, and for a test"
HOST = "192.0.2.1"


def head(target: str = "/room", *fields: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", *USUAL, *fields, "\r\n"]).encode("latin-1")


def token(**claims: Any) -> str:
    return jwt.encode(claims, SECRET, "HS256")


class Door:
    """An admission with what it is told: how many clients each address has, and whom it asked."""

    def __init__(
        self, on_connect: Callable[[Request], Any] | None = None, page: bytes | None = None, **options: Any
    ) -> None:
        self.counts: dict[str, int] = {}
        self.asked: list[Request] = []
        self.admission = Admission(
            Config(**options),
            page=page,
            on_connect=None if on_connect is None else self._asking(on_connect),
            address_count=lambda address: self.counts.get(address, 0),
        )

    def _asking(self, on_connect: Callable[[Request], Any]) -> Callable[[Request], Any]:
        def ask(request: Request) -> Any:
            self.asked.append(request)
            return on_connect(request)

        return ask

    def decide(self, request_head: bytes, host: str = HOST, port: int = 4711) -> Answer:
        decision = self.admission.decide(request_head, host, port)
        return asyncio.run(decision) if inspect.iscoroutine(decision) else decision  # type: ignore[return-value]

    def admit(self, *args: Any, **kwargs: Any) -> Answer:
        answer = self.decide(*args, **kwargs)
        assert answer.response.startswith(b"HTTP/1.1 101 "), answer
        assert answer.channels is not None
        return answer

    def refuse(self, *args: Any, **kwargs: Any) -> tuple[int, str]:
        """Status and reason."""
        answer = self.decide(*args, **kwargs)
        assert (answer.channels, answer.address, answer.state) == (None, "", None)
        return status_of(answer)


def status_of(answer: Answer) -> tuple[int, str]:
    section, _, content = answer.response.partition(b"\r\n\r\n")
    match = re.match(rb"HTTP/1\.1 ([0-9]{3}) ", section)
    assert match
    assert f"Content-Length: {len(content)}".encode() in section.split(b"\r\n")
    return int(match[1]), content.decode().removesuffix("\n")


def fields_of(answer: Answer) -> list[str]:
    return answer.response.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]


def content_of(answer: Answer) -> bytes:
    return answer.response.partition(b"\r\n\r\n")[2]


class TestWithoutHooks:
    def test_the_path_is_the_channel(self) -> None:
        assert Door().admit(head("/caf%C3%A9?x")) == (
            Door().admit(head()).response,
            ("/caf\u00e9",),
            "",
            None,
            None,
        )

    def test_where_a_request_comes_from_is_not_asked(self) -> None:
        assert not Door().admission.remotes
        assert Door().admit(head(), "", 0).channels == ("/room",)

    def test_page_and_health_check_are_served(self) -> None:
        door = Door(page=PAGE)
        plain = b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n"
        assert door.refuse(plain % b"/") == (200, PAGE.decode())
        assert door.refuse(plain % b"/healthz") == (200, "ok")

    def test_options_for_origins_and_subprotocols_hold(self) -> None:
        door = Door(origin=["https://example.org"], subprotocol=["news"])
        assert door.refuse(head())[0] == 403
        answer = door.admit(head("/", "Origin: https://example.org", "Sec-WebSocket-Protocol: chat, news"))
        assert "Sec-WebSocket-Protocol: news" in fields_of(answer)

    @pytest.mark.parametrize(
        "garbage", [b"", b"\0", b"GET / HTTP/1.1\r\n\r\n", b"PROXY UNKNOWN\r\n" + head()]
    )
    def test_what_is_malformed_is_refused(self, garbage: bytes) -> None:
        assert Door().refuse(garbage)[0] == 400

    def test_the_canned_responses_are_those_of_the_handshake(self) -> None:
        admission = Door().admission
        for response, status in (
            (admission.timeout, 408),
            (admission.too_large, 431),
            (admission.full, 503),
            (admission.too_many, 429),
        ):
            assert status_of(Answer(response, None))[0] == status


@pytest.mark.parametrize("options", [{}, {"trusted_proxy": ["10.0.0.1"]}])
class TestPathsThatAreNoNames:
    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("/a.*", "'/a.*' is a pattern: a message goes to one channel"),
            ("/a.%2A.b", "'/a.*.b' is a pattern: a message goes to one channel"),
            ("/a.%3E", "'/a.>' is a pattern: a message goes to one channel"),
            ("/a.%3E.b", "'/a.>.b' has a '>' that isn't its last token"),
            ("/" + "x" * 1024, "the name of a channel has 1025 bytes, more than 1024"),
            ("/" + "%C3%A9" * 512, "the name of a channel has 1025 bytes, more than 1024"),
        ],
    )
    def test_they_are_refused(self, options: dict[str, Any], path: str, reason: str) -> None:
        assert Door(**options).refuse(head(path)) == (400, f"the path is no channel: {reason}")

    @pytest.mark.parametrize("path", ["/*", "/a*b", "/rooms/*/x", "/%3E", "/a.b%3E", "/" + "x" * 1023])
    def test_others_with_a_star_or_long_ones_are_names(self, options: dict[str, Any], path: str) -> None:
        assert Door(**options).admit(head(path)).channels == (path.replace("%3E", ">"),)


class TestAddresses:
    def test_they_are_counted_only_where_there_is_a_limit(self) -> None:
        assert Door(lambda request: None).admit(head()).address == ""
        assert Door(max_per_address=1).admit(head()).address == HOST
        assert Door(max_per_address=1).admission.remotes

    @pytest.mark.parametrize("options", [{}, {"trusted_proxy": ["10.0.0.1"]}])
    def test_beyond_the_limit_the_answer_is_429(self, options: dict[str, Any]) -> None:
        door = Door(max_per_address=2, **options)
        door.counts[HOST] = 1
        assert door.admit(head()).address == HOST
        door.counts[HOST] = 2
        assert door.refuse(head()) == (429, "this address has too many connections")
        assert door.admit(head(), "192.0.2.2").address == "192.0.2.2"

    def test_an_ipv6_network_of_64_bits_counts_as_one(self) -> None:
        door = Door(max_per_address=1)
        door.counts["2001:db8:0:1::/64"] = 1
        assert door.refuse(head(), "2001:db8:0:1:2:3:4:5")[0] == 429
        assert door.admit(head(), "2001:db8:0:2::1").address == "2001:db8:0:2::/64"

    def test_behind_a_proxy_clients_are_counted(self) -> None:
        door = Door(max_per_address=1, trusted_proxy=["10.0.0.1"])
        door.counts["10.0.0.1"] = 100
        assert door.admit(head("/", f"X-Forwarded-For: {HOST}"), "10.0.0.1").address == HOST
        door.counts[HOST] = 1
        assert door.refuse(head("/", f"X-Forwarded-For: {HOST}"), "10.0.0.1")[0] == 429

    def test_one_that_is_not_known_is_not_counted(self) -> None:
        assert Door(max_per_address=1).admit(head(), "", 0).address == ""


class TestProxies:
    def test_the_program_sees_the_client(self) -> None:
        door = Door(lambda request: None, trusted_proxy=["10.0.0.0/8"])
        forwarded = "Forwarded: for=192.0.2.9;proto=https"
        door.admit(head("/", forwarded), "10.1.2.3", 99)
        door.admit(head("/", forwarded), HOST, 99)
        found = [(request.remote, request.port, request.scheme) for request in door.asked]
        assert found == [("192.0.2.9", 0, "wss"), (HOST, 99, "ws")]

    def test_an_ipv4_client_over_ipv6_has_its_usual_address(self) -> None:
        door = Door(lambda request: None)
        door.admit(head(), f"::ffff:{HOST}")
        assert door.asked[0].remote == HOST

    def test_what_a_proxy_says_must_make_sense(self) -> None:
        door = Door(trusted_proxy=["10.0.0.0/8"])
        assert door.refuse(head("/", "X-Forwarded-For: me"), "10.0.0.1") == (
            400,
            "the X-Forwarded-For header names a client that is no address",
        )

    def test_a_proxy_header_comes_from_proxies_and_from_nobody_else(self) -> None:
        door = Door(lambda request: None, trusted_proxy=["10.0.0.0/8"], proxy_protocol=True, page=PAGE)
        line = b"PROXY TCP4 192.0.2.9 10.0.0.9 7 443\r\n"
        door.admit(line + head(), "10.0.0.1")
        assert (door.asked[0].remote, door.asked[0].port, door.asked[0].path) == ("192.0.2.9", 7, "/room")
        assert door.refuse(head(), "10.0.0.1") == (400, "the PROXY header is missing")
        assert door.refuse(line + head(), HOST)[0] == 400
        assert door.admit(head(), HOST)
        assert door.refuse(line + b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "10.0.0.1") == (200, PAGE.decode())

    def test_what_a_client_writes_does_not_count_where_the_proxy_does_not_know_it(self) -> None:
        door = Door(lambda request: None, trusted_proxy=["10.0.0.0/8"], proxy_protocol=True)
        forged = head("/room", "X-Forwarded-For: 192.0.2.66", "X-Forwarded-Proto: https")
        door.admit(b"PROXY UNKNOWN\r\n" + forged, "10.0.0.1", 7)
        door.admit(b"PROXY TCP4 192.0.2.9 10.0.0.1 8 443\r\n" + forged, "10.0.0.1", 7)
        told = [(request.remote, request.port, request.scheme) for request in door.asked]
        assert told == [("10.0.0.1", 7, "ws"), ("192.0.2.9", 8, "ws")]

    def test_a_cancellation_that_on_connect_looks_at_is_a_failure_like_others(self) -> None:
        def look(request: Request) -> None:
            raise asyncio.CancelledError

        assert Door(look).refuse(head())[0] == 500

    def test_proxy_header_and_head_may_be_as_long_as_each_may_be(self) -> None:
        door = Door(trusted_proxy=["10.0.0.0/8"], proxy_protocol=True)
        longest = head("/", "X: ")
        longest = longest.replace(b"X: ", b"X: " + b"x" * (8192 - len(longest)))
        assert door.admit(b"PROXY UNKNOWN\r\n" + longest, "10.0.0.1")


class TestTokens:
    def test_without_a_valid_one_nobody_is_admitted(self) -> None:
        door = Door(jwt_secret=SECRET)
        answer = door.decide(head())
        assert status_of(answer) == (401, "a token is required")
        assert 'WWW-Authenticate: Bearer realm="fastcast"' in fields_of(answer)
        answer = door.decide(head(f"/?token={token(exp=1)}"))
        assert status_of(answer) == (401, "the token has expired")
        assert (
            'WWW-Authenticate: Bearer realm="fastcast", error="invalid_token",'
            ' error_description="the token has expired"'
        ) in fields_of(answer)

    def test_the_page_needs_none(self) -> None:
        plain = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
        assert Door(jwt_secret=SECRET, page=PAGE).refuse(plain) == (200, PAGE.decode())

    @pytest.mark.parametrize(
        ("claims", "channels"),
        [
            ({"channels": "news"}, ("news",)),
            ({"channels": ["news", "users.*", "news"]}, ("news", "users.*")),
            ({"channels": []}, ()),
            ({"sub": "ada"}, ("/room",)),
        ],
    )
    @pytest.mark.parametrize("on_connect", [None, lambda request: None, lambda request: Accept()])
    def test_the_channels_are_the_token_s_or_else_the_path(
        self, on_connect: Any, claims: dict[str, Any], channels: tuple[str, ...]
    ) -> None:
        door = Door(on_connect, jwt_secret=SECRET)
        assert door.admit(head(f"/room?token={token(**claims)}")).channels == channels

    @pytest.mark.parametrize("claim", [7, None, {"a": 1}, [7], [""], ["a.>.b"], ["x" * 1025], "", ["\ud800"]])
    def test_channels_that_are_none_are_refused(self, claim: Any) -> None:
        assert Door(jwt_secret=SECRET).refuse(head(f"/?token={token(channels=claim)}")) == (
            403,
            "the channels that the token names are no channels",
        )

    def test_the_claim_may_have_another_name(self) -> None:
        door = Door(jwt_secret=SECRET, jwt_channels="rooms")
        answer = door.admit(head(f"/?token={token(channels=7, rooms=['a'])}"))
        assert answer.channels == ("a",)

    def test_a_path_that_is_a_pattern_will_do_where_the_token_names_channels(self) -> None:
        door = Door(jwt_secret=SECRET)
        assert door.admit(head(f"/a.*?token={token(channels=['a'])}")).channels == ("a",)
        assert door.refuse(head(f"/a.*?token={token()}"))[0] == 400

    def test_the_program_finds_the_claims_and_has_the_last_word(self) -> None:
        door = Door(lambda request: Accept([f"users.{request.claims['sub']}"]), jwt_secret=SECRET)
        answer = door.admit(head(f"/?token={token(sub='ada', channels=7)}"))
        assert answer.channels == ("users.ada",)

    def test_without_tokens_there_are_no_claims(self) -> None:
        door = Door(lambda request: None)
        door.admit(head(f"/?token={token(channels=['a'])}"))
        assert door.asked[0].claims is None

    def test_one_in_the_offer_is_agreed_to_as_bearer(self) -> None:
        door = Door(jwt_secret=SECRET)
        answer = door.admit(head("/", f"Sec-WebSocket-Protocol: bearer, {token(channels=['a'])}"))
        assert answer.channels == ("a",)
        assert "Sec-WebSocket-Protocol: bearer" in fields_of(answer)

    @pytest.mark.parametrize(
        ("options", "accept", "agreed"),
        [
            ({}, None, "bearer"),
            ({"subprotocol": ["chat"]}, None, "chat"),
            ({"subprotocol": ["chat"]}, Accept(subprotocol="news"), "news"),
        ],
    )
    def test_a_subprotocol_for_more_than_the_token_is_preferred(
        self, options: dict[str, Any], accept: Accept | None, agreed: str
    ) -> None:
        door = Door(lambda request: accept, jwt_secret=SECRET, **options)
        answer = door.admit(head("/", f"Sec-WebSocket-Protocol: news, bearer, {token()}, chat"))
        assert f"Sec-WebSocket-Protocol: {agreed}" in fields_of(answer)
        assert door.asked[0].subprotocols == ("news", "chat")

    def test_elsewhere_bearer_is_a_name_like_others(self) -> None:
        offer = f"Sec-WebSocket-Protocol: bearer, {token()}"
        assert "Protocol" not in " ".join(fields_of(Door().admit(head("/", offer))))
        door = Door(jwt_secret=SECRET, jwt_from=["query"])
        assert door.refuse(head("/", offer))[0] == 401

    def test_public_keys_come_from_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "keys.json"
        with pytest.raises(ConfigError, match="No such file"):
            Door(jwt_jwks_file=str(file))
        file.write_text(json.dumps({"keys": []}))
        with pytest.raises(ConfigError, match="no key in it"):
            Door(jwt_jwks_file=str(file))

    def test_they_are_never_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)

        def fail(request: Request) -> None:
            raise RuntimeError("out of order")

        for door in (Door(jwt_secret=SECRET), Door(fail, jwt_secret=SECRET)):
            for secret in (token(channels=7), token(exp=1), "nonsense"):
                door.decide(head(f"/room?token={secret}"))
                door.decide(head("/room", f"Authorization: Bearer {secret}"))
                door.decide(head("/room", f"Cookie: token={secret}"))
                door.decide(head("/room", f"Sec-WebSocket-Protocol: bearer, {secret}"))
                assert secret not in caplog.text
        assert "on_connect failed for <Request '/room' of 192.0.2.1>" in caplog.text
        assert SECRET not in caplog.text


def sync(answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
    return answer


def coroutine(answer: Callable[[Request], Any]) -> Callable[[Request], Awaitable[Any]]:
    async def admit(request: Request) -> Any:
        await asyncio.sleep(0)
        return answer(request)

    return admit


@pytest.mark.parametrize("kind", [sync, coroutine])
class TestOnConnect:
    def test_none_is_the_default(self, kind: Any) -> None:
        answer = Door(kind(lambda request: None)).admit(head())
        assert answer == Door().admit(head())

    def test_it_is_asked_who_from_where_and_for_what(self, kind: Any) -> None:
        door = Door(kind(lambda request: None))
        assert door.admission.remotes
        door.admit(head("/room?a=b", "Cookie: c=d", "Sec-WebSocket-Protocol: chat"))
        (request,) = door.asked
        assert (request.path, request.query["a"], request.cookies["c"]) == ("/room", "b", "d")
        assert (request.remote, request.port, request.scheme) == (HOST, 4711, "ws")
        assert (request.headers["host"], request.subprotocols) == ("example.org", ("chat",))

    def test_it_chooses_channels_and_state(self, kind: Any) -> None:
        state = object()
        answer = Door(kind(lambda request: Accept(["a", "b.>"], state))).admit(head("/a.*"))
        assert (answer.channels, answer.state) == (("a", "b.>"), state)
        assert Door(kind(lambda request: Accept([]))).admit(head()).channels == ()

    @pytest.mark.parametrize("said", [None, Accept()])
    def test_a_path_that_is_a_pattern_is_no_default(self, kind: Any, said: Accept | None) -> None:
        assert Door(kind(lambda request: said)).refuse(head("/a.*"))[0] == 400

    def test_it_chooses_among_the_subprotocols_that_are_offered(self, kind: Any) -> None:
        door = Door(kind(lambda request: Accept(subprotocol="chat")), subprotocol=["news"])
        answer = door.admit(head("/", "Sec-WebSocket-Protocol: news, chat"))
        assert "Sec-WebSocket-Protocol: chat" in fields_of(answer)

    def test_to_agree_to_another_one_is_a_mistake(self, kind: Any, caplog: pytest.LogCaptureFixture) -> None:
        door = Door(kind(lambda request: Accept(subprotocol="chat")))
        assert door.refuse(head("/", "Sec-WebSocket-Protocol: news"))[0] == 500
        assert "on_connect agrees to 'chat', which the client does not offer" in caplog.text

    def test_the_options_choose_where_it_does_not(self, kind: Any) -> None:
        door = Door(kind(lambda request: Accept()), subprotocol=["news"])
        answer = door.admit(head("/", "Sec-WebSocket-Protocol: chat, news"))
        assert "Sec-WebSocket-Protocol: news" in fields_of(answer)

    def test_it_adds_headers(self, kind: Any) -> None:
        pairs = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
        fields = fields_of(Door(kind(lambda request: Accept(headers=pairs))).admit(head()))
        assert fields[-2:] == ["Set-Cookie: a=1", "Set-Cookie: b=2"]

    def test_its_hello_comes_behind_the_response_as_frames(self, kind: Any) -> None:
        hello = ["caf\u00e9", b"\x00\xff", "x" * 200, ""]
        answer = Door(kind(lambda request: Accept(hello=hello))).admit(head())
        assert content_of(answer) == (
            b"\x81\x05caf\xc3\xa9" + b"\x82\x02\x00\xff" + b"\x81\x7e\x00\xc8" + b"x" * 200 + b"\x81\x00"
        )

    def test_it_refuses(self, kind: Any) -> None:
        def admit(request: Request) -> None:
            raise Refuse(451, "not where you are", {"Link": '<https://example.org>; rel="blocked-by"'})

        answer = Door(kind(admit)).decide(head())
        assert (answer.channels, status_of(answer)) == (None, (451, "not where you are"))
        assert 'Link: <https://example.org>; rel="blocked-by"' in fields_of(answer)

    def test_its_failure_is_logged_and_answered(self, kind: Any, caplog: pytest.LogCaptureFixture) -> None:
        door = Door(kind(lambda request: request.query["missing"]))
        assert door.refuse(head()) == (500, "the server failed to decide")
        assert "on_connect failed for <Request '/room' of 192.0.2.1>" in caplog.text
        assert "KeyError: 'missing'" in caplog.text

    @pytest.mark.parametrize("said", [True, "news", ["news"], Accept])
    def test_to_return_something_else_is_a_mistake(
        self, kind: Any, said: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert Door(kind(lambda request: said)).refuse(head())[0] == 500
        assert f"on_connect returns an Accept or None, not {type(said).__name__}" in caplog.text

    def test_it_is_not_asked_about_what_is_refused_anyway(self, kind: Any) -> None:
        door = Door(
            kind(lambda request: None), jwt_secret=SECRET, max_per_address=1, origin=["https://a.example"]
        )
        good = f"/?token={token()}"
        origin = "Origin: https://a.example"
        door.counts["192.0.2.2"] = 1
        assert door.refuse(b"")[0] == 400
        assert door.refuse(head(good))[0] == 403
        assert door.refuse(head(good, origin), "192.0.2.2")[0] == 429
        assert door.refuse(head("/", origin), "192.0.2.2")[0] == 429
        assert door.refuse(head("/", origin))[0] == 401
        assert door.asked == []
        assert door.admit(head(good, origin)).address == HOST
        assert len(door.asked) == 1


class TestCoroutines:
    def test_only_a_coroutine_function_makes_one_of_the_decision(self) -> None:
        door = Door(coroutine(lambda request: None))
        decision = door.admission.decide(head(), HOST, 1)
        assert inspect.iscoroutine(decision)
        assert asyncio.run(decision).channels == ("/room",)
        assert isinstance(door.admission.decide(b"", HOST, 1), Answer)
        assert isinstance(Door(sync(lambda request: None)).admission.decide(head(), HOST, 1), Answer)

    def test_a_plain_function_may_return_something_to_wait_for(self) -> None:
        async def look_up() -> Accept:
            return Accept(["a"])

        assert Door(lambda request: look_up()).admit(head()).channels == ("a",)

    def test_to_cancel_it_is_to_cancel_the_decision(self) -> None:
        async def hang(request: Request) -> None:
            await asyncio.Event().wait()

        async def cancel() -> bool:
            decision = Door(hang).admission.decide(head(), HOST, 1)
            assert not isinstance(decision, Answer)
            task = asyncio.create_task(decision)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            return task.cancelled()

        assert asyncio.run(cancel())

    def test_one_that_hangs_is_given_up_with_the_time_of_the_handshake(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def hang(request: Request) -> None:
            await asyncio.Event().wait()

        assert Door(hang, handshake_timeout=0.01).refuse(head())[0] == 503
        assert "took more than 0.02 s" in caplog.text

    def test_a_time_out_of_its_own_is_a_failure(self, caplog: pytest.LogCaptureFixture) -> None:
        async def admit(request: Request) -> None:
            raise TimeoutError("the database")

        assert Door(admit).refuse(head())[0] == 500
        assert "the database" in caplog.text

    def test_something_else_that_is_cancelled_is_a_failure(self, caplog: pytest.LogCaptureFixture) -> None:
        async def admit(request: Request) -> None:
            raise asyncio.CancelledError

        assert Door(admit).refuse(head())[0] == 500
        assert "on_connect failed" in caplog.text


def test_a_mistake_of_ours_is_an_answer_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(address: str) -> int:
        raise OSError("the hub is gone")

    admission = Admission(Config(max_per_address=1), page=None, on_connect=None, address_count=fail)
    answer = admission.decide(head(), HOST, 1)
    assert isinstance(answer, Answer)
    assert status_of(answer)[0] == 500
    assert "the hub is gone" in caplog.text
