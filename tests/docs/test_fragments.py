"""Every Python block of the documentation that isn't a program does what it says, or at least does it.

A fragment that sets handlers, or makes a server, is carried out, and then the server starts and a client
visits it. Every other one finds a `server` that runs, and a `client` of it on the channel /rooms/7.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import fastcast
import fastcast.server
from tests.docs.examples import Block, everything, fragments
from tests.support.wire import TIMEOUT

MOST_NOT_RUN = 3
"""Python blocks that may be exempt."""

PLACE = "/rooms/7?name=Ada"


class Watched(fastcast.server.Server):
    """A server that writes down which of its handlers were called."""

    def __init__(self, config: fastcast.Config | None = None, /, **options: Any) -> None:
        super().__init__(config, **{**options, "port": 0, "shards": 1, "shutdown_timeout": TIMEOUT})
        self.handlers: dict[str, Callable[..., object]] = {}
        self.called: Counter[str] = Counter()

    def _set(self, name: str, handler: Any) -> Any:
        def watched(*arguments: Any) -> object:
            self.called[name] += 1
            return handler(*arguments)

        self.handlers[name] = handler
        super()._set(name, watched)
        return handler

    async def await_call(self, name: str) -> None:
        """Wait until the handler, if there is one, has been called."""
        async with asyncio.timeout(TIMEOUT):
            while name in self.handlers and not self.called[name]:
                await asyncio.sleep(0.001)

    def url(self, place: str) -> str:
        """Where clients connect to."""
        return f"ws://127.0.0.1:{self.port}{place}"


async def run(block: Block, names: dict[str, Any]) -> None:
    """Carry out the block, which may await at its top level."""
    code = compile(
        # So that line numbers in a traceback are those of the page.
        "\n" * block.line + block.text,
        block.page,
        "exec",
        flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )
    result = eval(code, names)
    if inspect.isawaitable(result):
        await result


async def visit(server: Watched) -> None:
    """Connect, say something, and leave; whoever isn't admitted has been there, too."""
    try:
        async with connect(server.url(PLACE), proxy=None) as visitor:
            await visitor.send("hello")
            await server.await_call("on_message")
            await tell_slow(server)
    except (InvalidStatus, ConnectionClosed):
        return
    await server.await_call("on_disconnect")


async def tell_slow(server: Watched) -> None:
    """Have the handler for slow clients called: a fragment is too short to have any."""
    if handler := server.handlers.get("on_slow"):
        result = handler(server.client(0), "close", 4096)
        if isinstance(result, Awaitable):
            await result


async def play(block: Block) -> None:
    """Run a fragment, and what it has made."""
    server = Watched(presence=True)
    names: dict[str, Any] = {
        "__name__": "__main__",
        "asyncio": asyncio,
        "fastcast": fastcast,
        "json": json,
        "server": server,
        "time": time,
    }
    if re.search(r"@server\.on_|\bServer\(", block.text):
        await run(block, names)
        made = names["server"]
        async with made:
            await visit(made)
    else:
        # Without a limit on what waits to be read, since nobody reads.
        async with server, connect(server.url(PLACE), proxy=None, max_queue=None):
            [names["client"]] = server.clients("/rooms/7")
            await run(block, names)


@pytest.mark.parametrize("block", fragments(), ids=str)
def test_fragment_runs(
    block: Block,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(fastcast.server, "Server", Watched)
    monkeypatch.chdir(tmp_path)
    asyncio.run(play(block))
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_nearly_all_python_runs() -> None:
    exempt = [block for block in everything() if block.language == "python" and block.not_run]
    assert len(exempt) <= MOST_NOT_RUN, exempt


def test_every_block_says_its_language() -> None:
    assert [str(block) for block in everything() if not block.language] == []
