"""A request head into the answer that accepts it (RFC 6455 section 4.2), without I/O.

Each call begins with the bytes of a head and ends with the bytes of the answer. The other libraries need a
connection object for each client, so that making one is part of it. They offer more for that, extensions
above all; fastcast negotiates none. What the C core does before and after it, collecting the head and writing
the answer, isn't in here.
"""

from __future__ import annotations

from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.micro.clients import REQUEST
from fastcast.handshake import Handshake

# What RFC 6455 section 1.3 has as the answer to the key in both heads.
PROOF = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

BROWSER = (
    "GET /rooms/7?lang=en HTTP/1.1",
    "Host: chat.example.org",
    "Connection: keep-alive, Upgrade",
    "Pragma: no-cache",
    "Cache-Control: no-cache",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Upgrade: websocket",
    "Origin: https://chat.example.org",
    "Sec-WebSocket-Version: 13",
    "Accept: */*",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Accept-Language: en-GB,en;q=0.5",
    "Cookie: session=6f1d8a52c3b94e07; theme=dark",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Extensions: permessage-deflate",
)

HEADS = {"minimal": REQUEST, "browser": "\r\n".join([*BROWSER, "\r\n"]).encode()}


@pytest.fixture(params=HEADS)
def head(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> bytes:
    """A request head, in a group of its own."""
    benchmark.group = f"handshake, {request.param} head"
    return HEADS[request.param]


def test_fastcast(benchmark: BenchmarkFixture, head: bytes) -> None:
    handshake = Handshake(max_head=8192)

    def answer() -> bytes:
        return handshake.answer(head).response

    assert PROOF in benchmark(answer)


def test_websockets(benchmark: BenchmarkFixture, head: bytes) -> None:
    server = pytest.importorskip("websockets.server")

    def answer() -> Any:
        protocol = server.ServerProtocol()
        protocol.receive_data(head)
        (request,) = protocol.events_received()
        protocol.send_response(protocol.accept(request))
        return b"".join(protocol.data_to_send())

    assert PROOF in benchmark(answer)


def test_wsproto(benchmark: BenchmarkFixture, head: bytes) -> None:
    wsproto = pytest.importorskip("wsproto")
    events = pytest.importorskip("wsproto.events")

    def answer() -> Any:
        connection = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
        connection.receive_data(head)
        (_request,) = connection.events()
        return connection.send(events.AcceptConnection())

    assert PROOF in benchmark(answer)
