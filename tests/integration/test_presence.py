"""Presence: the program is told who joins and leaves which channel, once each and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest

import fastcast
from tests.support.hosting import Run, ServerFactory, address_of, await_true, serve
from tests.support.swarm import Swarm
from tests.support.wire import Client, close_payload

Step = tuple[str, int, str]


class Book:
    """Writes down what handlers are told; `prepare` sets them."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.roster: dict[str, list[int]] = {}

    def prepare(self, running: fastcast.Server) -> None:
        """Have what happens to clients written here, and compared with `presence` at that moment."""

        @running.on_join
        def joined(client: fastcast.Client, channel: str) -> None:
            self.steps.append(("joined", client.id, channel))
            self.roster.setdefault(channel, []).append(client.id)
            assert [each.id for each in running.presence(channel)] == self.roster[channel]

        @running.on_leave
        def left(client: fastcast.Client, channel: str) -> None:
            self.steps.append(("left", client.id, channel))
            self.roster[channel].remove(client.id)
            assert [each.id for each in running.presence(channel)] == self.roster[channel]

        @running.on_disconnect
        def gone(client: fastcast.Client, code: int, reason: str) -> None:
            self.steps.append(("gone", client.id, ""))

    def of(self, client: int) -> list[tuple[str, str]]:
        """What was told of one client."""
        return [(what, channel) for what, id, channel in self.steps if id == client]

    def await_steps(self, number: int) -> None:
        """Wait until so many steps are told, and no more."""
        await_true(lambda: len(self.steps) >= number, f"{number} steps")
        assert len(self.steps) == number


@pytest.fixture
def no_errors(caplog: pytest.LogCaptureFixture) -> Callable[[], None]:
    """Asserts that no handler has failed: an assertion in one is only logged."""

    def check() -> None:
        assert [record.getMessage() for record in caplog.records if record.exc_info] == []

    return check


def test_a_client_joins_its_channels_and_leaves_them_before_it_is_gone(
    server: ServerFactory, no_errors: Callable[[], None]
) -> None:
    book = Book()
    with server(book.prepare, presence=True) as running:
        with Client(address_of(running), "/a") as client:
            book.await_steps(1)
            [found] = running.presence("/a")
            found.subscribe("news.*")
            found.subscribe("news.*")
            book.await_steps(2)
            assert running.presence("news.*") == [found]
            assert running.presence("news.today") == []
            found.unsubscribe("/a")
            found.unsubscribe("/a")
            book.await_steps(3)
            found.subscribe("/b")
            book.await_steps(4)
            client.close()
        book.await_steps(7)
        steps = book.of(found.id)
        assert steps[:4] == [("joined", "/a"), ("joined", "news.*"), ("left", "/a"), ("joined", "/b")]
        assert sorted(steps[4:6]) == [("left", "/b"), ("left", "news.*")]
        assert steps[6] == ("gone", "")
        assert running.presence("/b") == []
        no_errors()


def test_everyone_is_told_of_once_however_they_come_and_go(
    server: ServerFactory, no_errors: Callable[[], None]
) -> None:
    book = Book()
    random = Random(3)
    clients = 200
    with server(book.prepare, presence=True, shards=3) as running:
        here: list[Client] = []
        for number in range(clients):
            here.append(Client(address_of(running), f"/{number % 4}"))
            if len(here) > 20:
                gone = here.pop(random.randrange(len(here)))
                random.choice((gone.close, gone.drop, gone.reset))()
        await_true(lambda: running.count() == len(here), "those who went to be gone")
        await_true(lambda: len(book.steps) == 3 * clients - 2 * len(here), "all to be told")
        for name in ("/0", "/1", "/2", "/3"):
            assert set(running.presence(name)) == set(running.clients(name))
        for client in here:
            client.drop()
        book.await_steps(3 * clients)
        for id in {id for _, id, _ in book.steps}:
            [(_, channel), *rest] = book.of(id)
            assert rest == [("left", channel), ("gone", "")]
        no_errors()


def test_a_stop_tells_of_all_who_leave(run: Run, no_errors: Callable[[], None]) -> None:
    book = Book()

    async def main() -> None:
        server = serve(presence=True)
        book.prepare(server)

        def stay(opened: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
            with Swarm(address_of(server), 50, "/a") as swarm:
                loop.call_soon_threadsafe(opened.set)
                swarm.await_close(close_payload(1001))

        await server.start()
        opened = asyncio.Event()
        staying = asyncio.create_task(asyncio.to_thread(stay, opened, asyncio.get_running_loop()))
        await opened.wait()
        await server.stop()
        await staying
        assert len(book.steps) == 150
        assert book.roster == {"/a": []}

    run(main())
    no_errors()


def test_coroutines_are_told_in_each_client_s_order(run: Run) -> None:
    steps: dict[int, list[str]] = {}

    async def main() -> None:
        server = serve(presence=True, max_handlers=3)

        @server.on_join
        async def joined(client: fastcast.Client, channel: str) -> None:
            await asyncio.sleep(0)
            steps.setdefault(client.id, []).append("joined")

        @server.on_leave
        async def left(client: fastcast.Client, channel: str) -> None:
            await asyncio.sleep(0)
            steps[client.id].append("left")

        def come_and_go() -> None:
            for _ in range(100):
                with Client(address_of(server)):
                    pass
            await_true(lambda: server.count() == 0, "all to be gone")

        async with server:
            await asyncio.to_thread(come_and_go)

    run(main())
    assert list(steps.values()) == [["joined", "left"]] * 100
