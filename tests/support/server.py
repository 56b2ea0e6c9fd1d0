"""`fastcast serve` as a subprocess, from its ready line to its exit code."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.wire import TIMEOUT, Address

READY = re.compile(r"http://(?:\[(?P<six>[0-9a-fA-F:]+)\]|(?P<host>[^\s/:]+)):(?P<port>\d+)/")


class ServerProcess:
    """A running server.

    Its stderr goes to a file, so that no pipe can fill up and stall it. Use `running()` unless the test is
    about starting or stopping.
    """

    def __init__(self, *flags: str) -> None:
        """Start `python -m fastcast serve --port 0 *flags` and wait for the ready line.

        Raises AssertionError with what the server wrote when it exits or is silent for TIMEOUT seconds.
        """
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, closed in _release
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fastcast", "serve", "--port", "0", *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        try:
            self.address: Address = self._await_ready()
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exited(self) -> bool:
        """Whether the exit has been waited for."""
        return self._process.returncode is not None

    def log(self) -> str:
        """What the server wrote to stderr up to now."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", "replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for the exit and return its code. Kills the server and raises AssertionError on time-out."""
        try:
            code = self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            log = self.log()
            self.kill()
            raise AssertionError(f"the server did not exit; its log:\n{log}") from None
        log = self.log()
        self._release()
        assert "Traceback" not in log, log
        return code

    def stop(self) -> None:
        """Stop with SIGTERM and assert that the server exits with 0 and without a traceback."""
        self.signal(signal.SIGTERM)
        code = self.wait()
        assert code == 0, f"exit code {code}"

    def kill(self) -> None:
        """Kill the server if it is still there, and free what belongs to it."""
        self._process.kill()
        self._process.wait()
        self._release()

    def _await_ready(self) -> Address:
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        deadline = time.monotonic() + TIMEOUT
        text = b""
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([output], [], [], left)[0]:
                break
            piece = os.read(output, 4096)
            if not piece:
                raise AssertionError(f"the server ended before it was ready; its log:\n{self.log()}")
            text += piece
            # The line must be whole, or the port might be cut short.
            for line in text.decode("utf-8").splitlines(keepends=True):
                if line.endswith("\n") and (match := READY.search(line)):
                    return match["six"] or match["host"], int(match["port"])
        raise AssertionError(f"no ready line in {text!r}; the server's log:\n{self.log()}")

    def _release(self) -> None:
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()


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
