"""socketify: every connection subscribes to one topic of uWebSockets, a message is published to it."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any

import harness
from socketify import App, CompressOptions, OpCode  # type: ignore[import-untyped]

TOPIC = "chat"
# A connection over this limit silently loses messages.
MAX_BACKPRESSURE = 256 * 1024 * 1024
# uSockets' flag for a listener of its own: without it the port may be shared with another server.
EXCLUSIVE_PORT = 1

options = harness.arguments()
app = App()


def opened(connection: Any) -> None:
    connection.subscribe(TOPIC)


def message(_connection: Any, payload: bytes | str, opcode: OpCode) -> None:
    # Published by the application, not by the connection: the latter leaves the sender out.
    app.publish(TOPIC, payload, opcode)


def terminated(_signal: int, _frame: FrameType | None) -> None:
    app.close()
    sys.exit(0)


app.ws(
    "/*",
    {
        "compression": CompressOptions.DISABLED,
        "max_payload_length": harness.MAX_MESSAGE,
        "max_backpressure": MAX_BACKPRESSURE,
        "idle_timeout": 0,
        "open": opened,
        "message": message,
    },
)
signal.signal(signal.SIGTERM, terminated)
app.listen(
    {"host": options.host, "port": options.port, "options": EXCLUSIVE_PORT},
    lambda config: harness.announce(options.host, config.port),
)
app.run()
