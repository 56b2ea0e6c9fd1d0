"""Messages on their way into a stream, without a broker: each is stored once, in the order of its sending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import nats.errors
import nats.js.errors
import pytest
from nats.js import JetStreamContext

from fastcast.bus import outbox as module
from fastcast.bus.outbox import Outbox
from fastcast.bus.tails import QUIET, Tails
from tests.support.hosting import Run
from tests.support.wire import TIMEOUT


class Stream:
    """Stands in for a stream, and for the library's way to it: what it stores it stores once for each id."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.sent: list[str] = []
        self.known: set[str] = set()
        self.is_mute = False
        """It takes nothing, and says nothing."""
        self.is_deaf = False
        """It takes everything, and says nothing."""
        self.error: Exception | None = None
        """What it answers."""
        self.raises: Exception | None = None
        """What sending raises."""

    @property
    def jetstream(self) -> JetStreamContext:
        return cast(JetStreamContext, self)

    async def publish_async(
        self, subject: str, payload: bytes, *, wait_stall: float, headers: Mapping[str, str]
    ) -> asyncio.Future[Any]:
        await asyncio.sleep(0)
        if self.raises is not None:
            raise self.raises
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.sent.append(payload.decode())
        if self.is_mute:
            return answer
        if self.error is not None:
            answer.set_exception(self.error)
            return answer
        if headers["Nats-Msg-Id"] not in self.known:
            self.known.add(headers["Nats-Msg-Id"])
            self.stored.append(payload.decode())
        if not self.is_deaf:
            asyncio.get_running_loop().call_soon(answer.set_result, SimpleNamespace(seq=len(self.stored)))
        return answer


class Case:
    """An outbox, and the stream behind it."""

    def __init__(self, most_bytes: int = 1 << 20) -> None:
        self.stream = Stream()
        self.doubts = 0
        self.outbox = Outbox(most_bytes, self.doubt)
        self.outbox.open(self.stream.jetstream, 120)

    def doubt(self) -> None:
        self.doubts += 1

    async def publish(self, *texts: str) -> None:
        ids = [self.outbox.put("s", text.encode()) for text in texts]
        for id in ids:
            await self.outbox.send(id)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(TIMEOUT):
            while not condition():
                await asyncio.sleep(0.001)

    async def settle(self) -> None:
        async with asyncio.timeout(TIMEOUT):
            await self.outbox.settle()
        assert (len(self.outbox), self.outbox._bytes, self.outbox._under_way) == (0, 0, 0)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for seconds."""
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    monkeypatch.setattr(module, "_LOOK", 0.01)
    monkeypatch.setattr(module, "_LEAST_DELAY", 0.005)
    monkeypatch.setattr(module, "_MOST_DELAY", 0.02)


def numbered(start: int, end: int) -> list[str]:
    return [str(number) for number in range(start, end)]


def test_each_message_is_stored_and_forgotten(run: Run) -> None:
    async def main() -> None:
        case = Case()
        await case.publish(*numbered(0, 100))
        await case.settle()
        assert case.stream.sent == case.stream.stored == numbered(0, 100)

    run(main())


@pytest.mark.parametrize(
    "error",
    [
        nats.js.errors.NoStreamResponseError(),
        nats.js.errors.ServiceUnavailableError(code=503, description="temporarily unavailable"),
    ],
    ids=["nobody", "not now"],
)
def test_while_nobody_leads_the_stream_messages_wait_and_keep_their_order(
    run: Run, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        case = Case()
        await case.publish("0", "1")
        await case.settle()
        case.stream.error = error
        await case.publish(*numbered(2, 10))
        await case.until(lambda: len(case.stream.sent) > 15)
        await case.publish(*numbered(10, 20))
        assert len(case.outbox) == 18
        # Nothing but the oldest is tried meanwhile.
        assert set(case.stream.sent[-3:]) == {"2"}
        assert case.doubts > 0
        case.stream.error = None
        await case.until(lambda: len(case.stream.stored) > 2)
        await case.publish(*numbered(20, 30))
        await case.settle()
        assert case.stream.stored == numbered(0, 30)
        assert case.outbox.lost == 0

    run(main())
    told = [record.message for record in caplog.records]
    assert len(told) == 2
    assert "waits" in told[0]
    assert "answers again" in told[1]


@pytest.mark.parametrize("what", ["is_mute", "is_deaf"])
def test_what_is_not_answered_is_sent_again_and_stored_once(run: Run, what: str) -> None:
    async def main() -> None:
        case = Case()
        setattr(case.stream, what, True)
        await case.publish(*numbered(0, 10))
        await case.until(lambda: case.stream.sent.count("0") > 2)
        setattr(case.stream, what, False)
        await case.settle()
        assert case.stream.stored == numbered(0, 10)

    run(main())


def test_a_message_that_the_stream_will_never_take_holds_up_no_other(run: Run) -> None:
    async def main() -> None:
        case = Case()
        case.stream.error = nats.js.errors.BadRequestError(code=400, description="too long")
        await case.publish("0")
        await case.until(lambda: case.outbox.lost == 1)
        case.stream.error = None
        await case.publish("1")
        await case.settle()
        assert case.stream.stored == ["1"]

    run(main())


def test_the_next_connection_goes_on_where_the_last_one_ended(run: Run) -> None:
    async def main() -> None:
        case = Case()
        case.stream.is_deaf = True
        await case.until(lambda: not case.outbox._is_held)
        await case.publish(*numbered(0, 10))
        case.stream.raises = nats.errors.ConnectionClosedError()
        with pytest.raises(nats.errors.ConnectionClosedError):
            await case.publish(*numbered(10, 20))
        case.outbox.close()
        case.outbox.put("s", b"20")
        await asyncio.sleep(0.1)
        assert len(case.outbox) == 21
        case.stream.is_deaf, case.stream.raises = False, None
        case.outbox.open(case.stream.jetstream, 120)
        await case.publish("21")
        await case.settle()
        assert case.stream.stored == numbered(0, 22)

    run(main())


def test_a_connection_that_ends_while_all_is_sent_again_loses_nothing(run: Run) -> None:
    async def main() -> None:
        case = Case()
        case.stream.is_mute = True
        await case.publish(*numbered(0, 10))
        await case.until(lambda: case.stream.sent.count("0") > 1)
        case.stream.raises = BrokenPipeError()
        await asyncio.sleep(0.1)
        await case.publish("10")  # it's held, and so isn't tried
        case.outbox.close()
        case.stream.is_mute, case.stream.raises = False, None
        case.outbox.open(case.stream.jetstream, 120)
        await case.settle()
        assert case.stream.stored == numbered(0, 11)

    run(main())


def test_what_the_stream_may_have_forgotten_is_given_up(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        case = Case()
        case.stream.is_deaf = True
        await case.until(lambda: not case.outbox._is_held)
        await case.publish("0", "1")
        case.outbox.close()
        case.outbox.put("s", b"2")  # it was never sent, and so can't come twice
        case.stream.is_deaf = False
        case.outbox.open(case.stream.jetstream, module._MARGIN)  # so that what was sent is too old at once
        await case.settle()
        assert case.stream.stored == ["0", "1", "2"]
        assert case.outbox.lost == 2
        assert case.stream.sent == ["0", "1", "2"]

    run(main())
    assert "2 messages may be missing" in caplog.text


def test_it_says_when_it_is_full(run: Run) -> None:
    async def main() -> None:
        case = Case(10 * module._OVERHEAD)
        case.stream.is_mute = True
        await case.publish(*numbered(0, 9))
        assert not case.outbox.is_full
        await case.publish("9" * 2 * module._OVERHEAD)
        assert case.outbox.is_full
        case.stream.is_mute = False
        await case.settle()
        assert not case.outbox.is_full

    run(main())


def test_who_sends_waits_while_too_many_are_under_way(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WINDOW", 5)

    async def main() -> None:
        case = Case()
        await case.until(lambda: not case.outbox._is_held)
        case.stream.is_deaf = True
        sending = asyncio.create_task(case.publish(*numbered(0, 100)))
        await case.until(lambda: len(case.stream.sent) == 6)
        await asyncio.sleep(0.01)
        assert len(case.stream.sent) == 6
        case.stream.is_deaf = False
        await sending
        await case.settle()
        assert case.stream.stored == numbered(0, 100)

    run(main())


def test_a_message_that_the_broker_no_longer_takes_is_given_up(run: Run) -> None:
    async def main() -> None:
        case = Case()
        await case.until(lambda: not case.outbox._is_held)
        case.stream.raises = nats.errors.MaxPayloadError()
        await case.publish("0", "1")
        assert (len(case.outbox), case.outbox.lost) == (0, 2)
        case.outbox.close()
        case.outbox.put("s", b"2")
        case.outbox.open(case.stream.jetstream, 120)
        await case.until(lambda: case.outbox.lost == 3)
        case.stream.raises = None
        await case.publish("3")
        await case.settle()
        assert case.stream.stored == ["3"]

    run(main())


def test_no_more_are_under_way_than_the_library_takes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WINDOW", 5)

    async def main() -> None:
        case = Case()
        case.stream.is_mute = True
        await case.publish(*numbered(0, 100))
        case.outbox.close()
        most = 0
        case.stream.is_mute = False
        case.outbox.open(case.stream.jetstream, 120)
        while len(case.outbox):
            most = max(most, case.outbox._under_way)
            await asyncio.sleep(0)
        assert 1 < most <= 6
        assert case.stream.stored == numbered(0, 100)

    run(main())


class TestTails:
    def test_a_channel_is_told_of_once_it_is_quiet_and_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 100.0
        monkeypatch.setattr("fastcast.bus.tails.time.monotonic", lambda: now)
        tails = Tails()
        tails.note("a", 1)
        tails.note("b", 2)
        assert tails.take() == {}
        now += QUIET
        tails.note("a", 3)
        assert tails.take() == {"b": 2}
        now += QUIET
        assert tails.take() == {"a": 3}
        assert tails.take() == {}

    def test_they_are_told_a_message_full_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tails = Tails()
        for number in range(11_000):
            tails.note(f"a{number}", number)
        monkeypatch.setattr("fastcast.bus.tails.QUIET", -1.0)
        told: dict[str, int] = {}
        pieces = 0
        while some := tails.take():
            assert len(some) <= 500
            told |= some
            pieces += 1
        # The oldest were too many.
        assert (list(told.values()), pieces) == (list(range(1000, 11_000)), 20)


def test_what_was_stored_is_noted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcast.bus.tails.QUIET", 0.0)

    async def main() -> None:
        case = Case()
        await case.publish(*numbered(0, 7))
        await case.settle()
        assert case.outbox.tails.take() == {"s": 7}

    run(main())
