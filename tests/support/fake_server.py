"""A server without clients or sockets for the admin port: what was asked of it is written down."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fastcast.admin import Admin
from fastcast.channels import check_name, check_subscription
from fastcast.config import Config
from fastcast.errors import OverloadError
from tests.support.hosting import Host
from tests.support.wire import TIMEOUT, Address

TOKEN = "a token that nobody guesses"

OPEN = 2**53 + 1
"""The client that is there, whose id JavaScript would round."""

TOLD = {
    "id": OPEN,
    "state": "open",
    "channels": ["news", "prices.*"],
    "queued": 2,
    "queued_bytes": 300,
    "idle": 0.25,
    "remote": "127.0.0.1",
}


class FakeClient:
    """Stands in for `fastcast.Client`."""

    def __init__(self, server: FakeServer, id: int) -> None:
        self._server = server
        self.id = id

    def close(self, code: int = 1000, reason: str = "") -> None:
        if code in (1004, 1005, 1006) or 1015 <= code < 3000:
            raise ValueError(f"{code} is no code to close with")
        if len(reason.encode()) > 123:
            raise ValueError("the reason is longer than 123 bytes")
        self._server.closed.append((self.id, code, reason))


class FakeServer:
    """Stands in for `fastcast.Server`; belongs to the loop of its admin port."""

    def __init__(self) -> None:
        self.published: list[tuple[str | None, str | bytes, str | None]] = []
        """Channel, None for all; data; key."""
        self.closed: list[tuple[int, int, str]] = []
        self.names: dict[str, int] = {"news": 3, "prices.*": 1, "/rooms/7": 2}
        self.room: int | None = None
        """For how many messages there is room before it is overloaded; None: for any."""
        self.error: Exception | None = None
        """What every question raises."""

    def publish(self, channel: str, data: str | bytes, key: str | None = None) -> int:
        return self._take(check_name(channel), data, key, self.names.get(channel, 0))

    def broadcast(self, data: str | bytes) -> int:
        return self._take(None, data, None, 6)

    def _take(self, channel: str | None, data: str | bytes, key: str | None, subscribers: int) -> int:
        if self.error is not None:
            raise self.error
        if self.room == 0:
            raise OverloadError("too much is under way")
        if self.room is not None:
            self.room -= 1
        self.published.append((channel, data, key))
        return subscribers

    def client(self, id: int) -> FakeClient:
        return FakeClient(self, id)

    def clients(self, channel: str) -> list[FakeClient]:
        members = self.names.get(check_subscription(channel), 0)
        return [FakeClient(self, OPEN + number) for number in reversed(range(members))]

    def channels(self) -> dict[str, int]:
        if self.error is not None:
            raise self.error
        return dict(self.names)

    def stats(self, channel: str | None = None) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        if channel is None:
            return {"clients": 6, "queued": 2, "shards": [{"clients": 4}, {"clients": 2}]}
        members = self.names.get(check_subscription(channel), 0)
        return dict.fromkeys(("sent", "delivered", "dropped", "gone", "queued"), 0) | {"members": members}

    async def inspect(self, client: FakeClient) -> dict[str, Any] | None:
        return dict(TOLD) if client.id == OPEN else None


@dataclass
class Port:
    """An admin port that runs, with its server."""

    server: FakeServer
    address: Address
    token: str = TOKEN

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{self.address[0]}:{self.address[1]}"

    def ask(self, method: str, target: str, body: str | bytes | None = None, **headers: str | None) -> Answer:
        """Ask with the token; a header that is None isn't sent, and underscores in its name are dashes."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        all_of_them = {"Authorization": f"Bearer {self.token}"} | given
        sent = {name: value for name, value in all_of_them.items() if value is not None}
        connection = http.client.HTTPConnection(*self.address, timeout=TIMEOUT)
        try:
            encoded = body.encode() if isinstance(body, str) else body
            connection.request(method, target, encoded, sent)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def publish(self, document: Any, target: str = "/publish", **headers: str) -> Answer:
        """Publish with JSON."""
        return self.ask("POST", target, json.dumps(document), Content_Type="application/json", **headers)


@dataclass(frozen=True)
class Answer:
    """A complete response; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """What the body is in JSON."""
        return json.loads(self.body)

    @property
    def problem(self) -> tuple[int, str]:
        """Status and detail of an error, held to what each of them must have."""
        told = self.json
        assert self.headers["content-type"].split(";")[0] == "application/problem+json"
        assert told["status"] == self.status
        assert told["title"]
        assert "\n" not in told["detail"]
        return self.status, told["detail"]


@contextmanager
def admin_port(**options: Any) -> Iterator[Port]:
    """An admin port on a loop of its own, before a server that only writes down."""
    host, server = Host(), FakeServer()
    try:
        admin = Admin(server, Config(**{"admin_port": 0, "admin_token": TOKEN} | options))
        host.run(admin.start())
        try:
            yield Port(server, (admin._config.admin_host, admin.port))
        finally:
            host.run(admin.stop())
    finally:
        host.end()
