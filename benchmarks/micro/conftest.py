"""Starts a server with its clients, and takes both down."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from benchmarks.micro.clients import TIMEOUT, Clients
from benchmarks.micro.peers import Peer, RunningPeer, Start

# Taken by Python, pytest and the server, whatever the number of clients.
_OTHER_DESCRIPTORS = 500


@pytest.fixture
def start() -> Iterator[Start]:
    """``start(peer, number)`` gives a running server, and that many clients of it.

    Skips the benchmark when the peer isn't installed, or the limit of open files is too low.
    """
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        stack = AsyncExitStack()

        def start_one(peer: Peer, number: int) -> tuple[RunningPeer, Clients]:
            pytest.importorskip(peer.module, reason=f"{peer} is not installed")
            _require_descriptors(peer.descriptors * number)
            server = runner.run(stack.enter_async_context(peer.start()))
            clients = Clients()
            stack.callback(clients.close)
            runner.run(clients.join(server.port, number))
            runner.run(_until_members(server, number))
            return server, clients

        try:
            yield start_one
        finally:
            runner.run(stack.aclose())


async def _until_members(server: RunningPeer, number: int) -> None:
    """Wait until a broadcast reaches all clients; one that has its answer may not be a member yet."""
    async with asyncio.timeout(TIMEOUT):
        while server.members() < number:
            await asyncio.sleep(0.001)


def _require_descriptors(wanted: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < wanted + _OTHER_DESCRIPTORS:
        pytest.skip(f"the limit of open files is {hard}; {wanted + _OTHER_DESCRIPTORS} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
