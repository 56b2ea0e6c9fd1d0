"""All clients of a channel see its messages in one order, whoever sends them and whoever comes and goes."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest

from tests.support.hosting import ServerFactory, address_of, await_true, publish
from tests.support.swarm import Swarm
from tests.support.wire import BINARY, TEXT, TIMEOUT, Client, Frame, frame


def label(sender: str, number: int) -> bytes:
    """A message that says whose it is and which; its length varies so that frames end anywhere in a read."""
    return f"{sender} {number} ".encode() + b"." * (number * 37 % 300)


def numbers_by_sender(sequence: list[Frame]) -> dict[str, list[int]]:
    """The numbers of each sender's messages in the order in which they came; every message must be whole."""
    numbers: dict[str, list[int]] = {}
    for message in sequence:
        sender, number = message.payload.split(b" ")[:2]
        assert message.payload == label(sender.decode(), int(number))
        numbers.setdefault(sender.decode(), []).append(int(number))
    return numbers


def test_one_order_for_all_whoever_publishes_on_whatever_shard(server: ServerFactory) -> None:
    members, threads, each = 100, 4, 50
    with server(shards=4) as running, Swarm(address_of(running), members) as swarm:
        for number in range(members):
            swarm.send(number, *(frame(TEXT, label(f"client{number}", k)) for k in range(each)))

        def broadcast(name: str) -> None:
            for k in range(each):
                publish(running, label(name, k))

        with ThreadPoolExecutor(threads) as pool:
            done = [pool.submit(broadcast, f"thread{number}") for number in range(threads)]
            swarm.receive((members + threads) * each)
            for future in done:
                future.result(TIMEOUT)

        names = [f"client{n}" for n in range(members)] + [f"thread{n}" for n in range(threads)]
        assert numbers_by_sender(swarm.sequence) == {name: list(range(each)) for name in names}
        for message in swarm.sequence:
            assert message.opcode == (BINARY if message.payload.startswith(b"thread") else TEXT)
        assert all(shard["received"] > 0 for shard in running.stats()["shards"])


def test_channels_do_not_disturb_each_other_s_order(server: ServerFactory) -> None:
    with (
        server(shards=3) as running,
        Swarm(address_of(running), 30, "/odd") as odd,
        Swarm(address_of(running), 30, "/even") as even,
    ):
        for number in range(400):
            publish(
                running, label("odd" if number % 2 else "even", number), "/odd" if number % 2 else "/even"
            )
        odd.receive(200)
        even.receive(200)
        assert numbers_by_sender(odd.sequence) == {"odd": list(range(1, 400, 2))}
        assert numbers_by_sender(even.sequence) == {"even": list(range(0, 400, 2))}


@contextmanager
def in_thread(work: Callable[[threading.Event], int]) -> Iterator[Future[int]]:
    """Run `work` until the block ends, which sets its event; its own failure is raised then."""
    ending = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work, ending)
        try:
            yield future
        finally:
            ending.set()
        future.result(TIMEOUT)


def half_close(client: Client) -> None:
    """End the client's direction of TCP, and read until the server has ended its own."""
    client.half_close()
    client.read_rest()


LEAVING: dict[str, Callable[[Client], None]] = {
    "close": Client.close,
    "drop": Client.drop,
    "half-close": half_close,
    "reset": Client.reset,
}


@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING)
def test_who_stays_gets_everything_while_others_come_and_go(
    server: ServerFactory, leave: Callable[[Client], None]
) -> None:
    visits, stayers = 150, 40
    with server(shards=3) as running, Swarm(address_of(running), stayers) as swarm:

        def may_go_on(number: int, ending: threading.Event) -> bool:
            return ending.is_set() or number < swarm.received + 200

        def broadcast(ending: threading.Event) -> int:
            for number in itertools.count():
                # A lead that no one is too slow for; without a limit, no client is as fast as this thread.
                await_true(partial(may_go_on, number, ending), "the clients to catch up")
                if ending.is_set():
                    return number
                publish(running, label("news", number))
            raise AssertionError

        def visit(ending: threading.Event) -> int:
            for _ in range(visits):
                with Client(address_of(running)) as visitor:
                    # Whoever comes amid a stream of messages gets it without a gap from where it came in.
                    seen = numbers_by_sender([visitor.read_message() for _ in range(5)])["news"]
                    assert seen == list(range(seen[0], seen[0] + 5))
                    leave(visitor)
            return visits

        with in_thread(broadcast) as news:
            with in_thread(visit) as visiting:
                swarm.receive_while(lambda: not visiting.done())
            assert visiting.result() == visits
        swarm.receive(news.result())
        assert numbers_by_sender(swarm.sequence) == {"news": list(range(news.result()))}
        await_true(lambda: running.stats()["clients"] == stayers, "the visitors to be gone")


def test_sender_that_resets_takes_back_nothing(server: ServerFactory) -> None:
    with server(shards=3) as running, Swarm(address_of(running), 20) as swarm:
        for number in range(100):
            with Client(address_of(running)) as sender:
                sender.send(frame(BINARY, label("last words", number)))
                assert sender.read_message().payload == label("last words", number)
                sender.reset()
        swarm.receive(100)
