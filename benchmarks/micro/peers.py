"""The servers under comparison, each in the benchmark's own process and on the running event loop.

All do the same: accept whoever asks, keep the connections, and send a binary message to all of them when told
to. None compresses or pings. The loop is asyncio's own, where a transport sends as soon as it is written to.
So a round needs no turn of the loop, and is the same for fastcast, which doesn't send from the loop at all.
(On uvloop, with a turn of the loop in each round, the peers take as long.)
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import fastcast
from benchmarks.micro.clients import HOST, Clients
from fastcast._core import encode_frame
from fastcast.handshake import Handshake

# Clients arrive by the hundred, and the kernel cuts this down to what it allows.
_BACKLOG = 65535

# picows writes the frame's header into the space in front of the payload.
_PICOWS_HEADROOM = 14


@dataclass(frozen=True)
class RunningPeer:
    """A server that accepts clients."""

    port: int
    broadcast: Callable[[bytes], None]
    """Sends a binary message to every member."""
    members: Callable[[], int]
    """How many clients a broadcast would reach now."""


@dataclass(frozen=True)
class Peer:
    """A server that can be started."""

    name: str
    module: str
    """What must be importable for it."""
    start: Callable[[], AbstractAsyncContextManager[RunningPeer]]
    descriptors: int
    """File descriptors that one client takes in the process's table, both ends counted."""

    def __str__(self) -> str:
        return self.name


Start: TypeAlias = Callable[[Peer, int], tuple[RunningPeer, Clients]]
"""A server with that many clients of it."""


@asynccontextmanager
async def _fastcast() -> AsyncIterator[RunningPeer]:
    server = fastcast.serve(host=HOST, port=0, ping_interval=0)
    await server.start()
    try:
        yield RunningPeer(server.port, server.broadcast, lambda: int(server.stats()["clients"]))
    finally:
        await server.stop(0)


@asynccontextmanager
async def _websockets() -> AsyncIterator[RunningPeer]:
    from websockets.asyncio.server import ServerConnection, broadcast, serve

    connections: set[ServerConnection] = set()

    async def keep(connection: ServerConnection) -> None:
        connections.add(connection)
        try:
            await connection.wait_closed()
        finally:
            connections.discard(connection)

    async with serve(keep, HOST, 0, backlog=_BACKLOG, compression=None, ping_interval=None) as server:
        yield RunningPeer(
            _port(server.sockets), lambda data: broadcast(connections, data), connections.__len__
        )


@asynccontextmanager
async def _picows() -> AsyncIterator[RunningPeer]:
    from picows import WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

    transports: set[WSTransport] = set()

    class Keep(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            transports.add(transport)

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            transports.discard(transport)

    def route(_request: WSUpgradeRequest) -> WSListener:
        return Keep()

    def broadcast(data: bytes) -> None:
        message = bytearray(_PICOWS_HEADROOM) + data
        for transport in transports:
            transport.send_reuse_external_bytearray(WSMsgType.BINARY, message, _PICOWS_HEADROOM)

    server = await ws_create_server(route, HOST, 0, backlog=_BACKLOG)
    async with server:
        yield RunningPeer(_port(server.sockets), broadcast, transports.__len__)


@asynccontextmanager
async def _write_loop() -> AsyncIterator[RunningPeer]:
    """The least that one thread of Python can do: one system call for each client, and not a check."""
    transports: dict[int, asyncio.Transport] = {}

    def broadcast(data: bytes) -> None:
        frame = encode_frame(data)
        for descriptor in transports:
            os.write(descriptor, frame)

    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: _Bare(transports), HOST, 0, backlog=_BACKLOG) as server:
        yield RunningPeer(_port(server.sockets), broadcast, transports.__len__)
        for transport in transports.values():
            transport.abort()


class _Bare(asyncio.Protocol):
    """A connection that is accepted and then left to others, by its descriptor."""

    def __init__(self, transports: dict[int, asyncio.Transport]) -> None:
        self._transports = transports
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._descriptor = transport.get_extra_info("socket").fileno()

    def data_received(self, data: bytes) -> None:
        self._head += data
        if self._head.endswith(b"\r\n\r\n"):
            self._transport.write(Handshake().answer(self._head).response)
            self._transports[self._descriptor] = self._transport

    def connection_lost(self, _error: Exception | None) -> None:
        self._transports.pop(self._descriptor, None)


def _port(listeners: tuple[socket.socket, ...]) -> int:
    return int(listeners[0].getsockname()[1])


FASTCAST = Peer("fastcast", "fastcast", _fastcast, descriptors=1)

PEERS = (
    FASTCAST,
    Peer("write loop", "fastcast", _write_loop, descriptors=2),
    Peer("picows", "picows", _picows, descriptors=2),
    Peer("websockets", "websockets", _websockets, descriptors=2),
)
