"""The bus between servers: what is published on one reaches the clients of all.

A message that is published here goes to the broker and nowhere else; it comes back as it comes to all other
servers, so that each of them delivers it once, in the broker's order. Only while there is no broker to reach
is it delivered to this server's clients directly, if that is wanted.

What goes out stands in one line, subscriptions included: a subscription is in force before what stands
behind it is published.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from fastcast.bus.backoff import Backoff
from fastcast.bus.engine import PATIENCE, Engine, Place, Unreachable
from fastcast.bus.incoming import Incoming
from fastcast.bus.interest import Interest
from fastcast.bus.line import Command, Kind, Line
from fastcast.bus.names import channel_of, log_prefix, own_subject, subject_of
from fastcast.bus.peers import Home, Peers
from fastcast.bus.records import Records
from fastcast.bus.twins import Twins
from fastcast.bus.wire import encode
from fastcast.channels import is_pattern
from fastcast.errors import BusError, OverloadError, StartError

if TYPE_CHECKING:
    from fastcast._core import Hub
    from fastcast.client import Data
    from fastcast.history import Keep, Since

_log = logging.getLogger("fastcast")

# Seconds between two tries to connect, the first and the most.
_LEAST_DELAY: Final = 0.05
_MOST_DELAY: Final = 5.0

_BATCH: Final = 512

# Seconds between two looks at whether the line is empty.
_GLANCE: Final = 0.002


class Bus:
    """One server's part in it. Runs on the loop that starts it; ``publish`` and ``want`` are for any
    thread."""

    def __init__(
        self,
        engine: Engine,
        *,
        prefix: str,
        alone: str,
        most_bytes: int,
        keep_of: Callable[[str], Keep] | None = None,
    ) -> None:
        """``alone`` says what becomes of messages while the broker can't be reached: ``deliver``, to this
        server's clients, or ``refuse``. So many bytes may wait on their way to the broker, and to the shards.
        ``keep_of`` tells what a channel keeps, if some keep something.
        """
        self._engine = engine
        self._prefix = prefix
        self._refuses = alone == "refuse"
        self._most_bytes = most_bytes
        self._keep_of = keep_of
        self._log_prefix = log_prefix(prefix)
        self._records: Records | None = None
        self._id = uuid4().hex
        self._everyone = own_subject(prefix, "all")
        self._echo = own_subject(prefix, f"echo.{self._id}")
        self._servers = own_subject(prefix, "servers")
        self._server = own_subject(prefix, f"server.{self._id}")
        self._tails = own_subject(prefix, "tails")
        self._echoes: dict[bytes, asyncio.Future[None]] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._twins = Twins()
        self._counts: Counter[str] = Counter()
        self._count_lock = threading.Lock()
        self._reason = ""
        self._is_lost = False
        self._backoff = Backoff(_LEAST_DELAY, _MOST_DELAY)
        self._back_at = 0.0
        self._life: asyncio.Task[None] | None = None
        self.up = False
        """Whether the broker can be reached, as far as is known."""

    # ---- life ----

    async def start(self) -> None:
        """Connect. Raises StartError if that fails: whoever starts a server wants to know."""
        self._line = Line(self._most_bytes)
        try:
            await self._engine.connect(self._received, self._lost)
        except Unreachable as error:
            raise StartError(f"cannot reach the bus: {error}") from error
        except BaseException:
            await self._engine.close()
            raise
        _log.info("the bus is at %s", self._engine.name)

    async def begin(self, hub: Hub, home: Home) -> None:
        """Deliver to the hub's clients from now on, and tell the others of this home. Raises StartError."""
        self._incoming = Incoming(hub, self._most_bytes)
        self._hub = hub
        if self._engine.log is not None:
            say = partial(self._say_on, self._tails)
            self._records = Records(hub, self._incoming, self._engine.log, self._prefix, self._keep_of, say)
        own = (self._everyone, self._echo, self._servers, self._server, self._tails)
        self._interest = Interest(hub, self._line, self._subjects_of, keep=own)
        self.peers = Peers(home, self._say, self._id, lambda: self._engine.most_bytes)
        try:
            await self._engine.subscribe(self._interest.subjects())
        except BaseException as error:
            self._interest.stop()
            if self._records is not None:
                await self._records.stop()
            await self._engine.close()
            if isinstance(error, Unreachable):
                raise StartError(f"cannot use the bus: {error}") from error
            raise
        self.up = not self._is_lost
        self.peers.begin()
        self._life = asyncio.create_task(self._live())

    async def stop(self) -> None:
        """End; what is to reach the others has been flushed before."""
        if self._life is not None:
            # Again and again: the libraries may take it for an error of their own.
            while not self._life.done():
                self._life.cancel()
                await asyncio.wait({self._life}, timeout=_GLANCE)
            self._interest.stop()
            self.peers.stop()
            if self.up:
                with suppress(Unreachable):
                    await self._engine.publish([(self._servers, self.peers.farewell())])
            if self._records is not None:
                await self._records.stop()
        self.up = False
        await self._engine.close()

    # ---- out ----

    def publish(self, channel: str | None, data: Data, key: str | None = None) -> bool:
        """Send a message to the channel's clients on all servers; to all clients without a channel.

        False: the bus can't be reached, and only this server's clients get it. Raises BusError where that
        isn't wanted, OverloadError, and ValueError for more than the broker takes.
        """
        is_shared = self.up
        if not is_shared and self._refuses:
            self._count("refused")
            raise self._unreachable()
        subject = self._everyone if channel is None else subject_of(self._prefix, channel)
        payload = encode(data, key)
        if len(payload) > self._engine.most_bytes:
            self._count("refused")
            raise ValueError(f"the message is longer than the bus takes, {self._engine.most_bytes} bytes")
        log = self._engine.log
        if is_shared and log is not None and log.is_full and log.takes(subject):
            raise OverloadError("the stream of histories doesn't answer, and too much waits for it")
        self._line.put(Command(Kind.PUBLISH, subject, payload))
        return is_shared

    def want(self, name: str) -> None:
        """A client of this server is about to be subscribed to a channel or pattern."""
        self._interest.want(name)

    def ready(self, names: Collection[str], since: Since | None = None) -> asyncio.Future[Any] | None:
        """Something to wait for before a client is told that it hears these channels, from its positions on;
        or None.

        For the loop. The future never fails, and ends soon.
        """
        missing = self._interest.want_all(names)
        if not self.up:
            return None
        loop = asyncio.get_running_loop()
        futures = [self._waiting.setdefault(subject, loop.create_future()) for subject in missing]
        if self._records is not None and isinstance(since, list):
            return loop.create_task(self._reach(self._records, futures, names, since))
        if not futures:
            return None
        return asyncio.gather(*map(asyncio.shield, futures))  # the caller's own, which may be cancelled

    @staticmethod
    async def _reach(
        records: Records,
        opening: Collection[asyncio.Future[None]],
        names: Collection[str],
        positions: Collection[tuple[bytes, int]],
    ) -> None:
        if opening:
            await asyncio.wait(opening)
        await records.reach(names, positions)

    async def flush(self) -> None:
        """Wait until all that was published here before has come back, and was given to the shards.

        Raises BusError if the bus can't be reached.
        """
        token = uuid4().bytes
        self._echoes[token] = echo = asyncio.get_running_loop().create_future()
        # If it fails when nobody waits any more, that's no news.
        echo.add_done_callback(lambda echo: echo.cancelled() or echo.exception())
        try:
            async with asyncio.timeout(PATIENCE):
                if not self.up:
                    raise self._unreachable()
                await self._settle()
                self._line.put(Command(Kind.PUBLISH, self._echo, token))
                await echo
        except TimeoutError:
            raise BusError("the bus takes too long") from None
        finally:
            del self._echoes[token]

    async def _settle(self) -> None:
        """Nothing overtakes what goes through the broker's log."""
        if self._engine.log is not None:
            while len(self._line) > 0:
                await asyncio.sleep(_GLANCE)
            await self._engine.log.settle()

    def reached(self) -> Peers:
        """The other servers. Raises BusError if they can't be reached."""
        if not self.up:
            raise self._unreachable()
        return self.peers

    def _say(self, server: str | None, said: bytes) -> None:
        """Something for all servers, or for one."""
        self._say_on(self._servers if server is None else own_subject(self._prefix, f"server.{server}"), said)

    def _say_on(self, subject: str, said: bytes) -> None:
        """Not while there is no bus, or too much waits for it; nor what is longer than the bus takes, which
        would be taken for its loss."""
        if len(said) > self._engine.most_bytes:
            _log.warning(
                "%d bytes for other servers aren't sent: the bus takes %d", len(said), self._engine.most_bytes
            )
        elif self.up:
            with suppress(OverloadError):
                self._line.put(Command(Kind.PUBLISH, subject, said))

    def stats(self) -> dict[str, Any]:
        """Counters since the start, and gauges."""
        return {
            "up": self.up,
            "servers": len(self.peers),
            "clients": self.peers.clients,
            "subscriptions": len(self._interest),
            "waiting": len(self._line),
            "behind": len(self._incoming),
            "delivered": self._incoming.delivered,
            "dropped": self._incoming.dropped + self._engine.dropped,
            "records": len(self._records or ()),
            "unconfirmed": self._engine.log.unconfirmed if self._engine.log is not None else 0,
            "unlogged": self._engine.log.lost if self._engine.log is not None else 0,
            "fetched": self._records.fetched if self._records is not None else 0,
            **{name: self._counts[name] for name in ("published", "received", "twins")},
            **{name: self._counts[name] for name in ("unshared", "refused", "doubtful", "losses")},
        }

    # ---- in ----

    def _received(self, subject: str, payload: bytes, source: str, place: Place | None) -> None:
        if subject in (self._servers, self._server):
            self.peers.receive(payload)
            return
        if subject == self._tails:
            if self._records is not None:
                self._records.hear(payload)
            return
        self._counts["received"] += 1
        if subject == self._everyone:
            self._incoming.deliver(None, payload)
        elif subject == self._echo:
            if (echo := self._echoes.get(payload)) is not None and not echo.done():
                echo.set_result(None)
        elif self._records is None:
            self._distribute(channel_of(self._prefix, subject), subject, payload, source)
        elif place is None:
            channel = channel_of(self._prefix, subject)
            if channel is not None and not self._keeps(channel):  # else it comes from the log
                self._distribute(channel, subject, payload, source)
        else:
            channel = channel_of(self._log_prefix, subject)
            if channel is not None and channel in self._records:
                self._records.receive(channel, payload, place)
            elif (
                channel is not None  # somebody's pattern takes it in
                and self._keeps(channel)
                and not self._records.has_had(channel, place.offset)
            ):
                self._distribute(channel, subject, payload, source)

    def _distribute(self, channel: str | None, subject: str, payload: bytes, source: str) -> None:
        sources = self._interest.sources(subject)
        if channel is None or source not in sources:
            return  # nobody's channel, or nobody's any more
        if len(sources) > 1 and not self._twins.first(subject, payload, source, sources):
            self._counts["twins"] += 1
            return
        self._incoming.deliver(channel, payload)

    # ---- the connection ----

    async def _live(self) -> None:
        while True:
            try:
                while self.up:
                    await self._empty_line()
                    await self._line.wait()
                await self._do_without()
            except Exception as error:
                # An engine's, of whatever kind: else nothing would go out any more, and nobody say so.
                _log.exception("the bus did something unexpected, and is begun anew")
                self._lost(str(error))
                await self._backoff.pause()

    async def _empty_line(self) -> None:
        while self.up and (commands := self._line.take(_BATCH)):
            try:
                await self._carry_out(commands)
            except Unreachable as error:
                if commands[0].kind is Kind.PUBLISH:
                    log = self._engine.log
                    self._counts["doubtful"] += sum(
                        self._is_message(each) and not (log and log.takes(each.subject)) for each in commands
                    )
                self._lost(str(error))

    async def _carry_out(self, commands: list[Command]) -> None:
        subjects = [command.subject for command in commands]
        if commands[0].kind is Kind.PUBLISH:
            await self._engine.publish([(command.subject, command.payload) for command in commands])
            self._counts["published"] += sum(self._is_message(command) for command in commands)
        elif commands[0].kind is Kind.SUBSCRIBE:
            await self._engine.subscribe(subjects)
            self._in_force(subjects)
        else:
            for subject in subjects:
                self._forget(subject)
            await self._engine.unsubscribe(subjects)

    def _is_message(self, command: Command) -> bool:
        """Whether it's for clients."""
        return command.subject == self._everyone or command.subject.startswith(f"{self._prefix}.")

    def _in_force(self, subjects: Collection[str]) -> None:
        """What is published from now on comes; what came before it, to a channel with a history, is read."""
        if self._records is None:
            self._confirm(subjects)
            return
        for subject in subjects:
            channel = channel_of(self._log_prefix, subject)
            if channel is None:
                self._confirm((subject,))
            else:
                self._records.open(channel).add_done_callback(partial(self._filled, subject))

    def _filled(self, subject: str, filling: asyncio.Task[None]) -> None:
        if not filling.cancelled():  # else it has been given up, and may be wanted anew
            self._confirm((subject,))

    def _confirm(self, subjects: Collection[str]) -> None:
        self._interest.confirm(subjects)
        for subject in subjects:
            self._end_waiting(subject)

    def _end_waiting(self, subject: str) -> None:
        if (waiting := self._waiting.pop(subject, None)) is not None and not waiting.done():
            waiting.set_result(None)

    def _forget(self, subject: str) -> None:
        """The subject is given up: a history would have holes from here on."""
        if not self._interest.includes(subject):
            self._end_waiting(subject)  # who still waits for it asks anew
        if self._records is not None:
            if (channel := channel_of(self._log_prefix, subject)) is not None:
                self._records.close(channel)
        elif self._keep_of is not None:
            channel = channel_of(self._prefix, subject)
            if channel is None:  # a pattern
                self._incoming.then(self._hub.forget_histories)
            elif self._keeps(channel):
                self._incoming.then(partial(self._hub.release_history, channel))

    def _keeps(self, channel: str) -> bool:
        return self._keep_of is not None and bool(self._keep_of(channel))

    def _subjects_of(self, name: str) -> tuple[str, ...]:
        """Under which a name is heard: what channels with a history get comes from the log, numbered."""
        subject = subject_of(self._prefix, name)
        if self._records is None:
            return (subject,)
        from_log = subject_of(self._log_prefix, name)
        if is_pattern(name):
            return subject, from_log
        return (from_log,) if self._keeps(name) else (subject,)

    def _lost(self, reason: str) -> None:
        """The connection has ended; called as soon as anybody notices, and perhaps more than once."""
        self._is_lost = True
        if self.up:
            self.up = False
            self._reason = reason
            self._counts["losses"] += 1
            self._line.rouse()

    async def _do_without(self) -> None:
        """From a loss to the return: what is published goes to this server's clients, still in its order."""
        _log.warning("the bus is lost: %s; %s", self._reason, self._consequence())
        await self._engine.close()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()
        if self._records is not None:
            self._records.cut()
        elif self._keep_of is not None:
            self._incoming.then(self._hub.forget_histories)  # what is missed now, nobody keeps
        self._keep_for_later()
        coming_back = asyncio.create_task(self._come_back())
        coming_back.add_done_callback(lambda _: self._line.rouse())
        try:
            # It may be up, and lost again, before it's our turn.
            while not coming_back.done():
                self._empty_line_here()
                await self._line.wait()
            await coming_back
        finally:
            coming_back.cancel()
            await asyncio.gather(coming_back, return_exceptions=True)

    async def _come_back(self) -> None:
        """Connect again, however long that takes."""
        since = time.monotonic()
        if since - self._back_at > _MOST_DELAY:  # it held for a while: the next time may go well at once
            self._backoff.reset()
        while not self.up:
            await self._backoff.pause()
            try:
                subjects = await self._try_again()
            except Unreachable as error:
                self._reason = str(error)
                await self._engine.close()
                continue
            self.up = True
            if self._records is None and self._keep_of is not None:
                self._incoming.then(self._hub.forget_histories)  # what began meanwhile lacks what others said
            self._in_force(subjects)
        self._back_at = time.monotonic()
        _log.warning("the bus is back after %.1f s, at %s", time.monotonic() - since, self._engine.name)

    async def _try_again(self) -> list[str]:
        """Connect and subscribe; returns what is subscribed to."""
        self._is_lost = False
        await self._engine.connect(self._received, self._lost)
        subscribed: set[str] = set()
        # Until there's nothing more to do, and so nobody comes between that and what the caller does.
        while (wanted := set(self._interest.subjects())) != subscribed:
            await self._engine.subscribe(wanted - subscribed)
            if given_up := subscribed - wanted:
                await self._engine.unsubscribe(given_up)
            subscribed = wanted
        if self._is_lost:  # meanwhile: nobody would say so again
            raise Unreachable("the connection ended at once")
        return list(wanted)

    def _consequence(self) -> str:
        if self._refuses:
            return "nothing can be published"
        return "what is published reaches this server's clients alone"

    def _keep_for_later(self) -> None:
        """What was published before the loss, and hadn't gone out: if the log takes it, that's only late."""
        commands = []
        while taken := self._line.take(_BATCH):
            commands += taken
        for command in commands:
            self._carry_out_here(command, keeps=True)

    def _empty_line_here(self) -> None:
        """What waits for the bus doesn't wait for its return; but where nothing else can be published by now,
        it was accepted while the bus was up, by another thread.
        """
        while commands := self._line.take(_BATCH):
            for command in commands:
                self._carry_out_here(command, keeps=self._refuses)
        for echo in self._echoes.values():
            if not echo.done():
                echo.set_exception(self._unreachable())

    def _carry_out_here(self, command: Command, *, keeps: bool) -> None:
        """Without the broker; ``keeps``: messages that the log takes wait for its return."""
        log = self._engine.log
        if command.kind is Kind.UNSUBSCRIBE:
            self._forget(command.subject)
        elif command.kind is Kind.PUBLISH and self._is_message(command):
            if keeps and log is not None and log.takes(command.subject):
                log.keep(command.subject, command.payload)
            else:
                self._deliver_here(command)

    def _deliver_here(self, command: Command) -> None:
        if self._refuses:
            self._count("refused")
            return
        self._count("unshared")
        channel = None if command.subject == self._everyone else channel_of(self._prefix, command.subject)
        self._incoming.deliver(channel, command.payload)

    def _count(self, name: str) -> None:
        """From any thread."""
        with self._count_lock:
            self._counts[name] += 1

    def _unreachable(self) -> BusError:
        return BusError(f"the bus can't be reached: {self._reason}")
