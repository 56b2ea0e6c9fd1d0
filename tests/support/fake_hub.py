"""A hub without shards, clients or sockets: what a test says happens, what Python does is written down."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from fastcast._core import FLUSHED, INFO, MISSING, Hub
from fastcast.history import Since

AT_ONCE = 256
"""Events that are taken together."""


class FakeHub:
    """Stands in for `fastcast._core.Hub` once that is started; belongs to one thread."""

    def __init__(self, shards: int = 1) -> None:
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.shards = self.running = shards
        self.capacity = 100
        self.backend = "epoll"
        self.waiting: deque[tuple[Any, ...]] = deque()
        """Events that have yet to be taken."""
        self.replied: deque[tuple[Any, ...]] = deque()
        """The same with replies."""
        self.asked: deque[tuple[int, bytes, str, int]] = deque()
        """The same with requests."""
        self.answered: list[tuple[int, bytes, Sequence[str] | None, str, Since | None]] = []
        self.did: list[tuple[Any, ...]] = []
        """Calls that change something: name and arguments."""
        self.known: dict[int, dict[str, Any]] = {}
        """What there is to tell of clients, by id; others have gone."""
        self.error: Exception | None = None
        """What sending raises."""
        self.stopped_within: list[int] = []
        """The time-outs of `stop`, in milliseconds."""
        self.unanswered = False
        """Whether a reply is lost."""
        self.silent = False
        """Whether questions stay unanswered."""

    @property
    def hub(self) -> Hub:
        """Itself, by the type that it stands in for."""
        return cast(Hub, self)

    # ---- for the test ----

    def tell(self, *events: tuple[Any, ...]) -> None:
        """Have events happen."""
        self.waiting += events
        os.eventfd_write(self.event_fd, 1)

    def reply(self, *replies: tuple[Any, ...]) -> None:
        """Have replies come, unless it's silent."""
        if not self.silent:
            self.replied += replies
            os.eventfd_write(self.event_fd, 1)

    def ask(self, *clients: int, head: bytes = b"") -> None:
        """Have clients ask for admission."""
        self.asked += [(client, head, "", 0) for client in clients]
        os.eventfd_write(self.event_fd, 1)

    def end(self) -> None:
        """The shards end."""
        self.running = 0
        os.eventfd_write(self.event_fd, 1)

    # ---- for the server ----

    def reset_event(self) -> None:
        os.eventfd_read(self.event_fd)

    def events(self) -> list[tuple[Any, ...]]:
        return [self.waiting.popleft() for _ in range(min(AT_ONCE, len(self.waiting)))]

    def replies(self) -> list[tuple[Any, ...]]:
        if self.unanswered:
            self.unanswered = False
            raise MemoryError("a shard has no memory to reply")
        return [self.replied.popleft() for _ in range(min(AT_ONCE, len(self.replied)))]

    def requests(self) -> list[tuple[int, bytes, str, int]]:
        return [self.asked.popleft() for _ in range(min(AT_ONCE, len(self.asked)))]

    def answer(self, answers: list[tuple[int, bytes, Sequence[str] | None, str, Since | None]]) -> None:
        self.answered += answers

    def publish(self, channel: str, data: Any, key: str | None = None) -> int:
        return self._send("publish", channel, data, key)

    def broadcast(self, data: Any) -> int:
        return self._send("broadcast", data)

    def send(self, client: int, data: Any) -> None:
        self._send("send", client, data)

    def _send(self, *what: Any) -> int:
        if self.error is not None:
            raise self.error
        self.did.append(what)
        return 3

    def subscribe(self, client: int, channel: str) -> None:
        self.did.append(("subscribe", client, channel))

    def unsubscribe(self, client: int, channel: str) -> None:
        self.did.append(("unsubscribe", client, channel))

    def close(self, client: int, code: int, reason: str) -> None:
        self.did.append(("close", client, code, reason))

    def check(self, client: int) -> None:
        if client not in self.known:
            self.tell((MISSING, client))

    def inspect(self, client: int, token: int) -> None:
        self.reply((INFO, token, self.known.get(client)))

    def flush(self, token: int) -> None:
        self.reply(*[(FLUSHED, token)] * self.shards)

    def members(self, channel: str) -> list[int]:
        return sorted(self.known)

    def count(self, channel: str) -> int:
        return len(self.known)

    def channels(self) -> list[tuple[str, int]]:
        return [("a", 1), ("b.*", 2)]

    def channel_stats(self, channel: str) -> dict[str, int] | None:
        counts = {"members": 1, "sent": 9, "delivered": 4, "dropped": 2, "gone": 1}
        return counts if channel == "a" else None

    def expire(self) -> None:
        pass

    def address_count(self, address: str) -> int:
        return 0

    def stats(self) -> dict[str, Any]:
        return {"clients": len(self.known), "queued": 7}

    def stop(self, timeout: int) -> None:
        self.stopped_within.append(timeout)


@contextmanager
def fake_hub(shards: int = 1) -> Iterator[FakeHub]:
    """A fake hub whose fd is closed in the end."""
    fake = FakeHub(shards)
    try:
        yield fake
    finally:
        os.close(fake.event_fd)
