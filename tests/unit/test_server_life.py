"""Starts and stops that are interrupted, fail, or come together: nothing is left, and nobody waits on."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pytest

import fastcast
from fastcast.server import Server
from tests.support.coroutines import run_alone as run
from tests.support.fake_launch import FakeLaunch, fake_launch
from tests.support.hosting import await_true


class FakeBus:
    """A bus that takes its time, where a test wants it to."""

    def __init__(self) -> None:
        self.may_start = asyncio.Event()
        self.may_flush = asyncio.Event()
        self.may_stop = asyncio.Event()
        for gate in (self.may_start, self.may_flush, self.may_stop):
            gate.set()
        self.is_starting = False
        self.is_flushing = False
        self.error: Exception | None = None
        self.stops = 0

    async def start(self) -> None:
        self.is_starting = True
        await self.may_start.wait()

    async def begin(self, hub: object, home: object) -> None:
        if self.error is not None:
            raise self.error

    async def flush(self) -> None:
        self.is_flushing = True
        await self.may_flush.wait()

    async def stop(self) -> None:
        self.stops += 1
        await self.may_stop.wait()

    def ready(self, names: Collection[str], since: object = None) -> None:
        return None

    def want(self, name: str) -> None:
        pass


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLaunch]:
    with fake_launch(monkeypatch) as launch:
        yield launch


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> FakeBus:
    bus = FakeBus()
    monkeypatch.setattr("fastcast.bus.open_bus", lambda config: bus)
    return bus


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0)


def on_bus(**options: Any) -> Server:
    return Server(bus=("nats://127.0.0.1",), relay="off", **options)


class TestStart:
    def test_who_stops_a_server_that_starts_has_none(self, launched: FakeLaunch, bus: FakeBus) -> None:
        async def main() -> None:
            bus.may_start.clear()
            server = on_bus()
            starting = asyncio.create_task(server.start())
            await until(lambda: bus.is_starting)
            await server.stop()
            with pytest.raises(fastcast.FastcastError, match="stopped before it had started"):
                await starting
            assert launched.config is None
            bus.may_start.set()
            async with server:  # it may start yet
                assert launched.config is not None

        run(main)

    def test_who_gives_up_a_start_is_cancelled(self, launched: FakeLaunch, bus: FakeBus) -> None:
        async def main() -> None:
            bus.may_start.clear()
            server = on_bus()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(server.start(), 0.01)
            bus.may_start.set()
            async with server:
                assert launched.config is not None

        run(main)

    def test_who_gives_up_at_the_last_moment_has_no_server_either(
        self, launched: FakeLaunch, bus: FakeBus
    ) -> None:
        async def main() -> None:
            bus.may_start.clear()
            server = on_bus()
            starting = asyncio.create_task(server.start())
            await until(lambda: bus.is_starting)
            bus.may_start.set()
            await until(lambda: server._hub is not None)
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            assert launched.fake.running == 0

        run(main)

    def test_it_starts_only_once_even_at_the_same_time(self, launched: FakeLaunch, bus: FakeBus) -> None:
        async def main() -> None:
            bus.may_start.clear()
            server = on_bus()
            starting = asyncio.create_task(server.start())
            await until(lambda: bus.is_starting)
            with pytest.raises(fastcast.FastcastError, match="only once"):
                await server.start()
            with pytest.raises(fastcast.FastcastError, match="before the server starts"):
                server.on_disconnect(lambda client, code, reason: None)
            with pytest.raises(fastcast.FastcastError, match="before the server starts"):
                server.config = server.config
            bus.may_start.set()
            await starting
            await server.stop()

        run(main)

    def test_when_the_bus_fails_nobody_listens_any_more(self, launched: FakeLaunch, bus: FakeBus) -> None:
        async def main() -> None:
            bus.error = fastcast.StartError("cannot use the bus")
            with pytest.raises(fastcast.StartError):
                await on_bus().start()
            assert launched.fake.stopped_within == [0]
            assert launched.fake.running == 0
            assert bus.stops == 1

        run(main)

    def test_a_signal_while_it_starts_ends_the_program(self, launched: FakeLaunch, bus: FakeBus) -> None:
        bus.may_start.clear()
        server = on_bus()

        def interrupt() -> None:
            await_true(lambda: bus.is_starting, "it starts")
            os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=interrupt)
        thread.start()
        assert server.run(lambda: pytest.fail("it is not ready")) == 0
        thread.join()


class TestStop:
    def test_it_goes_on_when_its_caller_is_cancelled(self, launched: FakeLaunch, bus: FakeBus) -> None:
        async def main() -> None:
            server = on_bus()
            await server.start()
            bus.may_flush.clear()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(server.stop(), 0.01)
            bus.may_flush.set()
            await until(lambda: launched.fake.running == 0)
            await server.stop()

        run(main)

    def test_it_has_one_time_for_all(self, launched: FakeLaunch, bus: FakeBus) -> None:
        async def main() -> None:
            server = on_bus()
            await server.start()
            bus.may_flush.clear()
            await server.stop(0.05)
            assert launched.fake.stopped_within == [0]

        run(main)

    def test_an_admission_may_ask_for_it(self, launched: FakeLaunch, bus: FakeBus) -> None:
        async def main() -> None:
            server = on_bus()

            @server.on_connect
            async def admit(request: fastcast.Request) -> None:
                await server.stop()

            await server.start()
            launched.fake.ask(1, head=HEAD)
            await until(lambda: launched.fake.running == 0)
            await server.stop()

        run(main)

    def test_it_ends_though_somebody_cancels_all_tasks(self, launched: FakeLaunch, bus: FakeBus) -> None:
        async def main() -> None:
            server = on_bus()
            before = asyncio.all_tasks()
            await server.start()
            bus.may_stop.clear()
            stopping = asyncio.create_task(server.stop())
            await until(lambda: bus.stops)
            for task in asyncio.all_tasks() - before:
                task.cancel()
            await asyncio.wait({stopping})
            await server.stop(0)

        run(main)

    def test_a_flush_ends_with_the_server(self, launched: FakeLaunch, bus: FakeBus) -> None:
        async def main() -> None:
            server = on_bus()
            await server.start()
            bus.may_flush.clear()
            flushing = asyncio.create_task(server.flush())
            await until(lambda: bus.is_flushing)
            await server.stop(0)
            launched.fake.silent = True  # nobody is left to reply
            bus.may_flush.set()
            await flushing

        run(main)


HEAD = (
    b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
