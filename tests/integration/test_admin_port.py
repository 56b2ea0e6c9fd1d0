"""The admin port of a running server: what is published there reaches clients, and what they do is seen."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

import fastcast
from tests.support.server import ServerProcess, running
from tests.support.wire import BINARY, CLOSE, TEXT, TIMEOUT, Client, Frame, close_code, frame, until

TOKEN = "a token that nobody guesses"
ADMIN = re.compile(r"admin port at http://(?P<host>[\d.]+):(?P<port>\d+)(?P<six>)")


class Admin:
    """Asks an admin port."""

    def __init__(self, server: ServerProcess) -> None:
        self.address = server.await_address(ADMIN)
        self.url = "http://{}:{}".format(*self.address)

    def ask(
        self, method: str, target: str, body: bytes | None = None, token: str = TOKEN, **headers: str
    ) -> tuple[int, Any]:
        """The status, and what the body says."""
        connection = http.client.HTTPConnection(*self.address, timeout=TIMEOUT)
        try:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, target, body, {"Authorization": f"Bearer {token}"} | given)
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text else None
        finally:
            connection.close()

    def publish(self, document: Any, **headers: str) -> tuple[int, Any]:
        """Publish with JSON."""
        return self.ask(
            "POST", "/publish", json.dumps(document).encode(), Content_Type="application/json", **headers
        )


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running("--admin-port", "0", "--admin-token", TOKEN, "--shards", "2") as server:
        yield server


@pytest.fixture(scope="module")
def admin(server: ServerProcess) -> Admin:
    return Admin(server)


def test_clients_do_not_find_it_at_their_port(server: ServerProcess) -> None:
    connection = http.client.HTTPConnection(*server.address, timeout=TIMEOUT)
    try:
        connection.request("GET", "/stats", headers={"Authorization": f"Bearer {TOKEN}"})
        assert connection.getresponse().status in (404, 426)
    finally:
        connection.close()


def test_the_token_is_needed_and_not_logged(server: ServerProcess, admin: Admin) -> None:
    assert admin.ask("GET", "/stats", token="another")[0] == 401
    assert TOKEN not in server.log()


def test_messages_reach_the_clients_of_their_channels(server: ServerProcess, admin: Admin) -> None:
    with Client(server.address, "/a") as one, Client(server.address, "/b") as other:
        many = [{"channel": "/a", "data": "text"}, {"channel": "/a", "base64": "/wA="}, {"data": "all"}]
        status, told = admin.publish({"messages": many})
        assert (status, told["subscribers"][:2]) == (200, [1, 1])
        assert told["subscribers"][2] >= 2
        assert [one.read_frame() for _ in range(3)] == [
            Frame(TEXT, b"text"),
            Frame(BINARY, b"\xff\x00"),
            Frame(TEXT, b"all"),
        ]
        assert other.read_frame() == Frame(TEXT, b"all")
        raw = admin.ask("POST", "/publish?channel=/b", b"\x00raw", Content_Type="application/octet-stream")
        assert raw == (200, {"subscribers": [1]})
        assert other.read_frame() == Frame(BINARY, b"\x00raw")


def test_a_request_that_comes_again_publishes_once(server: ServerProcess, admin: Admin) -> None:
    with Client(server.address, "/once") as client:
        for _ in range(3):
            told = admin.publish({"channel": "/once", "data": "x"}, Idempotency_Key="the-same")
            assert told == (200, {"subscribers": [1]})
        admin.publish({"channel": "/once", "data": "end"})
        assert [client.read_frame().payload for _ in range(2)] == [b"x", b"end"]


def test_channels_and_their_clients_are_seen(server: ServerProcess, admin: Admin) -> None:
    with Client(server.address, "/seen/1"), Client(server.address, "/seen/1"):
        with Client(server.address, "/seen/2"):
            status, told = admin.ask("GET", "/channels?prefix=/seen/")
            assert (status, told["channels"]) == (200, {"/seen/1": 2, "/seen/2": 1})
        admin.publish({"channel": "/seen/1", "data": "x"})

        def delivered() -> dict[str, Any] | None:
            told: dict[str, Any] = admin.ask("GET", "/channels/" + quote("/seen/1", safe=""))[1]
            return told if told["delivered"] == 2 else None

        told = until(delivered, "the message to be written")
        assert (told["members"], told["sent"], told["queued"], told["dropped"]) == (2, 2, 0, 0)


def test_the_server_s_own_counters_are_told(server: ServerProcess, admin: Admin) -> None:
    with Client(server.address, "/"):
        status, told = admin.ask("GET", "/stats")
    assert status == 200
    assert len(told["shards"]) == 2
    assert told["clients"] == sum(shard["clients"] for shard in told["shards"]) >= 1


def test_the_document_is_served(admin: Admin) -> None:
    status, document = admin.ask("GET", "/openapi.json")
    assert status == 200
    assert document["openapi"].startswith("3.")
    assert "/publish" in document["paths"]


def test_a_client_is_found_seen_and_closed(server: ServerProcess, admin: Admin) -> None:
    with Client(server.address, "/here") as client, Client(server.address, "/elsewhere"):
        [id] = admin.ask("GET", "/clients?channel=/here")[1]["clients"]
        status, told = admin.ask("GET", f"/clients/{id}")
        assert status == 200
        assert (told["id"], told["channels"], told["remote"]) == (id, ["/here"], "127.0.0.1")
        assert admin.ask("DELETE", f"/clients/{id}?code=4001&reason=out")[0] == 204
        closed = client.read_frame()
        assert (close_code(closed), closed.payload[2:]) == (4001, b"out")
        client.send(frame(CLOSE, closed.payload))
        until(lambda: admin.ask("GET", f"/clients/{id}")[0] == 404 or None, "the client to be gone")
        assert admin.ask("GET", "/clients?channel=/here")[1] == {"clients": [], "next": None}


def test_publisher_and_command_reach_clients(server: ServerProcess, admin: Admin) -> None:
    with Client(server.address, "/shell") as client:
        with fastcast.Publisher(admin.url, TOKEN) as publisher:
            assert publisher.publish("/shell", "from Python") == 1
        done = subprocess.run(
            [sys.executable, "-m", "fastcast", "publish", admin.url, "/shell"],
            input="line 1\nline 2\n",
            env=os.environ | {"FASTCAST_ADMIN_TOKEN": TOKEN},
            capture_output=True,
            text=True,
            timeout=3 * TIMEOUT,
            check=True,
        )
        assert (done.stdout, done.stderr) == ("", "")
        got = [client.read_frame().payload for _ in range(3)]
        assert got == [b"from Python", b"line 1", b"line 2"]
