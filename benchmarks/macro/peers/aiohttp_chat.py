"""aiohttp: one handler coroutine per connection, a send awaited for each receiver in turn."""

from __future__ import annotations

import socket

import harness
from aiohttp import WSMsgType, web

connections: set[web.WebSocketResponse] = set()


async def chat(request: web.Request) -> web.WebSocketResponse:
    connection = web.WebSocketResponse(compress=False, max_msg_size=harness.MAX_MESSAGE)
    await connection.prepare(request)
    connections.add(connection)
    try:
        async for message in connection:
            # A copy, because a send may suspend and connections come and go meanwhile.
            receivers = [receiver for receiver in connections if not receiver.closed]
            if message.type is WSMsgType.BINARY:
                for receiver in receivers:
                    await deliver_bytes(receiver, message.data)
            elif message.type is WSMsgType.TEXT:
                for receiver in receivers:
                    await deliver_text(receiver, message.data)
    finally:
        connections.discard(connection)
    return connection


async def deliver_bytes(receiver: web.WebSocketResponse, payload: bytes) -> None:
    try:
        await receiver.send_bytes(payload)
    except ConnectionError:
        connections.discard(receiver)


async def deliver_text(receiver: web.WebSocketResponse, payload: str) -> None:
    try:
        await receiver.send_str(payload)
    except ConnectionError:
        connections.discard(receiver)


async def start(listener: socket.socket) -> web.AppRunner:
    application = web.Application()
    application.router.add_get("/{channel:.*}", chat)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener, backlog=harness.BACKLOG).start()
    return runner


harness.run(start)
