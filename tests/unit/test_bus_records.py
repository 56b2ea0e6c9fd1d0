"""Histories that follow a log: what is missing is read, and nobody hears anything twice."""

from __future__ import annotations

import asyncio

import pytest

from fastcast.bus.engine import Place
from fastcast.bus.line import OVERHEAD
from tests.support.hosting import Run
from tests.support.records import Case


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
