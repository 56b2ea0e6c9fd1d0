"""Many WebSocket clients in the benchmark's own process, as cheap as Python can make them.

A client is a non-blocking socket and nothing else. One epoll set watches all of them, and in the timed rounds
what they receive is counted, not parsed. The same few lines read from every server, so that their cost is the
same in each result.
"""

from __future__ import annotations

import asyncio
import secrets
import select
import socket
import struct

HOST = "127.0.0.1"

TIMEOUT = 20.0
"""Seconds after which a server that has gone silent has failed."""

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

# With many more, the kernel's search for a free port becomes what is measured.
_CLIENTS_PER_ADDRESS = 1000
_CLIENTS_AT_A_TIME = 200
_LONGEST_ANSWER = 8192

# A reset instead of TIME_WAIT: the next benchmark finds the machine as this one did.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Clients:
    """Connected clients; for one thread at a time, and to be closed."""

    def __init__(self) -> None:
        self._clients: dict[int, socket.socket] = {}
        self._poll = select.epoll()
        self._buffer = bytearray(64 * 1024)
        self._network = f"127.{100 + secrets.randbelow(100)}.{secrets.randbelow(256)}"

    def __len__(self) -> int:
        return len(self._clients)

    async def join(self, port: int, number: int) -> None:
        """Connect clients to a server that lives in the running loop.

        Raises TimeoutError when the server is silent, and ConnectionError when it doesn't accept.
        """
        for first in range(0, number, _CLIENTS_AT_A_TIME):
            indices = range(first, min(first + _CLIENTS_AT_A_TIME, number))
            batch = [self._connect(port, index) for index in indices]
            async with asyncio.timeout(TIMEOUT):
                for client in batch:
                    await _read_answer(client)
                    self._poll.register(client, select.EPOLLIN)

    def send(self, data: bytes) -> None:
        """Send bytes from one of the clients."""
        next(iter(self._clients.values())).sendall(data)

    def receive(self, size: int) -> None:
        """Wait until the clients have received ``size`` bytes each, and throw them away.

        Raises TimeoutError when bytes are missing, ConnectionError when a client was disconnected, and
        AssertionError when there are more bytes than that.
        """
        missing = size * len(self)
        while missing > 0:
            ready = self._poll.poll(TIMEOUT, len(self))
            if not ready:
                raise TimeoutError(f"{missing} bytes are missing")
            for fd, _ in ready:
                received = self._clients[fd].recv_into(self._buffer)
                if received == 0:
                    raise ConnectionError("the server disconnected a client")
                missing -= received
        if missing < 0:
            raise AssertionError(f"{-missing} bytes too many")

    def expect(self, frame: bytes) -> None:
        """Wait until each client has received this frame; raises AssertionError for anything else."""
        for client in self._clients.values():
            client.settimeout(TIMEOUT)
            received = b""
            while len(received) < len(frame) and (piece := client.recv(len(frame) - len(received))):
                received += piece
            client.setblocking(False)
            if received != frame:
                raise AssertionError(f"received {received[:40]!r} instead of {frame[:40]!r}")

    def close(self) -> None:
        """Cut all connections."""
        self._poll.close()
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _connect(self, port: int, index: int) -> socket.socket:
        # The kernel completes a connection without the server: this doesn't wait for the loop that it blocks.
        source = f"{self._network}.{1 + index // _CLIENTS_PER_ADDRESS}"
        client = socket.create_connection((HOST, port), TIMEOUT, (source, 0))
        self._clients[client.fileno()] = client
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        client.sendall(REQUEST)
        client.setblocking(False)
        return client


async def _read_answer(client: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    answer = b""
    while not answer.endswith(b"\r\n\r\n") and len(answer) < _LONGEST_ANSWER:
        piece = await loop.sock_recv(client, _LONGEST_ANSWER)
        if not piece:
            break
        answer += piece
    if not answer.startswith(b"HTTP/1.1 101 ") or not answer.endswith(b"\r\n\r\n"):
        raise ConnectionError(f"the server did not accept: {answer[:80]!r}")
