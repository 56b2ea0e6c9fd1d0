"""Handlers: a program hears of its clients, in order and in full, on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio
import threading
from random import Random

import pytest

import fastcast
from tests.support.hosting import Run, address_of, await_true, check_accounts, publish, serve
from tests.support.swarm import Swarm
from tests.support.wire import (
    BINARY,
    CLOSE,
    TEXT,
    TIMEOUT,
    Client,
    Frame,
    Refused,
    close_code,
    close_payload,
    frame,
)


class TestMessages:
    """Server.on_message."""

    def test_gets_every_message_in_its_sender_s_order_instead_of_the_channel(self, run: Run) -> None:
        clients, each = 20, 100
        handled: list[tuple[fastcast.Client, str | bytes]] = []

        async def main() -> None:
            server = serve(shards=3)

            @server.on_message
            def handle(client: fastcast.Client, message: str | bytes) -> None:
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
        by_client: dict[fastcast.Client, list[str]] = {}
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
            def handle(client: fastcast.Client, message: str | bytes) -> None:
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
            def handle(client: fastcast.Client, message: str | bytes) -> None:
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
            def handle(client: fastcast.Client, message: str | bytes) -> None:
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

    def test_coroutines_keep_each_client_s_order_and_the_bound(self, run: Run) -> None:
        clients, each, limit = 30, 60, 7
        handled: dict[fastcast.Client, list[str]] = {}
        running = most = 0

        async def main() -> None:
            server = serve(max_handlers=limit)

            @server.on_message
            async def handle(client: fastcast.Client, message: str | bytes) -> None:
                nonlocal running, most
                running += 1
                most = max(most, running)
                for _ in range(len(message) % 3):
                    await asyncio.sleep(0)
                handled.setdefault(client, []).append(str(message))
                running -= 1

            def send() -> None:
                with Swarm(address_of(server), clients) as swarm:
                    for number in range(clients):
                        swarm.send(number, *(frame(TEXT, b"%d %d" % (number, k)) for k in range(each)))
                    swarm.receive(0)
                    await_true(lambda: sum(map(len, handled.values())) == clients * each, "all to be handled")

            async with server:
                await asyncio.to_thread(send)

        run(main())
        assert most <= limit
        assert len(handled) == clients
        for texts in handled.values():
            assert len({text.split()[0] for text in texts}) == 1
            assert [int(text.split()[1]) for text in texts] == list(range(each))

    def test_slow_coroutine_holds_up_its_own_client_only(self, run: Run) -> None:
        async def main() -> None:
            server = serve()
            go = asyncio.Event()
            loop = asyncio.get_running_loop()

            @server.on_message
            async def handle(client: fastcast.Client, message: str | bytes) -> None:
                if message == "wait":
                    await go.wait()
                client.send(message)

            def talk() -> None:
                with Client(address_of(server)) as patient, Client(address_of(server)) as quick:
                    patient.send(frame(TEXT, b"wait"), frame(TEXT, b"behind it"))
                    for _ in range(20):
                        quick.send(frame(TEXT, b"at once"))
                        assert quick.read_message() == Frame(TEXT, b"at once")
                    loop.call_soon_threadsafe(go.set)
                    assert patient.read_message() == Frame(TEXT, b"wait")
                    assert patient.read_message() == Frame(TEXT, b"behind it")

            async with server:
                await asyncio.to_thread(talk)

        run(main())

    def test_coroutines_that_do_not_keep_up_make_the_server_stop_reading(self, run: Run) -> None:
        limit, senders, each, total = 4 << 20, 20, 500, 0
        payload = bytes(6_000)

        async def main() -> None:
            server = serve(max_backlog=limit, max_message="64KiB", max_handlers=4)
            go = asyncio.Event()
            loop = asyncio.get_running_loop()

            @server.on_message
            async def handle(client: fastcast.Client, message: str | bytes) -> None:
                nonlocal total
                await go.wait()
                total += len(message)

            def flood() -> None:
                with Swarm(address_of(server), senders) as swarm:
                    for number in range(senders):
                        swarm.send(number, *[frame(BINARY, payload)] * each)
                    seen = 0

                    def is_full() -> bool:
                        nonlocal seen
                        before, seen = seen, server.stats()["received"]
                        return bool(before == seen > 200)

                    swarm.receive_while(lambda: not is_full())
                    # Most of the 60 MB that the clients have to send is still theirs.
                    assert seen * len(payload) < 6 * limit
                    loop.call_soon_threadsafe(go.set)
                    swarm.receive(0)
                    await_true(lambda: total == senders * each * len(payload), "all to be handled")

            async with server:
                await asyncio.to_thread(flood)

        run(main())

    def test_handler_is_set_before_the_start_and_once(self, run: Run) -> None:
        async def main() -> None:
            server = serve()
            async with server:
                with pytest.raises(fastcast.FastcastError, match="before the server starts"):
                    server.on_message(print)
                with await asyncio.to_thread(Client, address_of(server)) as client:
                    server.broadcast("no handler")
                    assert await asyncio.to_thread(client.read_message) == Frame(TEXT, b"no handler")

        run(main())


class TestConnect:
    """Server.on_connect, as far as the server has to do with it."""

    def test_it_chooses_channels_state_and_the_first_messages(self, run: Run) -> None:
        async def main() -> None:
            server = serve()
            states: list[object] = []

            @server.on_connect
            async def admit(request: fastcast.Request) -> fastcast.Accept:
                await asyncio.sleep(0)
                user = request.query["user"]
                return fastcast.Accept(
                    channels=["news.*", f"user.{user}"], state={"user": user}, hello=["one", b"two"]
                )

            @server.on_message
            def handle(client: fastcast.Client, message: str | bytes) -> None:
                states.append((client.channel, client.state))
                server.publish("user.ann", "for Ann")

            def talk() -> None:
                with Client(address_of(server), "/anywhere?user=ann") as client:
                    assert client.read_frame() == Frame(TEXT, b"one")
                    assert client.read_frame() == Frame(BINARY, b"two")
                    client.send(frame(TEXT, b"hello"))
                    assert client.read_message() == Frame(TEXT, b"for Ann")
                    publish(server, "news", "news.today")
                    assert client.read_message() == Frame(TEXT, b"news")

            async with server:
                await asyncio.to_thread(talk)
            assert states == [("news.*", {"user": "ann"})]

        run(main())

    @pytest.mark.parametrize("kind", ["plain", "coroutine"])
    def test_who_is_refused_gets_status_and_reason_and_is_not_told_of_again(
        self, run: Run, kind: str
    ) -> None:
        async def main() -> None:
            server = serve()
            ends: list[int] = []

            def admit(request: fastcast.Request) -> None:
                if request.path == "/private":
                    raise fastcast.Refuse(403, "members only", {"X-Why": "private"})

            async def admit_later(request: fastcast.Request) -> None:
                await asyncio.sleep(0)
                admit(request)

            if kind == "plain":
                server.on_connect(admit)
            else:
                server.on_connect(admit_later)
            server.on_disconnect(lambda client, code, reason: ends.append(code))

            def talk() -> None:
                with pytest.raises(Refused) as refused:
                    Client(address_of(server), "/private")
                assert (refused.value.head.status, refused.value.head.get("x-why")) == (403, "private")
                with Client(address_of(server), "/public") as client:
                    client.close()
                await_true(lambda: bool(ends), "the end to be told")

            async with server:
                await asyncio.to_thread(talk)
            assert ends == [1000]

        run(main())

    def test_one_that_fails_refuses_with_500_and_goes_on(
        self, run: Run, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main() -> None:
            server = serve()

            @server.on_connect
            def admit(request: fastcast.Request) -> None:
                if request.path == "/bad":
                    raise LookupError("on purpose")

            def talk() -> None:
                with pytest.raises(Refused) as refused:
                    Client(address_of(server), "/bad")
                assert refused.value.head.status == 500
                Client(address_of(server), "/good").drop()

            async with server:
                await asyncio.to_thread(talk)

        run(main())
        assert any(record.exc_info and record.exc_info[0] is LookupError for record in caplog.records)
        caplog.clear()

    def test_one_under_way_at_the_stop_is_cancelled_and_the_client_turned_down(self, run: Run) -> None:
        async def main() -> None:
            server = serve()
            asked, cancelled = asyncio.Event(), asyncio.Event()

            @server.on_connect
            async def admit(request: fastcast.Request) -> None:
                asked.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled.set()

            def connect() -> int:
                with pytest.raises(Refused) as refused:
                    Client(address_of(server))
                return refused.value.head.status

            await server.start()
            connecting = asyncio.create_task(asyncio.to_thread(connect))
            await asked.wait()
            await server.stop()
            assert cancelled.is_set()
            assert await connecting == 503
            check_accounts(server.stats())

        run(main())


class TestDisconnect:
    """Server.on_disconnect."""

    def test_it_is_told_how_each_client_went(self, run: Run) -> None:
        async def main() -> None:
            server = serve()
            ends: dict[str, tuple[int, str]] = {}
            server.on_connect(lambda request: fastcast.Accept(state=request.path))
            server.on_disconnect(lambda client, code, reason: ends.update({client.state: (code, reason)}))

            def talk() -> None:
                address = address_of(server)
                with Client(address, "/closed") as client:
                    client.send(frame(CLOSE, close_payload(4321, b"had enough")))
                    assert [close_code(received) for received in client.frames()] == [4321]
                Client(address, "/dropped").drop()
                Client(address, "/reset").reset()
                with Client(address, "/wrong") as client:
                    client.send(frame(TEXT, b"not masked", mask=None))
                    assert [close_code(received) for received in client.frames(reset=True)] == [1002]
                with Client(address, "/dismissed") as client:
                    await_true(lambda: server.count("/dismissed") == 1, "it to be there")
                    server.clients("/dismissed")[0].close(4000, "go")
                    last = client.read_frame()
                    assert last == Frame(CLOSE, close_payload(4000, b"go"))
                    client.send(frame(CLOSE, last.payload))
                    assert client.at_end()
                await_true(lambda: len(ends) == 5, "all ends to be told")

            async with server:
                await asyncio.to_thread(talk)
            assert ends == {
                "/closed": (4321, "had enough"),
                "/dropped": (1006, ""),
                "/reset": (1006, ""),
                "/wrong": (1002, ends["/wrong"][1]),
                "/dismissed": (4000, "go"),
            }

        run(main())

    def test_it_is_told_once_for_each_client_and_last_however_they_go(self, run: Run) -> None:
        clients = 300
        told: dict[int, list[str]] = {}

        async def main() -> None:
            server = serve(shards=3, max_handlers=5)

            @server.on_connect
            async def admit(request: fastcast.Request) -> None:
                await asyncio.sleep(0)

            @server.on_message
            async def handle(client: fastcast.Client, message: str | bytes) -> None:
                await asyncio.sleep(0)
                told.setdefault(client.id, []).append(str(message))

            @server.on_disconnect
            async def left(client: fastcast.Client, code: int, reason: str) -> None:
                await asyncio.sleep(0)
                told.setdefault(client.id, []).append("left")

            def come_and_go() -> None:
                random = Random(1)
                for _ in range(clients):
                    client = Client(address_of(server))
                    for number in range(random.randrange(4)):
                        client.send(frame(TEXT, b"%d" % number))
                    random.choice((client.close, client.drop, client.reset))()
                await_true(lambda: server.stats()["clients"] == 0, "all to be gone")

            async with server:
                await asyncio.to_thread(come_and_go)
                opened = server.stats()["opened"]
            assert len(told) == opened

        run(main())
        for events in told.values():
            assert events[-1] == "left"
            assert events[:-1] == [str(number) for number in range(len(events) - 1)]

    @pytest.mark.parametrize("timeout", [None, 0])
    def test_stop_tells_all_ends_before_it_returns(self, run: Run, timeout: float | None) -> None:
        clients = 50
        codes: list[int] = []

        async def main() -> None:
            server = serve()

            @server.on_disconnect
            async def left(client: fastcast.Client, code: int, reason: str) -> None:
                codes.append(code)
                if timeout is None:
                    await asyncio.sleep(0)

            def stay(opened: threading.Event) -> None:
                with Swarm(address_of(server), clients) as swarm:
                    opened.set()
                    if timeout is None:
                        swarm.await_close(close_payload(1001))
                    else:
                        await_true(lambda: server.stats()["connections"] == 0, "all to be cut off")

            await server.start()
            opened = threading.Event()
            staying = asyncio.create_task(asyncio.to_thread(stay, opened))
            await asyncio.to_thread(opened.wait, TIMEOUT)
            await server.stop(timeout)
            assert len(codes) == clients
            await staying

        run(main())
        assert timeout is not None or set(codes) == {1001}


class TestState:
    """Client.state."""

    def test_it_stays_until_the_client_has_left_and_no_longer(self, run: Run) -> None:
        async def main() -> None:
            server = serve()
            seen: list[object] = []

            @server.on_message
            def handle(client: fastcast.Client, message: str | bytes) -> None:
                client.state = (client.state or 0) + 1

            server.on_disconnect(lambda client, code, reason: seen.append(client.state))

            def talk() -> None:
                with Client(address_of(server)) as client:
                    client.send(*[frame(TEXT, b"count")] * 5)
                    await_true(lambda: server.clients("/")[0].state == 5, "all to be counted")
                    kept = server.clients("/")[0]
                    client.close()
                await_true(lambda: seen == [5], "the end to be told")
                await_true(lambda: kept.state is None, "the state to be given up")
                kept.state = "nobody's"
                await_true(lambda: kept.state is None, "the state to be given up again")
                kept.send("nobody hears this")
                kept.subscribe("nothing")
                kept.close()

            async with server:
                await asyncio.to_thread(talk)

        run(main())
