"""What becomes of clients that lag, policy by policy, and that every delivery is accounted for.

The clients here are really slow: they have small windows, and don't read until the test says so.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from random import Random
from typing import Any

import pytest

import fastcast
from tests.support.hosting import MIB, ServerFactory, address_of, await_true, on_loop, publish
from tests.support.slow import CHUNK, number_of, payload, stalled
from tests.support.wire import CLOSE, Client, Frame, close_payload, frame

ROOM: dict[str, Any] = {"max_queue": "1GiB", "max_backlog": "1GiB"}

DROPPING = ("drop-oldest", "drop-newest", "latest")

COUNTS = ("sent", "delivered", "dropped", "gone", "queued")

Told = list[tuple[int, str, int]]


def noting(told: Told) -> Callable[[fastcast.Server], None]:
    """Has a server's `on_slow` write down what it's told."""

    def prepare(running: fastcast.Server) -> None:
        running.on_slow(lambda client, policy, queued: told.append((client.id, policy, queued)))

    return prepare


def settled(running: fastcast.Server) -> dict[str, Any]:
    """The server's stats, once nothing is under way but what waits for clients that lag."""
    queued = on_loop(running, running.flush())
    stats = running.stats()
    assert stats["queued"] <= queued  # the system may take some more of it at any time
    check(stats)
    return stats


def check(stats: dict[str, Any]) -> None:
    """Each delivery must have ended in one way, or wait."""
    assert stats["sent"] == stats["delivered"] + stats["dropped"] + stats["gone"] + stats["queued"], stats


def check_channels(running: fastcast.Server) -> None:
    """The accounts of the channels must be right, and their sum that of the server.

    For servers that only publish, whose channels have had a member all the time.
    """
    stats = settled(running)
    channels = [running.stats(channel) for channel in running.channels()]
    for each in channels:
        check(each)
    assert {name: sum(each[name] for each in channels) for name in COUNTS} == {
        name: stats[name] for name in COUNTS
    }


def overfill(
    running: fastcast.Server, witness: Client, channel: str = "/", *, begin: int = 0, behind: int = 20
) -> int:
    """Publish until messages have been dropped, and some more; returns the number of the next message.

    The witness has to get every one.
    """
    number, last = begin, None
    while last is None or number < last:
        assert number < begin + 3000, "nothing is dropped"
        publish(running, payload(number), channel)
        assert number_of(witness.read_message().payload) == number
        number += 1
        if last is None and settled(running)["dropped"] > 0:
            last = number + behind
    return number


def read_to(client: Client, last: int) -> list[int]:
    """The numbers of a client's messages, up to the last one."""
    numbers = [number_of(client.read_message().payload)]
    while numbers[-1] != last:
        numbers.append(number_of(client.read_message().payload))
    return numbers


class TestDropOldest:
    """slow=drop-oldest."""

    def test_the_newest_messages_come_in_order_behind_a_gap(self, server: ServerFactory) -> None:
        with (
            server(slow="drop-oldest", max_queue_messages=10, max_queue="1GiB") as running,
            Client(address_of(running)) as witness,
            stalled(address_of(running)) as slow,
        ):
            total = overfill(running, witness, behind=40)
            stats = settled(running)
            assert 9 <= stats["queued"] <= 11
            numbers = read_to(slow, total - 1)
            assert len(numbers) == total - stats["dropped"]
            assert numbers == sorted(set(numbers))
            # Of what waited, nothing is left out; the gap is before it.
            assert numbers[-9:] == list(range(total - 9, total))
            before = [n for n, number in enumerate(numbers) if n == number]
            assert before == list(range(len(before)))
            assert settled(running)["slow"] == 0
            publish(running, payload(total))
            assert number_of(slow.read_message().payload) == total


class TestDropNewest:
    """slow=drop-newest."""

    def test_the_oldest_messages_come_in_order_and_then_a_gap(self, server: ServerFactory) -> None:
        with (
            server(slow="drop-newest", max_queue_messages=10, max_queue="1GiB") as running,
            Client(address_of(running)) as witness,
            stalled(address_of(running)) as slow,
        ):
            total = overfill(running, witness, behind=40)
            stats = settled(running)
            assert 9 <= stats["queued"] <= 11
            kept = total - stats["dropped"]
            assert [number_of(slow.read_message().payload) for _ in range(kept)] == list(range(kept))
            await_true(lambda: running.stats()["lagging"] == 0, "the slow one to have caught up")
            publish(running, payload(total))
            assert number_of(slow.read_message().payload) == total


class TestLatest:
    """slow=latest."""

    def test_the_last_message_always_comes(self, server: ServerFactory) -> None:
        with (
            server(slow="latest", max_queue_messages=1, max_queue="1GiB") as running,
            Client(address_of(running)) as witness,
            stalled(address_of(running)) as slow,
        ):
            total = overfill(running, witness, behind=40)
            stats = settled(running)
            assert stats["queued"] <= 2
            numbers = read_to(slow, total - 1)
            assert len(numbers) == total - stats["dropped"]
            assert numbers == sorted(set(numbers))

    def test_of_each_key_the_last_message_comes(self, server: ServerFactory) -> None:
        keys = 5
        with (
            # One more may wait: that which is half written can't be replaced any more.
            server(slow="latest", max_queue_messages=keys + 1, max_queue="1GiB") as running,
            Client(address_of(running)) as witness,
            stalled(address_of(running)) as slow,
        ):
            number, dropped = 0, 0
            while dropped < 50:
                assert number < 3000
                running.publish("/", payload(number), key=f"key {number % keys}")
                assert number_of(witness.read_message().payload) == number
                number += 1
                dropped = settled(running)["dropped"]
            assert settled(running)["queued"] <= keys + 1
            received = [number_of(slow.read_message().payload) for _ in range(number - dropped)]
            for key in range(keys):
                of_key = [each for each in received if each % keys == key]
                assert of_key == sorted(of_key)
                assert of_key[-1] == max(n for n in range(number) if n % keys == key)
            await_true(lambda: running.stats()["lagging"] == 0, "the slow one to have caught up")

    def test_channels_do_not_replace_each_other_s_messages(self, server: ServerFactory) -> None:
        def prepare(running: fastcast.Server) -> None:
            running.on_connect(lambda request: fastcast.Accept(channels=["a", "b"]))

        with (
            server(prepare, slow="latest", max_queue_messages=3, max_queue="1GiB") as running,
            Client(address_of(running)) as witness,
            stalled(address_of(running)) as slow,
        ):
            number, dropped = 0, 0
            while dropped < 30:
                assert number < 3000
                running.publish("ab"[number % 2], payload(number), key="the same")
                assert number_of(witness.read_message().payload) == number
                number += 1
                dropped = settled(running)["dropped"]
            received = [number_of(slow.read_message().payload) for _ in range(number - dropped)]
            assert set(received[-2:]) == {number - 1, number - 2}


class TestClose:
    """slow=close, and its limit in messages."""

    def test_who_has_more_messages_waiting_than_allowed_is_closed(self, server: ServerFactory) -> None:
        told: Told = []
        with (
            server(noting(told), max_queue_messages=10, **ROOM) as running,
            Client(address_of(running)) as witness,
            stalled(address_of(running)) as slow,
        ):
            number = 0
            while running.stats()["slow"] == 0:
                assert number < 3000
                publish(running, payload(number))
                assert number_of(witness.read_message().payload) == number
                number += 1
            await_true(lambda: len(told) == 1, "the program to be told")
            assert told[0][1] == "close"
            numbers = []
            while (last := slow.read_frame()).opcode != CLOSE:
                numbers.append(number_of(last.payload))
            assert last == Frame(CLOSE, close_payload(1008))
            assert numbers == list(range(len(numbers)))
            slow.send(frame(CLOSE, last.payload))
            assert slow.at_end()
            await_true(lambda: running.count() == 1, "it to be gone")
            assert settled(running)["gone"] > 0


class TestBytes:
    """max_queue under the policies that drop."""

    @pytest.mark.parametrize("policy", DROPPING)
    def test_no_more_bytes_wait_than_allowed_and_the_client_stays(
        self, server: ServerFactory, policy: str
    ) -> None:
        limit = MIB // 2
        with (
            server(slow=policy, max_queue=limit) as running,
            Client(address_of(running)) as witness,
            stalled(address_of(running)) as slow,
        ):
            number = 0
            while (stats := settled(running))["dropped"] < 100:
                assert number < 3000
                # Each is of a key of its own: `latest` has nothing to replace, and must drop all the same.
                running.publish("/", payload(number), key=f"{number}")
                assert number_of(witness.read_message().payload) == number
                assert stats["queued_bytes"] <= limit + 2 * CHUNK
                number += 1
            assert (stats["slow"], running.count()) == (0, 2)
            kept = number - stats["dropped"]
            received = [number_of(slow.read_message().payload) for _ in range(kept)]
            assert received == sorted(set(received))

    @pytest.mark.parametrize("policy", DROPPING)
    def test_a_single_message_of_any_size_may_wait(self, server: ServerFactory, policy: str) -> None:
        large = payload(0) * 128
        with (
            server(slow=policy, max_queue="64KiB") as running,
            stalled(address_of(running)) as slow,
        ):
            publish(running, large)
            await_true(lambda: running.stats()["queued_bytes"] > MIB, "the message to be queued")
            assert slow.read_message().payload.__eq__(large) is True
            assert settled(running)["dropped"] == 0


class TestTelling:
    """Server.on_slow."""

    @pytest.mark.parametrize("policy", DROPPING)
    def test_it_is_told_once_each_time_that_a_client_lags(self, server: ServerFactory, policy: str) -> None:
        told: Told = []
        with (
            server(noting(told), slow=policy, max_queue_messages=5, max_queue="1GiB") as running,
            Client(address_of(running)) as witness,
            stalled(address_of(running)) as slow,
        ):
            number = received = 0
            for episode in range(1, 4):
                number = self.overfill(running, witness, number)
                await_true(lambda episode=episode: len(told) >= episode, "it to be told")  # type: ignore[misc]
                kept = number - settled(running)["dropped"]
                while received < kept:
                    number_of(slow.read_message().payload)
                    received += 1
                await_true(lambda: running.stats()["lagging"] == 0, "the slow one to have caught up")
                assert len(told) == episode
            [slow_one] = {id for id, _, _ in told}
            assert slow_one in {client.id for client in running.clients("/")}
            assert {name for _, name, _ in told} == {policy}
            assert all(CHUNK <= queued <= 7 * CHUNK for _, _, queued in told)

    @staticmethod
    def overfill(running: fastcast.Server, witness: Client, number: int) -> int:
        """Publish until thirty more messages have been dropped; returns the number of the next one."""
        enough = settled(running)["dropped"] + 30
        while settled(running)["dropped"] < enough:
            publish(running, payload(number))
            assert number_of(witness.read_message().payload) == number
            number += 1
        return number

    def test_nobody_is_told_of_who_lags_within_the_limits(self, server: ServerFactory) -> None:
        told: Told = []
        with (
            server(noting(told), slow="drop-oldest", **ROOM) as running,
            Client(address_of(running)) as witness,
            stalled(address_of(running)) as slow,
        ):
            number = 0
            while settled(running)["queued_bytes"] < 4 * MIB:
                publish(running, payload(number))
                assert number_of(witness.read_message().payload) == number
                number += 1
            assert read_to(slow, number - 1) == list(range(number))
            assert (told, settled(running)["dropped"]) == ([], 0)


class TestRules:
    """--channel."""

    RULES = ("a.latest slow=latest max_queue_messages=2", "a.* slow=drop-oldest max_queue_messages=5")

    def test_the_first_that_takes_in_a_channel_holds_and_else_the_server_s_own(
        self, server: ServerFactory
    ) -> None:
        told: Told = []
        names = ("a.latest", "a.oldest", "own")
        options: dict[str, Any] = {"slow": "drop-newest", "max_queue_messages": 5, "max_queue": "1GiB"}

        def prepare(running: fastcast.Server) -> None:
            running.on_connect(lambda request: fastcast.Accept(channels=[request.path.lstrip("/")]))
            noting(told)(running)

        with server(prepare, channel=self.RULES, **options) as running, ExitStack() as stack:
            witnesses = [stack.enter_context(Client(address_of(running), f"/{name}")) for name in names]
            slow = [stack.enter_context(stalled(address_of(running), f"/{name}")) for name in names]
            policies = {}
            for name, witness, late in zip(names, witnesses, slow, strict=True):
                number, before = 0, len(told)
                while running.stats(name)["dropped"] < 30:
                    assert number < 3000
                    publish(running, payload(number), name)
                    assert number_of(witness.read_message().payload) == number
                    settled(running)
                    number += 1
                await_true(lambda before=before: len(told) > before, "it to be told")  # type: ignore[misc]
                policies[name] = told[-1][1]
                check_channels(running)
                kept = number - running.stats(name)["dropped"]
                received = [number_of(late.read_message().payload) for _ in range(kept)]
                assert (received[-1] == number - 1) == (name != "own")
            assert policies == {"a.latest": "latest", "a.oldest": "drop-oldest", "own": "drop-newest"}

    def test_a_client_of_several_channels_loses_only_of_those_that_may_lose(
        self, server: ServerFactory
    ) -> None:
        def prepare(running: fastcast.Server) -> None:
            running.on_connect(lambda request: fastcast.Accept(channels=["orders", "prices"]))

        rules = ["prices slow=latest"]
        with (
            server(prepare, channel=rules, **ROOM) as running,
            Client(address_of(running)) as witness,
            stalled(address_of(running)) as slow,
        ):
            number = 0
            while running.stats("prices")["dropped"] < 40:
                assert number < 3000
                publish(running, payload(number), "orders" if number % 4 == 0 else "prices")
                assert number_of(witness.read_message().payload) == number
                settled(running)
                number += 1
            check_channels(running)
            assert running.stats("orders")["dropped"] == 0
            kept = number - running.stats("prices")["dropped"]
            received = [number_of(slow.read_message().payload) for _ in range(kept)]
            assert [each for each in received if each % 4 == 0] == list(range(0, number, 4))
            prices = [each for each in received if each % 4]
            assert prices == sorted(prices)
            assert prices[-1] == max(each for each in range(number) if each % 4)


class TestAccounts:
    """Nothing is lost from the books, whatever clients do."""

    def test_who_goes_takes_what_waits_for_it(self, server: ServerFactory) -> None:
        with (
            server(slow="drop-oldest", max_queue_messages=20, max_queue="1GiB") as running,
            Client(address_of(running)) as witness,
        ):
            slow = stalled(address_of(running))
            overfill(running, witness)
            check_channels(running)
            queued = running.stats("/")["queued"]
            slow.reset()
            await_true(lambda: running.count() == 1, "it to be gone")
            check_channels(running)
            assert running.stats("/")["gone"] == queued
            assert running.stats("/")["queued"] == 0

    @pytest.mark.parametrize("policy", [*DROPPING, "close"])
    @pytest.mark.parametrize("seed", range(2))
    def test_they_agree_at_any_moment_of_rest(self, server: ServerFactory, policy: str, seed: int) -> None:
        random = Random(seed)
        names = [f"/{number}" for number in range(3)]
        with (
            server(slow=policy, max_queue_messages=15, max_queue="1GiB", shards=3) as running,
            ExitStack() as stack,
        ):
            witnesses = {name: stack.enter_context(Client(address_of(running), name)) for name in names}
            late: list[tuple[fastcast.Client, Client]] = []
            number = 0
            for _ in range(60):
                step = random.random()
                if step < 0.15 and len(late) < 8:
                    name = random.choice(names)
                    before = set(running.clients(name))
                    opened = stack.enter_context(stalled(address_of(running), name))
                    [found] = set(running.clients(name)) - before
                    late.append((found, opened))
                elif step < 0.25 and late:
                    _, going = late.pop(random.randrange(len(late)))
                    random.choice((going.drop, going.reset))()
                elif step < 0.4 and late and policy != "close":
                    # Reads a few of those that it may count on.
                    found, reading = random.choice(late)
                    told = on_loop(running, running.inspect(found))
                    for _ in range(min(3, told["queued"] if told else 0)):
                        number_of(reading.read_message().payload)
                else:
                    name = random.choice(names)
                    for _ in range(random.randrange(30)):
                        publish(running, payload(number), name)
                        assert number_of(witnesses[name].read_message().payload) == number
                        number += 1
                check_channels(running)
            for _, client in late:
                client.reset()
            await_true(lambda: running.count() == len(names), "all who lag to be gone")
            check_channels(running)
            stats = settled(running)
            assert (stats["queued"], stats["queued_bytes"], stats["lagging"]) == (0, 0, 0)

    def test_slow_clients_do_not_hold_up_the_others(self, server: ServerFactory) -> None:
        with (
            server(slow="latest", max_queue_messages=1, max_queue="1GiB", shards=1) as running,
            Client(address_of(running)) as witness,
            ExitStack() as stack,
        ):
            for _ in range(30):
                stack.enter_context(stalled(address_of(running)))
            for number in range(300):
                publish(running, payload(number))
                assert number_of(witness.read_message().payload) == number
            stats = settled(running)
            assert stats["queued"] <= 60
            assert stats["dropped"] > 0
            assert stats["message_bytes"] < 100 * CHUNK
