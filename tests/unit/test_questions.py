"""Questions to the shards: who waits gets the answer, whatever becomes of shards and clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from fastcast.questions import Questions
from tests.support.fake_hub import FakeHub, fake_hub
from tests.support.wire import TIMEOUT


def run(main: Callable[[FakeHub, Questions], Coroutine[Any, Any, None]], shards: int = 1) -> None:
    """Run a test's coroutine with questions whose replies it has to take."""
    with fake_hub(shards) as fake:
        asyncio.run(asyncio.wait_for(main(fake, Questions(fake.hub)), TIMEOUT))


async def begin(question: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Ask, and don't wait for the answer."""
    task = asyncio.create_task(question)
    await asyncio.sleep(0)
    return task


def test_a_flush_ends_when_every_shard_has_said_so() -> None:
    async def main(fake: FakeHub, questions: Questions) -> None:
        task = await begin(questions.flush())
        last = fake.replied.pop()
        questions.take()
        await asyncio.sleep(0)
        assert not task.done()
        fake.reply(last)
        questions.take()
        await task

    run(main, shards=3)


def test_flushes_at_the_same_time_are_told_apart() -> None:
    async def main(fake: FakeHub, questions: Questions) -> None:
        first, second = await begin(questions.flush()), await begin(questions.flush())
        last = fake.replied.pop()
        questions.take()
        await first
        assert not second.done()
        fake.reply(last)
        questions.take()
        await second

    run(main, shards=2)


def test_what_there_is_to_tell_of_a_client_comes_to_who_asked() -> None:
    async def main(fake: FakeHub, questions: Questions) -> None:
        fake.known[5] = {"id": 5}
        tasks = [await begin(questions.inspect(client)) for client in (5, 6)]
        questions.take()
        assert [await task for task in tasks] == [{"id": 5}, None]

    run(main)


def test_who_has_given_up_is_forgotten() -> None:
    async def main(fake: FakeHub, questions: Questions) -> None:
        for task in (await begin(questions.flush()), await begin(questions.inspect(5))):
            task.cancel()
        await asyncio.sleep(0)
        questions.take()

    run(main)


def test_the_end_of_the_shards_answers_everything() -> None:
    async def main(fake: FakeHub, questions: Questions) -> None:
        fake.silent = True
        flush, inspection = await begin(questions.flush()), await begin(questions.inspect(5))
        questions.end()
        assert [await flush, await inspection] == [None, None]
        questions.end()
        assert [await questions.flush(), await questions.inspect(5)] == [
            None,
            None,
        ]  # there's nobody to reply

    run(main)


def test_who_waits_for_a_reply_that_is_lost_is_told() -> None:
    async def main(fake: FakeHub, questions: Questions) -> None:
        fake.silent = True
        waiting = await begin(questions.flush()), await begin(questions.inspect(5))
        fake.unanswered = True
        questions.take()
        for task in waiting:
            with pytest.raises(MemoryError):
                await task
        fake.silent = False
        again = await begin(questions.flush())
        questions.take()
        await again

    run(main)
