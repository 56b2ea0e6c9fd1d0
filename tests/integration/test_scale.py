"""Many clients: thousands that each get everything, and more than one fd table holds."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.support.hosted_process import HostedProcess
from tests.support.hosting import ServerFactory, address_of, await_true, publish
from tests.support.http import read_response
from tests.support.swarm import Swarm, SwarmProcess, allow_descriptors
from tests.support.wire import TEXT, Client, Frame, Refused, Stream, frame, upgrade_request

SIZES = (0, 1, 125, 126, 1000, 8192, 65535, 65536)


@pytest.mark.slow
def test_5000_clients_get_every_message_in_one_order(server: ServerFactory) -> None:
    allow_descriptors()
    chance = random.Random(1)
    messages = [f"{number} ".encode() + b"." * chance.choice(SIZES) for number in range(24)]
    with server(ping_interval=0) as running, Swarm(address_of(running), 5000) as swarm:
        for number, message in enumerate(messages):
            # By turns from the program and from clients of the channel.
            if number % 2:
                publish(running, message.decode())
            else:
                swarm.send(chance.randrange(5000), frame(TEXT, message))
        swarm.receive(len(messages))
        assert sorted(message.payload for message in swarm.sequence) == sorted(messages)
        total = 5000 * len(messages)
        await_true(lambda: running.stats()["delivered"] == total, "all deliveries to be counted")
        stats = running.stats()
        assert (stats["sent"], stats["dropped"], stats["gone"], stats["slow"]) == (total, 0, 0, 0)


@pytest.mark.slow
def test_30000_clients_of_a_process_whose_limit_is_16384_open_files() -> None:
    processes, each = 3, 10_000
    with HostedProcess(descriptors=16384, max_connections=32768, shards=None, ping_interval=0) as server:
        with ExitStack() as stack:
            swarms = [stack.enter_context(SwarmProcess(server.address, each)) for _ in range(processes)]
            for swarm in swarms:
                swarm.await_open()
            stats = server.stats()
            assert stats["clients"] == processes * each
            shards = [shard["clients"] for shard in stats["shards"]]
            assert all(abs(clients * len(shards) / sum(shards) - 1) < 0.1 for clients in shards), shards
            texts = ["first", "second " * 100, ""]
            for text in texts:
                server.broadcast(text)
            for swarm in swarms:
                swarm.expect([Frame(TEXT, text.encode()) for text in texts])
            total = processes * each * len(texts)
            await_true(lambda: server.stats()["delivered"] == total, "all deliveries to be counted")
            stats = server.stats()
            assert (stats["sent"], stats["full"], stats["dropped"], stats["slow"]) == (total, 0, 0, 0)
        await_true(lambda: server.stats()["connections"] == 0, "all to be gone")


class TestFull:
    """A limit of 150 open files, which is some 90 clients for each of eight shards."""

    DESCRIPTORS, SHARDS = 150, 8

    @pytest.fixture
    def full(self) -> Callable[[], HostedProcess]:
        """A server with so little room."""
        return lambda: HostedProcess(descriptors=self.DESCRIPTORS, shards=self.SHARDS, ping_interval=0)

    def test_full_shard_hands_over_until_the_last_place_is_taken(
        self, full: Callable[[], HostedProcess]
    ) -> None:
        with full() as server:
            room = sum(shard["capacity"] for shard in server.stats()["shards"])
            with Swarm(server.address, room) as swarm:
                stats = server.stats()
                assert [shard["clients"] for shard in stats["shards"]] == [room // self.SHARDS] * self.SHARDS
                assert stats["handed_over"] > 0
                assert stats["full"] == 0
                server.broadcast("everybody in")
                swarm.receive(1)
                assert swarm.sequence == [Frame(TEXT, b"everybody in")]

    def test_beyond_the_last_place_is_a_503_until_one_leaves(self, full: Callable[[], HostedProcess]) -> None:
        with full() as server:
            room = sum(shard["capacity"] for shard in server.stats()["shards"])
            with Swarm(server.address, room) as swarm:
                for number in range(1, 6):
                    with Stream(server.address) as surplus:
                        surplus.send(upgrade_request())
                        refusal = read_response(surplus)
                    assert refusal.status == 503
                    assert (refusal.get("retry-after") or "").isdecimal()
                    assert server.stats()["full"] == number
                server.broadcast("all still there")
                swarm.receive(1)
            await_true(lambda: server.stats()["clients"] == 0, "places to be free")
            with Client(server.address) as client:
                client.close()

    def test_being_full_costs_no_cpu(self, full: Callable[[], HostedProcess]) -> None:
        with full() as server, ExitStack() as stack:
            room = sum(shard["capacity"] for shard in server.stats()["shards"])
            clients = room - 50
            stack.enter_context(Swarm(server.address, clients))
            # Whoever says nothing takes the last places, and then the fds that are left for refusals; there
            # are more of them than that, so that some are turned away unheard.
            silent = [stack.enter_context(Stream(server.address)) for _ in range(60 * self.SHARDS)]

            def all_are_dealt_with() -> bool:
                stats = server.stats()
                return bool(stats["connections"] + stats["full"] == clients + len(silent))

            await_true(all_are_dealt_with, "all to be dealt with")
            assert server.stats()["full"] > 0
            before = server.cpu_seconds
            # The only way to see that nothing happens is to look for a while.
            time.sleep(1)
            assert server.cpu_seconds - before < 0.2

    def test_nobody_is_turned_away_while_clients_of_a_full_server_come_and_go(
        self, full: Callable[[], HostedProcess]
    ) -> None:
        with full() as server:
            room = sum(shard["capacity"] for shard in server.stats()["shards"])
            with Swarm(server.address, room - 20):
                for _ in range(200):
                    with Client(server.address) as visitor:
                        visitor.close()
            assert server.stats()["full"] == 0
            assert server.stats()["opened"] == room - 20 + 200


def test_limit_on_connections_is_exact_over_all_shards() -> None:
    limit = 500
    with HostedProcess(descriptors=16384, max_connections=limit, shards=4) as server, ExitStack() as stack:
        stack.enter_context(Swarm(server.address, limit))
        for _ in range(20):
            with pytest.raises(Refused) as refused:
                Client(server.address)
            assert refused.value.head.status == 503
        stats = server.stats()
        assert (stats["clients"], stats["full"]) == (limit, 20)
