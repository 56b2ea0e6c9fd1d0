"""What the servers' messages travel over: one connection to a broker, from connect to its loss."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeAlias

PATIENCE: Final = 5
"""Seconds for the broker to answer: a connect, a subscription, what is published."""

PULSE: Final = 2
"""Seconds between two signs of life that are asked for; a broker that owes two of them is lost."""


MOST_SAID: Final = 256 << 10
"""Bytes of what a server says to others in one message: any broker takes it."""


class Place(NamedTuple):
    """Where a message stands in the log: its offset, and that of the one before it on its channel."""

    offset: int
    before: int


class Stored(NamedTuple):
    """A message as the log has it, and for how many seconds."""

    offset: int
    payload: bytes
    age: float


Received: TypeAlias = Callable[[str, bytes, str, Place | None], None]
"""Gets each copy of a message: its subject, its bytes, the subscription that brought it, and where the
broker's log has it, if it comes from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What the log is to keep, for as long or as much as the channel with the longest history wants."""

    subjects: tuple[str, ...]
    messages: int | None
    """Of each subject; None: any number."""
    seconds: float | None
    most_bytes: int
    """Over all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where the broker is, and what it asks for."""

    urls: tuple[str, ...]
    credentials: str | None = None
    """A file with a JWT and a seed, as NATS has them."""
    nkey: str | None = None
    """A file with the seed of an nkey."""
    ca: str | None = None
    """A file with the certificates to trust in the place of the system's."""
    certificate: str | None = None
    """A file with this side's certificate, and its key if ``key`` isn't given."""
    key: str | None = None


class Unreachable(Exception):
    """The broker doesn't answer, or not as it should; the text says why."""


class Log(Protocol):
    """What the broker keeps of messages, with offsets that are the same for all servers.

    What fails raises Unreachable.
    """

    @property
    def first(self) -> int:
        """The oldest offset that is kept, when it was last connected."""

    @property
    def most(self) -> int | None:
        """Messages of one subject that are sure to be kept, if they are new enough; None: any number."""

    async def ready(self) -> None:
        """Wait until it can be read after a loss; before that, what it says of itself is out of date."""

    def epoch(self, channel: str) -> bytes:
        """That of the channel's offsets; another one if they begin anew."""

    @property
    def lost(self) -> int:
        """Messages that were sent and may not be in it, or aren't."""

    def takes(self, subject: str) -> bool:
        """Whether what is published to the subject goes through it."""

    anew: Callable[[], None]
    """To be called when it has begun anew, and all offsets with it."""

    def doubt(self) -> bool:
        """Have a look, now or soon, at whether it has; whether that's under way."""

    @property
    def is_full(self) -> bool:
        """Whether so much waits for it that nothing more should be published to it. For any thread."""

    @property
    def unconfirmed(self) -> int:
        """Messages that are on their way into it."""

    def keep(self, subject: str, payload: bytes) -> None:
        """Have a message go into it with the next connection."""

    async def settle(self) -> None:
        """Wait until all that has been sent is in it, and on its way to the subscribers."""

    def tails(self) -> Mapping[str, int]:
        """Offsets of what this server has put into it last, by subject, where nothing has followed. Each is
        told once.
        """

    async def fetch(self, subject: str, after: int) -> Sequence[Stored]:
        """What is kept of a subject behind an offset, the oldest first."""


class Engine(Protocol):
    """Belongs to one loop. After a loss, or a failure to connect, it may ``connect`` again.

    What fails raises Unreachable.
    """

    @property
    def log(self) -> Log | None:
        """What it keeps of messages, if it does."""

    dropped: int
    """Messages that came and couldn't be taken, since so many waited to be."""

    @property
    def name(self) -> str:
        """Where it is connected, without secrets."""

    @property
    def most_bytes(self) -> int:
        """Of one message; known once it has been connected."""

    async def connect(self, received: Received, lost: Callable[[str], None]) -> None:
        """Connect; ``lost`` is called once if that ends without ``close``, and says why."""

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Hand over messages, each with its subject, in this order."""

    async def subscribe(self, subjects: Collection[str]) -> None:
        """Returns when they are in force: what is published afterwards is received."""

    async def unsubscribe(self, subjects: Collection[str]) -> None:
        """Ends subscriptions, perhaps a little later."""

    async def close(self) -> None:
        """Hand over what waits, and end the connection; never raises."""
