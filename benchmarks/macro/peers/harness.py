"""What every Python peer shares: its arguments, its listening socket, its ready line and its end.

A peer is started as ``python PEER.py --port N`` (0 picks a port), prints ``listening HOST PORT`` once it
accepts connections, and ends on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable

import uvloop

BACKLOG = 65_535
"""Asked for by every peer; the kernel caps it at net.core.somaxconn."""

MAX_MESSAGE = 1024 * 1024
"""Largest message that a peer accepts, in bytes."""


def arguments() -> argparse.Namespace:
    """Return the parsed command line: ``host`` and ``port``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    return parser.parse_args()


def announce(host: str, port: int) -> None:
    """Print the ready line."""
    print("listening", host, port, flush=True)


async def until_terminated() -> None:
    """Return on SIGTERM."""
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    await terminated.wait()


def run(start: Callable[[socket.socket], Awaitable[object]]) -> None:
    """Run a peer on uvloop until SIGTERM; ``start`` begins to serve the given socket and returns."""
    options = arguments()

    async def main() -> None:
        with socket.create_server((options.host, options.port), backlog=BACKLOG) as listener:
            listener.setblocking(False)
            # Kept in a name: a server object that nobody refers to may be collected while it serves.
            server = await start(listener)
            announce(*listener.getsockname())
            await until_terminated()
            del server

    uvloop.run(main())
