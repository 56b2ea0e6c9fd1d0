"""websockets: one coroutine per connection, ``broadcast()`` to all of them."""

from __future__ import annotations

import socket

import harness
from websockets.asyncio.server import Server, ServerConnection, broadcast, serve

connections: set[ServerConnection] = set()


async def chat(connection: ServerConnection) -> None:
    connections.add(connection)
    try:
        async for message in connection:
            broadcast(connections, message)
    finally:
        connections.discard(connection)


async def start(listener: socket.socket) -> Server:
    return await serve(
        chat,
        sock=listener,
        backlog=harness.BACKLOG,
        compression=None,
        ping_interval=None,
        open_timeout=None,
        max_size=harness.MAX_MESSAGE,
    )


harness.run(start)
