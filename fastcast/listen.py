"""Listening sockets: one for each shard and address, all on the same port."""

from __future__ import annotations

import socket

from fastcast.errors import StartError

BACKLOG = 65535
"""Connections that may wait in a listener's queue; the kernel cuts this down to net.core.somaxconn."""


def listen(host: str, port: int, shards: int) -> list[list[socket.socket]]:
    """Bind every address of ``host``; returns a list of sockets for each of the shards, first address first.

    The sockets of an address share its port (SO_REUSEPORT), and the kernel spreads the connections over them.
    Port 0 picks a free port, the same for all addresses. Raises StartError when that can't be done.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartError(f"cannot listen on {host}: {error.strerror}") from error
    except UnicodeError as error:
        raise StartError(f"cannot listen on {host}: not a host name") from error
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    sockets: list[list[socket.socket]] = [[] for _ in range(shards)]
    try:
        for family, address in addresses:
            for number, of_shard in enumerate(sockets):
                host_and_port = (address[0], port, *address[2:])
                of_shard.append(_listen_one(family, host_and_port, first=number == 0))
                port = of_shard[-1].getsockname()[1]
    except BaseException:
        close(sockets)
        raise
    return sockets


def close(sockets: list[list[socket.socket]]) -> None:
    """Close what ``listen`` returned."""
    for of_shard in sockets:
        for each in of_shard:
            each.close()


def _listen_one(family: int, address: tuple[object, ...], first: bool) -> socket.socket:
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise StartError(f"cannot listen on {_show(address)}: {error.strerror}") from error
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Inherited by every accepted socket. A frame is written at once, and must not wait for another's ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The first binds without sharing: a port that somebody else has, another fastcast for one, is an
        # error. The others may then share with it.
        if not first:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        if first:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise StartError(f"cannot listen on {_show(address)}: {error.strerror}") from error
    except BaseException:
        listener.close()
        raise
    return listener


def _show(address: tuple[object, ...]) -> str:
    host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
    return f"{host} port {address[1]}"
