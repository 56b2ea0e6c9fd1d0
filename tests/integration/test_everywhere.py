"""Counts and presence over all servers of a bus, and what becomes of them when a server dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

import fastcast
from tests.support.brokers import KINDS, Broker, broker
from tests.support.hosting import ServerFactory, address_of, await_true, on_loop
from tests.support.wire import Client


@pytest.fixture(scope="module", params=KINDS)
def bus(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A broker that all tests of this module may use, but not harm."""
    with broker(request.param) as running:
        yield running


def know_each_other(*running: fastcast.Server) -> None:
    """Wait until each has heard of all."""
    ids = {node.everywhere.servers[0] for node in running}
    assert len(ids) == len(running)
    await_true(lambda: all(set(node.everywhere.servers) == ids for node in running), "the servers to meet")


def named(running: fastcast.Server) -> None:
    """Clients say who they are."""

    @running.on_connect
    def admit(request: fastcast.Request) -> fastcast.Accept:
        return fastcast.Accept(state=request.query["name"])

    @running.on_presence
    def tell(client: fastcast.Client) -> object:
        return {"name": client.state}


class TestPresence:
    def test_all_servers_clients_are_there(self, server: ServerFactory, bus: Broker) -> None:
        with (
            server(named, bus=(bus.url,)) as one,
            server(named, bus=(bus.url,)) as two,
            server(bus=(bus.url,)) as three,
            Client(address_of(one), "/a?name=ann"),
            Client(address_of(two), "/a?name=bob"),
            Client(address_of(two), "/b?name=cy"),
            Client(address_of(three), "/a"),
        ):
            know_each_other(one, two, three)
            for node in (one, two, three):
                present = on_loop(node, node.everywhere.presence("/a"))
                assert present[0].server == node.everywhere.servers[0]
                assert sorted(str(each.told) for each in present) == [
                    "None",
                    "{'name': 'ann'}",
                    "{'name': 'bob'}",
                ]
                assert on_loop(node, node.everywhere.count("/a")) == 3
                assert on_loop(node, node.everywhere.count()) == 4
                await_true(lambda node=node: node.everywhere.clients == 4, "all to be counted")  # type: ignore[misc]
            assert one.count("/a") == 1
            assert one.stats()["bus"]["servers"] == 3

    def test_more_than_fits_into_one_message(self, server: ServerFactory, bus: Broker) -> None:
        with server(bus=(bus.url,)) as one, server(bus=(bus.url,)) as two:
            know_each_other(one, two)
            clients = [Client(address_of(two), "/many") for _ in range(1001)]
            present = on_loop(one, one.everywhere.presence("/many"))
            assert len({each.client for each in present}) == 1001
            for client in clients:
                client.drop()

    def test_who_stops_is_gone_at_once(self, server: ServerFactory, bus: Broker) -> None:
        with server(bus=(bus.url,)) as one:
            with server(bus=(bus.url,)) as two, Client(address_of(two), "/a"):
                know_each_other(one, two)
                assert on_loop(one, one.everywhere.count("/a")) == 1
            await_true(lambda: len(one.everywhere.servers) == 1, "the farewell")
            assert on_loop(one, one.everywhere.count("/a")) == 0

    @pytest.mark.slow
    def test_who_is_killed_is_gone_within_seconds(self, server: ServerFactory, bus: Broker) -> None:
        command = [sys.executable, "-m", "fastcast", "serve", "--port", "0", "--bus", bus.url]
        with server(bus=(bus.url,)) as one:
            other = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            assert other.stdout is not None
            try:
                line = next(line for line in other.stdout if "ready at" in line)
                port = int(line.split("http://127.0.0.1:")[1].split("/")[0])
                with Client(("127.0.0.1", port), "/a"):
                    await_true(lambda: len(one.everywhere.servers) == 2, "the other server")
                    assert on_loop(one, one.everywhere.count("/a")) == 1
                    os.kill(other.pid, signal.SIGKILL)
                    other.wait()
            finally:
                other.kill()
                other.stdout.close()
            await_true(lambda: len(one.everywhere.servers) == 1, "its death to be noticed")
            assert on_loop(one, one.everywhere.presence("/a")) == []

    def test_while_the_bus_is_lost_nobody_can_be_asked(self, server: ServerFactory) -> None:
        with broker("nats") as mortal, server(bus=(mortal.url,)) as one:
            mortal.kill()
            await_true(lambda: not one.stats()["bus"]["up"], "the loss to be seen")
            with pytest.raises(fastcast.BusError):
                on_loop(one, one.everywhere.count("/a"))
            mortal.start()

    def test_what_is_no_server_s_word_is_ignored(self, server: ServerFactory, bus: Broker) -> None:
        with server(bus=(bus.url,)) as one:
            for nonsense in (b"", b"{}", b"[1]", b'{"beat":"x"}', b'{"ask":1}', b'{"answer":"y","from":"z"}'):
                bus.publish("fastcast-servers", nonsense)
            bus.publish("fastcast-servers", b'{"beat":"forged","clients":5}')
            await_true(lambda: len(one.everywhere.servers) == 2, "the forged one")
            await_true(lambda: len(one.everywhere.servers) == 1, "its silence to be noticed")


class TestAlone:
    def test_without_a_bus_it_is_what_the_server_has(self, server: ServerFactory) -> None:
        with server(named) as one, Client(address_of(one), "/a?name=ann"):
            assert on_loop(one, one.everywhere.count("/a")) == one.everywhere.clients == 1
            assert on_loop(one, one.everywhere.count()) == 1
            (present,) = on_loop(one, one.everywhere.presence("/a"))
            assert (present.server, present.told) == (one.everywhere.servers[0], {"name": "ann"})
            with pytest.raises(ValueError, match="empty"):
                on_loop(one, one.everywhere.presence(""))
