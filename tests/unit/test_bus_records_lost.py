"""What histories that follow a log have lost, or the log itself: it is read, or told of."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from fastcast.bus.engine import Place
from fastcast.history import Keep
from tests.support.hosting import Run
from tests.support.records import Case


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


def test_a_reading_that_began_before_a_loss_is_not_the_one_after_it(run: Run) -> None:
    async def main() -> None:
        case = Case(1)
        case.core.is_behind = True
        case.incoming.deliver("x", b"so that the shards are behind")
        reading = case.records.open("a")
        await asyncio.sleep(0.02)
        case.records.cut()
        case.publish(4, arrives=False)
        assert case.records.open("a") is reading
        case.core.is_behind = False
        await reading
        assert [offset for offset, _ in case.core.history] == [1, 4]

    run(main())


def test_of_two_losses_the_first_counts_until_it_was_read(run: Run) -> None:
    async def main() -> None:
        case = Case()
        await case.records.open("a")
        await case.records.open("b")
        case.publish(1)
        case.records.cut()
        case.stream.stored, case.stream.first = {9: "9"}, 9
        case.records.receive("b", b"20", Place(20, 0))
        await asyncio.sleep(0)
        case.stream.fails = 1
        await case.records.open("a")
        case.records.cut()
        case.core.heard.clear()
        await case.records.open("a")
        assert case.core.heard == ["gap", "9"]
        await case.records.stop()

    run(main())


def test_offsets_of_a_log_that_is_no_more_do_not_hide_a_gap(run: Run) -> None:
    async def main() -> None:
        case = Case(1000)
        await case.records.open("a")
        case.stream.born, case.stream.stored = b"another", {1: "1"}
        case.log_is_another()
        await case.records.open("a")
        case.publish(2)
        case.records.cut()
        case.stream.stored, case.stream.first = {9: "9"}, 9
        await case.records.open("a")
        assert case.core.heard == ["1", "2", "gap", "9"]

    run(main())


def test_what_another_log_has_waits_until_that_was_read(run: Run) -> None:
    async def main() -> None:
        case = Case(1000)
        await case.records.open("a")
        case.stream.born, case.stream.stored = b"another", {1: "1"}
        fetch = case.stream.fetch

        async def fetch_late(subject: str, after: int) -> Sequence[tuple[int, bytes]]:
            found = await fetch(subject, after)
            if after == 0:
                case.publish(2)  # behind what is read
            return found

        case.stream.fetch = fetch_late  # type: ignore[method-assign]
        case.log_is_another()
        await case.records.open("a")
        assert case.core.heard == ["1", "2"]
        assert case.core.history == [(1, "1"), (2, "2")]

    run(main())


def test_what_waits_in_a_history_that_is_given_up_reaches_patterns(run: Run) -> None:
    async def main() -> None:
        case = Case()
        await case.records.open("a")
        case.publish(1)
        case.stream.lags_behind = 99
        case.publish(2, arrives=False)
        case.publish(3)
        await asyncio.sleep(0.02)
        assert case.core.heard == ["1"]
        case.records.close("a")
        assert case.core.heard == ["1", "3"]

    run(main())


def test_copies_of_what_a_history_had_when_it_was_given_up_are_known(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastcast.bus.records.QUIET", 0.02)

    async def main() -> None:
        case = Case()
        await case.records.open("a")
        case.publish(1)
        case.publish(2)
        case.records.close("a")
        assert [case.records.has_had("a", offset) for offset in (1, 2, 3)] == [True, True, False]
        assert not case.records.has_had("b", 1)
        async with asyncio.timeout(5):
            while case.records.has_had("a", 2):  # copies come soon, or not at all
                await asyncio.sleep(0.01)
        await case.records.stop()

    run(main())
