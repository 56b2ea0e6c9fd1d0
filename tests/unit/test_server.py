"""The server's own logic, on a fake hub: what it takes and refuses, what it asks of the core, how it ends."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import fastcast
from fastcast._core import CLOSED, MESSAGE
from fastcast.admin import Admin
from fastcast.client import Client
from fastcast.config import Config
from fastcast.server import Server
from tests.support.coroutines import run_alone as run
from tests.support.fake_launch import PORT, FakeLaunch, fake_launch
from tests.support.hosting import await_true
from tests.support.wire import TIMEOUT


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLaunch]:
    with fake_launch(monkeypatch) as launch:
        yield launch


class TestOptions:
    def test_an_option_that_does_not_exist_is_named(self) -> None:
        for make in (Server, fastcast.serve):
            with pytest.raises(fastcast.ConfigError, match="there is no option 'max_conections'"):
                make(max_conections=1)

    def test_a_wrong_value_is_told_with_its_option(self) -> None:
        with pytest.raises(fastcast.ConfigError, match="port: 70000 is not between"):
            Server(port=70000)

    def test_options_stand_over_those_of_a_config(self) -> None:
        server = Server(Config(port=1, shards=3), port=2)
        assert server.config == Config(port=2, shards=3)

    def test_another_config_may_be_set_before_the_start_and_not_later(self, launched: FakeLaunch) -> None:
        async def main() -> None:
            server = Server()
            server.config = Config(port=7)
            async with server:
                assert launched.config == Config(port=7)
                with pytest.raises(fastcast.FastcastError, match="before the server starts"):
                    server.config = Config()

        run(main)


class TestHandlers:
    NAMES = ("on_connect", "on_message", "on_disconnect", "on_slow", "on_join", "on_leave")

    @pytest.mark.parametrize("name", NAMES)
    def test_a_decorator_gives_the_function_back(self, name: str) -> None:
        def handle(*arguments: object) -> None: ...

        assert getattr(Server(presence=True), name)(handle) is handle

    @pytest.mark.parametrize("name", NAMES)
    def test_one_is_set_once_and_before_the_start(self, launched: FakeLaunch, name: str) -> None:
        async def main() -> None:
            server = Server(presence=True)
            getattr(server, name)(lambda *arguments: None)
            with pytest.raises(fastcast.FastcastError, match=f"{name} is set already"):
                getattr(server, name)(lambda *arguments: None)
            async with server:
                with pytest.raises(fastcast.FastcastError, match=f"{name} must be set before"):
                    getattr(server, name)(lambda *arguments: None)

        run(main)

    @pytest.mark.parametrize("name", ["on_join", "on_leave"])
    def test_who_joins_and_leaves_is_only_told_with_presence(self, launched: FakeLaunch, name: str) -> None:
        async def main() -> None:
            server = Server()
            getattr(server, name)(lambda client, channel: None)
            with pytest.raises(fastcast.ConfigError, match="need presence=True"):
                await server.start()

        run(main)

    @pytest.mark.parametrize(
        ("names", "options", "wants"),
        [
            ((), {}, (False, False, False)),
            (("on_connect",), {}, (False, True, False)),
            (("on_message",), {}, (True, True, False)),
            (("on_disconnect",), {}, (False, True, False)),
            (("on_slow",), {}, (False, True, False)),
            ((), {"presence": True}, (False, True, True)),
        ],
        ids=repr,
    )
    def test_the_core_tells_only_what_somebody_wants_to_hear(
        self, launched: FakeLaunch, names: tuple[str, ...], options: dict[str, Any], wants: tuple[bool, ...]
    ) -> None:
        async def main() -> None:
            server = Server(**options)
            for name in names:
                getattr(server, name)(lambda *arguments: None)
            async with server:
                assert launched.wants == dict(zip(("handled", "closes", "presence"), wants, strict=True))

        run(main)


class TestAsking:
    """What it can be asked for and told to send."""

    def test_it_passes_on_what_the_core_says(self, launched: FakeLaunch) -> None:
        async def main() -> None:
            async with Server(presence=True) as server:
                launched.fake.known = {1: {"id": 1}, 2: {"id": 2}}
                assert server.port == PORT
                assert server.broadcast("to all") == 3
                assert server.broadcast("to some", "/a") == 3
                assert server.publish("/a", b"again", key="k") == 3
                assert launched.fake.did == [
                    ("broadcast", "to all"),
                    ("publish", "/a", "to some", None),
                    ("publish", "/a", b"again", "k"),
                ]
                assert [client.id for client in server.clients("/a")] == [1, 2]
                assert (server.count(), server.count("/a")) == (2, 2)
                assert server.channels() == {"a": 1, "b.*": 2}
                assert server.client(7) == Client(server._clients, 7)
                assert server.presence("/a") == []
                assert server.stats()["clients"] == 2
                assert (server.stats("a")["sent"], server.stats("a")["queued"]) == (9, 2)
                assert await server.flush() == 7
                assert await server.inspect(server.client(1)) == {"id": 1}
                assert await server.inspect(server.client(9)) is None
                assert f":{PORT}/ (1 shards, epoll, room for 100 connections)" in server.describe()

        run(main)

    def test_a_channel_without_subscribers_has_zeros(self, launched: FakeLaunch) -> None:
        async def main() -> None:
            async with Server() as server:
                assert server.stats("nobody") == {
                    "members": 0,
                    "sent": 0,
                    "delivered": 0,
                    "dropped": 0,
                    "gone": 0,
                    "queued": 0,
                }

        run(main)

    def test_before_the_start_and_after_the_end_there_is_nobody(self, launched: FakeLaunch) -> None:
        asks: list[Callable[[Server], object]] = [
            lambda server: server.broadcast("x"),
            lambda server: server.publish("/", "x"),
            lambda server: server.clients("/"),
            lambda server: server.count(),
            lambda server: server.count("/"),
            lambda server: server.channels(),
            lambda server: server.client(1).send("x"),
        ]

        async def main() -> None:
            server = Server()

            async def assert_nobody() -> None:
                for ask in asks:
                    with pytest.raises(fastcast.FastcastError, match="not running"):
                        ask(server)
                for question in (server.flush(), server.inspect(server.client(1))):
                    with pytest.raises(fastcast.FastcastError, match="not running"):
                        await question

            await assert_nobody()
            for ask in (server.stats, server.describe):
                with pytest.raises(fastcast.FastcastError, match="not been started"):
                    ask()
            async with server:
                pass
            await assert_nobody()
            assert server.stats()["queued"] == 7

        run(main)

    def test_presence_has_to_be_asked_for(self, launched: FakeLaunch) -> None:
        async def main() -> None:
            async with Server() as server:
                with pytest.raises(fastcast.FastcastError, match="presence=True"):
                    server.presence("/")

        run(main)

    @pytest.mark.parametrize(
        ("channel", "complaint"),
        [
            ("prices.*", "is a pattern"),
            ("", "is empty"),
            ("a.>.b", "its last token"),
            ("x" * 1025, "1025 bytes"),
        ],
    )
    def test_why_a_channel_cannot_be_published_to_is_told(
        self, launched: FakeLaunch, channel: str, complaint: str
    ) -> None:
        async def main() -> None:
            async with Server() as server:
                launched.fake.error = ValueError("not a name of a channel")
                with pytest.raises(ValueError, match=complaint):
                    server.publish(channel, "x")
                with pytest.raises(ValueError, match=complaint):
                    server.broadcast("x", channel)

        run(main)

    @pytest.mark.parametrize(
        ("number", "error"),
        [
            (errno.EAGAIN, fastcast.OverloadError),
            (errno.EMSGSIZE, ValueError),
            (errno.ESHUTDOWN, fastcast.FastcastError),
        ],
    )
    def test_why_nothing_is_sent_is_told(
        self, launched: FakeLaunch, number: int, error: type[Exception]
    ) -> None:
        async def main() -> None:
            async with Server() as server:
                launched.fake.error = OSError(number, os.strerror(number))
                for send in (lambda: server.publish("/", "x"), lambda: server.broadcast("x")):
                    with pytest.raises(error):
                        send()

        run(main)


class TestEnd:
    def test_the_last_ends_are_told_before_stop_returns(self, launched: FakeLaunch) -> None:
        async def main() -> None:
            server = Server()
            told: list[int] = []

            @server.on_disconnect
            async def on_disconnect(client: Client, code: int, reason: str) -> None:
                await asyncio.sleep(0)
                told.append(client.id)

            await server.start()
            launched.fake.tell(*((CLOSED, client, 1001, "") for client in range(1000)))
            await server.stop()
            assert sorted(told) == list(range(1000))

        run(main)

    def test_handlers_may_finish_within_the_time_that_is_left(self, launched: FakeLaunch) -> None:
        async def main() -> None:
            server = Server()
            begun, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

            @server.on_message
            async def on_message(client: Client, message: str | bytes) -> None:
                begun.set()
                await go.wait()
                done.set()

            await server.start()
            launched.fake.tell((MESSAGE, 1, "/", "x"))
            await begun.wait()
            stopping = asyncio.create_task(server.stop(TIMEOUT))
            await asyncio.sleep(0)
            go.set()
            await stopping
            assert done.is_set()
            assert launched.fake.stopped_within == [TIMEOUT * 1000]

        run(main)

    def test_then_they_are_cancelled(self, launched: FakeLaunch, caplog: pytest.LogCaptureFixture) -> None:
        async def main() -> None:
            server = Server()
            begun, cancelled = asyncio.Event(), asyncio.Event()

            @server.on_message
            async def on_message(client: Client, message: str | bytes) -> None:
                begun.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled.set()
                    raise

            await server.start()
            launched.fake.tell((MESSAGE, 1, "/", "x"))
            await begun.wait()
            patient = asyncio.create_task(server.stop(3600))
            await asyncio.sleep(0)
            await server.stop(0)
            await patient
            assert cancelled.is_set()

        run(main)
        assert "1 handlers did not finish in time" in caplog.text

    def test_who_waits_for_the_core_is_answered(self, launched: FakeLaunch) -> None:
        async def main() -> None:
            server = Server()
            await server.start()
            launched.fake.silent = True
            flush = asyncio.create_task(server.flush())
            inspection = asyncio.create_task(server.inspect(server.client(1)))
            await asyncio.sleep(0)
            await server.stop()
            assert (await flush, await inspection) == (7, None)

        run(main)

    def test_a_server_that_could_not_start_may_try_again(self, launched: FakeLaunch) -> None:
        async def main() -> None:
            server = Server()
            launched.error = fastcast.StartError("the port is taken")
            with pytest.raises(fastcast.StartError):
                await server.start()
            launched.error = None
            async with server:
                with pytest.raises(fastcast.FastcastError, match="only once"):
                    await server.start()
            with pytest.raises(fastcast.FastcastError, match="only once"):
                await server.start()

        run(main)


class TestThread:
    """start_in_thread and close."""

    def test_it_runs_for_the_time_of_its_block(self, launched: FakeLaunch) -> None:
        server = Server()
        names: list[str] = []
        server.on_message(lambda client, message: names.append(threading.current_thread().name))
        with server.start_in_thread() as running:
            assert running is server
            launched.fake.tell((MESSAGE, 1, "/", "x"))
            assert server.broadcast("x") == 3
            await_true(lambda: bool(names), "the handler to be called")
        assert names == ["fastcast"]
        assert [thread.name for thread in threading.enumerate()].count("fastcast") == 0

    def test_a_block_may_start_it(self, launched: FakeLaunch) -> None:
        with Server() as server:
            assert server.broadcast("x") == 3
        server.close()

    def test_why_it_cannot_start_is_raised_where_it_was_started(self, launched: FakeLaunch) -> None:
        launched.error = fastcast.StartError("the port is taken")
        server = Server()
        with pytest.raises(fastcast.StartError, match="the port is taken"):
            server.start_in_thread()
        assert [thread.name for thread in threading.enumerate()].count("fastcast") == 0
        launched.error = None
        with server.start_in_thread(), pytest.raises(fastcast.FastcastError, match="only once"):
            server.start_in_thread()

    @pytest.mark.parametrize("failing", [False, True])
    def test_who_is_interrupted_while_it_starts_has_no_server(
        self, launched: FakeLaunch, failing: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def launch(*args: Any, **options: Any) -> Any:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            if failing:
                raise fastcast.StartError("the port is taken")
            return launched(*args, **options)

        monkeypatch.setattr("fastcast.server.launch", launch)
        with pytest.raises((KeyboardInterrupt, fastcast.StartError) if failing else KeyboardInterrupt):
            Server().start_in_thread()
        assert [thread.name for thread in threading.enumerate()].count("fastcast") == 0
        assert launched.fake.stopped_within == ([] if failing else [0])

    def test_close_before_the_start_does_nothing(self) -> None:
        Server().close()

    def test_a_handler_cannot_wait_for_its_own_end(self, launched: FakeLaunch) -> None:
        server = Server()
        raised: list[Exception] = []

        @server.on_message
        def on_message(client: Client, message: str | bytes) -> None:
            try:
                server.close()
            except fastcast.FastcastError as error:
                raised.append(error)

        with server.start_in_thread():
            launched.fake.tell((MESSAGE, 1, "/", "x"))
            await_true(lambda: bool(raised), "the handler to be called")
        assert "its own thread" in str(raised[0])

    def test_it_may_be_stopped_by_a_handler(self, launched: FakeLaunch) -> None:
        server = Server()
        tasks: list[asyncio.Task[None]] = []
        server.on_message(
            lambda client, message: tasks.append(asyncio.get_running_loop().create_task(server.stop()))
        )
        with server.start_in_thread():
            launched.fake.tell((MESSAGE, 1, "/", "x"))
            assert server._thread is not None
            server._thread.join(TIMEOUT)
        assert launched.fake.stopped_within == [30_000]


class TestRun:
    """run."""

    def test_a_stop_while_its_admin_port_starts_is_its_end_as_well(
        self, launched: FakeLaunch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = Server(admin_port=0, admin_token="a token that nobody guesses")
        start = Admin.start

        async def slowly(admin: Admin) -> None:
            await server.stop(0)
            await start(admin)

        monkeypatch.setattr(Admin, "start", slowly)
        called: list[str] = []
        assert server.run(lambda: called.append("ready")) == 0
        assert called == []
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.admin_port), TIMEOUT)

    def test_what_ready_raises_ends_the_server(self, launched: FakeLaunch) -> None:
        def ready() -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            Server().run(ready)
        assert launched.fake.stopped_within == [0]

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_it_and_what_handled_it_before_does_so_again(
        self, launched: FakeLaunch, number: signal.Signals
    ) -> None:
        def before(number: int, frame: object) -> None: ...

        old = {each: signal.signal(each, before) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            server = Server(shutdown_timeout=7)
            assert server.run(ready=lambda: signal.raise_signal(number)) == 0
            assert launched.fake.stopped_within == [7000]
            assert [signal.getsignal(each) for each in old] == [before, before]
        finally:
            for each, handler in old.items():
                signal.signal(each, handler)

    def test_a_second_signal_ends_it_at_once(
        self, launched: FakeLaunch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stop(timeout: int) -> None:
            launched.fake.stopped_within.append(timeout)
            if timeout == 0:
                launched.fake.end()
            else:
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(launched.fake, "stop", stop)
        assert Server().run(ready=lambda: signal.raise_signal(signal.SIGTERM)) == 0
        assert launched.fake.stopped_within == [30_000, 0]

    def test_it_ends_when_the_program_stops_it(self, launched: FakeLaunch) -> None:
        server = Server()
        tasks: list[asyncio.Task[None]] = []
        server.on_message(
            lambda client, message: tasks.append(asyncio.get_running_loop().create_task(server.stop()))
        )
        assert server.run(ready=lambda: launched.fake.tell((MESSAGE, 1, "/", "x"))) == 0

    def test_it_needs_the_main_thread(self, launched: FakeLaunch) -> None:
        raised: list[Exception] = []

        def body() -> None:
            try:
                Server().run()
            except fastcast.FastcastError as error:
                raised.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        assert "main thread" in str(raised[0])

    def test_what_makes_the_start_fail_is_raised(self, launched: FakeLaunch) -> None:
        launched.error = fastcast.StartError("the port is taken")
        before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
        with pytest.raises(fastcast.StartError):
            Server().run()
        assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before
