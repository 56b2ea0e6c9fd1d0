"""The other servers on the bus: which there are, how many clients they have, and what they answer when asked.

Each server says once a second that it is there. Nothing about channels or clients is copied from one server
to another: whoever wants to know asks all, and adds up their answers. So nothing is kept that could be
wrong, and it costs nothing while nobody asks. Who has said nothing for some seconds is dead, and its clients
with it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from uuid import uuid4

from fastcast.bus.engine import MOST_SAID
from fastcast.errors import FastcastError
from fastcast.presence import Present

BEAT: Final = 1.0
"""Seconds between two signs of life."""

SILENCE: Final = 3.5
"""Seconds without one after which a server is taken for dead."""

# Seconds for the others to answer.
_PATIENCE: Final = 2.0

_log = logging.getLogger("fastcast")

_encoder: Final = json.JSONEncoder(separators=(",", ":"), default=str)


class Home(Protocol):
    """What a server can tell of itself."""

    def clients(self) -> int:
        """How many it has."""

    def count(self, channel: str) -> int:
        """How many subscriptions a message to the channel is for."""

    def present(self, channel: str) -> list[tuple[int, Any]]:
        """Who is subscribed to it, and what is told of each."""


@dataclass(slots=True)
class _Peer:
    heard: float
    clients: int


@dataclass(slots=True)
class _Question:
    done: asyncio.Future[None]
    missing: set[str]
    count: int = 0
    present: list[Present] = field(default_factory=list)

    def heard_all(self, peer: str) -> None:
        self.missing.discard(peer)
        if not self.missing and not self.done.done():
            self.done.set_result(None)


class Peers:
    """Belongs to one loop."""

    def __init__(
        self,
        home: Home,
        send: Callable[[str | None, bytes], None],
        id: str,
        most_bytes: Callable[[], int],
    ) -> None:
        """``send`` publishes to all servers, without a name, or to the one named; ``most_bytes`` tells how
        long a message may be, which another connection may change.
        """
        self._home = home
        self._send = send
        self._id = id
        self._most_bytes = most_bytes
        self._peers: dict[str, _Peer] = {}
        self._questions: dict[str, _Question] = {}
        self._next: asyncio.Handle | None = None

    def __len__(self) -> int:
        """How many servers there are, this one among them."""
        return len(self._peers) + 1

    def __iter__(self) -> Iterator[str]:
        """Their ids, this one's first."""
        yield self._id
        yield from self._peers

    @property
    def clients(self) -> int:
        """How many all servers have, as they last said."""
        return self._home.clients() + sum(peer.clients for peer in self._peers.values())

    def begin(self) -> None:
        """Say that this server is there, from now on."""
        self._next = asyncio.get_running_loop().call_soon(self._beat)

    def stop(self) -> None:
        """Say no more."""
        if self._next is not None:
            self._next.cancel()
        for question in self._questions.values():
            if not question.done.done():
                question.done.set_result(None)

    def farewell(self) -> bytes:
        """What tells the others that this server ends."""
        return _json({"bye": self._id})

    async def count(self, channel: str | None) -> int:
        """Subscriptions to a channel on all servers; clients, without one."""
        if channel is None:
            own, question = self._home.clients(), await self._ask({"what": "clients"})
        else:
            own, question = self._home.count(channel), await self._ask({"what": "count", "channel": channel})
        return own + question.count

    async def present(self, channel: str) -> list[Present]:
        """Who is subscribed to a channel, on all servers, this one's first."""
        question = await self._ask({"what": "present", "channel": channel})
        return [*(Present(self._id, *each) for each in self._home.present(channel)), *question.present]

    def receive(self, payload: bytes) -> None:
        """What some server says to all, or to this one. Whatever can't be read is none of ours.

        Never raises: it's called by what reads from the broker, which would end.
        """
        try:
            said = json.loads(payload)
            self._take(said)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            _log.debug("on the bus, this is nothing that a server says: %r", payload[:200])
        except FastcastError as error:  # this server is about to end
            _log.debug("another server gets no answer: %s", str(error))
        except Exception:
            _log.exception("what another server says can't be dealt with: %r", payload[:200])

    def _take(self, said: dict[str, Any]) -> None:
        if "beat" in said and said["beat"] != self._id:
            self._peers[said["beat"]] = _Peer(time.monotonic(), int(said["clients"]))
        elif "bye" in said:
            self._drop(said["bye"])
        elif "ask" in said and said["from"] != self._id:
            self._answer(said)
        elif "answer" in said:
            self._add(said)

    def _beat(self) -> None:
        self._send(None, _json({"beat": self._id, "clients": self._home.clients()}))
        now = time.monotonic()
        for id in [id for id, peer in self._peers.items() if now - peer.heard > SILENCE]:
            self._drop(id)
        self._next = asyncio.get_running_loop().call_later(BEAT, self._beat)

    def _drop(self, id: str) -> None:
        self._peers.pop(id, None)
        for question in self._questions.values():
            question.heard_all(id)

    # ---- questions ----

    async def _ask(self, question: dict[str, Any]) -> _Question:
        token = uuid4().hex
        asked = _Question(asyncio.get_running_loop().create_future(), set(self._peers))
        if not asked.missing:
            return asked
        self._questions[token] = asked
        try:
            self._send(None, _json({"ask": token, "from": self._id, **question}))
            async with asyncio.timeout(_PATIENCE):
                await asked.done
        except TimeoutError:
            _log.warning("%d of %d servers have not answered", len(asked.missing), len(self._peers))
        finally:
            del self._questions[token]
        return asked

    def _answer(self, said: dict[str, Any]) -> None:
        reply = {"answer": said["ask"], "from": self._id}
        what = said["what"]
        if what == "present":
            for piece in self._pieces(said["channel"], reply):
                self._send(said["from"], piece)
        else:
            count = self._home.count(said["channel"]) if what == "count" else self._home.clients()
            self._send(said["from"], _json(reply | {"count": count, "last": True}))

    def _pieces(self, channel: str, reply: dict[str, Any]) -> Iterator[bytes]:
        """Who is subscribed to a channel, in messages that the broker takes; at least one."""
        most = min(MOST_SAID, self._most_bytes() // 2) - len(_piece(reply, [], last=False))
        present: list[bytes] = []
        size = 0
        for each in self._encoded(channel, most):
            if present and size + len(each) > most:
                yield _piece(reply, present, last=False)
                present, size = [], 0
            present.append(each)
            size += len(each) + 1  # a comma
        yield _piece(reply, present, last=True)

    def _encoded(self, channel: str, most: int) -> Iterator[bytes]:
        """The clients of a channel in JSON, without what is told of them where that can't be sent."""
        without = 0
        for client, told in self._home.present(channel):
            try:
                encoded = _json([client, told])
                fits = len(encoded) <= most
            except Exception:  # of objects that are like nothing in JSON, and of their __str__
                fits = False
            without += not fits
            yield encoded if fits else _json([client, None])
        if without:
            _log.warning(
                "what is told of %d clients of %r is left out for other servers: it's no JSON, or longer than"
                " %d bytes",
                without,
                channel,
                most,
            )

    def _add(self, said: dict[str, Any]) -> None:
        question = self._questions.get(said["answer"])
        peer = said["from"]
        if question is None or peer not in question.missing:
            return
        question.count += int(said.get("count", 0))
        question.present += [Present(peer, int(client), told) for client, told in said.get("present", ())]
        if said["last"]:
            question.heard_all(peer)


def _piece(reply: dict[str, Any], present: list[bytes], *, last: bool) -> bytes:
    """A part of an answer, of clients that are in JSON already."""
    return b'%b,"present":[%b]}' % (_json(reply | {"last": last})[:-1], b",".join(present))


def _json(said: object) -> bytes:
    return _encoder.encode(said).encode()
