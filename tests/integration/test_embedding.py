"""A server in programs of every kind: beside a sync one, as the program, or run by `fastcast serve`."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import fastcast
from tests.support.hosting import (
    Run,
    ServerFactory,
    address_of,
    await_true,
    check_accounts,
    on_loop,
    serve,
)
from tests.support.server import READY, running
from tests.support.wire import TEXT, TIMEOUT, Address, Client, Frame, close_code, frame

pytestmark = pytest.mark.usefixtures("nothing_left")

PROGRAM = """
import signal
import sys
import threading
import fastcast

server = fastcast.Server(port=0, shards=2, shutdown_timeout=30)

@server.on_message
def on_message(client, message):
    client.send(f"{message} to you")

@server.on_disconnect
def on_disconnect(client, code, reason):
    print("left", code, flush=True)

def make():
    return server
"""


def talk(address: Address, reply: str = "hello") -> None:
    """Assert that a message is answered."""
    with Client(address) as client:
        client.send(frame(TEXT, b"hello"))
        assert client.read_message() == Frame(TEXT, reply.encode())
        client.close()


@contextmanager
def program(tmp_path: Path, ending: str) -> Iterator[tuple[subprocess.Popen[str], Address]]:
    """A process of a program that ends with these lines, and where it listens; it has to end by itself."""
    file = tmp_path / "program.py"
    file.write_text(PROGRAM + ending, "utf-8")
    process = subprocess.Popen([sys.executable, file], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        match = READY.search(process.stdout.readline())
        assert match is not None
        yield process, (match["host"], int(match["port"]))
        process.wait(3 * TIMEOUT)
    finally:
        process.kill()
        process.communicate()


class TestThread:
    """Server.start_in_thread."""

    def test_a_sync_program_needs_no_loop(self) -> None:
        server = serve()
        with server.start_in_thread():
            talk(address_of(server))
            with Client(address_of(server)) as client:
                assert server.publish("/", "from the main thread") == 1
                assert client.read_message() == Frame(TEXT, b"from the main thread")
                client.close()
        check_accounts(server.stats())
        with pytest.raises(ConnectionRefusedError):
            Client(address_of(server))

    def test_start_and_close_without_a_block(self) -> None:
        server = serve()
        server.start_in_thread()
        talk(address_of(server))
        server.close()
        server.close()
        check_accounts(server.stats())

    def test_close_lets_clients_have_what_was_published(self) -> None:
        server = serve()
        server.start_in_thread()
        with Client(address_of(server)) as client:
            for number in range(100):
                server.publish("/", f"{number}")
            closing = threading.Thread(target=server.close)
            closing.start()
            assert [int(client.read_message().payload) for _ in range(100)] == list(range(100))
            last = client.read_frame()
            assert close_code(last) == 1001
            client.send(frame(last.opcode, last.payload))
            assert client.at_end()
            closing.join(TIMEOUT)
        check_accounts(server.stats())

    def test_handlers_run_on_its_thread_and_coroutines_on_its_loop(self) -> None:
        server = serve()
        names: set[str] = set()

        @server.on_message
        async def on_message(client: fastcast.Client, message: str | bytes) -> None:
            await asyncio.sleep(0)
            names.add(threading.current_thread().name)
            client.send(message)

        with server.start_in_thread():
            talk(address_of(server))
        assert names == {"fastcast"}

    def test_several_side_by_side_and_again_and_again(self) -> None:
        for _ in range(5):
            with serve().start_in_thread() as one, serve().start_in_thread() as two:
                talk(address_of(one))
                talk(address_of(two))

    def test_why_it_cannot_start_is_raised(self) -> None:
        with serve().start_in_thread() as first:
            second = serve(port=first.port)
            with pytest.raises(fastcast.StartError, match="Address already in use"):
                second.start_in_thread()
            talk(address_of(first))

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_a_handler_that_ends_its_thread_ends_the_server(self) -> None:
        server = fastcast.Server(port=0, shards=1)

        @server.on_message
        def leave(client: fastcast.Client, message: str | bytes) -> None:
            sys.exit(3)

        server.start_in_thread()
        with Client(address_of(server)) as client:
            client.send(frame(TEXT, b"x"))
            with suppress(ConnectionResetError):
                assert [close_code(last) for last in client.frames()] == [1001]
        server.close()
        with pytest.raises(fastcast.FastcastError):
            server.publish("/", "x")
        with pytest.raises(ConnectionRefusedError):
            Client(address_of(server))

    def test_an_exception_in_its_block_ends_it(self) -> None:
        server = serve()
        with pytest.raises(ZeroDivisionError), server.start_in_thread():
            raise ZeroDivisionError
        check_accounts(server.stats())


class TestLoop:
    """In a loop of the program's own."""

    def test_no_task_is_left_behind(self, run: Run) -> None:
        async def main() -> None:
            before = asyncio.all_tasks()
            server = serve(presence=True)

            @server.on_connect
            async def admit(request: fastcast.Request) -> None:
                await asyncio.sleep(0)

            @server.on_message
            async def on_message(client: fastcast.Client, message: str | bytes) -> None:
                await asyncio.sleep(0)
                client.send(message)

            @server.on_disconnect
            async def on_disconnect(client: fastcast.Client, code: int, reason: str) -> None:
                await asyncio.sleep(0)

            async with server:
                for _ in range(20):
                    await asyncio.to_thread(talk, address_of(server))
            assert asyncio.all_tasks() == before

        run(main())

    def test_stop_waits_for_running_handlers_and_then_cancels_them(self, run: Run) -> None:
        async def main() -> None:
            server = serve()
            outcomes: list[str] = []
            begun: list[str | bytes] = []
            go = asyncio.Event()

            @server.on_message
            async def on_message(client: fastcast.Client, message: str | bytes) -> None:
                begun.append(message)
                try:
                    await (go if message == "quick" else asyncio.Event()).wait()
                    outcomes.append(f"{message!s} done")
                except asyncio.CancelledError:
                    outcomes.append(f"{message!s} cancelled")
                    raise

            await server.start()
            with (
                await asyncio.to_thread(Client, address_of(server)) as one,
                await asyncio.to_thread(Client, address_of(server)) as two,
            ):
                one.send(frame(TEXT, b"quick"))
                two.send(frame(TEXT, b"endless"))
                while len(begun) < 2:
                    await asyncio.sleep(0)
                stopping = asyncio.create_task(server.stop(TIMEOUT * 10))
                await asyncio.sleep(0)
                go.set()
                while "quick done" not in outcomes:
                    await asyncio.sleep(0)
                assert not stopping.done()
                await server.stop(0)
                await stopping
            assert outcomes == ["quick done", "endless cancelled"]
            check_accounts(server.stats())

        run(main())

    def test_handlers_that_all_wait_for_the_core_do_not_wait_for_ever(self, server: ServerFactory) -> None:
        done: list[object] = []

        def prepare(running: fastcast.Server) -> None:
            @running.on_message
            async def on_message(client: fastcast.Client, message: str | bytes) -> None:
                await running.flush()
                done.append(await running.inspect(client))

        with server(prepare, max_handlers=2) as running_, Client(address_of(running_)) as client:
            client.send(*[frame(TEXT, b"x")] * 3000)
            await_true(lambda: len(done) == 3000, "all to be handled")
            assert None not in done
            assert on_loop(running_, running_.flush()) == 0


class TestProgram:
    """Server.run, and the end of a program."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_run_ends_gracefully_with_a_signal(self, tmp_path: Path, number: signal.Signals) -> None:
        ending = """
before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
code = server.run(ready=lambda: print(server.describe(), flush=True))
assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
assert threading.active_count() == 1
print("ended", code, flush=True)
"""
        with program(tmp_path, ending) as (process, address):
            talk(address, "hello to you")
            with Client(address) as client:
                process.send_signal(number)
                last = client.read_frame()
                assert close_code(last) == 1001
                client.send(frame(last.opcode, last.payload))
                assert client.at_end()
            assert process.stdout is not None
            assert process.stdout.read() == "left 1000\nleft 1001\nended 0\n"
        assert process.returncode == 0

    def test_the_end_of_a_program_closes_its_server(self, tmp_path: Path) -> None:
        ending = """
server.start_in_thread()
print(server.describe(), flush=True)
sys.stdin.readline()
"""
        file = tmp_path / "program.py"
        file.write_text(PROGRAM + ending, "utf-8")
        with subprocess.Popen(
            [sys.executable, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            match = READY.search(process.stdout.readline())
            assert match is not None
            with Client((match["host"], int(match["port"]))) as client:
                process.stdin.close()
                last = client.read_frame()
                assert close_code(last) == 1001
                client.send(frame(last.opcode, last.payload))
                assert client.at_end()
            assert process.stdout.read() == "left 1001\n"
            assert process.wait(TIMEOUT) == 0


class TestServe:
    """fastcast serve MODULE:SERVER."""

    @pytest.mark.parametrize("name", ["server", "make"])
    def test_it_runs_the_server_of_a_module(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        (tmp_path / "chat.py").write_text(PROGRAM, "utf-8")
        monkeypatch.setenv("PYTHONPATH", str(Path(fastcast.__file__).parent.parent))
        monkeypatch.chdir(tmp_path)
        with running(f"chat:{name}") as process:
            talk(process.address, "hello to you")

    def test_options_on_the_command_line_win_over_the_program_s(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "chat.py").write_text(
            "import fastcast\nserver = fastcast.Server(port=1, max_message=10, shards=1)\n", "utf-8"
        )
        monkeypatch.setenv("PYTHONPATH", str(Path(fastcast.__file__).parent.parent))
        monkeypatch.chdir(tmp_path)
        # The port, too: `running` asks for a free one.
        with running("chat:server", "--max-message", "20") as process, Client(process.address) as client:
            client.send(frame(TEXT, b"x" * 20))
            assert client.read_message() == Frame(TEXT, b"x" * 20)
            client.send(frame(TEXT, b"x" * 21))
            assert [close_code(received) for received in client.frames()] == [1009]
