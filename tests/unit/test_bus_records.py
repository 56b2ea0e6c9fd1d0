"""Histories that follow a log, without a broker: what is missing is read, and nobody hears anything twice."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from typing import Any, cast

import pytest

from fastcast._core import Hub
from fastcast.bus.engine import Log, Place, Stored, Unreachable
from fastcast.bus.incoming import Incoming
from fastcast.bus.line import OVERHEAD
from fastcast.bus.records import Records
from fastcast.history import Keep
from tests.support.hosting import Run


class Core:
    """Notes what is done to a hub's histories. Others hear what is published, and a history keeps it."""

    def __init__(self) -> None:
        self.history: list[tuple[int, str]] = []
        self.heard: list[str] = []
        self.floor = -1
        self.epoch = b""
        self.is_behind = False

    @property
    def hub(self) -> Hub:
        return cast(Hub, self)

    def lead_history(self, channel: str, position: tuple[bytes, int], stored: list[tuple[int, str]]) -> None:
        self.history[:] = stored
        self.epoch, self.floor = position

    def skip_history(self, channel: str, offset: int) -> None:
        self.history.clear()
        self.heard.append("gap")
        self.floor = offset

    def release_history(self, channel: str) -> None:
        self.epoch = b""

    def record(self, channel: str, data: str, offset: int, key: str | None, to: str) -> bool:
        if self.is_behind:
            raise BlockingIOError(errno.EAGAIN, "behind")
        if to == "all":
            assert not self.history or offset > self.history[-1][0]
            self.history.append((offset, data))
        self.heard.append(data)
        return True


class Stream:
    """A log of one channel: its messages by their offsets."""

    def __init__(self, *offsets: int) -> None:
        self.stored = {offset: f"{offset}" for offset in offsets}
        self.first = 1
        self.most: int | None = None
        self.born = b"000000000001"
        self.fails = 0
        self.fetches: list[int] = []
        self.meanwhile: list[Any] = []
        self.ended: dict[str, int] = {}
        self.ages: dict[int, float] = {}
        self.lags_behind = 0
        """Up to which offset a replica has nothing yet."""
        self.doubts = 0
        self.is_another = False

    @property
    def log(self) -> Log:
        return cast(Log, self)

    def epoch(self, channel: str) -> bytes:
        return self.born

    async def ready(self) -> None:
        pass

    def tails(self) -> dict[str, int]:
        told, self.ended = self.ended, {}
        return told

    async def fetch(self, subject: str, after: int) -> Sequence[tuple[int, bytes]]:
        self.fetches.append(after)
        await asyncio.sleep(0)
        for action in self.meanwhile:
            action()
        self.meanwhile = []
        if self.fails:
            self.fails -= 1
            raise Unreachable("not now")
        behind = {
            offset: text for offset, text in self.stored.items() if offset > max(after, self.lags_behind)
        }
        return [
            Stored(offset, behind[offset].encode(), self.ages.get(offset, 0.0)) for offset in sorted(behind)
        ]

    def doubt(self) -> bool:
        self.doubts += 1
        return self.is_another


class Case:
    """Records over a stream and a core that are none."""

    def __init__(self, *offsets: int, keep: int | None = None) -> None:
        self.core = Core()
        self.stream = Stream(*offsets)
        self.said: list[bytes] = []
        self.keep = Keep(keep)
        self.records = Records(
            self.core.hub,
            Incoming(self.core.hub, 1000),
            self.stream.log,
            "fastcast",
            lambda channel: self.keep,
            self.said.append,
        )

    def publish(self, offset: int, *, arrives: bool = True) -> None:
        """Store a message, and have it arrive."""
        before = max((each for each in self.stream.stored if each < offset), default=0)
        self.stream.stored[offset] = f"{offset}"
        if arrives:
            self.arrive(offset, before)

    def arrive(self, offset: int, before: int) -> None:
        self.records.receive("a", b"%d" % offset, Place(offset, before))


def test_it_begins_with_what_is_stored_which_nobody_hears(run: Run) -> None:
    async def main() -> None:
        case = Case(3, 5, 9)
        await case.records.open("a")
        assert case.core.history == [(3, "3"), (5, "5"), (9, "9")]
        assert (case.core.floor, case.core.epoch, case.core.heard) == (2, b"000000000001", [])
        case.publish(12)
        assert case.core.history[-1] == (12, "12")
        assert case.core.heard == ["12"]
        assert case.stream.fetches == [0]

    run(main())


def test_of_more_than_is_kept_the_last_ones_count(run: Run) -> None:
    async def main() -> None:
        case = Case(3, 5, 9, keep=2)
        await case.records.open("a")
        assert case.core.history == [(5, "5"), (9, "9")]
        assert case.core.floor == 3

    run(main())


def test_what_arrives_while_it_is_read_is_heard_once(run: Run) -> None:
    async def main() -> None:
        case = Case(1)
        case.stream.meanwhile = [lambda: case.publish(2), lambda: case.publish(3)]
        await case.records.open("a")
        case.publish(4)
        assert case.core.history == [(n, f"{n}") for n in (1, 2, 3, 4)]
        assert case.core.heard == ["2", "3", "4"]

    run(main())


def test_what_is_read_before_it_arrives_is_heard_when_it_does(run: Run) -> None:
    async def main() -> None:
        case = Case(1, 2)
        await case.records.open("a")
        case.arrive(2, 1)
        case.arrive(2, 1)
        case.publish(3)
        assert case.core.history == [(n, f"{n}") for n in (1, 2, 3)]
        assert case.core.heard == ["2", "3"]

    run(main())


def test_what_has_not_come_is_read_and_heard_in_its_place(run: Run) -> None:
    async def main() -> None:
        case = Case()
        await case.records.open("a")
        case.publish(1)
        case.publish(2, arrives=False)
        case.publish(3, arrives=False)
        case.publish(4)
        case.publish(5)
        await asyncio.wait_for(case.records.open("a"), 5)
        assert case.core.heard == ["1", "2", "3", "4", "5"]
        assert case.stream.fetches == [0, 1]
        assert case.records.fetched == 4

    run(main())


def test_after_a_loss_what_came_meanwhile_is_read(run: Run) -> None:
    async def main() -> None:
        case = Case(1)
        await case.records.open("a")
        case.publish(2)
        case.publish(3, arrives=False)
        case.records.cut()
        await case.records.open("a")
        assert case.core.heard == ["2", "3"]

    run(main())


@pytest.mark.parametrize(("most", "first"), [(2, 1), (None, 4)])
def test_what_the_log_has_dropped_is_told_of(run: Run, most: int | None, first: int) -> None:
    async def main() -> None:
        case = Case()
        await case.records.open("a")
        case.publish(1)
        for offset in range(2, 8):
            case.publish(offset, arrives=False)
        case.stream.first = first
        case.stream.stored = {offset: f"{offset}" for offset in (5, 6, 7)}
        case.stream.most = most
        case.records.cut()
        await case.records.open("a")
        assert case.core.heard == ["1", "gap", "5", "6", "7"]
        assert case.core.floor == 4

    run(main())


def test_what_an_older_loss_cost_other_channels_is_told_of_as_well(run: Run) -> None:
    async def main() -> None:
        case = Case(1)
        await case.records.open("a")
        await case.records.open("b")
        case.publish(2)
        case.records.cut()
        case.stream.first = 9
        case.stream.stored = {9: "9"}
        await case.records.open("a")
        await case.records.open("b")
        assert case.core.heard.count("gap") == 2
        case.records.cut()
        await case.records.open("a")
        assert case.core.heard.count("gap") == 2

    run(main())


@pytest.mark.parametrize(("bound", "most"), [("_MOST_WAITING", 2), ("_MOST_BYTES", 2 * (OVERHEAD + 2))])
def test_what_finds_no_room_is_read_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    monkeypatch.setattr(f"fastcast.bus.records.{bound}", most)

    async def main() -> None:
        case = Case()
        case.stream.meanwhile = [lambda: [case.publish(offset) for offset in range(1, 10)]]
        case.stream.fails = 0
        await case.records.open("a")
        assert [offset for offset, _ in case.core.history] == list(range(1, 10))
        assert case.core.heard == [f"{offset}" for offset in range(1, 10)]
        assert case.stream.fetches == [0, 9]
        case.publish(10, arrives=False)
        case.publish(11)
        case.publish(12)  # there is room again
        await case.records.open("a")
        assert case.core.heard[-3:] == ["10", "11", "12"]
        assert case.stream.fetches == [0, 9, 9]

    run(main())


def test_long_messages_do_not_wait_without_end(run: Run) -> None:
    async def main() -> None:
        case = Case()
        await case.records.open("a")
        long = b"x" * (1 << 20)
        case.stream.stored = {offset: long.decode() for offset in range(1, 41)}

        def arrive(*offsets: int) -> None:
            for offset in offsets:
                case.records.receive("a", long, Place(offset, offset - 1))

        # While what is missing before them is read.
        case.stream.meanwhile = [lambda: arrive(*range(3, 41))]
        arrive(2)
        await case.records.open("a")
        assert [offset for offset, _ in case.core.history] == [*range(1, 41)]
        assert len(case.core.heard) == 40
        assert case.stream.fetches == [0, 0, 40]

    run(main())


def test_one_message_finds_room_whatever_its_length(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcast.bus.records._MOST_BYTES", 1)

    async def main() -> None:
        case = Case(1)
        case.stream.meanwhile = [lambda: case.publish(2)]
        await case.records.open("a")
        assert case.core.history == [(1, "1"), (2, "2")]
        assert case.core.heard == ["2"]

    run(main())


def test_a_log_that_was_made_anew_begins_anew(run: Run) -> None:
    async def main() -> None:
        case = Case(7)
        await case.records.open("a")
        case.stream.born = b"000000000002"
        case.stream.stored = {1: "1"}
        case.records.cut()
        await case.records.open("a")
        assert (case.core.epoch, case.core.history) == (b"000000000002", [(1, "1")])
        case.publish(2)
        assert case.core.heard == ["1", "2"]  # nobody here has heard the first one

    run(main())


def test_a_log_that_cannot_be_read_is_tried_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcast.bus.records._RETRY", 0.01)

    async def main() -> None:
        case = Case(1)
        case.stream.fails = 2
        await case.records.open("a")
        assert case.core.epoch == b""
        case.publish(2)
        while case.core.epoch == b"" or len(case.core.history) < 2:
            await asyncio.sleep(0.01)
        assert case.core.history == [(1, "1"), (2, "2")]
        assert case.core.heard == ["2"]
        await case.records.stop()

    run(main())


def test_nothing_is_tried_again_after_the_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcast.bus.records._RETRY", 0.01)

    async def main() -> None:
        case = Case(1)
        case.stream.fails = 1000
        await case.records.open("a")
        await case.records.stop()
        await asyncio.sleep(0.1)
        assert case.stream.fetches == [0]
        assert len(case.records) == 0

    run(main())


def test_who_is_forgotten_is_released(run: Run) -> None:
    async def main() -> None:
        case = Case(1)
        await case.records.open("a")
        assert "a" in case.records
        assert len(case.records) == 1
        case.records.close("a")
        case.records.close("a")
        assert "a" not in case.records
        assert case.core.epoch == b""

    run(main())


def test_who_has_not_come_as_far_as_others_have_reads_what_is_missing(run: Run) -> None:
    async def main() -> None:
        case = Case(3)
        await case.records.open("a")
        case.publish(7, arrives=False)
        case.records.hear(b'{"fastcast.b": 8, "fastcast.a": 3, "another": 9}')
        assert case.stream.fetches == [0]
        case.records.hear(b'{"fastcast.a": 7}')
        await case.records.open("a")
        assert (case.stream.fetches, case.core.heard) == ([0, 3], ["7"])
        case.records.hear(b'{"fastcast.a": 7}')
        assert case.stream.fetches == [0, 3]

    run(main())


def test_what_others_say_while_it_reads_is_read_as_well(run: Run) -> None:
    async def main() -> None:
        case = Case(3)
        await case.records.open("a")
        case.publish(5, arrives=False)

        def meanwhile() -> None:
            case.records.hear(b'{"fastcast.a": 7}')

        case.stream.meanwhile = [meanwhile]
        case.publish(9, arrives=False)
        case.arrive(9, 5)
        await case.records.open("a")
        assert case.core.heard == ["5", "9"]
        assert case.stream.fetches == [0, 3, 9]

    run(main())


@pytest.mark.parametrize("said", [b"", b"[]", b"7", b'{"fastcast.a": "x"}', b'{"fastcast.a": null}', b"\xff"])
def test_what_no_server_says_is_ignored(run: Run, said: bytes) -> None:
    async def main() -> None:
        case = Case(3)
        await case.records.open("a")
        case.records.hear(said)
        assert case.stream.fetches == [0]

    run(main())


def test_where_channels_have_ended_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcast.bus.records.QUIET", 0.05)

    async def main() -> None:
        case = Case(3)
        case.stream.ended = {"fastcast.a": 3}
        await asyncio.sleep(0.2)
        assert case.said == [b'{"fastcast.a":3}']
        await case.records.stop()
        case.stream.ended = {"fastcast.a": 4}
        await asyncio.sleep(0.2)
        assert len(case.said) == 1

    run(main())


def test_a_log_that_begins_anew_under_way_is_noticed(run: Run) -> None:
    async def main() -> None:
        case = Case(3)
        await case.records.open("a")
        for offset in (5, 7, 8):
            case.publish(offset)
        assert case.stream.doubts == 0
        case.stream.born = b"000000000002"
        case.stream.stored = {}
        case.stream.is_another = True
        case.publish(1)
        case.publish(2)
        await case.records.open("a")
        assert case.stream.doubts == 1
        assert case.core.heard == ["5", "7", "8", "1", "2"]
        assert case.core.history == [(1, "1"), (2, "2")]

    run(main())


@pytest.mark.parametrize(("offset", "before"), [(3, 0), (9, 4), (9, 0)])
def test_what_is_odd_is_held_only_until_the_log_has_been_looked_at(
    run: Run, offset: int, before: int
) -> None:
    async def main() -> None:
        case = Case(3)
        await case.records.open("a")
        case.publish(5)
        case.stream.is_another = True
        case.stream.stored[offset] = f"{offset}"
        case.arrive(offset, before)
        assert case.stream.doubts == 1
        await case.records.open("a")
        assert case.core.heard == (["5"] if offset == 3 else ["5", "9"])
        case.stream.is_another = False  # it was looked at only just now
        case.stream.stored[12] = "12"
        case.arrive(12, 0)
        assert case.core.heard[-1] == "12"

    run(main())


def test_a_replica_that_lags_behind_is_waited_for(run: Run) -> None:
    async def main() -> None:
        case = Case(3)
        await case.records.open("a")
        case.publish(5, arrives=False)
        case.publish(7)
        case.stream.lags_behind = 9
        await asyncio.sleep(0.2)
        assert case.core.heard == []
        case.publish(9)
        case.stream.lags_behind = 0
        await case.records.open("a")
        assert case.core.heard == ["5", "7", "9"]

    run(main())


def test_what_never_comes_is_a_gap_after_some_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcast.bus.records.PATIENCE", 0.2)

    async def main() -> None:
        case = Case(3)
        await case.records.open("a")
        case.stream.lags_behind = 100
        case.arrive(7, 5)
        await case.records.open("a")
        assert case.core.heard == ["gap", "7"]
        assert (case.core.floor, case.core.history) == (5, [(7, "7")])

    run(main())


def test_what_is_too_old_for_the_channel_is_left_out(run: Run) -> None:
    async def main() -> None:
        case = Case(3, 5, 9)
        case.keep = Keep(None, 60.0)
        case.stream.ages = {3: 100.0, 5: 61.0, 9: 59.0}
        await case.records.open("a")
        assert (case.core.floor, case.core.history) == (5, [(9, "9")])

    run(main())


def test_who_has_been_further_is_waited_for(run: Run) -> None:
    async def main() -> None:
        case = Case(3)
        await case.records.open("a")
        case.publish(5, arrives=False)
        await case.records.reach(["a", "b"], [(b"another", 9), (case.stream.born, 3)])
        assert case.core.heard == []
        await case.records.reach(["a", "b"], [(b"another", 9), (case.stream.born, 5)])
        assert case.core.heard == ["5"]

    run(main())


def test_nobody_is_let_in_before_the_history_is_there(run: Run) -> None:
    async def main() -> None:
        case = Case(3, 5)
        await case.records.open("a")
        case.core.is_behind = True
        case.publish(7)
        case.stream.born = b"another"
        begun = case.records.open("a")
        await asyncio.sleep(0.05)
        assert not begun.done()
        case.core.is_behind = False
        await begun
        assert case.core.epoch == b"another"
        assert case.core.history[-1] == (7, "7")

    run(main())


def test_who_has_been_as_far_as_what_waits_is_let_in_behind_it(run: Run) -> None:
    async def main() -> None:
        case = Case(3)
        await case.records.open("a")
        case.core.is_behind = True
        case.publish(5)
        reaching = asyncio.create_task(case.records.reach(["a"], [(case.stream.born, 5)]))
        await asyncio.sleep(0.05)
        assert not reaching.done()
        case.core.is_behind = False
        await reaching
        assert case.core.history == [(3, "3"), (5, "5")]

    run(main())
