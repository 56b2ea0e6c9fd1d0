"""Messages on their way to one request: collected by whoever publishes them, or in the background."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from fastcast.errors import PublishError

# Of one request. The server takes more bytes than that, whatever its max_message.
_MOST_BYTES: Final = 512 * 1024
_MOST_MESSAGES: Final = 1000

# Requests that may wait; whoever collects more waits with them.
_MOST_WAITING: Final = 8


class RefusedError(PublishError):
    """Nothing of a request was published, since something in it is wrong."""


class Batch:
    """Messages for one request, in the form in which they are sent."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.begun = monotonic()
        self._size = 0

    def takes(self, message: bytes) -> bool:
        """Whether one more fits; the first always does."""
        if not self.messages:
            return True
        return len(self.messages) < _MOST_MESSAGES and self._size + len(message) < _MOST_BYTES

    def add(self, message: bytes) -> None:
        self.messages.append(message)
        self._size += len(message) + 1


class Background:
    """Sends what is collected, in order, from a thread of its own; may be used from any thread.

    ``send`` sends one batch. What it raises comes out of the next call here, as PublishError. When that is a
    RefusedError, the batch is sent in parts: only what is wrong itself is lost.
    """

    def __init__(self, send: Callable[[list[bytes]], object], linger: float) -> None:
        """``linger``: seconds for which a batch waits to become larger."""
        self._send = send
        self._linger = linger
        self._changed = threading.Condition()
        self._waiting: deque[Batch] = deque()
        self._collected = 0
        self._ended = 0
        self._flushing = 0
        self._lost = 0
        self._error: Exception | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, message: bytes) -> None:
        """Collect a message; waits while too many are collected already.

        Raises PublishError, and doesn't collect it, when earlier ones were not published.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._error or self._closed or self._has_room(message))
            self._raise()
            if self._closed:
                raise PublishError("the publisher is closed")
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="fastcast-publisher", daemon=True)
                thread.start()  # if it can't, the next one tries again
                self._thread = thread
            if not self._waiting or not self._waiting[-1].takes(message):
                self._waiting.append(Batch())
            self._waiting[-1].add(message)
            self._collected += 1
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until what was collected by now is sent; PublishError if something was not."""
        with self._changed:
            goal = self._collected
            self._flushing += 1
            self._changed.notify_all()
            try:
                self._changed.wait_for(lambda: self._ended >= goal)
            finally:
                self._flushing -= 1
            self._raise()

    def close(self) -> None:
        """Send what is collected, and end the thread; PublishError as of ``flush``."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._raise()

    def _has_room(self, message: bytes) -> bool:
        return len(self._waiting) < _MOST_WAITING or self._waiting[-1].takes(message)

    def _raise(self) -> None:
        if self._error is not None:
            what = "1 message was" if self._lost == 1 else f"{self._lost} messages were"
            error = PublishError(f"{what} collected, but not published: {self._error}")
            self._lost, self._error = 0, None
            raise error

    def _run(self) -> None:
        while (messages := self._next()) is not None:
            self._deliver(messages)

    def _deliver(self, messages: list[bytes]) -> None:
        error: Exception | None = None
        try:
            self._send(messages)
        except Exception as failure:
            error = failure
        if isinstance(error, RefusedError) and len(messages) > 1:
            half = len(messages) // 2
            self._deliver(messages[:half])
            self._deliver(messages[half:])
            return
        with self._changed:
            self._ended += len(messages)
            if error is not None:
                self._lost += len(messages)
                self._error = error
            self._changed.notify_all()

    def _next(self) -> list[bytes] | None:
        """The next batch once it is due; None when there are no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            due = self._waiting[0].begun + self._linger
            self._changed.wait_for(
                lambda: self._flushing or self._closed or len(self._waiting) > 1, max(due - monotonic(), 0)
            )
            messages = self._waiting.popleft().messages
            self._changed.notify_all()
            return messages
