"""`Server.on_message`: a Python function gets what clients send, on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio
import threading

import pytest

import fastcast
from tests.support.hosting import Run, address_of, await_true, check_accounts, publish, serve
from tests.support.swarm import Swarm
from tests.support.wire import BINARY, TEXT, TIMEOUT, Client, Frame, frame


class TestHandler:
    """Server.on_message."""

    def test_gets_every_message_in_its_sender_s_order_instead_of_the_channel(self, run: Run) -> None:
        clients, each = 20, 100
        handled: list[tuple[fastcast.server.Client, str | bytes]] = []

        async def main() -> None:
            server = serve(shards=3)

            @server.on_message
            def handle(client: fastcast.server.Client, message: str | bytes) -> None:
                handled.append((client, message))

            async with server:
                await asyncio.to_thread(send, server)

        def send(server: fastcast.Server) -> None:
            with Swarm(address_of(server), clients, "/caf%C3%A9") as swarm:
                for number in range(clients):
                    swarm.send(
                        number,
                        *(
                            frame(TEXT if k % 2 else BINARY, f"{number} {k} é".encode() + b"." * k * 10)
                            for k in range(each)
                        ),
                    )
                swarm.receive(0)
                await_true(lambda: len(handled) == clients * each, "all to be handled")
                assert server.stats()["received"] == clients * each
                publish(server, "mark", "/café")
                swarm.receive(1)
                assert swarm.sequence == [Frame(TEXT, b"mark")]

        run(main())
        by_client: dict[fastcast.server.Client, list[str]] = {}
        for client, message in handled:
            assert client.channel == "/café"
            text = message if isinstance(message, str) else message.decode()
            assert text == f"{text.split()[0]} {text.split()[1]} é" + "." * int(text.split()[1]) * 10
            assert isinstance(message, str) == bool(int(text.split()[1]) % 2)
            by_client.setdefault(client, []).append(text)
        assert len(by_client) == clients
        for texts in by_client.values():
            assert len({text.split()[0] for text in texts}) == 1
            assert [int(text.split()[1]) for text in texts] == list(range(each))

    def test_may_broadcast(self, run: Run) -> None:
        async def main() -> None:
            server = serve()
            server.on_message(
                lambda client, message: server.broadcast(f"{client.channel}: {message!r}", "/log")
            )
            async with server:
                await asyncio.to_thread(talk, server)

        def talk(server: fastcast.Server) -> None:
            with Client(address_of(server), "/log") as log, Client(address_of(server), "/in") as client:
                client.send(frame(TEXT, b"text"), frame(BINARY, b"bytes"))
                assert log.read_message() == Frame(TEXT, b"/in: 'text'")
                assert log.read_message() == Frame(TEXT, b"/in: b'bytes'")

        run(main())

    def test_exception_in_it_is_logged_and_harms_nobody(
        self, run: Run, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main() -> None:
            server = serve()

            @server.on_message
            def handle(client: fastcast.server.Client, message: str | bytes) -> None:
                if message == "bad":
                    raise LookupError("on purpose")
                server.broadcast(message)

            async with server:
                await asyncio.to_thread(relay_around, server)

        def relay_around(server: fastcast.Server) -> None:
            with Client(address_of(server)) as client:
                for words in (b"good", b"bad", b"better"):
                    client.send(frame(TEXT, words))
                assert client.read_message() == Frame(TEXT, b"good")
                assert client.read_message() == Frame(TEXT, b"better")

        run(main())
        [record] = [record for record in caplog.records if record.exc_info]
        assert record.exc_info is not None
        assert record.exc_info[0] is LookupError
        # Its traceback holds the server and all that belongs to it.
        caplog.clear()

    def test_when_it_does_not_keep_up_nothing_more_is_read_and_memory_is_bounded(self, run: Run) -> None:
        limit, senders, each, total = 4 << 20, 20, 500, 0
        payload = bytes(6_000)

        async def main() -> None:
            server = serve(max_backlog=limit, max_message="64KiB")
            blocked = threading.Event()

            @server.on_message
            def handle(client: fastcast.server.Client, message: str | bytes) -> None:
                nonlocal total
                blocked.wait(TIMEOUT)
                total += len(message)

            async with server:
                await asyncio.to_thread(flood, server, blocked)

        def flood(server: fastcast.Server, blocked: threading.Event) -> None:
            with Swarm(address_of(server), senders) as swarm:
                for number in range(senders):
                    swarm.send(number, *[frame(BINARY, payload)] * each)
                # The clients have 60 MB to send; the server must stop reading long before it has them.
                peak = 0

                def is_full() -> bool:
                    nonlocal peak
                    before, peak = peak, max(peak, server.stats()["message_bytes"])
                    return bool(before == peak > limit // 8)

                swarm.receive_while(lambda: not is_full())
                blocked.set()
                swarm.receive(0)
                await_true(lambda: total == senders * each * len(payload), "all to be handled")
                assert peak < 2 * limit
                assert server.stats()["slow"] == 0

        run(main())

    def test_stop_under_load_calls_it_no_more_and_leaves_nothing(self, run: Run) -> None:
        async def main() -> None:
            server = serve(shards=3)
            handled = 0

            @server.on_message
            def handle(client: fastcast.server.Client, message: str | bytes) -> None:
                nonlocal handled
                handled += 1

            def send() -> None:
                with Swarm(address_of(server), 20) as swarm:
                    for number in range(20):
                        swarm.send(number, *[frame(TEXT, b"handle this")] * 5000)
                    swarm.await_close(b"\x03\xe9")

            async with server:
                sending = asyncio.create_task(asyncio.to_thread(send))
                while handled < 1000:
                    await asyncio.sleep(0)
                # Begun, not waited for: from this moment on, a handler could not broadcast.
                stopping = asyncio.create_task(server.stop())
                await asyncio.sleep(0)
                at_the_stop = handled
                await stopping
            await sending
            assert handled == at_the_stop
            check_accounts(server.stats())

        run(main())

    def test_it_has_to_be_a_plain_function_that_is_set_before_the_start(self, run: Run) -> None:
        async def coroutine(client: fastcast.server.Client, message: str | bytes) -> None: ...

        async def main() -> None:
            server = serve()
            with pytest.raises(fastcast.FastcastError, match="plain function"):
                server.on_message(coroutine)
            async with server:
                with pytest.raises(fastcast.FastcastError, match="before the server starts"):
                    server.on_message(print)
                with await asyncio.to_thread(Client, address_of(server)) as client:
                    server.broadcast("no handler")
                    assert await asyncio.to_thread(client.read_message) == Frame(TEXT, b"no handler")

        run(main())
