"""The engines of the bus by themselves, over real brokers: what each brings of what it's subscribed to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from fastcast.bus.engine import Access, Engine, Place
from fastcast.bus.nats import Nats
from fastcast.bus.redis import Redis
from tests.support.brokers import KINDS, Broker, broker
from tests.support.hosting import Run
from tests.support.wire import TIMEOUT


@pytest.fixture(scope="module", params=KINDS)
def bus(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A broker that all tests of this module may use, but not harm."""
    with broker(request.param) as running:
        yield running


class Listener:
    """An engine that is connected, and what it brings: subjects, each with its subscription."""

    END = "f-end"

    def __init__(self, bus: Broker) -> None:
        access = Access(urls=(bus.url,))
        self.engine: Engine = Nats(access, None, "f") if bus.kind == "nats" else Redis(access)
        self.losses: list[str] = []
        self._received: list[tuple[str, str]] = []
        self._ended = asyncio.Event()

    async def __aenter__(self) -> Listener:
        await self.engine.connect(self._receive, self.losses.append)
        await self.engine.subscribe([self.END])
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.engine.close()

    def _receive(self, subject: str, payload: bytes, source: str, place: Place | None) -> None:
        if subject == self.END:
            self._ended.set()
        else:
            self._received.append((subject, source))

    async def hears(self, *subjects: str) -> list[tuple[str, str]]:
        """What comes of messages that are published now."""
        self._received, self._ended = [], asyncio.Event()
        await self.engine.publish([(subject, b"x") for subject in (*subjects, self.END)])
        await asyncio.wait_for(self._ended.wait(), TIMEOUT)
        return sorted(self._received)


@pytest.mark.parametrize("first", ["f.a.*", "f.a.>"])
def test_patterns_that_take_in_the_same_come_and_go(run: Run, bus: Broker, first: str) -> None:
    subjects = ("f.a.b", "f.a.b.c")
    expected = {
        "f.a.*": [("f.a.b", "f.a.*")],
        "f.a.>": [("f.a.b", "f.a.>"), ("f.a.b.c", "f.a.>")],
    }
    [last] = expected.keys() - {first}

    async def main() -> None:
        async with Listener(bus) as listener:
            await listener.engine.subscribe([first])
            assert await listener.hears(*subjects) == expected[first]
            await listener.engine.subscribe([last])
            assert await listener.hears(*subjects) == sorted(expected[first] + expected[last])
            await listener.engine.unsubscribe([first])
            assert await listener.hears(*subjects) == expected[last]
            await listener.engine.subscribe([first])
            await listener.engine.unsubscribe([last])
            assert await listener.hears(*subjects) == expected[first]
            await listener.engine.unsubscribe([first])
            assert await listener.hears(*subjects) == []
            assert listener.losses == []

    run(main())
