"""All clients are dropped at once, and come back at once, to a server that bounds its handshakes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.hosted_process import HostedProcess
from tests.support.hosting import await_true
from tests.support.load import Ended, bench, started, url
from tests.support.wire import Stream

CLIENTS = 2000
HANDSHAKES = 64
MESSAGES = 5


def run_and_look(server: HostedProcess, *flags: str) -> tuple[Ended, list[dict[str, Any]]]:
    """A storm from start to end, and what the server told of itself meanwhile."""
    looks: list[dict[str, Any]] = []
    with started(
        *(url(server.address), "--connections", str(CLIENTS), "--storm", "--retry", "500ms", *flags),
        *("--messages", str(MESSAGES), "--json", "-", "--quiet"),
    ) as run:

        def has_seen_all() -> bool:
            looks.append(server.stats())
            return bool(looks[-1]["opened"] >= 2 * CLIENTS and looks[-1]["clients"] == 0)

        await_true(has_seen_all, "all to come, to come back, and to leave")
        return run.wait(), looks


@pytest.mark.parametrize("flags", [(), ("--storm-reset",)], ids=["closed", "reset"])
def test_everybody_gets_in_again(flags: tuple[str, ...]) -> None:
    options = {"max_handshakes": HANDSHAKES, "handshake_timeout": 2}
    with HostedProcess(descriptors=CLIENTS * 2, ping_interval=0, **options) as server:
        ended, looks = run_and_look(server, *flags)
        assert ended.code == 0, ended.stderr
        figures = ended.figures
        storm = figures["storm"]
        assert (storm["dropped"], storm["back"], storm["missing"]) == (CLIENTS, CLIENTS, 0)
        assert figures["deliveries"]["received"] == CLIENTS * MESSAGES

        assert max(look["handshakes"] for look in looks) <= HANDSHAKES
        await_true(lambda: server.stats()["connections"] == 0, "all connections to end")
        stats = server.stats()
        assert (stats["handshakes"], stats["asked"]) == (0, 0)
        # Each connection became a WebSocket, unless it was ended before, by either side.
        assert stats["opened"] == 2 * CLIENTS
        assert stats["accepted"] == stats["closed"] >= stats["requests"] >= stats["opened"]
        assert stats["accepted"] - stats["opened"] >= stats["shed"] + stats["handshake_timeouts"]
        assert (stats["refused"], stats["full"], stats["violations"], stats["slow"]) == (0, 0, 0, 0)
        assert stats["sent"] == stats["delivered"] == CLIENTS * MESSAGES


def test_who_opens_connections_and_says_nothing_keeps_nobody_out_for_long() -> None:
    silent = 150  # more than enough for all places of both shards, wherever the kernel puts them
    with (
        HostedProcess(descriptors=4096, max_handshakes=HANDSHAKES, handshake_timeout=1) as server,
        ExitStack() as stack,
    ):
        streams = [stack.enter_context(Stream(server.address)) for _ in range(silent)]
        await_true(lambda: server.stats()["handshakes"] == HANDSHAKES, "all places to be taken")
        ended = bench(url(server.address), "--connections", "100", "--retry", "500ms", "--quiet")
        assert ended.code == 0, ended.stdout
        await_true(lambda: server.stats()["handshake_timeouts"] == silent, "the silent to be told")
        for stream in streams:
            assert stream.read_exactly(12) == b"HTTP/1.1 408"
        stats = server.stats()
        assert (stats["opened"], stats["accepted"] - stats["requests"]) == (100, silent + stats["shed"])
