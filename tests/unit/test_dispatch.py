"""Handlers get each client's events in order; coroutines are bounded, waited for, in the end cancelled."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable

import pytest

from fastcast.dispatch import MOST_WAITING, Dispatcher, Pool
from fastcast.errors import FastcastError
from tests.support.coroutines import run_alone as run


async def turns(number: int = 10) -> None:
    """Let everything happen that waits for nothing but its turn."""
    for _ in range(number):
        await asyncio.sleep(0)


class Relief:
    """Counts calls, and tells of each."""

    def __init__(self) -> None:
        self.calls = 0
        self._called = asyncio.Event()

    def __call__(self) -> None:
        self.calls += 1
        self._called.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition that holds at the time of a call."""
        while not condition():
            self._called.clear()
            await self._called.wait()


def dispatcher(limit: int = 100, most_bytes: int = 1 << 20) -> tuple[Dispatcher, Relief]:
    relief = Relief()
    return Dispatcher(limit, most_bytes, relief), relief


class TestOrder:
    """One client's events."""

    def test_plain_functions_are_called_at_once(self) -> None:
        async def main() -> None:
            calls, _ = dispatcher()
            done: list[int] = []
            for number in range(3):
                calls.call(1, done.append, number)
            assert done == [0, 1, 2]
            assert calls.idle

        run(main)

    def test_whatever_comes_for_a_client_waits_for_its_coroutine(self) -> None:
        async def main() -> None:
            calls, relief = dispatcher()
            done: list[str] = []
            go = asyncio.Event()

            async def slow(name: str) -> None:
                await go.wait()
                done.append(name)

            calls.call(1, slow, "first")
            calls.call(1, done.append, "plain")
            calls.call(1, slow, "second")
            calls.call(1, done.append, "last")
            calls.call(2, done.append, "another client's")
            await turns()
            assert done == ["another client's"]
            assert not calls.idle
            go.set()
            await relief.until(lambda: calls.idle)
            assert done == ["another client's", "first", "plain", "second", "last"]

        run(main)

    def test_many_events_of_many_clients_keep_their_order(self) -> None:
        async def main() -> None:
            calls, relief = dispatcher(limit=3)
            done: dict[int, list[int]] = {client: [] for client in range(20)}

            async def handle(client: int, number: int) -> None:
                for _ in range((client * 7 + number * 3) % 4):
                    await asyncio.sleep(0)
                done[client].append(number)

            for number in range(40):
                for client in done:
                    if (client + number) % 3:
                        calls.call(client, handle, client, number)
                    else:
                        calls.call(client, done[client].append, number)
            await relief.until(lambda: calls.idle)
            assert all(numbers == list(range(40)) for numbers in done.values())

        run(main)

    def test_what_returns_an_awaitable_is_waited_for_as_well(self) -> None:
        async def main() -> None:
            calls, relief = dispatcher()
            done: list[str] = []
            future = asyncio.get_running_loop().create_future()
            calls.call(1, lambda: future)
            calls.call(1, done.append, "behind it")
            await turns()
            assert done == []
            future.set_result(None)
            await relief.until(lambda: calls.idle)
            assert done == ["behind it"]

        run(main)


class TestBounds:
    """How many run, and how many wait."""

    def test_no_more_coroutines_run_than_allowed(self) -> None:
        async def main() -> None:
            calls, relief = dispatcher(limit=3)
            running = most = total = 0

            async def handle() -> None:
                nonlocal running, most, total
                running += 1
                most = max(most, running)
                await turns(3)
                running -= 1
                total += 1

            for client in range(50):
                calls.call(client, handle)
            await relief.until(lambda: calls.idle)
            assert (most, total) == (3, 50)

        run(main)

    def test_there_is_no_room_while_too_many_events_are_unfinished(self) -> None:
        async def main() -> None:
            limit = 10
            calls, relief = dispatcher(limit=limit)
            go = asyncio.Event()
            for number in range(limit + MOST_WAITING):
                assert calls.has_room
                calls.call(number % 50, go.wait)
            assert not calls.has_room
            go.set()
            await relief.until(lambda: calls.has_room)
            await relief.until(lambda: calls.idle)

        run(main)

    def test_there_is_no_room_while_too_many_bytes_wait(self) -> None:
        async def main() -> None:
            calls, relief = dispatcher(most_bytes=1000)
            go = asyncio.Event()
            calls.call(1, go.wait, size=999)
            assert calls.has_room
            calls.call(1, lambda: None, size=1)
            assert not calls.has_room
            go.set()
            await relief.until(lambda: calls.idle)
            assert calls.has_room

        run(main)

    def test_one_client_that_fills_its_line_does_not_keep_others_from_running(self) -> None:
        async def main() -> None:
            calls, relief = dispatcher(limit=1)
            done: list[int] = []

            async def handle(client: int) -> None:
                done.append(client)

            for _ in range(10):
                calls.call(1, handle, 1)
            calls.call(2, handle, 2)
            await relief.until(lambda: calls.idle)
            assert done.index(2) == 1

        run(main)


class TestFailures:
    """Exceptions in handlers."""

    def test_they_are_logged_with_the_client_and_the_next_event_follows(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main() -> None:
            calls, relief = dispatcher()
            done: list[str] = []

            def plain() -> None:
                raise LookupError("plain")

            async def coroutine() -> None:
                raise LookupError("coroutine")

            calls.call(17, plain)
            calls.call(17, coroutine)
            calls.call(17, plain)
            calls.call(17, done.append, "behind them")
            await relief.until(lambda: calls.idle)
            assert done == ["behind them"]

        run(main)
        assert [record.getMessage() for record in caplog.records] == ["a handler failed for client 17"] * 3
        assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [
            "plain",
            "coroutine",
            "plain",
        ]
        caplog.clear()

    def test_what_a_stopping_server_refuses_is_no_failure(self, caplog: pytest.LogCaptureFixture) -> None:
        async def main() -> None:
            calls, _ = dispatcher()

            def send() -> None:
                raise FastcastError("the server is not running")

            calls.call(1, send)
            calls.stopping = True
            calls.call(2, send)

        with caplog.at_level(logging.WARNING):
            run(main)
        assert [record.getMessage() for record in caplog.records] == ["a handler failed for client 1"]
        caplog.clear()

    def test_a_cancellation_that_a_handler_looks_at_is_a_failure_like_others(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main() -> None:
            calls, relief = dispatcher()
            done: list[str] = []
            cancelled = asyncio.get_running_loop().create_future()
            cancelled.cancel()

            async def coroutine() -> None:
                pass

            calls.call(1, cancelled.result)
            calls.call(1, coroutine)
            calls.call(1, cancelled.result)
            calls.call(1, done.append, "behind them")
            await relief.until(lambda: calls.idle)
            assert done == ["behind them"]
            assert calls._unfinished == 0

        run(main)
        assert [record.getMessage() for record in caplog.records] == ["a handler failed for client 1"] * 2
        caplog.clear()

    def test_a_handler_that_ends_the_program_leaves_the_rest_of_its_line(self) -> None:
        done: list[str] = []

        def leave() -> None:
            raise SystemExit

        async def main() -> None:
            calls, relief = dispatcher()
            go = asyncio.Event()
            calls.call(1, go.wait)
            calls.call(1, leave)
            calls.call(1, done.append, "behind it")
            go.set()
            await relief.until(lambda: calls.idle)
            assert calls._unfinished == 0
            await turns()

        with pytest.raises(SystemExit):
            run(main)
        assert done == ["behind it"]

    def test_exceptions_of_an_unusual_kind_are_no_other(self, caplog: pytest.LogCaptureFixture) -> None:
        class Unusual(BaseException):
            """As frameworks of tests and of tasks have them."""

        async def main() -> None:
            calls, relief = dispatcher()
            go = asyncio.Event()
            done: list[str] = []

            def fail() -> None:
                raise Unusual

            calls.call(1, fail)
            calls.call(2, go.wait)
            calls.call(2, fail)
            calls.call(2, done.append, "behind it")
            go.set()
            await relief.until(lambda: calls.idle)
            assert done == ["behind it"]

        run(main)
        assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2

    def test_a_log_that_fails_holds_nobody_up(self) -> None:
        class Full(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                raise OSError(errno.ENOSPC, "no space")

        async def main() -> None:
            told: list[BaseException] = []
            asyncio.get_running_loop().set_exception_handler(
                lambda loop, context: told.append(context["exception"])
            )
            calls, relief = dispatcher()
            done: list[str] = []

            async def fail() -> None:
                raise ValueError

            calls.call(1, fail)
            calls.call(1, done.append, "behind it")
            await relief.until(lambda: calls.idle)
            await turns()
            assert done == ["behind it"]
            assert [type(error) for error in told] == [OSError]

        full = Full()
        logging.getLogger("fastcast").addHandler(full)
        try:
            run(main)
        finally:
            logging.getLogger("fastcast").removeHandler(full)

    def test_a_coroutine_that_is_cancelled_from_within_is_over(self) -> None:
        async def main() -> None:
            calls, relief = dispatcher()
            done: list[str] = []

            async def handle() -> None:
                raise asyncio.CancelledError

            calls.call(1, handle)
            calls.call(1, done.append, "next")
            await relief.until(lambda: calls.idle)
            assert done == ["next"]

        run(main)


class TestHurry:
    """When the time is over."""

    def test_what_waits_for_something_is_cancelled_and_what_need_not_is_done(self) -> None:
        async def main() -> None:
            calls, relief = dispatcher(limit=2)
            done: list[str] = []

            async def stuck() -> None:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    done.append("cancelled")
                    raise

            async def quick(name: str) -> None:
                done.append(name)

            for client in range(3):
                calls.call(client, stuck)
                calls.call(client, quick, f"behind {client}")
            await turns()
            assert done == []
            assert calls.hurry() == 3
            calls.call(9, quick, "late")
            await relief.until(lambda: calls.idle)
            assert sorted(done) == ["behind 0", "behind 1", "behind 2", *["cancelled"] * 3, "late"]
            assert calls.has_room

        run(main)

    def test_a_coroutine_that_has_not_begun_gets_its_first_step(self) -> None:
        async def main() -> None:
            calls, relief = dispatcher()
            begun: list[int] = []

            async def handle(client: int) -> None:
                begun.append(client)
                await asyncio.Event().wait()

            for client in range(200):
                calls.call(client, handle, client)
            calls.hurry()
            await relief.until(lambda: calls.idle)
            assert sorted(begun) == list(range(200))

        run(main)

    def test_what_comes_later_is_cancelled_as_well(self) -> None:
        async def main() -> None:
            pool = Pool(1)
            ended = Relief()
            pool.hurry()
            for _ in range(5):
                pool.run(asyncio.Event().wait(), lambda task: ended())
            await ended.until(lambda: len(pool) == 0)
            assert ended.calls == 5

        run(main)


def test_a_pool_says_when_it_should_not_get_more() -> None:
    async def main() -> None:
        pool = Pool(2)
        ended = Relief()
        go = asyncio.Event()
        for _ in range(MOST_WAITING + 2):
            assert pool.has_room
            pool.run(go.wait(), lambda task: ended())
        assert not pool.has_room
        go.set()
        await ended.until(lambda: len(pool) == 0)
        assert pool.has_room

    run(main)
