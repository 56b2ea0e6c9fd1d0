"""A client as the program sees it: a number that may be kept, and what can be done to whom it stands for."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fastcast.channels import check_subscription
from fastcast.errors import FastcastError, OverloadError

if TYPE_CHECKING:
    from fastcast._core import Hub

Data: TypeAlias = str | bytes | bytearray | memoryview
"""What can be sent: str goes out as text, the others as binary."""


class Unshared(int):
    """What ``publish`` and ``broadcast`` return while the bus between servers can't be reached: for how many
    subscriptions of this server the message is queued, which is all that it reaches."""


MOST_REASON: Final = 123
"""Bytes of the reason in a Close: RFC 6455, section 5.5."""


def not_running() -> FastcastError:
    """What is raised when there is nobody to do something for."""
    return FastcastError("the server is not running")


def explain(error: OSError) -> Exception:
    """The exception that is raised for one of the core's."""
    if error.errno == errno.EAGAIN:
        return OverloadError("too much is under way: the shards must catch up first")
    if error.errno == errno.EMSGSIZE:
        return ValueError("the message is longer than 1 GiB")
    return not_running()


class Clients:
    """All clients of one server: what can be done to them by their ids, and what the program keeps for them.

    May be used from any thread.
    """

    def __init__(self) -> None:
        self._hub: Hub | None = None
        self._want: Callable[[str], None] | None = None
        self._running = False
        self._states: dict[int, Any] | None = None
        # Held where a state comes or goes: a thread must not set one anew that it has just seen being there.
        self._lock = threading.Lock()

    def begin(self, hub: Hub, *, keep: bool, want: Callable[[str], None] | None = None) -> None:
        """The server has started; with ``keep``, one hears of each client's end, and ``forget`` is called.

        ``want`` is told of each channel or pattern before a client is subscribed to it.
        """
        self._hub = hub
        self._want = want
        self._running = True
        self._states = {} if keep else None

    def stop(self) -> None:
        """The server stops: nobody is reached any more, but handlers still read and write states."""
        self._hub = None

    def end(self) -> None:
        """The server has stopped."""
        self._hub = self._states = None
        self._running = False

    def send(self, client: int, data: Data) -> int:
        hub = self._hub  # once, here and below: the loop's thread may stop the server meanwhile
        if hub is None:
            raise not_running()
        try:
            hub.send(client, data)
        except OSError as error:
            raise explain(error) from None
        return 1

    def subscribe(self, client: int, channel: str) -> None:
        check_subscription(channel)
        if (hub := self._hub) is not None:
            if self._want is not None:
                self._want(channel)
            hub.subscribe(client, channel)

    def unsubscribe(self, client: int, channel: str) -> None:
        check_subscription(channel)
        if (hub := self._hub) is not None:
            hub.unsubscribe(client, channel)

    def close(self, client: int, code: int, reason: str) -> None:
        # RFC 6455, section 7.4, and what IANA has registered since: 1005, 1006 and 1015 aren't sent.
        if not (3000 <= code <= 4999 or 1000 <= code <= 1014) or code in (1004, 1005, 1006):
            raise ValueError(f"{code} is no code to close with")
        if len(reason.encode()) > MOST_REASON:
            raise ValueError(f"the reason is longer than {MOST_REASON} bytes")
        if (hub := self._hub) is not None:
            hub.close(client, code, reason)

    def state(self, client: int) -> Any:
        return (self._states or {}).get(client)

    def set_state(self, client: int, state: Any) -> None:
        states, hub = self._states, self._hub
        if not self._running:
            return
        if states is None:
            raise FastcastError(
                "only a server with a handler hears of its clients' end, and keeps their state"
            )
        with self._lock:
            new = client not in states
            states[client] = state
        # Else the state of a client that has left would stay for ever. When the server stops all states go.
        if new and hub is not None:
            hub.check(client)

    def admit(self, client: int, state: Any) -> None:
        """Keep the state that a client begins with."""
        if state is not None and self._states is not None:
            self._states[client] = state

    def forget(self, client: int) -> None:
        """The client has left, and the program knows."""
        if self._states is not None:
            with self._lock:
                self._states.pop(client, None)


class Client:
    """One client of a server. May be kept: when the client has left, it means nobody.

    Equal to another one of the same client, and good as a key. All of it may be used from any thread.
    """

    __slots__ = ("_clients", "channel", "id")

    def __init__(self, clients: Clients, id: int, channel: str | None = None) -> None:
        self._clients = clients
        self.id = id
        """Its number, which no other client of the server gets."""
        self.channel = channel
        """The first channel that it was accepted to, where an event tells it: with its messages."""

    @property
    def state(self) -> Any:
        """What the program keeps for the client, None at first; given up when the client has left.

        Needs a handler (or presence), without which the server doesn't hear of its clients' end: else,
        setting it raises FastcastError.
        """
        return self._clients.state(self.id)

    @state.setter
    def state(self, state: Any) -> None:
        self._clients.set_state(self.id, state)

    def send(self, data: Data) -> int:
        """Send a message to this client alone, behind what was published before.

        Returns 1: it is handed to the client's shard. Raises OverloadError when too much is under way,
        ValueError for more than 1 GiB, and FastcastError when the server isn't running.
        """
        return self._clients.send(self.id, data)

    def subscribe(self, channel: str) -> None:
        """Let the client hear what is published to a channel, or to all that a pattern takes in, from now on.

        Raises ValueError for a bad name.
        """
        self._clients.subscribe(self.id, channel)

    def unsubscribe(self, channel: str) -> None:
        """End that; the channel or pattern is one that it is subscribed to."""
        self._clients.unsubscribe(self.id, channel)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the client, behind all that was sent to it before.

        Raises ValueError for a code that can't be sent, or a reason of more than 123 bytes.
        """
        self._clients.close(self.id, code, reason)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Client):
            return NotImplemented
        return self.id == other.id and self._clients is other._clients

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        where = f" on {self.channel!r}" if self.channel is not None else ""
        return f"<fastcast.Client {self.id}{where}>"
