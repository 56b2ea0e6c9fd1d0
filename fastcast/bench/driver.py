"""The driver: one run on several agents, phase by phase together, and one result of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastcast import __version__
from fastcast.bench.engine import INTERVAL, PHASES, Observer, Result, Snapshot
from fastcast.bench.link import GREETING_SECONDS, MOST_TOLD, Link, LinkError, reason, written
from fastcast.bench.merge import merge_results, merge_snapshots, split
from fastcast.errors import ConfigError, FastcastError, StartError

Address = tuple[str, int]

_SILENCE: Final = 60.0
"""Seconds without a word after which an agent counts as lost: snapshots come twice a second."""


class AgentLost(FastcastError):
    """An agent went away in the middle of a run, so that there is no whole result."""


def run_on(agents: Sequence[Address], token: str, options: Mapping[str, Any], observe: Observer) -> Result:
    """An engine, once ``agents`` and ``token`` are given. Raises :exc:`AgentLost`, too."""
    return asyncio.run(_Run(agents, token, observe).run(options))


class _Agent:
    """One agent as the driver knows it."""

    def __init__(self, where: str, link: Link) -> None:
        self.where = where
        self.link = link
        self.gate = ""
        self.snapshot: Snapshot | None = None
        self.result: Result | None = None


class _Run:
    def __init__(self, addresses: Sequence[Address], token: str, observe: Observer) -> None:
        self._addresses = addresses
        self._token = token
        self._observe = observe
        self._agents: list[_Agent] = []
        self._since: dict[str, list[Any]] = {"latency": [], "handshake": []}

    async def run(self, options: Mapping[str, Any]) -> Result:
        parts = split(options, len(self._addresses))
        try:
            for address in self._addresses:
                self._agents.append(await self._greet(address))
            for agent, part in zip(self._agents, parts, strict=True):
                agent.link.say("run", options=part)
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch())
                await asyncio.wait([group.create_task(self._listen(agent)) for agent in self._agents])
                watch.cancel()
            self._tell()
        except ExceptionGroup as errors:
            # One failure ends the run; what follows from it is no news.
            raise errors.exceptions[0] from None
        finally:
            await asyncio.gather(*(agent.link.close() for agent in self._agents))
        return merge_results({agent.where: agent.result for agent in self._agents if agent.result})

    async def _greet(self, address: Address) -> _Agent:
        where = written(*address)
        try:
            async with asyncio.timeout(GREETING_SECONDS):
                link = Link(*await asyncio.open_connection(*address, limit=MOST_TOLD))
        except (OSError, TimeoutError) as error:
            raise StartError(f"agent {where}: {_reason(error)}") from None
        try:
            async with asyncio.timeout(GREETING_SECONDS):
                link.say("hello", version=__version__, token=self._token)
                answer = await link.hear()
        except (LinkError, TimeoutError) as error:
            await link.close()
            raise StartError(f"agent {where}: {_reason(error)}") from None
        if answer["type"] != "hello":
            await link.close()
            raise StartError(f"agent {where}: {answer.get('message', 'it is no agent')}")
        return _Agent(where, link)

    async def _listen(self, agent: _Agent) -> None:
        """Until the agent has told its result."""
        while agent.result is None:
            try:
                async with asyncio.timeout(_SILENCE):
                    told = await agent.link.hear()
                self._note(agent, told)
            except (LinkError, TimeoutError, KeyError, TypeError, ValueError) as error:
                raise AgentLost(f"agent {agent.where}: {_reason(error)}; the run has no result") from None
            self._release()

    def _note(self, agent: _Agent, told: Mapping[str, Any]) -> None:
        match told["type"]:
            case "snapshot":
                agent.snapshot = told["snapshot"]
                for name, pairs in self._since.items():
                    pairs += told["snapshot"][name]
            case "gate":
                if told["phase"] not in PHASES:
                    raise ValueError(told["phase"])
                agent.gate = told["phase"]
            case "result":
                agent.result = told["result"]
            case "error":
                kind = ConfigError if told["error"] == "usage" else StartError
                raise kind(f"agent {agent.where}: {told['message']}")

    def _release(self) -> None:
        """Begin a phase when all agents that still run are ready for it, or for a later one.

        One that has no sender of an echo leaves the messages out, and waits for the others at its next phase.
        """
        running = [agent for agent in self._agents if agent.result is None]
        if not running or not all(agent.gate for agent in running):
            return
        phase = min((agent.gate for agent in running), key=PHASES.index)
        for agent in running:
            if agent.gate == phase:
                agent.gate = ""
                agent.link.say("go", phase=phase)

    async def _watch(self) -> None:
        """Tell how the run gets on, and have it end early if that is wanted."""
        while True:
            await asyncio.sleep(INTERVAL)
            if self._tell():
                for agent in self._agents:
                    agent.link.say("stop")

    def _tell(self) -> bool:
        """Tell what is known of all agents together; true if the run is to end early."""
        latest = [agent.snapshot for agent in self._agents if agent.snapshot is not None]
        if len(latest) < len(self._agents):
            return False
        merged = merge_snapshots(latest, self._since)
        for pairs in self._since.values():
            pairs.clear()
        return self._observe(merged)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        return reason(error)
    return str(error) if isinstance(error, LinkError) else "it said something that is not of the protocol"
