"""What servers ask each other, without a bus: answers fit into messages, and nothing said does harm."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from fastcast.bus.peers import Peers
from fastcast.errors import FastcastError
from tests.support.hosting import Run

KIB = 1 << 10


class Clients:
    """A server's own, of which the same is told on any channel."""

    def __init__(self, *told: Any) -> None:
        self.told = told
        self.error: Exception | None = None

    def clients(self) -> int:
        return len(self.told)

    def count(self, channel: str) -> int:
        if self.error is not None:
            raise self.error
        return len(self.told)

    def present(self, channel: str) -> list[tuple[int, Any]]:
        return list(enumerate(self.told))


class Wire:
    """Two servers, `here` and `there`; what one says to the other is there at once, and noted."""

    def __init__(self, most_bytes: int, *told: Any) -> None:
        self.home = Clients(*told)
        self.said: list[bytes] = []
        self.here = Peers(Clients(), self._send, "here", lambda: most_bytes)
        self.there = Peers(self.home, self._send, "there", lambda: most_bytes)
        self.here.begin()
        self.there.begin()

    def _send(self, server: str | None, said: bytes) -> None:
        self.said.append(said)
        for name, peers in (("here", self.here), ("there", self.there)):
            if server in (None, name):
                peers.receive(said)

    async def meet(self) -> None:
        """Both have heard of each other."""
        while len(self.here) + len(self.there) < 4:
            await asyncio.sleep(0)

    async def told(self) -> list[Any]:
        """What is told of the clients there, when they are asked for here."""
        await self.meet()
        present = await self.here.present("/a")
        assert [(each.server, each.client) for each in present] == [
            ("there", number) for number in range(len(self.home.told))
        ]
        return [each.told for each in present]

    def stop(self) -> None:
        self.here.stop()
        self.there.stop()


@pytest.mark.parametrize(("takes", "most"), [(512 << 20, 256 * KIB), (1 << 20, 256 * KIB), (10000, 5000)])
@pytest.mark.parametrize("text", ["x" * 3000, "", "ü" * 500])
def test_answers_are_cut_by_their_bytes(run: Run, takes: int, most: int, text: str) -> None:
    async def main() -> None:
        told = [f"{number}{text}" for number in range(1500)]
        wire = Wire(takes, *told)
        assert await wire.told() == told
        answers = [said for said in wire.said if b'"answer"' in said]
        assert max(map(len, answers)) <= most
        # No more of them than it takes.
        least = len(json.dumps([0, text], separators=(",", ":")))
        assert min(map(len, answers[:-1]), default=most) > most - least - 500
        wire.stop()

    run(main())


def test_a_channel_without_clients_is_answered_for(run: Run) -> None:
    async def main() -> None:
        wire = Wire(1 << 20)
        assert await wire.told() == []
        wire.stop()

    run(main())


def test_what_is_too_long_or_no_json_is_left_out_of_an_answer(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    endless: list[Any] = []
    endless.append(endless)

    async def main() -> None:
        wire = Wire(10000, "a", "x" * 5000, "b", endless, {(1, 2): 3}, "c")
        assert await wire.told() == ["a", None, "b", None, None, "c"]
        wire.stop()

    run(main())
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "of 3 clients of '/a' is left out" in record.message


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"1",
        b"[1]",
        b'{"ask":1}',
        b'{"beat":[],"clients":1}',
        b'{"beat":"x","clients":Infinity}',
        b"[" * 100_000,
        b"\xff",
    ],
    ids=lambda nonsense: repr(nonsense[:10]),
)
def test_nonsense_does_no_harm(run: Run, caplog: pytest.LogCaptureFixture, nonsense: bytes) -> None:
    async def main() -> None:
        wire = Wire(1 << 20, "a")
        wire.here.receive(nonsense)
        assert await wire.told() == ["a"]
        assert len(wire.here) == 2
        wire.stop()

    run(main())
    assert not caplog.records


@pytest.mark.parametrize("error", [RuntimeError("ouch"), AttributeError("none"), FastcastError("stopped")])
def test_a_question_that_cannot_be_answered_does_no_harm(
    run: Run, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def main() -> None:
        wire = Wire(1 << 20, "a")
        await wire.meet()
        wire.home.error = error
        wire.there.receive(b'{"ask":"1","from":"here","what":"count","channel":"/a"}')
        assert not any(b'"answer"' in said for said in wire.said)
        wire.home.error = None
        assert await wire.here.count("/a") == 1
        wire.stop()

    run(main())
    # That this server ends is no failure; anything else is, and its traceback is wanted.
    assert [bool(record.exc_info) for record in caplog.records] == [True] * (type(error) is not FastcastError)
