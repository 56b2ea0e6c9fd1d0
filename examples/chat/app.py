"""A chat with rooms: everybody in a room sees who else is there.

Run it with ``python examples/chat/app.py``, or in its directory with ``fastcast serve app:server``. A room is
the path of the URL, the name is in its query: ``ws://127.0.0.1:8000/rooms/kitchen?name=Ada``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import fastcast

MOST_LETTERS = 32

server = fastcast.Server(
    fastcast.Config.load({}, os.environ),  # FASTCAST_PORT=9000, and every other option
    html=Path(__file__).with_name("page.html").read_bytes(),
    presence=True,
    max_message="4KiB",
    rate_limit=5,
    rate_burst=20,
)


@server.on_connect
def admit(request: fastcast.Request) -> fastcast.Accept:
    name = request.query.get("name", "").strip()
    if not request.path.startswith("/rooms/"):
        raise fastcast.Refuse(404, "rooms are at /rooms/NAME")
    if not 0 < len(name) <= MOST_LETTERS:
        raise fastcast.Refuse(400, f"a name of 1 to {MOST_LETTERS} letters is needed: ?name=Ada")
    return fastcast.Accept(state=name)  # to the channel that the path names


@server.on_join
def greet(client: fastcast.Client, room: str) -> None:
    here = {str(other.id): other.state for other in server.presence(room)}
    client.send(json.dumps({"type": "here", "you": str(client.id), "people": here}))
    tell(room, "join", client)


@server.on_leave
def miss(client: fastcast.Client, room: str) -> None:
    tell(room, "leave", client)


@server.on_message
def relay(client: fastcast.Client, message: str | bytes) -> None:
    if client.channel is not None and isinstance(message, str) and message.strip():
        tell(client.channel, "say", client, text=message)


def tell(room: str, what: str, client: fastcast.Client, **more: str) -> None:
    """Tell all who are in the room. Ids are strings, since they may have 64 bits, too many for JavaScript."""
    server.publish(room, json.dumps({"type": what, "id": str(client.id), "name": client.state, **more}))


if __name__ == "__main__":
    server.run(ready=lambda: print(server.describe(), flush=True))
