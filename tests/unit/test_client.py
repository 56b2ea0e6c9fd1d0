"""A client as a value: what it can do, what is kept for it, and what becomes of that when it has left."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from fastcast._core import MISSING
from fastcast.client import Client, Clients
from fastcast.errors import FastcastError, OverloadError
from tests.support.fake_hub import FakeHub, fake_hub


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as fake:
        yield fake


def clients_of(hub: FakeHub, *, keep: bool = True) -> Clients:
    """The clients of a server that runs."""
    clients = Clients()
    clients.begin(hub.hub, keep=keep)
    return clients


def deliver(hub: FakeHub, clients: Clients) -> None:
    """Take the events that wait."""
    for kind, client in hub.events():
        assert kind == MISSING
        clients.forget(client)


class TestValue:
    def test_it_is_equal_by_server_and_id_and_a_key(self, hub: FakeHub) -> None:
        one, other = clients_of(hub), clients_of(hub)
        assert Client(one, 1, "/a") == Client(one, 1)
        assert len({Client(one, 1, "/a"), Client(one, 1), Client(one, 2)}) == 2
        assert Client(one, 1) != Client(one, 2)
        assert Client(one, 1) != Client(other, 1)
        assert Client(one, 1) != 1

    def test_it_is_small(self, hub: FakeHub) -> None:
        clients = clients_of(hub)
        assert not hasattr(Client(clients, 1), "__dict__")

    def test_it_shows_its_id_and_channel(self, hub: FakeHub) -> None:
        clients = clients_of(hub)
        assert repr(Client(clients, 7, "/a")) == "<fastcast.Client 7 on '/a'>"
        assert repr(Client(clients, 7)) == "<fastcast.Client 7>"


class TestActs:
    def test_what_it_is_told_goes_to_the_hub(self, hub: FakeHub) -> None:
        client = Client(clients_of(hub), 7)
        assert client.send("text") == 1
        client.subscribe("prices.>")
        client.unsubscribe("prices.>")
        client.close()
        client.close(4000, "why")
        assert hub.did == [
            ("send", 7, "text"),
            ("subscribe", 7, "prices.>"),
            ("unsubscribe", 7, "prices.>"),
            ("close", 7, 1000, ""),
            ("close", 7, 4000, "why"),
        ]

    @pytest.mark.parametrize(
        ("channel", "complaint"), [("", "is empty"), ("a.>.b", "its last token"), ("x" * 1025, "1025 bytes")]
    )
    def test_a_bad_channel_is_refused(self, hub: FakeHub, channel: str, complaint: str) -> None:
        client = Client(clients_of(hub), 7)
        for act in (client.subscribe, client.unsubscribe):
            with pytest.raises(ValueError, match=complaint):
                act(channel)
        assert hub.did == []

    @pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 1 << 20])
    def test_a_code_that_cannot_be_sent_is_refused(self, hub: FakeHub, code: int) -> None:
        with pytest.raises(ValueError, match=f"{code} is no code to close with"):
            Client(clients_of(hub), 7).close(code)

    def test_a_server_that_stops_meanwhile_is_no_error(self, hub: FakeHub) -> None:
        clients = Clients()
        clients.begin(hub.hub, keep=True, want=lambda channel: clients.stop())
        Client(clients, 1).subscribe("a")
        with pytest.raises(FastcastError):
            Client(clients, 1).send("x")

    def test_a_reason_has_at_most_123_bytes(self, hub: FakeHub) -> None:
        client = Client(clients_of(hub), 7)
        client.close(1000, "é" * 61 + "x")
        with pytest.raises(ValueError, match="longer than 123 bytes"):
            client.close(1000, "é" * 62)

    @pytest.mark.parametrize(
        ("number", "error"),
        [(errno.EAGAIN, OverloadError), (errno.EMSGSIZE, ValueError), (errno.ESHUTDOWN, FastcastError)],
    )
    def test_why_nothing_can_be_sent_is_told(self, hub: FakeHub, number: int, error: type[Exception]) -> None:
        hub.error = OSError(number, os.strerror(number))
        with pytest.raises(error):
            Client(clients_of(hub), 7).send("text")

    @pytest.mark.parametrize("begun", [False, True])
    def test_without_a_running_server_it_sends_nothing_and_does_nothing(
        self, hub: FakeHub, begun: bool
    ) -> None:
        clients = Clients()
        if begun:
            clients = clients_of(hub)
            clients.stop()
        client = Client(clients, 7)
        with pytest.raises(FastcastError, match="not running"):
            client.send("text")
        client.subscribe("a")
        client.unsubscribe("a")
        client.close()
        assert hub.did == []


class TestState:
    def test_it_is_none_until_it_is_set_and_the_same_for_all_that_stand_for_the_client(
        self, hub: FakeHub
    ) -> None:
        clients = clients_of(hub)
        assert Client(clients, 7).state is None
        Client(clients, 7).state = {"name": "Ann"}
        Client(clients, 7).state["age"] = 30
        assert Client(clients, 7, "/").state == {"name": "Ann", "age": 30}
        assert Client(clients, 8).state is None

    def test_it_goes_with_the_client(self, hub: FakeHub) -> None:
        clients = clients_of(hub)
        hub.known[7] = {"state": "open"}
        client = Client(clients, 7)
        client.state = 1
        client.state = 2
        deliver(hub, clients)
        assert client.state == 2
        clients.forget(7)
        assert client.state is None

    def test_that_of_a_client_which_has_left_is_not_kept(self, hub: FakeHub) -> None:
        clients = clients_of(hub)
        Client(clients, 7).state = "too late"
        deliver(hub, clients)
        assert Client(clients, 7).state is None

    def test_it_may_come_with_the_admission(self, hub: FakeHub) -> None:
        clients = clients_of(hub)
        clients.admit(7, "state")
        clients.admit(8, None)
        assert (Client(clients, 7).state, Client(clients, 8).state) == ("state", None)
        assert not hub.waiting

    def test_it_is_there_for_handlers_while_the_server_stops_and_gone_afterwards(self, hub: FakeHub) -> None:
        clients = clients_of(hub)
        client = Client(clients, 7)
        client.state = 1
        clients.stop()
        assert client.state == 1
        clients.end()
        client.state = 2
        assert client.state is None

    def test_a_server_that_hears_of_no_end_keeps_none(self, hub: FakeHub) -> None:
        clients = clients_of(hub, keep=False)
        with pytest.raises(FastcastError, match="only a server with a handler"):
            Client(clients, 7).state = 1
        assert Client(clients, 7).state is None
