"""Between the core and the handlers: all is taken, in order, and only as much as there is room for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from fastcast._core import CLOSED, JOINED, LEFT, MESSAGE, MISSING, SLOW
from fastcast.admission import Admission, Answer
from fastcast.client import Client, Clients
from fastcast.config import Config
from fastcast.dispatch import MOST_WAITING
from fastcast.intake import Intake
from fastcast.presence import Presence
from tests.support.fake_hub import AT_ONCE, FakeHub, fake_hub
from tests.support.wire import TIMEOUT

ADMITTED = Answer(b"101", ("/",), "", None)
REFUSED = Answer(b"403", None, "", None)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop go on until a condition holds."""
    while not condition():
        await asyncio.sleep(0)


async def turns(number: int = 20) -> None:
    """Let everything happen that waits for nothing but its turn."""
    for _ in range(number):
        await asyncio.sleep(0)


class Case:
    """An intake on a fake hub, with the admission that a test chooses."""

    def __init__(self, fake: FakeHub, **options: Any) -> None:
        self.fake = fake
        self.options = options
        self.handlers: dict[str, Callable[..., object]] = {}
        self.clients = Clients()
        self.presence = Presence()
        self.choose: Callable[[bytes], Answer | Coroutine[Any, Any, Answer]] = lambda head: ADMITTED
        self.ended = asyncio.Event()
        self.ready: Callable[..., asyncio.Future[Any] | None] | None = None

    def decide(self, head: bytes, host: str, port: int) -> Answer | Coroutine[Any, Any, Answer]:
        """What an admission does."""
        return self.choose(head)

    def begin(self) -> Intake:
        """Make the intake, which works at once."""
        intake = Intake(
            self.fake.hub,
            Config(**self.options),
            cast(Admission, self),
            self.handlers,
            self.clients,
            self.presence,
            self.ended.set,
            self.ready,
        )
        self.clients.begin(self.fake.hub, keep=True)
        return intake


def run(main: Callable[[Case], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Run a test's coroutine; whatever it has begun must have ended with it."""

    async def whole() -> None:
        with fake_hub() as fake:
            case = Case(fake, **options)
            await asyncio.wait_for(main(case), TIMEOUT)
            fake.end()
            await asyncio.wait_for(case.ended.wait(), TIMEOUT)
            assert not asyncio.get_running_loop().remove_reader(fake.event_fd)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(whole())


class TestRequests:
    def test_each_gets_its_answer(self) -> None:
        async def main(case: Case) -> None:
            case.choose = lambda head: REFUSED if head == b"bad" else ADMITTED
            case.begin()
            case.fake.ask(1, 2)
            case.fake.ask(3, head=b"bad")
            await until(lambda: len(case.fake.answered) == 3)
            assert case.fake.answered == [
                (1, b"101", ("/",), "", None),
                (2, b"101", ("/",), "", None),
                (3, b"403", None, "", None),
            ]

        run(main)

    def test_one_that_takes_its_time_holds_up_no_other(self) -> None:
        async def main(case: Case) -> None:
            go = asyncio.Event()

            async def slowly() -> Answer:
                await go.wait()
                return REFUSED

            case.choose = lambda head: slowly() if head == b"slow" else ADMITTED
            case.begin()
            case.fake.ask(1, head=b"slow")
            case.fake.ask(2)
            await until(lambda: case.fake.answered)
            assert [answer[0] for answer in case.fake.answered] == [2]
            go.set()
            await until(lambda: len(case.fake.answered) == 2)
            assert case.fake.answered[1] == (1, b"403", None, "", None)

        run(main)

    def test_who_waits_for_channels_is_admitted_when_there_is_nothing_to_wait_for_any_more(self) -> None:
        async def main(case: Case) -> None:
            waited: list[asyncio.Future[Any]] = []

            def ready(channels: object, since: object) -> asyncio.Future[Any] | None:
                if len(waited) == 2:
                    return None
                waited.append(asyncio.get_running_loop().create_future())
                return waited[-1]

            case.ready = ready
            case.begin()
            case.fake.ask(1)
            await until(lambda: len(waited) == 1)
            waited[0].set_result(None)
            await until(lambda: len(waited) == 2)
            await turns()
            assert case.fake.answered == []
            waited[1].set_result(None)
            await until(lambda: case.fake.answered)

        run(main)

    def test_so_many_at_a_time_are_decided_and_the_rest_stays_in_the_core(self) -> None:
        async def main(case: Case) -> None:
            go = asyncio.Event()
            deciding = most = 0

            async def slowly() -> Answer:
                nonlocal deciding, most
                deciding += 1
                most = max(most, deciding)
                await go.wait()
                deciding -= 1
                return ADMITTED

            case.choose = lambda head: slowly()
            case.begin()
            clients = 4 * MOST_WAITING
            case.fake.ask(*range(clients))
            await until(lambda: len(case.fake.asked) <= clients - MOST_WAITING)
            await turns()
            assert len(case.fake.asked) >= clients - MOST_WAITING - AT_ONCE - 5
            assert most == 5
            go.set()
            await until(lambda: len(case.fake.answered) == clients)
            assert most == 5

        run(main, max_handlers=5)

    def test_requests_without_end_leave_turns_to_everything_else(self) -> None:
        async def main(case: Case) -> None:
            handled: list[str] = []
            case.handlers["on_message"] = lambda client, message: handled.append(message)

            def come_again(head: bytes) -> Answer:
                case.fake.ask(1)
                return REFUSED

            case.choose = come_again
            case.begin()
            case.fake.ask(1)
            case.fake.tell((MESSAGE, 2, "/", "heard"))
            await until(lambda: handled)
            assert case.fake.answered
            case.choose = lambda head: REFUSED
            await until(lambda: not case.fake.asked)

        run(main)

    def test_a_slow_decision_holds_up_no_answer_before_it(self) -> None:
        async def main(case: Case) -> None:
            def slowly(head: bytes) -> Answer:
                time.sleep(0.01)
                return REFUSED

            case.choose = slowly
            case.begin()
            case.fake.ask(*range(10))
            await until(lambda: case.fake.answered)
            assert len(case.fake.answered) == 1
            await until(lambda: len(case.fake.answered) == 10)

        run(main)

    def test_the_state_is_there_before_the_first_event(self) -> None:
        async def main(case: Case) -> None:
            case.choose = lambda head: Answer(b"101", (), "", "state")
            seen: list[Any] = []
            case.handlers["on_message"] = lambda client, message: seen.append(client.state)
            case.begin()
            case.fake.ask(1)
            await until(lambda: case.fake.answered)
            case.fake.tell((MESSAGE, 1, None, "hello"))
            await until(lambda: seen)
            assert seen == ["state"]

        run(main)

    def test_once_it_stops_nobody_is_admitted(self) -> None:
        async def main(case: Case) -> None:
            cancelled: list[bool] = []

            async def slowly() -> Answer:
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled.append(True)
                return ADMITTED

            case.choose = lambda head: slowly()
            intake = case.begin()
            case.fake.ask(1)
            await until(lambda: not case.fake.asked)
            intake.stop()
            case.choose = lambda head: ADMITTED
            case.fake.ask(2)
            await until(lambda: cancelled and not case.fake.asked)
            await turns()
            assert case.fake.answered == []

        run(main)


class TestEvents:
    def test_each_kind_goes_to_its_handler(self) -> None:
        async def main(case: Case) -> None:
            told: list[tuple[Any, ...]] = []
            for name in ("on_message", "on_disconnect", "on_slow", "on_join", "on_leave"):
                case.handlers[name] = lambda client, *what, name=name: told.append(
                    (name, client.id, client.channel, *what)
                )
            case.begin()
            case.fake.tell(
                (JOINED, 1, "/a"),
                (MESSAGE, 1, "/a", "text"),
                (MESSAGE, 2, None, b"bytes"),
                (SLOW, 1, "drop-oldest", 5000),
                (LEFT, 1, "/a"),
                (CLOSED, 1, 1001, "bye"),
            )
            await until(lambda: len(told) == 6)
            assert told == [
                ("on_join", 1, None, "/a"),
                ("on_message", 1, "/a", "text"),
                ("on_message", 2, None, b"bytes"),
                ("on_slow", 1, None, "drop-oldest", 5000),
                ("on_leave", 1, None, "/a"),
                ("on_disconnect", 1, None, 1001, "bye"),
            ]

        run(main)

    def test_what_nobody_handles_is_taken_all_the_same(self) -> None:
        async def main(case: Case) -> None:
            case.begin()
            case.fake.tell((SLOW, 1, "close", 1), (CLOSED, 1, 1000, ""))
            await until(lambda: not case.fake.waiting)

        run(main)

    def test_the_end_of_a_client_waits_for_its_handlers_and_takes_its_state(self) -> None:
        async def main(case: Case) -> None:
            go = asyncio.Event()
            seen: list[Any] = []

            async def handle(client: Client, message: str) -> None:
                client.state = message
                await go.wait()
                seen.append(("handled", client.state))

            case.handlers["on_message"] = handle
            case.handlers["on_disconnect"] = lambda client, code, reason: seen.append((code, client.state))
            case.fake.known[1] = {"state": "open"}
            case.begin()
            case.fake.tell((MESSAGE, 1, "/", "hello"), (CLOSED, 1, 1006, ""))
            await turns()
            assert seen == []
            go.set()
            await until(lambda: len(seen) == 2)
            assert seen == [("handled", "hello"), (1006, "hello")]
            assert case.clients.state(1) is None

        run(main)

    def test_presence_is_what_handlers_have_been_told(self) -> None:
        async def main(case: Case) -> None:
            go = asyncio.Event()
            seen: list[list[int]] = []

            async def on_join(client: Client, channel: str) -> None:
                seen.append(case.presence.clients(channel))
                await go.wait()
                # It has left meanwhile, but that is still to be told.
                seen.append(case.presence.clients(channel))

            case.handlers["on_join"] = on_join
            case.handlers["on_leave"] = lambda client, channel: seen.append(case.presence.clients(channel))
            case.begin()
            case.fake.tell((JOINED, 1, "/"), (LEFT, 1, "/"))
            await turns()
            go.set()
            await until(lambda: len(seen) == 3)
            assert seen == [[1], [1], []]

        run(main)

    def test_no_more_is_taken_while_handlers_are_behind(self) -> None:
        async def main(case: Case) -> None:
            go = asyncio.Event()
            handled: list[int] = []

            async def handle(client: Client, message: str) -> None:
                await go.wait()
                handled.append(int(message))

            case.handlers["on_message"] = handle
            case.begin()
            total = 10 * MOST_WAITING
            case.fake.tell(*((MESSAGE, number % 7, "/", str(number)) for number in range(total)))
            await until(lambda: total - len(case.fake.waiting) >= MOST_WAITING)
            await turns()
            assert total - len(case.fake.waiting) <= MOST_WAITING + 2 + AT_ONCE
            go.set()
            await until(lambda: len(handled) == total)
            for client in range(7):
                of_client = [number for number in handled if number % 7 == client]
                assert of_client == sorted(of_client)

        run(main, max_handlers=2)

    def test_handlers_that_wait_for_an_answer_get_it_however_many_they_are(self) -> None:
        async def main(case: Case) -> None:
            handled: list[Any] = []

            async def handle(client: Client, message: str) -> None:
                await intake.questions.flush()
                handled.append(await intake.questions.inspect(client.id))

            case.handlers["on_message"] = handle
            intake = case.begin()
            total = 3 * MOST_WAITING
            case.fake.tell(*((MESSAGE, number, "/", "x") for number in range(total)))
            await until(lambda: len(handled) == total)
            assert set(handled) == {None}

        run(main, max_handlers=5)

    def test_a_handler_that_ends_the_program_leaves_the_rest_to_be_taken(self) -> None:
        with fake_hub() as fake, asyncio.Runner() as runner:
            handled: list[str] = []

            def handle(client: Client, message: str) -> None:
                handled.append(message)
                if message == "end":
                    raise SystemExit

            async def begin() -> Case:
                case = Case(fake)
                case.handlers["on_message"] = handle
                case.begin()
                fake.tell((MESSAGE, 1, "/", "end"), *[(MESSAGE, 1, "/", "more")] * AT_ONCE)
                return case

            async def go_on() -> None:
                await until(lambda: not fake.waiting)
                fake.end()
                await case.ended.wait()

            case = runner.run(begin())
            with pytest.raises(SystemExit):
                runner.run(asyncio.wait_for(asyncio.Event().wait(), TIMEOUT))
            runner.run(go_on())
            assert handled == ["end"] + ["more"] * AT_ONCE


class TestEnd:
    def test_messages_are_not_handled_any_more_and_ends_are(self) -> None:
        async def main(case: Case) -> None:
            told: list[Any] = []
            case.handlers["on_message"] = lambda client, message: told.append(message)
            case.handlers["on_disconnect"] = lambda client, code, reason: told.append(code)
            intake = case.begin()
            intake.stop()
            case.fake.tell((MESSAGE, 1, "/", "too late"), (CLOSED, 1, 1001, ""))
            case.fake.end()
            await case.ended.wait()
            assert told == [1001]

        run(main)

    def test_it_has_not_ended_before_the_last_handler(self) -> None:
        async def main(case: Case) -> None:
            go = asyncio.Event()
            case.handlers["on_disconnect"] = lambda client, code, reason: go.wait()
            intake = case.begin()
            intake.stop()
            case.fake.tell((CLOSED, 1, 1001, ""))
            case.fake.end()
            await turns()
            assert not case.ended.is_set()
            go.set()
            await case.ended.wait()

        run(main)

    def test_in_a_hurry_every_end_is_told_and_nobody_is_waited_for(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main(case: Case) -> None:
            told: list[int] = []

            async def on_disconnect(client: Client, code: int, reason: str) -> None:
                told.append(client.id)
                await asyncio.Event().wait()

            case.handlers["on_disconnect"] = on_disconnect
            intake = case.begin()
            clients = 5 * MOST_WAITING
            case.fake.tell(*((CLOSED, client, 1006, "") for client in range(clients)))
            intake.stop()
            case.fake.end()
            await until(lambda: len(told) == 10)
            await turns()
            assert len(told) == 10
            intake.hurry()
            await case.ended.wait()
            assert sorted(told) == list(range(clients))

        run(main, max_handlers=10)
        assert "handlers did not finish in time, and are cancelled" in caplog.text

    def test_who_waits_for_an_answer_is_told_that_all_is_over(self) -> None:
        async def main(case: Case) -> None:
            case.fake.silent = True
            intake = case.begin()
            asking = asyncio.gather(intake.questions.flush(), intake.questions.inspect(1))
            await turns()
            case.fake.end()
            assert list(await asking) == [None, None]
            await case.ended.wait()

        run(main)

    def test_a_state_that_is_set_late_is_checked_and_given_up(self) -> None:
        async def main(case: Case) -> None:
            case.begin()
            Client(case.clients, 1).state = "late"
            assert case.fake.waiting[0][0] == MISSING
            await until(lambda: not case.fake.waiting)
            assert case.clients.state(1) is None

        run(main)


def test_what_one_event_raises_is_not_the_end_of_the_others() -> None:
    async def main(case: Case) -> None:
        told: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: told.append(context["exception"])
        )
        gone: list[int] = []
        case.handlers["on_disconnect"] = lambda client, code, reason: gone.append(client.id)
        intake = case.begin()

        def fail(*what: object) -> None:
            raise MemoryError

        intake._takers[SLOW] = fail
        case.fake.tell((CLOSED, 1, 1000, ""), (SLOW, 2, "close", 1), (CLOSED, 3, 1000, ""))
        await until(lambda: len(gone) == 2)
        assert [type(error) for error in told] == [MemoryError]

    run(main)
