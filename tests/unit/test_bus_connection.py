"""The bus over an engine that does what a test wants: what becomes of everything when the connection goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastcast._core import Hub
from fastcast.bus import bus as module
from fastcast.bus import interest
from fastcast.bus.bus import Bus
from fastcast.bus.engine import Engine, Log, Received, Stored, Unreachable
from fastcast.bus.line import Command, Kind
from fastcast.bus.peers import Home
from fastcast.errors import OverloadError, StartError
from fastcast.history import Keep
from tests.support.hosting import Run
from tests.support.wire import TIMEOUT


class FakeEngine:
    """Stands in for NATS or Redis: a broker that brings back what is published."""

    def __init__(self) -> None:
        self.log: Log | None = None
        self.dropped = 0
        self.name = "fake://broker"
        self.most_bytes = 1000
        self.subscribed: set[str] = set()
        self.connects = 0
        self.closes = 0
        self.may_connect = asyncio.Event()
        self.may_connect.set()
        self.is_down = False
        self.meanwhile: Callable[[], None] | None = None
        """What happens while the next subscriptions are on their way."""
        self.swallows = 0
        """Cancellations that are taken for errors."""
        self.breaks = 0
        """Publishing that fails as it never should."""

    @property
    def engine(self) -> Engine:
        return cast(Engine, self)

    async def connect(self, received: Received, lost: Callable[[str], None]) -> None:
        self.connects += 1
        await self.may_connect.wait()
        if self.is_down:
            raise Unreachable("it is down")
        self.received, self.lost = received, lost
        self.subscribed = set()

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        while self.swallows:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.swallows -= 1
                raise Unreachable("too many stalled messages") from None
        if self.breaks:
            self.breaks -= 1
            raise ZeroDivisionError("an error of the library's")
        for subject, payload in messages:
            if subject in self.subscribed:
                self.received(subject, payload, subject, None)

    async def subscribe(self, subjects: Collection[str]) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        await asyncio.sleep(0)
        if meanwhile is not None:
            meanwhile()
            await asyncio.sleep(0.01)
        self.subscribed |= set(subjects)

    async def unsubscribe(self, subjects: Collection[str]) -> None:
        assert subjects
        self.subscribed -= set(subjects)

    async def close(self) -> None:
        self.closes += 1


class FakeHub:
    """Notes what it's told."""

    def __init__(self) -> None:
        self.did: list[tuple[str, ...]] = []

    def broadcast(self, data: str) -> None:
        self.did.append(("broadcast", data))

    def publish(self, channel: str, data: str, key: str | None) -> None:
        self.did.append(("publish", channel, data))

    def forget_histories(self) -> None:
        self.did.append(("forget",))

    def lead_history(self, channel: str, *_: object) -> None:
        self.did.append(("lead", channel))

    def release_history(self, channel: str) -> None:
        self.did.append(("release", channel))

    def channel_stats(self, channel: str) -> dict[str, int] | None:
        return None


class Case:
    """A bus that runs."""

    def __init__(self, **options: Any) -> None:
        self.engine = FakeEngine()
        self.hub = FakeHub()
        self.bus = Bus(
            self.engine.engine, **{"prefix": "fastcast", "alone": "deliver", "most_bytes": 10_000} | options
        )

    async def begin(self) -> None:
        await self.bus.start()
        home = SimpleNamespace(clients=lambda: 0, count=lambda channel: 0, present=lambda channel: [])
        await self.bus.begin(cast(Hub, self.hub), cast(Home, home))

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(TIMEOUT):
            while not condition():
                await asyncio.sleep(0.001)

    async def lose(self) -> None:
        self.engine.lost("cut")
        await asyncio.sleep(0)

    async def end(self) -> None:
        async with asyncio.timeout(TIMEOUT):
            await self.bus.stop()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for seconds."""
    monkeypatch.setattr(module, "_LEAST_DELAY", 0.01)
    monkeypatch.setattr(module, "_MOST_DELAY", 0.16)


def test_what_is_wanted_while_the_bus_returns_is_subscribed_to(run: Run) -> None:
    async def main() -> None:
        case = Case()
        await case.begin()
        case.bus.want("old")
        await case.until(lambda: "fastcast.old" in case.engine.subscribed)

        def meanwhile() -> None:
            case.bus.want("new")
            case.engine.meanwhile = lambda: case.bus.want("newer")

        case.engine.meanwhile = meanwhile
        await case.lose()
        await case.until(lambda: case.bus.up)
        assert {"fastcast.old", "fastcast.new", "fastcast.newer"} <= case.engine.subscribed
        assert case.bus.ready(["new", "newer"]) is None  # they're in force
        await case.end()

    run(main())


def test_what_is_given_up_while_the_bus_returns_is_not(run: Run) -> None:
    async def main() -> None:
        case = Case(keep_of=lambda channel: Keep(1))
        await case.begin()
        case.bus.want("a")
        case.bus.want("b")
        await case.until(lambda: {"fastcast.a", "fastcast.b"} <= case.engine.subscribed)

        def meanwhile() -> None:
            known = case.bus._interest._names["b"]
            case.bus._interest._give_up("b", known, known.wanted + interest.LINGER)

        case.engine.meanwhile = meanwhile
        await case.lose()
        await case.until(lambda: case.bus.up)
        assert "fastcast.a" in case.engine.subscribed
        assert "fastcast.b" not in case.engine.subscribed
        await case.until(lambda: ("release", "b") in case.hub.did)
        await case.end()

    run(main())


def test_it_ends_however_often_the_library_takes_that_for_an_error(run: Run) -> None:
    async def main() -> None:
        case = Case()
        await case.begin()
        case.engine.swallows = 3
        case.bus.publish("a", "x")
        await asyncio.sleep(0.01)
        await case.end()

    run(main())


def test_what_other_servers_said_meanwhile_is_missing_from_histories(run: Run) -> None:
    async def main() -> None:
        case = Case(keep_of=lambda channel: Keep(1))
        await case.begin()
        case.engine.is_down = True
        await case.lose()
        await case.until(lambda: case.hub.did == [("forget",)])
        case.bus.publish("a", "x")
        await case.until(lambda: case.hub.did[-1] == ("publish", "a", "x"))
        case.engine.is_down = False
        await case.until(lambda: case.bus.up)
        assert case.hub.did[-1] == ("forget",)
        await case.end()

    run(main())


def test_a_connection_that_does_not_last_is_tried_ever_less_often(run: Run) -> None:
    async def main() -> None:
        case = Case()
        await case.begin()
        delays = []
        for _ in range(4):
            await case.lose()
            await case.until(lambda: case.bus.up)
            delays.append(case.bus._backoff.delay)
        assert delays == [0.02, 0.04, 0.08, 0.16]
        case.bus._back_at -= 1  # this one has lasted
        await case.lose()
        await case.until(lambda: case.bus.up)
        assert case.bus._backoff.delay == 0.02
        await case.end()

    run(main())


def test_an_admission_that_is_given_up_leaves_others_waiting(run: Run) -> None:
    async def main() -> None:
        case = Case()
        await case.begin()
        one, two = case.bus.ready(["a"]), case.bus.ready(["a"])
        assert one is not None
        assert two is not None
        one.cancel()
        await two
        assert "fastcast.a" in case.engine.subscribed
        await case.end()

    run(main())


def test_nothing_more_goes_to_a_stream_for_which_too_much_waits(run: Run) -> None:
    async def main() -> None:
        case = Case()
        await case.begin()
        log = SimpleNamespace(is_full=True, takes=lambda subject: subject == "fastcast.kept")
        case.engine.log = cast(Log, log)
        with pytest.raises(OverloadError):
            case.bus.publish("kept", "x")
        case.bus.publish("other", "x")
        log.is_full = False
        case.bus.publish("kept", "x")
        case.engine.log = None
        await case.end()

    run(main())


def test_what_others_say_while_it_begins_harms_nothing(run: Run) -> None:
    async def main() -> None:
        case = Case()

        def meanwhile() -> None:
            for subject in (
                "fastcast-servers",
                "fastcast-all",
                "fastcast-echo.x",
                "fastcast.a",
                "fastcast-tails",
            ):
                case.engine.received(subject, b'{"beat":"another","clients":3}', subject, None)

        case.engine.meanwhile = meanwhile
        await case.begin()
        assert (len(case.bus.peers), case.bus.peers.clients) == (2, 3)
        await case.end()

    run(main())


def test_what_the_engine_drops_counts_as_dropped(run: Run) -> None:
    async def main() -> None:
        case = Case()
        await case.begin()
        case.engine.dropped = 3
        assert case.bus.stats()["dropped"] == 3
        await case.end()

    run(main())


def test_nothing_goes_on_after_a_failed_beginning(run: Run) -> None:
    async def main() -> None:
        case = Case()

        def fail() -> None:
            raise Unreachable("denied")

        case.engine.meanwhile = fail
        with pytest.raises(StartError, match="denied"):
            await case.begin()
        assert case.bus._interest._next_look.cancelled()
        await case.end()

    run(main())


def test_a_connection_that_nobody_wants_any_more_is_closed(run: Run) -> None:
    async def main() -> None:
        case = Case()
        case.engine.may_connect.clear()
        starting = asyncio.create_task(case.bus.start())
        await case.until(lambda: case.engine.connects)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert case.engine.closes == 1

    run(main())


def test_nothing_goes_on_after_a_beginning_that_was_interrupted(run: Run) -> None:
    async def main() -> None:
        case = Case()
        beginning = asyncio.create_task(case.begin())
        case.engine.meanwhile = beginning.cancel
        with pytest.raises(asyncio.CancelledError):
            await beginning
        assert case.bus._interest._next_look.cancelled()
        await case.end()

    run(main())


class FakeLog:
    """A log that has nothing, once it's read."""

    first = 1
    most = None
    is_full = False
    unconfirmed = lost = 0

    def __init__(self) -> None:
        self.may_read = asyncio.Event()
        self.kept: list[bytes] = []
        self.taken: set[str] = set()

    async def ready(self) -> None:
        pass

    def epoch(self, channel: str) -> bytes:
        return b"000000000001"

    def takes(self, subject: str) -> bool:
        return subject in self.taken

    def keep(self, subject: str, payload: bytes) -> None:
        self.kept.append(payload)

    def doubt(self) -> bool:
        return False

    def tails(self) -> dict[str, int]:
        return {}

    async def fetch(self, subject: str, after: int) -> list[Stored]:
        await self.may_read.wait()
        return []


class Keeping(Case):
    """A bus with a log, whose channels have a history."""

    def __init__(self, **options: Any) -> None:
        super().__init__(keep_of=lambda channel: Keep(1), **options)
        self.log = FakeLog()
        self.engine.log = cast(Log, self.log)

    def give_up(self, name: str) -> None:
        known = self.bus._interest._names[name]
        self.bus._interest._give_up(name, known, known.wanted + interest.LINGER)


def test_who_waits_for_a_channel_that_is_given_up_asks_anew(run: Run) -> None:
    async def main() -> None:
        case = Keeping()
        await case.begin()
        waiting = case.bus.ready(["a"])
        assert waiting is not None
        await case.until(lambda: case.bus.stats()["records"] == 1)
        case.give_up("a")
        async with asyncio.timeout(TIMEOUT):
            await waiting
        case.log.may_read.set()
        again = case.bus.ready(["a"])
        assert again is not None
        async with asyncio.timeout(TIMEOUT):
            await again
        assert case.bus.ready(["a"]) is None
        assert "fastcast-log.a" in case.engine.subscribed
        await case.end()

    run(main())


def test_what_was_given_up_is_no_answer_for_what_is_wanted_anew(run: Run) -> None:
    async def main() -> None:
        case = Keeping()
        await case.begin()
        case.bus.ready(["a"])
        await case.until(lambda: case.bus.stats()["records"] == 1)
        case.give_up("a")
        again = case.bus.ready(["a"])
        assert again is not None
        await case.until(lambda: case.bus.stats()["waiting"] == 0)
        await asyncio.sleep(0.02)
        assert not again.done()  # its history isn't there
        case.log.may_read.set()
        async with asyncio.timeout(TIMEOUT):
            await again
        await case.end()

    run(main())


def test_what_was_accepted_before_a_loss_is_kept_where_nothing_is_delivered_alone(run: Run) -> None:
    async def main() -> None:
        case = Keeping(alone="refuse")
        case.log.taken = {"fastcast.a"}
        await case.begin()
        case.engine.is_down = True
        await case.lose()
        await asyncio.sleep(0.005)
        # By a thread that has seen the bus up.
        case.bus._line.put(Command(Kind.PUBLISH, "fastcast.a", b"accepted"))
        await case.until(lambda: case.log.kept == [b"accepted"])
        assert case.bus.stats()["refused"] == 0
        await case.end()

    run(main())


class Returning:
    """A bus that is lost, and what happens in the very turn in which it's back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.case = Case()
        self.monkeypatch = monkeypatch

    async def begin(self, meanwhile: Callable[[], object]) -> None:
        await self.case.begin()
        in_force = self.case.bus._in_force

        def once(subjects: Collection[str]) -> None:
            self.monkeypatch.setattr(self.case.bus, "_in_force", in_force)
            in_force(subjects)
            meanwhile()

        self.monkeypatch.setattr(self.case.bus, "_in_force", once)
        self.case.engine.lost("gone")


def test_what_is_published_as_the_bus_returns_goes_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        returning = Returning(monkeypatch)
        bus = returning.case.bus
        await returning.begin(lambda: bus.publish(None, "one"))
        await returning.case.until(lambda: ("broadcast", "one") in returning.case.hub.did)
        bus.publish(None, "two")
        await returning.case.until(lambda: ("broadcast", "two") in returning.case.hub.did)
        await returning.case.end()

    run(main())


def test_a_bus_that_is_lost_as_it_returns_comes_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        returning = Returning(monkeypatch)
        case = returning.case
        loop = asyncio.get_running_loop()
        await returning.begin(lambda: loop.call_soon(case.engine.lost, "gone again"))
        await case.until(lambda: case.bus.stats()["losses"] == 2 and case.bus.up)
        assert case.engine.connects == 3
        await case.end()

    run(main())


def test_whatever_an_engine_raises_it_is_begun_anew(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        case = Case()
        await case.begin()
        case.engine.breaks = 1
        case.bus.publish(None, "lost")
        await case.until(lambda: case.engine.connects == 2 and case.bus.up)
        case.bus.publish(None, "heard")
        await case.until(lambda: ("broadcast", "heard") in case.hub.did)
        await case.end()

    run(main())
    assert "did something unexpected" in caplog.text
