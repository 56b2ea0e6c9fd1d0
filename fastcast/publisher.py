"""Publishes from programs that don't run the server, over its admin port; for code without asyncio."""

from __future__ import annotations

import atexit
import base64
import json
import logging
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode
from weakref import WeakSet

import urllib3
from urllib3.exceptions import (
    HTTPError,
    LocationValueError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    TimeoutError,
)

from fastcast.batches import Background, Batch, RefusedError
from fastcast.channels import check_name
from fastcast.client import Data
from fastcast.errors import PublishError

_log = logging.getLogger("fastcast")

# What a proxy says, or the server, when it may go through a little later.
_PASSING: Final = frozenset({502, 503, 504})

# What the server says of messages that it wouldn't have from anybody.
_REFUSALS: Final = frozenset({400, 413})

# Seconds: the pause before the second retry, which doubles from there on; the first retry comes at once.
_PAUSE: Final = 0.4
_LONGEST_PAUSE: Final = 5.0

# Connections that are kept; more threads than that may publish at a time.
_CONNECTIONS: Final = 16


class _Retry(urllib3.Retry):
    """Isn't put off for long, whatever the server says."""

    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, _LONGEST_PAUSE)


class Publisher:
    """Publishes over a server's admin port: from any thread, and from processes that have been forked.

    ::

        publisher = fastcast.Publisher("http://127.0.0.1:8001", token=os.environ["FASTCAST_ADMIN_TOKEN"])
        publisher.publish("news", "hello")

    Connections are kept, and made anew when they are lost. What may go through later is tried again, with
    pauses that grow; the server knows a request that it has had before, and publishes nothing twice. (One
    that is killed between publishing and answering has forgotten it when it's back.) One for the whole
    program is best. ``close()`` ends it, and so does a ``with`` block.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 10.0,
        retries: int = 4,
        batch: bool = False,
        linger: float = 0.02,
    ) -> None:
        """``url`` is where the admin port is, and ``token`` the server's ``admin_token``.

        ``timeout``: seconds for a connection, and for an answer. ``retries``: how often a request is tried
        again; with four, over some three seconds. ``batch``: collect messages for ``linger`` seconds, and
        send many in one request, from a thread in the background.

        Raises ValueError for a URL or a token that can't be one.
        """
        self._place, self._path = _check_url(url)
        self._headers = _headers(token)
        self._timeout = timeout
        self._linger = linger
        self._retry = _Retry(
            total=retries,
            # POST, too: each request has a key of its own.
            allowed_methods=None,
            status_forcelist=_PASSING,
            backoff_factor=_PAUSE / 2,
            backoff_max=_LONGEST_PAUSE,
            backoff_jitter=_PAUSE / 4,
            raise_on_status=False,
        )
        self._batches = batch
        self._closed = False
        self._begin()
        _publishers.add(self)
        if batch:
            atexit.register(self._close_at_exit)

    def _begin(self) -> None:
        """Without connections, and with nothing collected: at first, and again after a fork."""
        timeout = urllib3.Timeout(connect=self._timeout, read=self._timeout)
        self._pool = urllib3.connection_from_url(self._place, timeout=timeout, maxsize=_CONNECTIONS)
        self._background = Background(self._send_many, self._linger) if self._batches else None
        self._local = threading.local()

    def publish(self, channel: str, data: Data, key: str | None = None) -> int:
        """Send a message to every client of a channel: str as text, bytes-like data as binary.

        Returns the number of subscriptions for which it is queued, or 0 where messages are collected: then
        nobody knows yet. ``key`` says what it replaces in channels whose policy is ``latest``.

        Raises PublishError if it was not published, and ValueError for a bad name or a pattern. Where
        messages are collected in the background, PublishError is about earlier ones, and this one isn't
        collected.
        """
        check_name(channel)
        if key is not None and not isinstance(key, str):
            raise TypeError(f"a key is a str, not {type(key).__name__}")
        return self._publish(channel, data, key)

    def broadcast(self, data: Data) -> int:
        """Send a message to every client of the server. Returns and raises as ``publish`` does."""
        return self._publish(None, data, None)

    @contextmanager
    def batch(self) -> Iterator[list[int]]:
        """Collect what this thread publishes in the ``with`` block, and send it in order at the end.

        What is too much for one request goes out in several, from within the block. If the block raises,
        what has not been sent is not sent. Yields a list, which has the number of subscriptions of each
        message when the block has ended. Raises PublishError at the end or from within.
        """
        if self._background is not None:
            self._background.flush()
        local = self._local
        outer: _Collector | None = getattr(local, "collector", None)
        if outer is not None:
            outer.send()
        collector = local.collector = _Collector(self)
        try:
            yield collector.subscribers
        finally:
            local.collector = outer
        if self._local is local:  # else this is a child, and its parent sends it
            collector.send()

    def flush(self) -> None:
        """Wait until what was collected in the background is sent. Raises PublishError if some was not."""
        if self._background is not None:
            self._background.flush()

    def close(self) -> None:
        """Send what was collected in the background, and close the connections.

        Raises PublishError if some was not published.
        """
        self._closed = True
        atexit.unregister(self._close_at_exit)
        try:
            if self._background is not None:
                self._background.close()
        finally:
            self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _close_at_exit(self) -> None:
        try:
            self.close()
        except PublishError as error:
            _log.error("%s", error)

    def _publish(self, channel: str | None, data: Data, key: str | None) -> int:
        if self._closed:
            raise PublishError("the publisher is closed")
        collector: _Collector | Background | None = getattr(self._local, "collector", None)
        if collector := collector or self._background:
            collector.add(_spell(channel, data, key))
            return 0
        given = {"channel": channel, "key": key}
        query = urlencode({name: value for name, value in given.items() if value is not None})
        if isinstance(data, str):
            body, kind = data.encode(), "text/plain; charset=utf-8"
        else:
            body, kind = bytes(memoryview(data)), "application/octet-stream"
        [subscribers] = self._send(f"?{query}" if query else "", body, kind)
        return subscribers

    def _send_many(self, messages: list[bytes]) -> list[int]:
        return self._send("", b'{"messages":[' + b",".join(messages) + b"]}", "application/json")

    def _send(self, query: str, body: bytes, kind: str) -> list[int]:
        """The subscribers of each message; PublishError says why they aren't published."""
        headers = self._headers | {"Content-Type": kind, "Idempotency-Key": str(uuid.uuid4())}
        try:
            response = self._pool.request(
                "POST",
                f"{self._path}/publish{query}",
                body=body,
                headers=headers,
                retries=self._retry,
                redirect=False,  # the token is for this place
            )
        except HTTPError as error:
            raise PublishError(f"{self._place}: {self._explain(error)}") from error
        told = _parse(response.data)
        if response.status == 200 and "subscribers" in told:
            subscribers: list[int] = told["subscribers"]
            return subscribers
        detail = told.get("detail") or "is that the admin port?"
        reason = f"{response.status} {response.reason or ''}".strip()
        kind_of_error = RefusedError if response.status in _REFUSALS else PublishError
        raise kind_of_error(f"{self._place}: {reason}: {' '.join(str(detail).split())}")

    def _explain(self, error: BaseException) -> str:
        if isinstance(error, MaxRetryError) and error.reason is not None:
            error = error.reason
        if isinstance(error, TimeoutError) and not isinstance(error, NewConnectionError):
            return f"no answer within {self._timeout:g} s"
        if isinstance(error, NameResolutionError):
            return "there is no such host"
        # Where urllib3 keeps what the system said.
        cause = error.args[-1] if isinstance(error, ProtocolError) else error.__cause__
        if isinstance(error, NewConnectionError | ProtocolError) and isinstance(cause, OSError):
            return cause.strerror or "the connection was lost"
        return " ".join(str(error).split())


class _Collector:
    """What one ``with`` block publishes."""

    def __init__(self, publisher: Publisher) -> None:
        self.subscribers: list[int] = []
        self._publisher = publisher
        self._batch = Batch()

    def add(self, message: bytes) -> None:
        if not self._batch.takes(message):
            self.send()
        self._batch.add(message)

    def send(self) -> None:
        batch, self._batch = self._batch, Batch()
        if batch.messages:
            self.subscribers += self._publisher._send_many(batch.messages)


def _check_url(url: str) -> tuple[str, str]:
    """The URL without what may stand at its end, and its path."""
    try:
        parsed = urllib3.util.parse_url(url)
    except (LocationValueError, ValueError):
        parsed = urllib3.util.Url()
    if parsed.scheme not in ("http", "https") or not parsed.host or not url.isprintable():
        raise ValueError(f"{url!r} is not the URL of an admin port, such as http://127.0.0.1:8001")
    if parsed.auth or parsed.query is not None or parsed.fragment is not None:
        raise ValueError("the URL of an admin port has no user, no query and no fragment")
    return parsed.url.rstrip("/"), (parsed.path or "").rstrip("/")


def _headers(token: str | None) -> dict[str, str]:
    if token is None:
        return {}
    if not token or not token.isascii() or not token.isprintable():
        raise ValueError("the token is empty, or not printable ASCII")
    return {"Authorization": f"Bearer {token}"}


def _spell(channel: str | None, data: Data, key: str | None) -> bytes:
    """A message as JSON."""
    message: dict[str, str] = {}
    if channel is not None:
        message["channel"] = channel
    if isinstance(data, str):
        message["data"] = data
    else:
        message["base64"] = base64.b64encode(bytes(memoryview(data))).decode()
    if key is not None:
        message["key"] = key
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def _parse(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


_publishers: WeakSet[Publisher] = WeakSet()


def _begin_anew() -> None:
    # A child of a fork must not write to its parent's connections, nor send what the parent has collected.
    for publisher in _publishers:
        publisher._begin()


os.register_at_fork(after_in_child=_begin_anew)
