"""Clients that don't read, and messages that fill what the kernel keeps for them."""

from __future__ import annotations

import random

from tests.support.wire import Address, Client

CHUNK = 64 * 1024
"""Bytes of a message, large enough that few of them fill a stalled client's socket."""


def payload(number: int) -> bytes:
    """The contents of a message: its number, and bytes that only it has."""
    return number.to_bytes(8) + random.Random(number).randbytes(CHUNK - 8)


def number_of(contents: bytes) -> int:
    """The number of a message. Raises AssertionError if the contents aren't `payload`'s."""
    number = int.from_bytes(contents[:8])
    # Not a plain comparison: a failure would print both.
    assert contents.__eq__(payload(number)) is True
    return number


def stalled(address: Address, channel: str = "/") -> Client:
    """A client that won't read, with so small a window that the server soon notices."""
    return Client(address, channel, receive_buffer=4096)
