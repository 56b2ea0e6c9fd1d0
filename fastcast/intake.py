"""Takes what the core has for Python: requests, which get answers, and events, which reach the handlers.

The core tells through an eventfd that there is something. Requests come first, since clients wait for them,
and for a moment only, since a crowd that is turned away comes again. Events are taken in pieces, and only
while there is room for what they start: what isn't taken makes the core stop reading from clients. Between
moments and pieces the loop's other tasks have a turn.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from fastcast._core import CLOSED, JOINED, LEFT, MESSAGE, MISSING, SLOW, Hub
from fastcast.admission import Admission, Answer
from fastcast.client import Client, Clients
from fastcast.config import Config
from fastcast.dispatch import Dispatcher, Pool
from fastcast.history import Since
from fastcast.presence import Presence
from fastcast.questions import Questions

_log = logging.getLogger("fastcast")

# Seconds for which requests are decided on before something else has its turn.
_MOMENT: Final = 0.005


class Intake:
    """Everything between a hub that runs and the program's handlers; belongs to one loop."""

    def __init__(
        self,
        hub: Hub,
        config: Config,
        admission: Admission,
        handlers: Mapping[str, Callable[..., object]],
        clients: Clients,
        presence: Presence,
        ended: Callable[[], None],
        ready: Callable[[tuple[str, ...], Since | None], Awaitable[Any] | None] | None = None,
    ) -> None:
        """``handlers`` are by the names of their decorators. Takes a running loop, on which it works at once.

        ``ended`` is called once: when the hub has ended, all that it had is taken, and every handler is done.
        ``ready`` may give something to wait for before a client is admitted to channels.
        """
        self._hub = hub
        self._admission = admission
        self._handlers = handlers
        self._clients = clients
        self._presence = presence
        self._ended = ended
        self._ready = ready
        self._loop = asyncio.get_running_loop()
        self._admissions = Pool(config.max_handlers)
        self._requests: deque[tuple[int, bytes, str, int]] = deque()
        self._answers: list[tuple[int, Answer]] = []
        self._dispatcher = Dispatcher(config.max_handlers, config.backlog_limit // 8, self._go_on)
        self.questions = Questions(hub)
        self._takers: dict[int, Callable[..., None]] = {
            MESSAGE: self._message,
            CLOSED: self._closed,
            JOINED: self._joined,
            LEFT: self._left,
            SLOW: self._slow,
            MISSING: self._missing,
        }
        self._stopping = False
        self._scheduled = False
        self._events: deque[tuple[Any, ...]] = deque()
        self._loop.add_reader(hub.event_fd, self._on_events)

    def stop(self) -> None:
        """From now on nobody is admitted, and no message handled. The hub must be told apart."""
        self._stopping = self._dispatcher.stopping = True
        self._admissions.hurry()

    def hurry(self) -> None:
        """The time for handlers is over: those that still wait for something are cancelled."""
        if late := self._dispatcher.hurry():
            _log.warning("%d handlers did not finish in time, and are cancelled", late)
        self._go_on()

    def _on_events(self) -> None:
        self._hub.reset_event()
        if not self._scheduled:
            self._turn()

    def _go_on(self) -> None:
        """Have a turn soon, unless one is coming already."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Some of everything; what is left has another turn, behind the loop's other tasks."""
        self._scheduled = False
        try:
            self._take_requests()
            self.questions.take()
            self._take_events()
        except BaseException:
            self._go_on()  # whatever a program raises, the rest has its turn
            raise

    # ---- requests ----

    def _take_requests(self) -> None:
        """Decide for a moment."""
        until = self._loop.time() + _MOMENT
        try:
            while self._admissions.has_room and self._has_requests():
                self._decide(*self._requests.popleft())
                if self._loop.time() >= until:
                    self._go_on()
                    return
        finally:
            self._send_answers()

    def _has_requests(self) -> bool:
        if not self._requests:
            self._send_answers()  # piece by piece: who has one needn't wait for the next
            self._requests.extend(self._hub.requests())
        if self._stopping:
            self._requests.clear()  # the core has turned them down
        return bool(self._requests)

    def _decide(self, client: int, head: bytes, host: str, port: int) -> None:
        decision = self._admission.decide(head, host, port)
        if isinstance(decision, Answer):
            self._decided(client, decision)
        else:
            self._admissions.run(decision, partial(self._admitted, client))

    def _admitted(self, client: int, decided: asyncio.Future[Answer]) -> None:
        self._go_on()
        if not decided.cancelled():
            self._decided(client, decided.result())

    def _decided(self, client: int, answer: Answer) -> None:
        self._prepare(client, answer, answer.since)

    def _prepare(self, client: int, answer: Answer, since: Since | None) -> None:
        """Answer when the channels are there to be heard."""
        waiting = None
        if self._ready is not None and answer.channels is not None and not self._stopping:
            waiting = self._ready(answer.channels, since)
        if waiting is None:
            self._answers.append((client, answer))
        else:
            self._admissions.run(waiting, partial(self._prepared, client, answer))

    def _prepared(self, client: int, answer: Answer, _: asyncio.Future[Any]) -> None:
        # Once more: if that took long, some may have been given up again, since nobody had come to them.
        self._prepare(client, answer, None)
        self._go_on()

    def _send_answers(self) -> None:
        answers, self._answers = self._answers, []
        if self._stopping or not answers:
            return
        for client, answer in answers:
            if answer.channels is not None:
                self._clients.admit(client, answer.state)
        self._hub.answer(
            [(client, each.response, each.channels, each.address, each.since) for client, each in answers]
        )

    # ---- events ----

    def _take_events(self) -> None:
        if not self._dispatcher.has_room:
            return  # a handler that ends goes on here
        over = self._hub.running == 0  # asked first: a shard that has ended adds no more
        self._events += self._hub.events()
        if self._events:
            self._go_on()
            while self._events:  # whatever one raises, the others have the next turn
                kind, *what = self._events.popleft()
                self._takers[kind](*what)
        elif over:
            self._end()

    def _end(self) -> None:
        self.questions.end()
        if self._dispatcher.idle and not len(self._admissions):
            self._scheduled = True  # for good
            self._loop.remove_reader(self._hub.event_fd)
            self._ended()

    def _message(self, client: int, channel: str | None, message: str | bytes) -> None:
        sender = Client(self._clients, client, channel)
        self._dispatcher.call(client, self._handle, sender, message, size=sys.getsizeof(message))

    def _handle(self, sender: Client, message: str | bytes) -> object:
        # Of a server that stops, nobody could hear what comes of it.
        return None if self._stopping else self._handlers["on_message"](sender, message)

    def _closed(self, client: int, code: int, reason: str) -> None:
        self._tell("on_disconnect", client, code, reason)
        self._dispatcher.call(client, self._clients.forget, client)

    def _missing(self, client: int) -> None:
        self._dispatcher.call(client, self._clients.forget, client)

    def _joined(self, client: int, channel: str) -> None:
        self._dispatcher.call(client, self._presence.join, client, channel)
        self._tell("on_join", client, channel)

    def _left(self, client: int, channel: str) -> None:
        self._dispatcher.call(client, self._presence.leave, client, channel)
        self._tell("on_leave", client, channel)

    def _slow(self, client: int, policy: str, queued: int) -> None:
        self._tell("on_slow", client, policy, queued)

    def _tell(self, name: str, client: int, *what: Any) -> None:
        handler = self._handlers.get(name)
        if handler is not None:
            self._dispatcher.call(client, handler, Client(self._clients, client), *what)
