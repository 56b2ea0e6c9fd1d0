"""A client that knows where it is in the histories of its channels, and says so when it comes back."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, unquote

from tests.support.wire import Address, Client, Frame


class Headed(NamedTuple):
    """A message with a head: `at`, `gap` or `msg`, a position, a channel, and the payload behind it."""

    what: str
    epoch: str
    offset: int
    channel: str
    payload: bytes


def headed(message: Frame) -> Headed:
    """What a message to a client that resumes says."""
    assert message.payload.startswith(b"\x1e"), message
    head, newline, payload = message.payload[1:].partition(b"\n")
    assert newline
    what, position, channel = head.decode().split(" ", 2)
    assert what in ("at", "gap", "msg")
    epoch, _, offset = position.partition(":")
    return Headed(what, epoch, int(offset), unquote(channel), payload)


class Resumer(Client):
    """Connects with a position, or `new` or `all`, and keeps track of it."""

    def __init__(
        self, address: Address, path: str = "/a", since: str = "new", *, receive_buffer: int | None = None
    ) -> None:
        super().__init__(address, f"{path}?since={quote(since)}", receive_buffer=receive_buffer)
        self.position = since

    def read(self) -> Headed:
        """The next message; of one channel, each offset must be greater than the last."""
        message = headed(self.read_message())
        self.position = f"{message.epoch}:{message.offset}"
        return message

    def payloads(self, count: int) -> list[bytes]:
        """Of the next messages, which must be messages."""
        received = [self.read() for _ in range(count)]
        assert [each.what for each in received] == ["msg"] * count
        return [each.payload for each in received]
