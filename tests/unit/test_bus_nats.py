"""The engine for NATS, before brokers that say just what a test wants."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from nats.aio.client import Client as Library
from nats.aio.subscription import Subscription
from nats.errors import SlowConsumerError

from fastcast.bus.engine import Access, Place, Unreachable
from fastcast.bus.jetstream import JetStream
from fastcast.bus.nats import Nats
from tests.support.hosting import Run

DENIED = b"-ERR 'Permissions Violation for Subscription to \"fastcast.%b\"'\r\n"


class FakeBroker:
    """Answers pings and notes what it's told with CONNECT."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.cluster: list[str] = []
        """Addresses that it says the cluster has."""
        self.subscribed: set[str] = set()
        self.order: list[set[str]] = []
        """What was subscribed to at each ping."""
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{listening.getsockname()[1]}"
        self._server = await asyncio.start_server(self._serve, sock=listening)

    async def stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

    def say(self, words: bytes) -> None:
        """To all that are connected."""
        for writer in self._writers:
            writer.write(words)

    def publish(self, subject: str, payload: str, **headers: str) -> None:
        """Bring a message to the first subscription."""
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        head = "\r\n".join(("NATS/1.0", *lines, "", ""))
        self.say(f"HMSG {subject} 1 {len(head)} {len(head + payload)}\r\n{head}{payload}\r\n".encode())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        info = {"server_id": "x", "version": "2.11.0", "max_payload": 1 << 20, "headers": True}
        writer.write(f"INFO {json.dumps(info | {'connect_urls': self.cluster})}\r\n".encode())
        while line := await reader.readline():
            if line.startswith(b"CONNECT "):
                self.told.append(json.loads(line.removeprefix(b"CONNECT ")))
            elif line.startswith(b"SUB "):
                self.subscribed.add(line.split()[1].decode())
            elif line.startswith(b"PING"):
                self.order.append(set(self.subscribed))
                writer.write(b"PONG\r\n")
        writer.close()


class NoLog:
    """Stands in for a stream that need not be made."""

    outbox = None

    async def open(self, client: Library) -> None:
        pass

    def close(self) -> None:
        pass


@asynccontextmanager
async def brokers(number: int) -> AsyncIterator[list[FakeBroker]]:
    """So many that run."""
    running = [FakeBroker() for _ in range(number)]
    for broker in running:
        await broker.start()
    try:
        yield running
    finally:
        for broker in running:
            await broker.stop()


def nothing(*arguments: object) -> None:
    """For what isn't looked at."""


@pytest.mark.parametrize("login", ["ann:secret", "token", ""])
def test_servers_that_were_learned_of_get_the_login_of_the_one_that_told(run: Run, login: str) -> None:
    async def main() -> None:
        async with brokers(2) as (given, learned):
            given.cluster = [given.address, learned.address]
            at = "@" if login else ""
            engine = Nats(Access(urls=(f"nats://{login}{at}{given.address}",)), None, "fastcast")
            await engine.connect(nothing, nothing)
            await engine.close()
            await given.stop()
            await engine.connect(nothing, nothing)
            assert engine.name == f"nats://{learned.address}"
            await engine.close()
            (words,) = learned.told
            user, _, password = login.partition(":")
            expected = {"user": user, "pass": password} if password else {"auth_token": user} if user else {}
            assert {name: words[name] for name in ("user", "pass", "auth_token") if name in words} == expected

    run(main())


def test_servers_that_the_cluster_no_longer_has_are_forgotten(run: Run) -> None:
    async def main() -> None:
        async with brokers(3) as (given, old, new):
            engine = Nats(Access(urls=(f"nats://{given.address}",)), None, "fastcast")
            for other in (old, new):
                given.cluster = [given.address, other.address]
                await engine.connect(nothing, nothing)
                await engine.close()
                await other.stop()
            await given.stop()
            with pytest.raises(Unreachable) as failed:
                await engine.connect(nothing, nothing)
            tried = sorted(each.partition(": ")[0] for each in str(failed.value).split("; "))
            assert tried == sorted([given.address, new.address])

    run(main())


def test_subscriptions_are_in_force_when_it_says_so(run: Run) -> None:
    async def main() -> None:
        async with brokers(1) as (broker,):
            engine = Nats(Access(urls=(f"nats://{broker.address}",)), None, "fastcast")
            await engine.connect(nothing, nothing)
            for number in range(20):
                await engine.subscribe([f"fastcast.{number}", f"fastcast.{number}.>"])
                assert {f"fastcast.{number}", f"fastcast.{number}.>"} <= broker.order[-1]
            await engine.close()

    run(main())


def test_what_the_broker_denies_is_told_of_once(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with brokers(1) as (broker,):
            reasons: asyncio.Queue[str] = asyncio.Queue()
            engine = Nats(Access(urls=(f"nats://{broker.address}",)), None, "fastcast")
            await engine.connect(nothing, reasons.put_nowait)
            broker.say(DENIED % b"a" + DENIED % b"b" + DENIED % b"a")
            await engine.subscribe(["fastcast.a"])  # returns with an answer that comes behind these
            assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
            assert [record.message[-12:] for record in caplog.records] == ['"fastcast.a"', '"fastcast.b"']
            broker.say(b"".join(DENIED % b"%d" % number for number in range(200)))
            await engine.subscribe(["fastcast.b"])
            assert len(caplog.records) == 100
            # It isn't why the connection ends later; of this the library tells no reason.
            broker.say(b"-ERR 'Unknown Protocol Operation'\r\n")
            assert "permissions" not in await reasons.get()
            await engine.close()

    run(main())


def test_what_is_denied_while_it_connects_is_why_it_cannot(run: Run) -> None:
    class Denied(NoLog):
        def __init__(self, broker: FakeBroker) -> None:
            self._broker = broker

        async def open(self, client: Library) -> None:
            self._broker.say(DENIED % b"a")
            await client.flush()
            raise Unreachable("no answer")

    async def main() -> None:
        async with brokers(1) as (broker,):
            log = cast(JetStream, Denied(broker))
            engine = Nats(Access(urls=(f"nats://{broker.address}",)), log, "fastcast")
            with pytest.raises(Unreachable, match="permissions violation"):
                await engine.connect(nothing, nothing)

    run(main())


@pytest.mark.parametrize("seed", ["", "S", "garbage"])
def test_a_key_that_is_none_is_a_connection_that_fails(run: Run, tmp_path: Path, seed: str) -> None:
    file = tmp_path / "nkey"
    file.write_text(seed)

    async def main() -> None:
        async with brokers(1) as (broker,):
            engine = Nats(Access(urls=(f"nats://{broker.address}",), nkey=str(file)), None, "fastcast")
            with pytest.raises(Unreachable, match=r"127\.0\.0\.1"):
                await engine.connect(nothing, nothing)

    run(main())


def test_that_the_library_drops_messages_is_counted_and_told_of_once(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        engine = Nats(Access(urls=("nats://127.0.0.1",)), None, "fastcast")
        for subject in ("fastcast.a", "fastcast.a", "fastcast.b"):
            subscription = Subscription(Library())
            await engine._on_error(SlowConsumerError(subject, "", 1, subscription))
        assert engine.dropped == 3

    run(main())
    assert ["messages to fastcast.a are dropped" in record.message for record in caplog.records] == [
        True,
        False,
    ]


def test_only_what_comes_from_the_log_has_a_place_there(run: Run) -> None:
    async def main() -> None:
        async with brokers(1) as (broker,):
            heard: asyncio.Queue[tuple[str, Place | None]] = asyncio.Queue()
            engine = Nats(Access(urls=(f"nats://{broker.address}",)), cast(JetStream, NoLog()), "fastcast")
            await engine.connect(
                lambda subject, payload, source, place: heard.put_nowait((subject, place)), nothing
            )
            await engine.subscribe(["fastcast.a"])
            for subject in ("fastcast-log.a", "fastcast.a", "fastcast-logs.a", "fastcast-log"):
                broker.publish(subject, "x", Nats_Sequence="7", Nats_Last_Sequence="5")
            assert [await heard.get() for _ in range(4)] == [
                ("fastcast-log.a", Place(7, 5)),
                ("fastcast.a", None),
                ("fastcast-logs.a", None),
                ("fastcast-log", None),
            ]
            await engine.close()

    run(main())
