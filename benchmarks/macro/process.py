"""One server process: started, found ready, watched, ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

READY: Final = re.compile(r"\blistening (\S+) (\d+)\b|\bhttps?://(\[[^\]]+\]|[^\s:/]+):(\d+)/")
READY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.01
TAIL_BYTES: Final = 2000
TAIL_CHARACTERS: Final = 400


class ServerError(Exception):
    """The server did not start; the message says what it printed last."""


class ServerProcess:
    """A server in a process group of its own; leaving the context ends all of it.

    What it prints goes to ``DIRECTORY/stdout`` and ``DIRECTORY/stderr``: files, so that a talkative server
    never waits for a reader. Its temporary files go to the directory too.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], directory: Path) -> None:
        self._command = command
        self._environment = {
            **os.environ,
            "TMPDIR": str(directory),
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        }
        self._stdout = directory / "stdout"
        self._stderr = directory / "stderr"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            try:
                self._process = subprocess.Popen(
                    self._command,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                )
            except OSError as error:
                raise ServerError(f"does not start: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def wait_ready(self) -> tuple[str, int]:
        """Return host and port once the server has announced them.

        Raises :exc:`ServerError` when it ends first or takes too long.
        """
        assert self._process is not None
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            # Asked before the file is read: what a server that has ended did print must not be missed.
            ended = self.ended()
            found = READY.search(self._stdout.read_text(encoding="utf-8", errors="replace"))
            if found:
                return found[1] or found[3], int(found[2] or found[4])
            if ended:
                raise ServerError(ended)
            time.sleep(POLL_SECONDS)
        raise ServerError(f"was not ready within {READY_SECONDS:.0f} s: {self.said()}")

    def ended(self) -> str | None:
        """How the server ended by itself, None while it runs."""
        assert self._process is not None
        status = self._process.poll()
        return None if status is None else f"ended by itself with status {status}: {self.said()}"

    def peak_rss(self) -> int | None:
        """The largest resident size so far, in bytes; None when the process is gone."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        except OSError:
            return None
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        return int(found[1]) * 1024 if found else None

    def said(self) -> str:
        """The end of what the server printed, on one line."""
        texts = []
        for path in (self._stdout, self._stderr):
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - TAIL_BYTES))
                texts.append(file.read().decode("utf-8", errors="replace"))
        lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
        return " | ".join(lines)[-TAIL_CHARACTERS:] or "nothing"

    def stop(self) -> None:
        """End the server, by force if it does not answer SIGTERM."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            # The group, because some servers (Erlang's) have helpers.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
