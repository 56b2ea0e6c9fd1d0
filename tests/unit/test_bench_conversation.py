"""Driver and agents on loopback, with a load that the test plays."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fastcast import __version__
from fastcast.bench import driver
from fastcast.bench.agent import Agent, serve
from fastcast.bench.driver import AgentLost, run_on
from fastcast.bench.link import MOST_ORDERED, Link, LinkError, address, written
from fastcast.bench.scenario import Scenario
from fastcast.errors import ConfigError, StartError
from tests.support.bench import MILLISECOND, result, snapshot
from tests.support.wire import TIMEOUT

Load = Callable[..., dict[str, Any]]

OPTIONS = Scenario(url="ws://h/", connections=10).load_options()


class FakeLoad:
    """Goes through two phases with a gate each, and tells a snapshot."""

    def __init__(self) -> None:
        self.options: list[Mapping[str, Any]] = []
        self.error: Exception | None = None
        self.hold = threading.Event()
        self.hold.set()
        self.started = threading.Event()
        self.stopped = 0
        self._lock = threading.Lock()

    def __call__(
        self,
        options: Mapping[str, Any],
        progress: Callable[[dict[str, Any]], object],
        gate: Callable[[str], object],
        interval: float,
    ) -> dict[str, Any]:
        with self._lock:
            self.options.append(options)
        if self.error is not None:
            raise self.error
        pause = threading.Event()
        for phase in ("messages", "close"):
            while not gate(phase):
                pause.wait(0.01)
        self.started.set()
        told = snapshot(0.5, made=options["connections"], latency=((MILLISECOND, 5),))
        while not progress(told) and not self.hold.wait(0.01):
            told = snapshot(0.5, made=options["connections"])
        if not self.hold.is_set():
            with self._lock:
                self.stopped += 1
        return result(connections={"asked": options["connections"], "made": options["connections"]})


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> FakeLoad:
    fake = FakeLoad()
    monkeypatch.setattr("fastcast._load.run", fake)
    monkeypatch.setattr("fastcast.bench.engine.raise_limit", lambda: None)
    monkeypatch.setattr(driver, "INTERVAL", 0.02)
    return fake


class Agents:
    """Agents on threads of their own, as signal handlers don't belong to what is tested here."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._servers: list[asyncio.Server] = []

    def start(self, token: str = "") -> tuple[str, int]:
        """Start an agent; returns its address."""

        async def begin() -> asyncio.Server:
            return await asyncio.start_server(Agent(token).greet, "127.0.0.1", 0, limit=MOST_ORDERED)

        server = self._run(begin())
        self._servers.append(server)
        host, port = server.sockets[0].getsockname()
        return host, port

    def end_conversations(self) -> None:
        """Wait until the last driver has been dealt with."""

        async def finish() -> None:
            if others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others, timeout=TIMEOUT)

        self._run(finish())

    def end(self) -> None:
        """Close all, when the last conversation is over."""
        for server in self._servers:
            self._loop.call_soon_threadsafe(server.close)
        self.end_conversations()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(3 * TIMEOUT)


@pytest.fixture
def agents(nothing_left: None) -> Any:
    made = Agents()
    yield made
    made.end()


def never(_snapshot: Mapping[str, Any]) -> bool:
    return False


class TestRun:
    def test_each_agent_runs_its_part_and_the_results_are_merged(
        self, load: FakeLoad, agents: Agents
    ) -> None:
        merged = run_on([agents.start(), agents.start()], "", OPTIONS, never)
        assert sorted((part["connections"], part["senders"]) for part in load.options) == [(5, 0), (5, 1)]
        assert merged["connections"]["made"] == 10
        assert merged["latency_us"]["count"] == 2000
        assert len(merged["agents"]) == 2

    def test_nobody_begins_a_phase_before_all_are_ready(self, load: FakeLoad, agents: Agents) -> None:
        barrier = threading.Barrier(2)
        inner = load.__call__

        def late(
            options: Mapping[str, Any],
            progress: Callable[[dict[str, Any]], object],
            gate: Callable[[str], object],
            interval: float,
        ) -> dict[str, Any]:
            # Only if the other has not passed its gate yet can both be here at once.
            assert not gate("settle")
            barrier.wait(TIMEOUT)
            pause = threading.Event()
            while not gate("settle"):
                pause.wait(0.01)
            return inner(options, progress, gate, interval)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fastcast._load.run", late)
            assert run_on([agents.start(), agents.start()], "", OPTIONS, never)["clean"]

    def test_one_that_leaves_a_phase_out_is_waited_for_at_the_next(
        self, load: FakeLoad, agents: Agents, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        passed: list[tuple[str, int]] = []

        def run(
            options: Mapping[str, Any],
            progress: Callable[[dict[str, Any]], object],
            gate: Callable[[str], object],
            interval: float,
        ) -> dict[str, Any]:
            pause = threading.Event()
            for phase in ("messages", "close") if options["messages"] else ("close",):
                while not gate(phase):
                    pause.wait(0.01)
                passed.append((phase, options["messages"]))
            progress(snapshot(0.5))
            return result()

        monkeypatch.setattr("fastcast._load.run", run)
        echo = Scenario(url="ws://h/", connections=10, expect="sender").load_options()
        assert run_on([agents.start(), agents.start()], "", echo, never)["clean"]
        assert passed[0] == ("messages", 10)
        assert sorted(passed[1:]) == [("close", 0), ("close", 10)]

    def test_snapshots_are_merged_for_the_observer(self, load: FakeLoad, agents: Agents) -> None:
        load.hold.clear()
        seen: list[Mapping[str, Any]] = []

        def observe(told: Mapping[str, Any]) -> bool:
            seen.append(told)
            if len(seen) == 3:
                load.hold.set()
            return False

        run_on([agents.start(), agents.start()], "", OPTIONS, observe)
        assert seen[0]["connections"]["made"] == 10
        assert sum(count for told in seen for _, count in told["latency"]) == 10

    def test_nothing_is_left_untold_at_the_end(
        self, load: FakeLoad, agents: Agents, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(driver, "INTERVAL", 6 * TIMEOUT)
        seen: list[Mapping[str, Any]] = []

        def observe(told: Mapping[str, Any]) -> bool:
            seen.append(told)
            return False

        run_on([agents.start(), agents.start()], "", OPTIONS, observe)
        (only,) = seen
        assert sum(count for _, count in only["latency"]) == 10

    def test_an_observer_can_end_it_early(self, load: FakeLoad, agents: Agents) -> None:
        load.hold.clear()
        assert run_on([agents.start(), agents.start()], "", OPTIONS, lambda _told: True)["clean"]
        assert load.stopped == 2

    def test_an_agent_takes_run_after_run(self, load: FakeLoad, agents: Agents) -> None:
        where = agents.start()
        for _ in range(3):
            assert run_on([where], "", OPTIONS, never)["connections"]["made"] == 10

    @pytest.mark.parametrize(
        ("error", "kind", "message"),
        [
            (
                OSError(24, "too few descriptors: 100 for 1000"),
                StartError,
                "too few descriptors: 100 for 1000",
            ),
            (ValueError("senders are too many"), ConfigError, "senders are too many"),
            (TypeError("no such option: x"), ConfigError, "no such option: x"),
        ],
    )
    def test_a_failure_to_start_is_one_line_with_the_agent(
        self, load: FakeLoad, agents: Agents, error: Exception, kind: type[Exception], message: str
    ) -> None:
        where = agents.start()
        load.error = error
        with pytest.raises(kind) as caught:
            run_on([where], "", OPTIONS, never)
        assert str(caught.value) == f"agent {written(*where)}: {message}"

    def test_an_observer_that_fails_is_heard(self, load: FakeLoad, agents: Agents) -> None:
        load.hold.clear()

        def observe(_told: Mapping[str, Any]) -> bool:
            raise RuntimeError("no more room on the screen")

        with pytest.raises(RuntimeError, match="no more room"):
            run_on([agents.start()], "", OPTIONS, observe)


class TestGreeting:
    def test_nobody_there_is_one_line(self, load: FakeLoad) -> None:
        with pytest.raises(StartError, match=r"^agent 127\.0\.0\.1:1: .*[Rr]efused"):
            run_on([("127.0.0.1", 1)], "", OPTIONS, never)

    def test_another_token_is_refused(self, load: FakeLoad, agents: Agents) -> None:
        where = agents.start("secret")
        with pytest.raises(StartError, match="the token is not the agent's"):
            run_on([where], "guess", OPTIONS, never)
        assert run_on([where], "secret", OPTIONS, never)["clean"]

    def test_another_version_is_refused(
        self, load: FakeLoad, agents: Agents, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(driver, "__version__", "0.0.1")
        with pytest.raises(StartError, match=f"it is fastcast {__version__}, and the driver is 0.0.1"):
            run_on([agents.start()], "", OPTIONS, never)

    def test_a_second_driver_is_turned_away(self, load: FakeLoad, agents: Agents) -> None:
        where = agents.start()
        load.hold.clear()
        refused: list[str] = []

        def second() -> None:
            load.started.wait(TIMEOUT)
            with pytest.raises(StartError) as caught:
                run_on([where], "", OPTIONS, never)
            refused.append(str(caught.value))
            load.hold.set()

        thread = threading.Thread(target=second)
        thread.start()
        run_on([where], "", OPTIONS, never)
        thread.join()
        assert refused == [f"agent {written(*where)}: it is busy with another run"]

    @pytest.mark.parametrize(
        "line", [b"\n", b"GET / HTTP/1.1\r\n", b"[]\n", b"{}\n", b'{"type": 1}\n', b'{"type": "run"}\n']
    )
    def test_a_stranger_gets_no_run(self, load: FakeLoad, agents: Agents, line: bytes) -> None:
        host, port = agents.start()

        async def talk() -> bytes:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(line)
            answer = await asyncio.wait_for(reader.read(), TIMEOUT)
            writer.close()
            await writer.wait_closed()
            return answer

        answer = asyncio.run(talk())
        assert answer == b"" or json.loads(answer)["error"] == "refused"
        assert load.options == []

    def test_a_token_that_is_no_text_is_refused(self, load: FakeLoad, agents: Agents) -> None:
        with pytest.raises(StartError, match="the token is not the agent's"):
            run_on([agents.start("secret")], "\ud800", OPTIONS, never)


class TestLoss:
    def test_who_comes_while_an_abandoned_run_ends_is_next(
        self, load: FakeLoad, agents: Agents, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host, port = agents.start()
        stopped, may_end = threading.Event(), threading.Event()

        def run(
            options: Mapping[str, Any],
            progress: Callable[[dict[str, Any]], object],
            gate: Callable[[str], object],
            interval: float,
        ) -> dict[str, Any]:
            pause = threading.Event()
            while not progress(snapshot(0.5)):
                pause.wait(0.01)
            stopped.set()
            may_end.wait(TIMEOUT)
            return result()

        monkeypatch.setattr("fastcast._load.run", run)

        async def greet() -> Link:
            link = Link(*await asyncio.open_connection(host, port))
            link.say("hello", version=__version__, token="")
            return link

        async def talk() -> str:
            first = await greet()
            assert (await first.hear())["type"] == "hello"
            first.say("run", options=OPTIONS)
            await first.close()
            await asyncio.to_thread(stopped.wait, TIMEOUT)
            second = await greet()
            answer = asyncio.ensure_future(second.hear())
            # One that turns it away does so within this time; one that doesn't passes however slow it is.
            await asyncio.wait({answer}, timeout=0.1)
            may_end.set()
            told = await answer
            await second.close()
            return str(told["type"])

        assert asyncio.run(asyncio.wait_for(talk(), 2 * TIMEOUT)) == "hello"

    def test_a_driver_that_goes_away_ends_the_run(self, load: FakeLoad, agents: Agents) -> None:
        host, port = agents.start()
        load.hold.clear()

        async def talk() -> None:
            link = Link(*await asyncio.open_connection(host, port))
            link.say("hello", version=__version__, token="")
            assert (await link.hear())["type"] == "hello"
            link.say("run", options=OPTIONS)
            while (told := await link.hear())["type"] != "snapshot":
                if told["type"] == "gate":
                    link.say("go", phase=told["phase"])
            await link.close()

        asyncio.run(asyncio.wait_for(talk(), TIMEOUT))
        agents.end_conversations()
        assert load.stopped == 1

    @pytest.mark.parametrize(
        ("words", "reason"),
        [
            (b"", "the connection was lost"),
            (b"nonsense\n", "it said something that is not of the protocol"),
            (b'{"type": "snapshot"}\n', "it said something that is not of the protocol"),
        ],
    )
    def test_an_agent_that_goes_away_is_one_line(self, words: bytes, reason: str) -> None:
        async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(json.dumps({"type": "hello", "version": __version__}).encode() + b"\n")
            await reader.readline()
            writer.write(words)
            writer.close()
            await writer.wait_closed()

        async def run() -> tuple[str, int]:
            async with pretending(agent) as where:
                with pytest.raises(AgentLost) as caught:
                    await asyncio.to_thread(run_on, [where], "", OPTIONS, never)
                assert str(caught.value) == f"agent {written(*where)}: {reason}; the run has no result"
                return where

        asyncio.run(asyncio.wait_for(run(), TIMEOUT))

    def test_what_the_others_do_is_ended(self, load: FakeLoad, agents: Agents) -> None:
        load.hold.clear()

        async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(json.dumps({"type": "hello", "version": __version__}).encode() + b"\n")
            await reader.readline()
            for phase in ("messages", "close"):
                writer.write(json.dumps({"type": "gate", "phase": phase}).encode() + b"\n")
                await reader.readline()
            await asyncio.to_thread(load.started.wait, TIMEOUT)
            writer.close()
            await writer.wait_closed()

        async def run() -> None:
            async with pretending(agent) as where:
                with pytest.raises(AgentLost):
                    await asyncio.to_thread(run_on, [agents.start(), where], "", OPTIONS, never)

        asyncio.run(asyncio.wait_for(run(), TIMEOUT))
        agents.end_conversations()
        assert load.stopped == 1


class TestAddresses:
    @pytest.mark.parametrize(
        ("text", "made"),
        [
            ("127.0.0.2:7001", ("127.0.0.2", 7001)),
            ("[::1]:80", ("::1", 80)),
            ("load.example:9", ("load.example", 9)),
            ("9000", ("127.0.0.1", 9000)),
        ],
    )
    def test_host_and_port_are_found(self, text: str, made: tuple[str, int]) -> None:
        assert address(text, "127.0.0.1") == made

    @pytest.mark.parametrize("text", ["", "a", ":80", "a:", "a:b", "::1:80", "a:70000", "a:-1", "a:\u0661"])
    def test_other_text_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="is not an address"):
            address(text)

    @pytest.mark.parametrize("text", ["127.0.0.2:7001", "[::1]:80"])
    def test_what_is_written_reads_back(self, text: str) -> None:
        assert written(*address(text)) == text

    @pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "load.example", "::"])
    def test_beyond_loopback_a_token_is_needed(self, host: str) -> None:
        with pytest.raises(ConfigError, match="set a --token, or FASTCAST_AGENT_TOKEN"):
            serve(host, 0, "", lambda _where: None)


class TestLines:
    def test_one_that_is_too_long_is_none_of_the_protocol(self) -> None:
        async def run() -> None:
            reader = asyncio.StreamReader(limit=64)
            reader.feed_data(b"x" * 1000)
            with pytest.raises(LinkError, match="not of the protocol"):
                await Link(reader, None).hear()  # type: ignore[arg-type]

        asyncio.run(run())


@asynccontextmanager
async def pretending(
    conversation: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
) -> AsyncIterator[tuple[str, int]]:
    """Somebody who says what the test wants, in an agent's place."""
    server = await asyncio.start_server(conversation, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield host, port
