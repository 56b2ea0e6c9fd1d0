"""`fastcast.serve` and `Server`, as a Python program uses them, on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from typing import Any

import pytest

import fastcast
from fastcast.client import Data
from tests.support.hosting import Run, address_of, await_true, check_accounts, publish, serve
from tests.support.swarm import Swarm
from tests.support.wire import BINARY, TEXT, TIMEOUT, Client, Frame, frame


def relay(server: fastcast.Server, words: bytes = b"hello") -> None:
    """Assert that a message comes back from the server."""
    with Client(address_of(server)) as client:
        client.send(frame(TEXT, words))
        assert client.read_message() == Frame(TEXT, words)
        client.close()


class TestLife:
    """Start and stop."""

    def test_server_serves_for_the_time_of_its_block(self, run: Run) -> None:
        async def main() -> None:
            async with serve() as server:
                assert server.port > 0
                await asyncio.to_thread(relay, server)
            with pytest.raises(ConnectionRefusedError):
                Client(address_of(server))
            check_accounts(server.stats())

        run(main())

    def test_start_and_stop_do_the_same_without_a_block(self, run: Run) -> None:
        async def main() -> None:
            server = serve()
            await server.start()
            await asyncio.to_thread(relay, server)
            await server.stop()
            check_accounts(server.stats())

        run(main())

    def test_failure_in_the_block_stops_the_server_and_is_raised(self, run: Run) -> None:
        async def main() -> None:
            server = serve()
            with pytest.raises(ZeroDivisionError):
                async with server:
                    raise ZeroDivisionError
            check_accounts(server.stats())

        run(main())

    def test_stop_may_be_called_before_the_start_twice_and_after_the_end(self, run: Run) -> None:
        async def main() -> None:
            server = serve()
            await server.stop()
            await server.start()
            await asyncio.gather(server.stop(), server.stop())
            await server.stop()

        run(main())

    def test_stop_with_no_time_cuts_off_who_is_there(self, run: Run) -> None:
        async def main() -> None:
            server = serve(close_timeout="1h", shutdown_timeout="1h")
            await server.start()
            with await asyncio.to_thread(Client, address_of(server)) as client:
                patient = asyncio.create_task(server.stop())
                # The client has had its Close, and does not answer.
                assert (await asyncio.to_thread(client.read_frame)).payload == b"\x03\xe9"
                assert not patient.done()
                await server.stop(0)
                await patient
                assert await asyncio.to_thread(client.at_end_or_reset)
            check_accounts(server.stats())

        run(main())

    def test_server_starts_only_once(self, run: Run) -> None:
        async def main() -> None:
            async with serve() as server:
                with pytest.raises(fastcast.FastcastError, match="only once"):
                    await server.start()
                await asyncio.to_thread(relay, server)
            with pytest.raises(fastcast.FastcastError, match="only once"):
                await server.start()

        run(main())

    def test_port_can_be_used_again_at_once(self, run: Run) -> None:
        async def main() -> None:
            port = 0
            for _ in range(3):
                async with serve(port=port) as server:
                    port = server.port
                    await asyncio.to_thread(relay, server)
                    # This one is closed by the server, whose end of TCP then stays in TIME_WAIT.
                    client = await asyncio.to_thread(Client, address_of(server))
                    closing_client = asyncio.create_task(asyncio.to_thread(answer_close, client))
                await closing_client

        run(main())

    def test_two_servers_of_one_process_have_nothing_in_common(self, run: Run) -> None:
        async def main() -> None:
            async with serve() as one, serve() as two:
                with (
                    await asyncio.to_thread(Client, address_of(one)) as of_one,
                    await asyncio.to_thread(Client, address_of(two)) as of_two,
                ):
                    one.broadcast("from one")
                    two.broadcast("from two")
                    assert await asyncio.to_thread(of_one.read_message) == Frame(TEXT, b"from one")
                    assert await asyncio.to_thread(of_two.read_message) == Frame(TEXT, b"from two")
                assert (one.stats()["published"], two.stats()["published"]) == (1, 1)

        run(main())

    def test_servers_may_come_and_go_many_times(self, run: Run) -> None:
        async def main() -> None:
            for _ in range(30):
                async with serve(shards=4) as server:
                    await asyncio.to_thread(relay, server)

        run(main())


def answer_close(client: Client) -> None:
    """Read up to the server's Close, answer it, and go."""
    with client:
        last = [client.read_frame()][-1]
        client.send(frame(last.opcode, last.payload))
        assert client.at_end()


class TestAddress:
    """host and port."""

    def test_port_that_another_program_has_is_refused(self, run: Run) -> None:
        async def main() -> None:
            with closing(socket.create_server(("127.0.0.1", 0))) as other:
                port = other.getsockname()[1]
                with pytest.raises(
                    fastcast.StartError, match=rf"127\.0\.0\.1 port {port}: Address already in use"
                ):
                    await serve(port=port).start()

        run(main())

    def test_port_that_another_fastcast_has_is_refused(self, run: Run) -> None:
        async def main() -> None:
            async with serve() as first:
                with pytest.raises(fastcast.StartError, match="Address already in use"):
                    await serve(port=first.port).start()
                await asyncio.to_thread(relay, first)

        run(main())

    def test_server_that_could_not_start_may_try_again(self, run: Run) -> None:
        async def main() -> None:
            with closing(socket.create_server(("127.0.0.1", 0))) as other:
                server = serve(port=other.getsockname()[1])
                with pytest.raises(fastcast.StartError):
                    await server.start()
            await server.start()
            await asyncio.to_thread(relay, server)
            await server.stop()

        run(main())

    def test_address_that_is_not_this_machine_s_is_refused(self, run: Run) -> None:
        async def main() -> None:
            # RFC 5737 keeps 203.0.113.0/24 for documentation.
            with pytest.raises(fastcast.StartError, match=r"203\.0\.113\.1"):
                await serve(host="203.0.113.1").start()

        run(main())

    def test_ipv6(self, run: Run) -> None:
        async def main() -> None:
            async with serve(host="::1") as server:
                await asyncio.to_thread(relay, server)
                assert f"http://[::1]:{server.port}/" in server.describe()

        run(main())

    def test_name_with_several_addresses_has_one_port_on_all(self, run: Run) -> None:
        async def main() -> None:
            async with serve(host="localhost") as server:
                found = socket.getaddrinfo("localhost", server.port, type=socket.SOCK_STREAM)
                for host in {str(entry[4][0]) for entry in found}:
                    client = await asyncio.to_thread(Client, (host, server.port))
                    client.drop()

        run(main())

    def test_description_has_what_an_operator_wants(self, run: Run) -> None:
        async def main() -> None:
            async with serve(shards=3, max_connections=50) as server:
                assert re.fullmatch(
                    rf"fastcast is ready at http://127\.0\.0\.1:{server.port}/"
                    r" \(3 shards, (epoll|io_uring), room for 50 connections\)",
                    server.describe(),
                )

        run(main())


class TestBroadcast:
    """Server.broadcast."""

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            ("κόσμε 🌍", Frame(TEXT, "κόσμε 🌍".encode())),
            ("", Frame(TEXT)),
            (b"bytes \xff", Frame(BINARY, b"bytes \xff")),
            (b"", Frame(BINARY)),
            (bytearray(b"bytearray"), Frame(BINARY, b"bytearray")),
            (memoryview(b"a memoryview")[2:8], Frame(BINARY, b"memory")),
            (memoryview(bytearray(range(8))).cast("I"), Frame(BINARY, bytes(range(8)))),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_str_is_text_and_bytes_like_is_binary(self, run: Run, data: Data, expected: Frame) -> None:
        async def main() -> None:
            async with serve() as server:
                with await asyncio.to_thread(Client, address_of(server)) as client:
                    server.broadcast(data)
                    assert await asyncio.to_thread(client.read_message) == expected

        run(main())

    def test_data_may_change_once_broadcast_has_returned(self, run: Run) -> None:
        async def main() -> None:
            async with serve() as server:
                with await asyncio.to_thread(Client, address_of(server)) as client:
                    data = bytearray(b"x" * 100_000)
                    server.broadcast(data)
                    data[:] = b"y" * 100_000
                    data += b"the buffer is not locked"
                    assert (await asyncio.to_thread(client.read_message)).payload == b"x" * 100_000

        run(main())

    @pytest.mark.parametrize(
        ("error", "arguments"),
        [
            (TypeError, (None,)),
            (TypeError, (5,)),
            (TypeError, (["a"],)),
            (TypeError, ("text", b"/")),
            (TypeError, ()),
            (BufferError, (memoryview(b"every other byte")[::2],)),
            (UnicodeEncodeError, ("half a character \ud800",)),
            (UnicodeEncodeError, ("text", "/\udcff")),
        ],
        ids=repr,
    )
    def test_what_cannot_be_sent_is_an_error_and_is_not_sent(
        self, run: Run, error: type[Exception], arguments: tuple[Any, ...]
    ) -> None:
        async def main() -> None:
            async with serve() as server:
                with await asyncio.to_thread(Client, address_of(server)) as client:
                    with pytest.raises(error):
                        server.broadcast(*arguments)
                    server.broadcast("next")
                    assert await asyncio.to_thread(client.read_message) == Frame(TEXT, b"next")

        run(main())

    def test_any_thread_may_broadcast(self, run: Run) -> None:
        threads, each = 6, 100

        async def main() -> None:
            async with serve(shards=3) as server:

                def broadcast(name: int) -> None:
                    for number in range(each):
                        publish(server, f"{name} {number}")

                def receive() -> list[Frame]:
                    with Swarm(address_of(server), 20) as swarm, ThreadPoolExecutor(threads) as pool:
                        done = [pool.submit(broadcast, name) for name in range(threads)]
                        swarm.receive(threads * each)
                        for future in done:
                            future.result(TIMEOUT)
                        return swarm.sequence

                seen = [message.payload.split() for message in await asyncio.to_thread(receive)]
                for name in range(threads):
                    assert [int(n) for by, n in seen if int(by) == name] == list(range(each))
                assert server.stats()["published"] == threads * each

        run(main())

    def test_threads_that_broadcast_to_the_end_and_beyond_get_an_error_then(self, run: Run) -> None:
        async def main() -> None:
            async with serve(shards=3) as server:
                begun = threading.Barrier(4)

                def broadcast_forever() -> None:
                    begun.wait(TIMEOUT)
                    while True:
                        publish(server, "again")

                def broadcast_until_closed() -> None:
                    with pytest.raises(fastcast.FastcastError, match="not running"):
                        broadcast_forever()

                def receive() -> None:
                    with Swarm(address_of(server), 30) as swarm:
                        begun.wait(TIMEOUT)
                        swarm.await_close(b"\x03\xe9")

                tasks = [
                    asyncio.create_task(asyncio.to_thread(work))
                    for work in (*[broadcast_until_closed] * 3, receive)
                ]
                while server.stats()["published"] < 100:
                    await asyncio.sleep(0.001)
            await asyncio.gather(*tasks)
            check_accounts(server.stats())

        run(main())

    def test_server_that_does_not_run_has_nobody_to_broadcast_to(self, run: Run) -> None:
        async def main() -> None:
            server = serve()
            with pytest.raises(fastcast.FastcastError, match="not running"):
                server.broadcast("too early")
            async with server:
                server.broadcast("to nobody")
            with pytest.raises(fastcast.FastcastError, match="not running"):
                server.broadcast("too late")
            assert server.stats()["published"] == 1

        run(main())


class TestStats:
    """Server.stats and what comes before there are any."""

    def test_before_the_start_there_are_none(self, run: Run) -> None:
        async def main() -> None:
            server = serve()
            for ask in (server.stats, server.describe):
                with pytest.raises(fastcast.FastcastError, match="not been started"):
                    ask()

        run(main())

    def test_shards_add_up_and_say_what_happened(self, run: Run) -> None:
        async def main() -> None:
            async with serve(shards=4) as server:
                await asyncio.to_thread(exercise, server)

        def exercise(server: fastcast.Server) -> None:
            with Swarm(address_of(server), 40) as swarm:
                swarm.send(0, frame(TEXT, b"four"))
                publish(server, b"sixteen bytes...")
                swarm.receive(2)
                await_true(lambda: server.stats()["delivered"] == 80, "the last delivery to be counted")
                stats = server.stats()
                # Frames of a server have a header of two bytes up to 125 bytes (RFC 6455 section 5.2).
                assert stats["received"] == 1
                assert stats["received_bytes"] == 6
                assert stats["published"] == 1
                assert stats["sent"] == 80
                assert stats["accepted"] == stats["requests"] == stats["opened"] == 40
                assert stats["clients"] == stats["connections"] == 40
                assert stats["threads"] == len(stats["shards"]) == 4
                assert stats["channels"] == 1
                for name in set(stats["shards"][0]):
                    assert stats[name] == sum(shard[name] for shard in stats["shards"]), name
            await_true(lambda: server.stats()["closed"] == 40, "all to be gone")
            assert server.stats()["channels"] == 0

        run(main())

    def test_counters_never_fall(self, run: Run) -> None:
        counters = ("accepted", "closed", "requests", "opened", "received", "sent", "delivered", "sent_bytes")

        async def main() -> None:
            async with serve() as server:
                seen = [server.stats()]
                for _ in range(5):
                    await asyncio.to_thread(relay, server)
                    seen.append(server.stats())
            for before, after in pairwise([*seen, server.stats()]):
                assert all(before[name] <= after[name] for name in counters)
            assert seen[-1]["received"] == 5

        run(main())


@pytest.mark.parametrize(
    "options", [{"port": -1}, {"prot": 80}, {"max_message": "many"}, {"shards": 0}, {"host": ""}], ids=repr
)
def test_wrong_option_is_an_error_before_anything_starts(options: dict[str, Any]) -> None:
    with pytest.raises(fastcast.ConfigError) as raised:
        fastcast.serve(**options)
    assert next(iter(options)) in str(raised.value)
    assert "\n" not in str(raised.value)
