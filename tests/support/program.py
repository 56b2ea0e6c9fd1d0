"""A program as a subprocess, from its first line to its exit code."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from signal import SIGTERM, Signals

from tests.support.wire import TIMEOUT, Address, until

READY = re.compile(r"\bready at http://(?:\[(?P<six>[0-9a-fA-F:]+)\]|(?P<host>[^\s/:]+)):(?P<port>\d+)/?\s")


class Program:
    """A program that runs. What it writes goes to files, so that no pipe can fill up and stall it."""

    def __init__(
        self,
        *command: str,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        """Start it, with variables beside those of this process."""
        self._output = tempfile.TemporaryFile()  # noqa: SIM115, closed in _release
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed in _release
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._errors,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environ or {})},
            cwd=directory,
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it hasn't ended."""
        return self._process.poll() is None

    @property
    def exited(self) -> bool:
        """Whether the exit has been waited for."""
        return self._output.closed

    def output(self) -> str:
        """What it wrote to stdout up to now."""
        return self._last[0] if self.exited else _read(self._output.fileno())

    def log(self) -> str:
        """What it wrote to stderr up to now."""
        return self._last[1] if self.exited else _read(self._errors.fileno())

    def await_text(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Wait until it has written something to stdout or stderr that matches.

        Raises AssertionError with what it wrote instead when it ends or takes longer than TIMEOUT.
        """

        def look() -> re.Match[str] | None:
            running = self.running  # asked first: who has ended writes no more
            found = pattern.search(self.output()) or pattern.search(self.log())
            assert found or running, f"it ended with {self._process.returncode}: {self.output()}{self.log()}"
            return found

        try:
            return until(look, f"{pattern.pattern!r}")
        except TimeoutError as error:
            raise AssertionError(f"{error}; it wrote: {self.output()}{self.log()}") from None

    def await_address(self, pattern: re.Pattern[str] = READY) -> Address:
        """Wait for the line that tells where it listens: host, or six, and port."""
        match = self.await_text(pattern)
        return match["six"] or match["host"], int(match["port"])

    def signal(self, number: Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for the exit and return its code. Kills it and raises AssertionError on time-out."""
        try:
            code = self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not exit; its log:\n{self.log()}") from None
        self._release()
        assert "Traceback" not in self.log(), self.log()
        return code

    def stop(self, number: Signals = SIGTERM, codes: Collection[int] = (0,)) -> None:
        """Stop it with a signal; assert that it exits with one of the codes, and without a traceback."""
        self.signal(number)
        code = self.wait()
        assert code in codes, f"exit code {code}"

    def kill(self) -> None:
        """Kill it if it is still there, and free what belongs to it."""
        if not self.exited:
            self._process.kill()
            self._process.wait()
            self._release()

    def _release(self) -> None:
        self._last = self.output(), self.log()
        self._output.close()
        self._errors.close()


def _read(fd: int) -> str:
    return os.pread(fd, os.fstat(fd).st_size, 0).decode("utf-8", "replace")


@contextmanager
def started(
    *command: str,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
    stop: Signals = SIGTERM,
    codes: Collection[int] = (0,),
) -> Iterator[Program]:
    """A program for the time of the block; leaving it stops the program and asserts a clean exit,
    unless the block has waited for the exit itself."""
    program = Program(*command, environ=environ, directory=directory)
    try:
        yield program
    except BaseException:
        # The test's own failure is the one to report, not what it did to the program's exit.
        program.kill()
        raise
    if not program.exited:
        program.stop(stop, codes)


def is_listening(port: int) -> bool | None:
    """Whether somebody listens on the port; None if not, as `until` wants it."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return None
    return True


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
