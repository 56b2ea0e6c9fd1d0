"""``fastcast.serve()`` in a process of its own that tells its stats: what `fastcast serve` doesn't.

``python -m tests.support.hosted_process`` takes its options as JSON; see `HostedProcess`.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

import fastcast
from tests.support.hosting import check_accounts, default_options, publish
from tests.support.wire import Address


class HostedProcess:
    """A running server; a context manager that stops it and checks its accounts."""

    def __init__(self, *, descriptors: int, **options: Any) -> None:
        """Start it under an RLIMIT_NOFILE, soft and hard, of at most `descriptors`."""
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.support.hosted_process",
                json.dumps({"descriptors": descriptors, "options": default_options() | options}),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.address: Address = "127.0.0.1", self._read()["port"]
        except BaseException:
            self._process.kill()
            self._process.communicate()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.kill()
        output, _ = self._process.communicate()
        if error is None:
            assert self._process.returncode == 0
            check_accounts(json.loads(output))

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the process up to now, in user and kernel mode."""
        with open(f"/proc/{self._process.pid}/stat", encoding="ascii") as stat:
            # proc(5): the name in parentheses may have spaces, what follows it hasn't.
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stats(self) -> dict[str, Any]:
        """The server's stats."""
        return self._ask({"do": "stats"})

    def broadcast(self, text: str, channel: str = "/") -> None:
        """Broadcast a text message."""
        self._ask({"do": "broadcast", "text": text, "channel": channel})

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the server has ended; why is on stderr"
        answer: dict[str, Any] = json.loads(line)
        return answer


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def _obey(server: fastcast.Server) -> None:
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "broadcast":
            publish(server, command["text"], command["channel"])
        _say(server.stats())


async def _serve(options: dict[str, Any]) -> None:
    async with fastcast.serve(**options) as server:
        _say({"port": server.port})
        await asyncio.to_thread(_obey, server)
    _say(server.stats())


def main() -> None:
    """Serve until standard input ends; the last line tells the last stats."""
    arguments = json.loads(sys.argv[1])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = min(hard, arguments["descriptors"])
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    asyncio.run(_serve(arguments["options"]))


if __name__ == "__main__":
    main()
