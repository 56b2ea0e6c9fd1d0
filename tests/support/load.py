"""`fastcast bench` as a subprocess: runs, and agents."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from tests.support.wire import TIMEOUT, Address

COMMAND = (sys.executable, "-m", "fastcast", "bench")


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def figures(self) -> dict[str, Any]:
        """What `--json -` wrote: all that there is on standard output."""
        figures: dict[str, Any] = json.loads(self.stdout)
        return figures


def url(address: Address, path: str = "/") -> str:
    """The WebSocket address of a server."""
    return f"ws://{address[0]}:{address[1]}{path}"


def bench(*arguments: str) -> Ended:
    """A run from start to end; AssertionError on a traceback, TimeoutExpired if it takes too long."""
    ended = subprocess.run(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=6 * TIMEOUT,
        check=False,
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return Ended(ended.returncode, ended.stdout, ended.stderr)


class Running:
    """A run, or an agent, that goes on while the test does something. Use `started()`."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._told: dict[int, bytes] = {}

    def await_stdout(self, pattern: str) -> re.Match[str]:
        """Wait for a line of standard output that has the pattern; AssertionError when there is none."""
        return self._await(self._process.stdout, pattern)

    def await_stderr(self, pattern: str) -> re.Match[str]:
        """The same for standard error."""
        return self._await(self._process.stderr, pattern)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self) -> Ended:
        """Wait for the end."""
        outputs = self._process.communicate(timeout=3 * TIMEOUT)
        stdout, stderr = (
            (self._told.get(number, b"") + output).decode()
            for number, output in zip((1, 2), outputs, strict=True)
        )
        assert "Traceback" not in stderr, stderr
        return Ended(self._process.returncode, stdout, stderr)

    def kill(self) -> None:
        """End it in any case."""
        self._process.kill()
        self._process.communicate()

    def _await(self, stream: IO[bytes] | None, pattern: str) -> re.Match[str]:
        assert stream is not None
        number = 1 if stream is self._process.stdout else 2
        deadline = time.monotonic() + TIMEOUT
        while (left := deadline - time.monotonic()) > 0:
            whole, _, _ = self._told.get(number, b"").decode().rpartition("\n")
            if found := re.search(pattern, whole):
                return found
            if select.select([stream], [], [], left)[0]:
                piece = os.read(stream.fileno(), 65536)
                if not piece:
                    break
                self._told[number] = self._told.get(number, b"") + piece
        raise AssertionError(f"no {pattern!r} in {self._told}")


@contextmanager
def started(*arguments: str) -> Iterator[Running]:
    """`fastcast bench` for the time of the block, at whose end it must have ended, or it is killed."""
    running = Running(*arguments)
    try:
        yield running
    finally:
        running.kill()


@contextmanager
def agent(host: str, *flags: str) -> Iterator[tuple[Running, str]]:
    """An agent and where it listens; leaving the block asserts that it ends without complaint."""
    with started("--agent", f"{host}:0", *flags) as running:
        yield running, running.await_stdout(r"agent at (\S+)")[1]
        running.signal(signal.SIGTERM)
        ended = running.wait()
        assert (ended.code, ended.stderr) == (0, "")
