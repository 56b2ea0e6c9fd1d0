"""What Redis is asked for, and what becomes of its answers, without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Any, cast

import pytest
from redis.asyncio import Redis as Client

from fastcast.bus.engine import PATIENCE, Access, Place, Unreachable
from fastcast.bus.redis import Redis
from tests.support.hosting import MIB, Run
from tests.support.wire import TIMEOUT

URL = "redis://127.0.0.1:6379"


class Library:
    """Stands in for the client library, and a Redis behind it that does at once what it's asked for."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, ...]] = []
        self.pipelines: list[list[tuple[str, bytes]]] = []
        self.is_mute = False
        """It confirms nothing."""
        self.seconds = 0.0
        """By a `Clock`, for each MiB to be sent and answered."""
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    @property
    def client(self) -> Client:
        return cast(Client, self)

    def bring(self, glob: str, subject: str, payload: bytes = b"x") -> None:
        """A message that a pattern takes in."""
        self._answer("pmessage", subject, pattern=glob.encode(), data=payload)

    def _answer(self, kind: str, channel: str, **more: Any) -> None:
        self._answers.put_nowait({"type": kind, "channel": channel.encode(), **more})

    def pubsub(self) -> Library:
        return self

    def pipeline(self, *, transaction: bool) -> Pipeline:
        assert not transaction
        return Pipeline(self)

    async def connect(self) -> None:
        pass

    async def ping(self) -> None:
        self._answer("pong", "")

    async def get_message(self, *, timeout: None) -> dict[str, Any]:
        return await self._answers.get()

    async def subscribe(self, *channels: str) -> None:
        self._confirm("subscribe", channels)

    async def unsubscribe(self, *channels: str) -> None:
        self._confirm("unsubscribe", channels)

    async def psubscribe(self, *globs: str) -> None:
        self._confirm("psubscribe", globs)

    async def punsubscribe(self, *globs: str) -> None:
        self._confirm("punsubscribe", globs)

    def _confirm(self, kind: str, names: Collection[str]) -> None:
        self.commands.append((kind, *names))
        if not self.is_mute:
            for name in names:
                self._answer(kind, name)

    async def aclose(self) -> None:
        pass


class Pipeline:
    """Stands in for a pipeline: what has been handed over is there when it is executed."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._messages: list[tuple[str, bytes]] = []

    async def __aenter__(self) -> Pipeline:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def publish(self, subject: str, payload: bytes) -> None:
        self._messages.append((subject, payload))

    async def execute(self) -> None:
        if self._library.seconds:
            size = sum(len(payload) for _, payload in self._messages)
            await Clock.wait(self._library.seconds * size / MIB)
        self._library.pipelines.append(self._messages)


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time passes when a test says so."""

    _passed = 0.0

    def time(self) -> float:
        return super().time() + self._passed

    @staticmethod
    async def wait(seconds: float) -> None:
        """Have so much time pass at once, and all that was to happen by then."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Clock)
        loop._passed += seconds
        for _ in range(5):  # a timer that is due calls what cancels what is waiting
            await asyncio.sleep(0)


class Case:
    """The engine over the stand-in, what it has received, and of which losses it has told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.library = Library()
        self.received: list[tuple[str, str]] = []
        """Subjects, each with the subscription that brought it."""
        self.losses: list[str] = []
        self.raises: Exception | None = None
        """What comes of a message that is received."""
        self.engine = Redis(Access(urls=(URL,)))
        monkeypatch.setattr(self.engine, "_open", lambda url: self.library.client)

    async def connect(self) -> None:
        await self.engine.connect(self._receive, self.losses.append)

    def _receive(self, subject: str, payload: bytes, source: str, place: Place | None) -> None:
        if self.raises is not None:
            raise self.raises
        self.received.append((subject, source))

    async def hears(self, glob: str, *subjects: str) -> list[tuple[str, str]]:
        """What is received of messages that a pattern of Redis brings."""
        self.received = []
        for subject in subjects:
            self.library.bring(glob, subject)
        await self.engine.subscribe(["f.end"])  # what came before its confirmation has been read
        return sorted(self.received)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(TIMEOUT):
            while not condition():
                await asyncio.sleep(0.001)


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> Case:
    return Case(monkeypatch)


class TestPatterns:
    """Redis has one pattern for `a.*` and `a.>`."""

    GLOB = "f.a.*"

    @pytest.mark.parametrize(
        "batches", [[["f.a.*"], ["f.a.>"]], [["f.a.>"], ["f.a.*"]], [["f.a.*", "f.a.>"]]]
    )
    def test_each_subject_gets_what_it_takes_in(
        self, run: Run, case: Case, batches: Sequence[Sequence[str]]
    ) -> None:
        async def main() -> None:
            await case.connect()
            for subjects in batches:
                await case.engine.subscribe(subjects)
            assert case.library.commands == [("psubscribe", self.GLOB)]
            assert await case.hears(self.GLOB, "f.a.b", "f.a.b.c") == [
                ("f.a.b", "f.a.*"),
                ("f.a.b", "f.a.>"),
                ("f.a.b.c", "f.a.>"),
            ]
            await case.engine.close()

        run(main())

    @pytest.mark.parametrize(("first", "last"), [("f.a.*", "f.a.>"), ("f.a.>", "f.a.*")])
    def test_the_pattern_goes_with_its_last_subject(
        self, run: Run, case: Case, first: str, last: str
    ) -> None:
        async def main() -> None:
            await case.connect()
            await case.engine.subscribe([first, last])
            await case.engine.unsubscribe([first])
            assert await case.hears(self.GLOB, "f.a.b") == [("f.a.b", last)]
            case.library.commands.clear()
            await case.engine.unsubscribe([last])
            assert case.library.commands == [("punsubscribe", self.GLOB)]
            assert await case.hears(self.GLOB, "f.a.b") == []  # it was on its way
            await case.engine.subscribe([first])
            assert case.library.commands[-1] == ("psubscribe", self.GLOB)
            assert await case.hears(self.GLOB, "f.a.b") == [("f.a.b", first)]
            assert case.losses == []
            await case.engine.close()

        run(main())

    def test_a_new_connection_has_none(self, run: Run, case: Case) -> None:
        async def main() -> None:
            for _ in range(2):
                await case.connect()
                case.library.commands.clear()
                await case.engine.subscribe(["f.a.*"])
                assert case.library.commands == [("psubscribe", self.GLOB)]
                await case.engine.close()

        run(main())


class TestReader:
    """What ends it is a loss, whatever it is."""

    def test_an_error_that_nobody_expects(
        self, run: Run, case: Case, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main() -> None:
            await case.connect()
            await case.engine.subscribe(["f.*"])
            case.raises = KeyError("name")
            case.library.bring("f.*", "f.a")
            await case.until(lambda: case.losses)
            await case.engine.close()

        caplog.set_level("ERROR", "fastcast")
        run(main())
        assert case.losses == ["KeyError('name')"]
        [record] = caplog.records
        assert record.name == "fastcast"
        assert record.exc_info is not None
        assert record.exc_info[1] is case.raises

    def test_who_waits_for_a_subscription_hears_of_it(self, run: Run, case: Case) -> None:
        async def main() -> None:
            await case.connect()
            await case.engine.subscribe(["f.*"])
            case.raises = KeyError("name")
            case.library.is_mute = True
            subscribing = asyncio.create_task(case.engine.subscribe(["f.a"]))
            await case.until(lambda: case.library.commands[-1] == ("subscribe", "f.a"))
            case.library.bring("f.*", "f.a")
            with pytest.raises(Unreachable, match="KeyError"):
                await subscribing
            await case.engine.close()

        run(main())

    def test_a_connection_that_breaks_needs_no_traceback(
        self, run: Run, case: Case, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main() -> None:
            await case.connect()
            await case.engine.subscribe(["f.*"])
            case.raises = ConnectionResetError("it is gone")
            case.library.bring("f.*", "f.a")
            await case.until(lambda: case.losses)
            await case.engine.close()

        run(main())
        assert case.losses == ["it is gone"]
        assert not caplog.records


class TestPipelines:
    """Redis has some seconds for each, so that none may be large."""

    @pytest.mark.parametrize(
        ("sizes", "expected"),
        [
            ([], []),
            ([0, 1, 2], [[0, 1, 2]]),
            (512 * [100], [512 * [100]]),
            ([MIB, 1, MIB - 1, 1], [[MIB], [1, MIB - 1], [1]]),
            ([1, 5 * MIB, 1], [[1], [5 * MIB], [1]]),
            (7 * [MIB // 2], [*(3 * [2 * [MIB // 2]]), [MIB // 2]]),
        ],
    )
    def test_what_is_sent_at_a_time(
        self, run: Run, case: Case, sizes: Sequence[int], expected: Sequence[Sequence[int]]
    ) -> None:
        messages = [(f"f.{n}", size * b"x") for n, size in enumerate(sizes)]

        async def main() -> None:
            await case.connect()
            await case.engine.publish(messages)
            await case.engine.close()

        run(main())
        assert [[len(payload) for _, payload in each] for each in case.library.pipelines] == expected
        assert [message for each in case.library.pipelines for message in each] == messages

    def test_a_line_that_is_slow_is_no_loss(self, case: Case) -> None:
        messages = [("f.a", MIB * b"x")] * 5

        async def main() -> None:
            await case.connect()
            case.library.seconds = 0.6 * PATIENCE
            await case.engine.publish(messages)
            await case.engine.close()

        with asyncio.Runner(loop_factory=Clock) as runner:
            runner.run(main())
        assert len(case.library.pipelines) == len(messages)

    def test_a_broker_that_does_not_answer_is_one(self, case: Case) -> None:
        async def main() -> None:
            await case.connect()
            case.library.seconds = 1.1 * PATIENCE
            with pytest.raises(Unreachable):
                await case.engine.publish([("f.a", MIB * b"x")])
            await case.engine.close()

        with asyncio.Runner(loop_factory=Clock) as runner:
            runner.run(main())
