"""`fastcast serve` as a subprocess, from its ready line to its exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.program import READY, Program
from tests.support.wire import Address

__all__ = ["READY", "ServerProcess", "running"]


class ServerProcess(Program):
    """A running server. Use `running()` unless the test is about starting or stopping."""

    def __init__(self, *flags: str) -> None:
        """Start `python -m fastcast serve --port 0 *flags` and wait for the ready line.

        Raises AssertionError with what the server wrote when it exits or is silent for TIMEOUT seconds.
        """
        super().__init__(sys.executable, "-m", "fastcast", "serve", "--port", "0", *flags)
        try:
            self.address: Address = self.await_address()
        except BaseException:
            self.kill()
            raise


@contextmanager
def running(*flags: str) -> Iterator[ServerProcess]:
    """A server for the time of the block; leaving it stops the server and asserts a clean exit,
    unless the block has waited for the exit itself."""
    server = ServerProcess(*flags)
    try:
        yield server
    except BaseException:
        # The test's own failure is the one to report, not what it did to the server's exit.
        server.kill()
        raise
    if not server.exited:
        server.stop()
