"""The HTTP interface: who may ask, what for, and what is answered. ``openapi.json`` documents it."""

from __future__ import annotations

import asyncio
import heapq
import hmac
import json
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableSequence, Sequence
from hashlib import sha256
from importlib import resources
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote

from aiohttp import hdrs, web

from fastcast.admin.attempts import Attempts
from fastcast.admin.host import Host
from fastcast.admin.messages import Message, body_limit, read_messages
from fastcast.admin.problem import MEDIA_TYPE, RETRY_AFTER, Problem
from fastcast.client import Unshared
from fastcast.errors import FastcastError

_log = logging.getLogger("fastcast")

# Seconds for a body to come.
_BODY_TIMEOUT: Final = 60.0

_DEFAULT_LIMIT: Final = 1000
_MOST_LIMIT: Final = 10_000

_MOST_ID: Final = (1 << 64) - 1

_ItemT = TypeVar("_ItemT", str, int)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_application(server: Host, token: str, max_message: int) -> web.Application:
    """The application for a server that somebody else keeps; ``token`` is what requests have to bring."""
    # aiohttp has a cache that keeps handlers for long, and would keep the server and its fds.
    interface = _Interface(weakref.proxy(server), token, max_message)
    application = web.Application(
        middlewares=[interface.guard], client_max_size=body_limit(max_message), logger=_log
    )
    for method, path, handler in (
        ("POST", "/publish", interface.publish),
        ("GET", "/channels", interface.channels),
        ("GET", "/channels/{name:.+}", interface.channel),
        ("GET", "/clients", interface.clients),
        ("GET", "/clients/{id}", interface.client),
        ("DELETE", "/clients/{id}", interface.close),
        ("GET", "/stats", interface.stats),
        ("GET", "/openapi.json", interface.document),
    ):
        application.router.add_route(method, path, handler)
    return application


class _Interface:
    """The handlers of all requests."""

    def __init__(self, server: Host, token: str, max_message: int) -> None:
        self._server = server
        self._digest = _digest(token)
        self._max_message = max_message
        self._attempts = Attempts()
        self._document = (resources.files("fastcast.admin") / "openapi.json").read_bytes()

    @web.middleware
    async def guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Let nobody in without the token, and make one kind of answer of all that goes wrong."""
        try:
            self._authorize(request)
            return await handler(request)
        except Problem as error:
            problem = error
        except web.HTTPException as error:
            problem = _of_http(request, error)
        except FastcastError as error:
            problem = Problem(503, str(error), RETRY_AFTER)
        except (ConnectionError, web.RequestPayloadError):
            problem = Problem(400, "the body is not complete")
        except Exception:
            _log.exception("admin port: %s %s", request.method, request.path)
            problem = Problem(500, "the server failed, and its log says how")
        return web.Response(
            status=problem.status, body=problem.body(), content_type=MEDIA_TYPE, headers=problem.headers
        )

    def _authorize(self, request: web.Request) -> None:
        given = request.headers.getall(hdrs.AUTHORIZATION, [])
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        # Of digests, whose comparison doesn't tell the token's length either.
        if scheme.lower() != "bearer" or not hmac.compare_digest(_digest(token.strip()), self._digest):
            why = "that is not the token" if given else "a token is needed"
            headers = {"WWW-Authenticate": 'Bearer realm="fastcast"'}
            raise Problem(401, f"{why} (Authorization: Bearer TOKEN)", headers)

    # ---- messages ----

    async def publish(self, request: web.Request) -> web.Response:
        """One message or many, each to a channel or to everybody."""
        query = _query(request, "channel", "key")
        keys = request.headers.getall("Idempotency-Key", [])
        if len(keys) > 1:
            raise Problem(400, "Idempotency-Key: expected one")
        content_type = request.headers.get(hdrs.CONTENT_TYPE)
        body = await _body(request)
        # From here on nothing waits: see attempts.py.
        messages = read_messages(content_type, query, body, self._max_message)
        if not keys:
            subscribers: list[int] = []
            return _published(subscribers, self._publish(messages, subscribers))
        raw_query = request.rel_url.raw_query_string.encode()
        attempt = self._attempts.find(keys[0], (content_type or "").encode(), raw_query, body)
        try:
            unshared = self._publish(messages, attempt.subscribers)
        finally:
            self._attempts.keep(keys[0], attempt)
        return _published(attempt.subscribers, unshared)

    def _publish(self, messages: Iterable[Message], subscribers: MutableSequence[int]) -> int:
        """Publish what follows the messages that have ``subscribers`` already, and add theirs.

        Returns how many of them reach this server's clients alone, though there is a bus.
        """
        unshared = 0
        for channel, data, key in list(messages)[len(subscribers) :]:
            try:
                if channel is None:
                    count = self._server.broadcast(data)
                else:
                    count = self._server.publish(channel, data, key)
            except FastcastError as error:
                raise Problem(503, str(error), RETRY_AFTER, subscribers) from None
            except ValueError as error:  # channel and max_message have been looked at: the bus takes less
                raise Problem(413, str(error), subscribers=subscribers) from None
            subscribers.append(count)
            unshared += isinstance(count, Unshared)
        return unshared

    # ---- channels and clients ----

    async def channels(self, request: web.Request) -> web.Response:
        """Names and numbers of clients, in the order of the names, a page at a time."""
        query = _query(request, "prefix", "limit", "cursor")
        prefix, after = query.get("prefix", ""), query.get("cursor", "")
        all_of_them = self._server.channels()
        names = (name for name in all_of_them if name > after and name.startswith(prefix))
        page, cursor = _page(query, names)
        return _json({"channels": {name: all_of_them[name] for name in page}, "next": cursor})

    async def channel(self, request: web.Request) -> web.Response:
        """The numbers of one channel or pattern."""
        _query(request)
        path = request.rel_url.raw_path.removeprefix("/channels/")
        try:
            name = unquote(path, errors="strict")
            stats = self._server.stats(name)
        except UnicodeError:
            raise Problem(400, "the name of the channel is not valid UTF-8") from None
        except ValueError as error:
            raise Problem(400, str(error)) from None
        return _json({"name": name, **stats})

    async def clients(self, request: web.Request) -> web.Response:
        """The ids of a channel's clients, in their order, a page at a time."""
        query = _query(request, "channel", "limit", "cursor")
        if "channel" not in query:
            raise Problem(400, "channel: whose clients? Expected the name of a channel or pattern")
        after = _number(query.get("cursor", "0"), 0, _MOST_ID, "cursor")
        try:
            all_of_them = self._server.clients(query["channel"])
        except ValueError as error:
            raise Problem(400, str(error)) from None
        page, cursor = _page(query, (client.id for client in all_of_them if client.id > after))
        return _json({"clients": [str(id) for id in page], "next": None if cursor is None else str(cursor)})

    async def client(self, request: web.Request) -> web.Response:
        """What there is to tell of a client."""
        _query(request)
        told = await self._inspect(_id(request))
        return _json({**told, "id": str(told["id"])})

    async def close(self, request: web.Request) -> web.Response:
        """Begin to close a client."""
        query = _query(request, "code", "reason")
        code = _number(query.get("code", "1000"), 1000, 4999, "code")
        number = _id(request)
        await self._inspect(number)
        try:
            self._server.client(number).close(code, query.get("reason", ""))
        except ValueError as error:
            raise Problem(400, str(error)) from None
        return web.Response(status=204)

    async def _inspect(self, number: int) -> Mapping[str, Any]:
        told = await self._server.inspect(self._server.client(number))
        if told is None:
            raise Problem(404, f"there is no client {number}")
        return told

    # ---- the rest ----

    async def stats(self, request: web.Request) -> web.Response:
        """The server's counters and gauges."""
        _query(request)
        return _json(self._server.stats())

    async def document(self, request: web.Request) -> web.Response:
        """What all of this is, for tools."""
        _query(request)
        return web.Response(body=self._document, content_type="application/json")


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


def _published(subscribers: Sequence[int], unshared: int) -> web.Response:
    return _json({"subscribers": list(subscribers), **({"unshared": unshared} if unshared else {})})


def _json(document: Any) -> web.Response:
    return web.Response(body=json.dumps(document, default=list).encode(), content_type="application/json")


def _of_http(request: web.Request, error: web.HTTPException) -> Problem:
    """One of aiohttp's own."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return Problem(405, f"{request.method} isn't for {request.path} ({allowed})", {hdrs.ALLOW: allowed})
    if error.status == 404:
        return Problem(404, f"there is no {request.path} here (GET /openapi.json tells what is)")
    return Problem(error.status, error.text or error.reason)


def _query(request: web.Request, *names: str) -> dict[str, str]:
    """The query's parameters. A wrong one is a Problem: what is misspelt must not go unnoticed."""
    try:
        pairs = parse_qsl(
            request.rel_url.raw_query_string, keep_blank_values=True, errors="strict", max_num_fields=100
        )
    except ValueError:
        raise Problem(400, "the query is not valid: percent-encoded UTF-8 is expected") from None
    parameters = dict(pairs)
    for name in parameters:
        if name not in names:
            raise Problem(400, f"there is no parameter {name!r} here")
    if len(parameters) < len(pairs):
        raise Problem(400, "a parameter is there twice")
    return parameters


def _page(query: Mapping[str, str], items: Iterable[_ItemT]) -> tuple[list[_ItemT], _ItemT | None]:
    """The least of them, and the last one if there are more."""
    limit = _number(query.get("limit", str(_DEFAULT_LIMIT)), 1, _MOST_LIMIT, "limit")
    least = heapq.nsmallest(limit + 1, items)
    return least[:limit], least[limit - 1] if len(least) > limit else None


def _number(text: str, low: int, high: int, name: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 20 and low <= int(text) <= high:
        return int(text)
    raise Problem(400, f"{name}: {text!r} is not a number between {low} and {high}")


def _id(request: web.Request) -> int:
    """A client's number, which JavaScript would round: hence in decimals, as a string."""
    text = request.match_info["id"]
    if text.isascii() and text.isdecimal() and len(text) <= 20 and int(text) <= _MOST_ID:
        return int(text)
    raise Problem(404, f"there is no client {text!r}: an id is a decimal number")


async def _body(request: web.Request) -> bytes:
    limit = request.client_max_size
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise Problem(415, "a body with a Content-Encoding is not understood")
    if (request.content_length or 0) > limit:
        raise Problem(413, f"a body of {request.content_length} bytes is longer than {limit}")
    try:
        async with asyncio.timeout(_BODY_TIMEOUT):
            return await request.read()
    except TimeoutError:
        raise Problem(408, f"the body did not come within {_BODY_TIMEOUT:g} s") from None
    except web.HTTPRequestEntityTooLarge:
        raise Problem(413, f"the body is longer than {limit} bytes") from None
