"""What waits on its way to the broker, and to the shards; and what the broker is asked for."""

from __future__ import annotations

import asyncio
import errno
import threading
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastcast._core import Hub
from fastcast.bus import coverage
from fastcast.bus import incoming as incoming_module
from fastcast.bus import interest as interest_module
from fastcast.bus.incoming import Incoming
from fastcast.bus.interest import Interest
from fastcast.bus.line import OVERHEAD, Command, Kind, Line
from fastcast.errors import OverloadError
from tests.support.hosting import Run
from tests.support.wire import TIMEOUT

# What a message of a byte to a channel of a byte weighs on its way in.
MESSAGE = incoming_module._OVERHEAD + 2


def message(subject: str, size: int = 1) -> Command:
    """One to be published."""
    return Command(Kind.PUBLISH, subject, size * b"x")


class ShardsThatLag:
    """A hub that takes messages only while it has room, and knows who is where."""

    def __init__(self) -> None:
        self.room = 0
        self.took: list[tuple[Any, ...]] = []
        self.members: dict[str, int] = {}
        self.error: Exception | None = None

    @property
    def hub(self) -> Hub:
        """Itself, by the type that it stands in for."""
        return cast(Hub, self)

    def publish(self, channel: str, data: str | bytes, key: str | None) -> int:
        return self._take(channel, data, key)

    def record(self, channel: str, data: str | bytes, offset: int, key: str | None, to: str) -> int:
        return self._take(channel, data, offset)

    def broadcast(self, data: str | bytes) -> int:
        return self._take(None, data)

    def channel_stats(self, name: str) -> dict[str, int] | None:
        return {"members": self.members[name]} if name in self.members else None

    def _take(self, *what: Any) -> int:
        if self.error is not None:
            raise self.error
        if self.room == 0:
            raise BlockingIOError(errno.EAGAIN, "too far behind")
        self.room -= 1
        self.took.append(what)
        return 1


class TestLine:
    """Line."""

    def test_takes_commands_of_one_kind_at_a_time_in_their_order(self, run: Run) -> None:
        async def main() -> None:
            line = Line(10_000)
            given = [message("a"), message("b"), Command(Kind.SUBSCRIBE, "c"), message("d"), message("e")]
            for command in given:
                line.put(command)
            assert [line.take(10), line.take(10)] == [given[:2], given[2:3]]
            assert [line.take(1), line.take(1), line.take(1)] == [given[3:4], given[4:], []]

        run(main())

    def test_is_bounded_for_messages_but_not_for_subscriptions(self, run: Run) -> None:
        async def main() -> None:
            line = Line(OVERHEAD + 11)
            line.put(message("one that is larger than all", 500))
            with pytest.raises(OverloadError):
                line.put(message("a"))
            line.put(Command(Kind.SUBSCRIBE, "b"))
            line.take(1)
            line.put(message("a", 10))
            assert len(line) == 2

        run(main())

    def test_is_bounded_for_empty_messages(self, run: Run) -> None:
        async def main() -> None:
            line = Line(10 * (OVERHEAD + 1))
            for _ in range(2):
                for _ in range(10):
                    line.put(message("a", 0))
                with pytest.raises(OverloadError):
                    line.put(message("a", 0))
                assert len(line.take(20)) == 10

        run(main())

    def test_subscriptions_take_no_room_from_messages(self, run: Run) -> None:
        async def main() -> None:
            line = Line(OVERHEAD + 1)
            for n in range(100):
                line.put(Command(Kind.SUBSCRIBE, f"{n}"))
            line.put(message("a", 0))
            with pytest.raises(OverloadError):
                line.put(message("a", 0))

        run(main())

    def test_long_subjects_count(self, run: Run) -> None:
        async def main() -> None:
            line = Line(OVERHEAD + 1000)
            line.put(message("a"))
            with pytest.raises(OverloadError):
                line.put(message(1000 * "a"))

        run(main())

    def test_wakes_the_loop_from_any_thread(self, run: Run) -> None:
        async def main() -> None:
            line = Line(1 << 20)
            threads = [
                threading.Thread(target=lambda n=n: [line.put(message(f"{n}.{k}")) for k in range(100)])
                for n in range(4)
            ]
            for thread in threads:
                thread.start()
            taken: list[str] = []
            while len(taken) < 400:
                async with asyncio.timeout(TIMEOUT):
                    await line.wait()
                while commands := line.take(7):
                    taken += [command.subject for command in commands]
            for thread in threads:
                thread.join()
            for n in range(4):
                assert [each for each in taken if each.startswith(f"{n}.")] == [
                    f"{n}.{k}" for k in range(100)
                ]

        run(main())


class TestIncoming:
    """Incoming."""

    def test_waits_for_the_shards_and_keeps_the_order(self, run: Run) -> None:
        async def main() -> None:
            shards = ShardsThatLag()
            incoming = Incoming(shards.hub, 10_000)
            shards.room = 1
            for n in range(5):
                incoming.deliver("a", b"%d" % n)
            assert (len(incoming), len(shards.took)) == (4, 1)
            shards.room = 2
            await _until(lambda: len(incoming) == 2)
            incoming.deliver(None, b"all")
            shards.room = 10
            await _until(lambda: len(incoming) == 0)
            assert shards.took == [*(("a", f"{n}", None) for n in range(5)), (None, "all")]
            assert (incoming.delivered, incoming.dropped) == (6, 0)

        run(main())

    def test_drops_the_newest_beyond_its_bound_and_says_so_once(
        self, run: Run, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main() -> None:
            shards = ShardsThatLag()
            incoming = Incoming(shards.hub, 3 * MESSAGE)
            for n in range(9):
                incoming.deliver("a", b"%d" % n)
            assert incoming.dropped == 6
            shards.room = 9
            await _until(lambda: len(incoming) == 0)
            assert [took[1] for took in shards.took] == ["0", "1", "2"]

        run(main())
        assert caplog.text.count("behind the bus") == 1

    def test_is_bounded_for_empty_messages_but_not_for_actions(self, run: Run) -> None:
        async def main() -> None:
            shards = ShardsThatLag()
            incoming = Incoming(shards.hub, 11 * MESSAGE)
            done: list[int] = []
            for _ in range(2):
                for _ in range(5):
                    incoming.deliver("a", b"")
                    incoming.deliver(None, b"")
                assert incoming.record("a", b"", 1, "all")
                assert not incoming.record("a", b"", 2, "all")
                for n in range(100):
                    incoming.then(partial(done.append, n))
                incoming.deliver("a", b"")
                assert (incoming.dropped, len(incoming)) == (1, 111)
                shards.room = 11
                await _until(lambda: len(incoming) == 0)
                assert done == [*range(100)]
                incoming.dropped = 0
                done.clear()

        run(main())

    @pytest.mark.parametrize("error", [ValueError("no channel"), MemoryError()])
    def test_what_can_not_be_delivered_holds_up_nothing(self, run: Run, error: Exception) -> None:
        async def main() -> None:
            shards = ShardsThatLag()
            shards.error, shards.room = error, 9
            incoming = Incoming(shards.hub, 100)
            incoming.deliver("a", b"x")
            shards.error = None
            incoming.deliver("a", b"y")
            assert (incoming.dropped, incoming.delivered, len(shards.took)) == (1, 1, 1)

        run(main())

    def test_of_a_server_that_stops_nothing_is_left(self, run: Run) -> None:
        async def main() -> None:
            shards = ShardsThatLag()
            shards.error = OSError(errno.ESHUTDOWN, "stopping")
            incoming = Incoming(shards.hub, 100)
            incoming.deliver("a", b"x")
            assert len(incoming) == 0

        run(main())


class TestInterest:
    """Interest."""

    LINGER = 0.2

    @pytest.fixture(autouse=True)
    def often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who is still there is looked at often."""
        monkeypatch.setattr(interest_module, "_SWEEP", 0.01)

    def make(self, shards: ShardsThatLag, line: Line) -> Interest:
        return Interest(shards.hub, line, self.subjects_of, keep=("f-own",), linger=self.LINGER)

    @staticmethod
    def subjects_of(name: str) -> list[str]:
        """One, and one more for those that say so."""
        return [f"f.{name}", f"log.{name}"] if name.startswith("twice") else [f"f.{name}"]

    def test_a_name_is_asked_for_once(self, run: Run) -> None:
        async def main() -> None:
            line = Line(100)
            interest = self.make(ShardsThatLag(), line)
            assert interest.want_all(["a", "b"]) == ["f.a", "f.b"]
            assert interest.want_all(["b", "c"]) == ["f.b", "f.c"]
            assert [command.subject for command in line.take(9)] == ["f.a", "f.b", "f.c"]
            interest.confirm(["f.a", "f.b", "f.c", "f.unknown"])
            assert interest.want_all(["a", "b", "c"]) == []
            assert interest.subjects() == ["f-own", "f.a", "f.b", "f.c"]
            interest.stop()

        run(main())

    def test_a_name_is_given_up_some_time_after_its_last_client(self, run: Run) -> None:
        async def main() -> None:
            line, shards = Line(100), ShardsThatLag()
            interest = self.make(shards, line)
            shards.members = {"used": 1}
            for name in ("used", "left"):
                interest.want(name)
            line.take(9)
            await _until(lambda: len(line) == 1)
            assert line.take(9) == [Command(Kind.UNSUBSCRIBE, "f.left")]
            assert interest.subjects() == ["f-own", "f.used"]
            interest.want("left")
            assert line.take(9) == [Command(Kind.SUBSCRIBE, "f.left")]
            shards.members = {}
            await _until(lambda: len(line) == 2)
            assert {command.subject for command in line.take(9)} == {"f.used", "f.left"}
            interest.stop()

        run(main())

    def test_a_name_is_there_with_all_of_its_subjects(self, run: Run) -> None:
        async def main() -> None:
            line, shards = Line(100), ShardsThatLag()
            interest = self.make(shards, line)
            assert sorted(interest.want_all(["twice"])) == ["f.twice", "log.twice"]
            interest.confirm(["f.twice"])
            assert interest.want_all(["twice"]) == ["log.twice"]
            interest.confirm(["log.twice"])
            assert interest.want_all(["twice"]) == []
            assert [each.subject for each in line.take(9)] == ["f.twice", "log.twice"]
            await _until(lambda: len(line) == 2)
            assert {each.kind for each in line.take(9)} == {Kind.UNSUBSCRIBE}
            assert len(interest) == 0
            interest.stop()

        run(main())

    def test_what_others_may_bring_is_known_for_a_while_longer(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(interest_module, "_UNSURE", 0.1)

        async def main() -> None:
            line, shards = Line(100), ShardsThatLag()
            interest = self.make(shards, line)
            assert interest.sources("f.a.b") == ()
            shards.members = {"a.b": 1}
            for name in ("a.b", "a.*", "c.*"):
                interest.want(name)
            assert sorted(interest.sources("f.a.b")) == ["f.a.*", "f.a.b"]
            line.take(9)
            await _until(lambda: len(line) == 2)
            assert sorted(interest.sources("f.a.b")) == ["f.a.*", "f.a.b"]
            await _until(lambda: interest.sources("f.a.b") == ("f.a.b",))
            interest.stop()

        run(main())

    def test_none_is_given_up_while_another_that_overlaps_is_new(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = _set_clock(monkeypatch)

        async def main() -> None:
            line, shards = Line(100), ShardsThatLag()
            interest = self.make(shards, line)
            shards.members = {"a.*": 1}
            interest.want("a.b")
            interest.want("z")
            clock.now += 60
            interest.want("a.*")
            line.take(9)
            await _until(lambda: len(line) == 1)
            assert line.take(9) == [Command(Kind.UNSUBSCRIBE, "f.z")]
            clock.now += 60
            await _until(lambda: len(line) == 1)
            assert line.take(9) == [Command(Kind.UNSUBSCRIBE, "f.a.b")]
            interest.stop()

        run(main())

    @pytest.mark.parametrize(
        ("old", "new", "is_kept"),
        [
            ("a.b", "a.c", False),
            ("a.b", "a.*", True),
            ("a.b", "c.*", False),
            ("a.*", "a.b", True),
            ("a.*", "a", False),
            ("a.*", "c.*", False),
            ("a.*", "*.b", True),
            ("a.*", "a.>", True),
        ],
    )
    def test_what_may_bring_the_same_overlaps(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, old: str, new: str, is_kept: bool
    ) -> None:
        clock = _set_clock(monkeypatch)

        async def main() -> None:
            line = Line(100)
            interest = self.make(ShardsThatLag(), line)
            for name in (old, "gone"):
                interest.want(name)
            clock.now += 60
            interest.want(new)
            line.take(9)
            await _until(lambda: len(line) == 2 - is_kept)
            left = [each.subject for each in line.take(9)]
            assert left == ["f.gone"] if is_kept else [f"f.{old}", "f.gone"]
            clock.now += 60
            await _until(lambda: len(line) == 1 + is_kept)
            interest.stop()

        run(main())

    def test_exact_names_are_compared_with_none_of_their_kind(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock, compared = _set_clock(monkeypatch), _count_comparisons(monkeypatch)

        async def main() -> None:
            line = Line(100)
            interest = self.make(ShardsThatLag(), line)
            for n in range(100):
                interest.want(f"old.{n}")
            clock.now += 60
            for n in range(300):
                interest.want(f"new.{n}")
            interest.want("wild.*")
            line.take(500)
            await _until(lambda: len(line) == 100)
            assert {each.kind for each in line.take(500)} == {Kind.UNSUBSCRIBE}
            assert len(compared) == 100
            interest.stop()

        run(main())

    @pytest.mark.parametrize(("old", "new"), [("old.{}", "new.{}.*"), ("old.{}.*", "new.{}")])
    def test_no_sweep_compares_more_than_it_may(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, old: str, new: str
    ) -> None:
        monkeypatch.setattr(interest_module, "_MOST_COMPARED", 50)
        clock, compared = _set_clock(monkeypatch), _count_comparisons(monkeypatch)

        async def main() -> None:
            line = Line(100)
            interest = self.make(ShardsThatLag(), line)
            for n in range(20):
                interest.want(old.format(n))
            clock.now += 60
            for n in range(30):
                interest.want(new.format(n))
            line.take(100)
            done = [0]
            while len(line) < 20:
                await asyncio.sleep(0)  # one round of the loop, with one sweep at most
                done.append(len(compared))
            assert max(after - before for before, after in pairwise(done)) == 60
            assert len(compared) == 600
            interest.stop()

        run(main())


def _set_clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time that it is for what is asked for, which passes only where a test says so."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(interest_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def _count_comparisons(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """All that is compared from now on."""
    compared: list[tuple[str, str]] = []

    def overlap(pattern: str, other: str) -> bool:
        compared.append((pattern, other))
        return coverage.overlap(pattern, other)

    monkeypatch.setattr(interest_module, "overlap", overlap)
    return compared


async def _until(condition: Any) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.005)
