"""Starlette on uvicorn: one endpoint coroutine per connection, a send awaited for each receiver in turn."""

from __future__ import annotations

import asyncio
import socket

import harness
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

connections: set[WebSocket] = set()


async def chat(connection: WebSocket) -> None:
    await connection.accept()
    connections.add(connection)
    try:
        while True:
            event = await connection.receive()
            if event["type"] == "websocket.disconnect":
                return
            message: Message = {
                "type": "websocket.send",
                "bytes": event.get("bytes"),
                "text": event.get("text"),
            }
            # A copy, because a send may suspend and connections come and go meanwhile.
            for receiver in list(connections):
                try:
                    await receiver.send(message)
                except (RuntimeError, WebSocketDisconnect):
                    connections.discard(receiver)
    finally:
        connections.discard(connection)


async def start(listener: socket.socket) -> asyncio.Task[None]:
    config = uvicorn.Config(
        Starlette(routes=[WebSocketRoute("/{channel:path}", chat)]),
        ws="websockets-sansio",
        backlog=harness.BACKLOG,
        lifespan="off",
        access_log=False,
        log_level="warning",
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        ws_max_size=harness.MAX_MESSAGE,
        timeout_graceful_shutdown=0,
    )
    return asyncio.create_task(uvicorn.Server(config).serve(sockets=[listener]))


harness.run(start)
