"""Which channels and patterns this server asks the broker for: those that its clients are subscribed to.

A name is asked for when the first client is to hear it, and given up some time after the last one has gone,
so that channels which come and go don't storm the broker.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from fastcast.bus.coverage import overlap
from fastcast.bus.line import Command, Kind, Line
from fastcast.bus.names import is_wild, takes_in
from fastcast.bus.twins import HORIZON

if TYPE_CHECKING:
    from fastcast._core import Hub

LINGER: Final = 10.0
"""Seconds that a name is asked for after its last client."""

# Seconds between two looks at who is still there, and names that are looked at each time; fewer if that takes
# so many comparisons with others, since all else waits meanwhile.
_SWEEP: Final = 0.25
_EACH: Final = 2000
_MOST_COMPARED: Final = 20_000

# For so long a subscription that has come or gone makes it unsure which copies of a message there will be.
_UNSURE: Final = 2 * HORIZON

_MOST_ROUTES: Final = 100_000


class _Name:
    """A channel or pattern that is asked for, under one subject or two."""

    __slots__ = ("missing", "subjects", "wanted")

    def __init__(self, subjects: Sequence[str]) -> None:
        self.subjects = subjects
        self.missing = set(subjects)
        self.wanted = 0.0


class Interest:
    """The names that are asked for. ``want`` is for any thread, the rest for the loop."""

    def __init__(
        self,
        hub: Hub,
        line: Line,
        subjects_of: Callable[[str], Sequence[str]],
        *,
        keep: Collection[str],
        linger: float = LINGER,
    ) -> None:
        """``subjects_of`` says under which subjects a name is heard, which no other name has; ``keep`` are
        subjects that are asked for in any case. Takes a running loop.
        """
        self._hub = hub
        self._line = line
        self._subjects_of = subjects_of
        self._keep = tuple(keep)
        self._linger = linger
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._names: dict[str, _Name] = {}
        self._by_subject: dict[str, _Name] = {}
        # Subjects that may bring something: those of the names, and for a moment those that were given up.
        self._present: set[str] = set()
        self._wild: set[str] = set()
        # Subjects that have just come, and when, the oldest first. An exact one overlaps only with itself and
        # with wild ones, which are few: so it is compared with these alone.
        self._new_exact: OrderedDict[str, float] = OrderedDict()
        self._new_wild: OrderedDict[str, float] = OrderedDict()
        self._compared = 0
        self._routes: dict[str, tuple[str, ...]] = {}
        self._left: Iterator[str] = iter(())
        self._next_look = self._loop.call_later(_SWEEP, self._sweep)

    def __len__(self) -> int:
        return len(self._names)

    def includes(self, subject: str) -> bool:
        """Whether some name is heard under the subject."""
        return subject in self._by_subject

    def stop(self) -> None:
        """Look no more."""
        self._next_look.cancel()

    def subjects(self) -> list[str]:
        """All that there is to ask for, on a new connection."""
        with self._lock:
            return [*self._keep, *self._by_subject]

    def confirm(self, subjects: Collection[str]) -> None:
        """These are in force, and what their channels had is here."""
        for subject in subjects:
            if (name := self._by_subject.get(subject)) is not None:
                name.missing.discard(subject)

    def want(self, name: str) -> None:
        """Ask for a name, unless that is done."""
        with self._lock:
            known = self._names.get(name)
            if known is None:
                known = self._names[name] = _Name(self._subjects_of(name))
                for subject in known.subjects:
                    self._by_subject[subject] = known
                    self._appear(subject)
                    self._line.put(Command(Kind.SUBSCRIBE, subject))
            known.wanted = time.monotonic()

    def want_all(self, names: Collection[str]) -> list[str]:
        """The same for several; returns the subjects that the broker doesn't have yet."""
        missing: list[str] = []
        for name in names:
            known = self._names.get(name)
            if known is not None and not known.missing:
                known.wanted = time.monotonic()
                continue
            self.want(name)
            missing += self._names[name].missing
        return missing

    def sources(self, subject: str) -> tuple[str, ...]:
        """The subscriptions by which a message with this subject may come."""
        route = self._routes.get(subject)
        if route is None:
            with self._lock:
                exact = (subject,) if subject in self._present else ()
                route = (*exact, *(wild for wild in self._wild if takes_in(wild, subject)))
                if len(self._routes) >= _MOST_ROUTES:
                    self._routes.clear()
                self._routes[subject] = route
        return route

    def _appear(self, subject: str) -> None:
        self._present.add(subject)
        new = self._new_wild if is_wild(subject) else self._new_exact
        new[subject] = time.monotonic()
        new.move_to_end(subject)
        self._reroute(subject)

    def _fade(self, subject: str) -> None:
        """The last copies that a subscription could bring have come."""
        with self._lock:
            if subject not in self._by_subject:
                self._present.discard(subject)
                self._reroute(subject)

    def _reroute(self, subject: str) -> None:
        if not is_wild(subject):
            self._routes.pop(subject, None)
            return
        if subject in self._present:
            self._wild.add(subject)
        else:
            self._wild.discard(subject)
        self._routes.clear()

    # ---- giving up ----

    def _sweep(self) -> None:
        now = time.monotonic()
        self._age(now - _UNSURE)
        self._compared = 0
        for looked, name in enumerate(self._left, 1):
            self._look_at(name, now)
            if looked == _EACH or self._compared >= _MOST_COMPARED:
                break
        else:
            self._left = iter(list(self._names))
        self._next_look = self._loop.call_later(_SWEEP, self._sweep)

    def _age(self, until: float) -> None:
        """What came before then is new no more."""
        with self._lock:
            for new in (self._new_exact, self._new_wild):
                while new and next(iter(new.values())) < until:
                    new.popitem(last=False)

    def _look_at(self, name: str, now: float) -> None:
        known = self._names.get(name)
        if known is None or now - known.wanted < self._linger:
            return
        stats = self._hub.channel_stats(name)
        if stats is not None and stats["members"] > 0:
            known.wanted = now
        elif not any(self._overlaps_new(subject) for subject in known.subjects):
            self._give_up(name, known, now)

    def _overlaps_new(self, subject: str) -> bool:
        """Whether a subscription that has just come might bring the same message as this one."""
        with self._lock:
            if is_wild(subject):
                others = [*self._new_wild, *self._new_exact]
            elif subject in self._new_exact:
                return True
            else:
                others = list(self._new_wild)
        self._compared += len(others)
        return any(overlap(subject, other) for other in others)

    def _give_up(self, name: str, known: _Name, now: float) -> None:
        with self._lock:
            if now - known.wanted < self._linger:
                return  # another thread wants it again
            del self._names[name]
            for subject in known.subjects:
                del self._by_subject[subject]
                self._line.put(Command(Kind.UNSUBSCRIBE, subject))
        for subject in known.subjects:
            self._loop.call_later(_UNSURE, self._fade, subject)
