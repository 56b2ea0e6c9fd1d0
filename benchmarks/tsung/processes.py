"""The processes of a run: started, watched, and surely ended, tsung's detached VMs included."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

READY: Final = re.compile(r"http://127\.0\.0\.1:(\d+)/")
READY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.05
TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


class ProcessError(Exception):
    """A process did not start, or did not end as it should."""


@dataclass
class Usage:
    """CPU and memory of some processes, kept beyond their end as last seen.

    Memory is the sum of each process's own peak of resident memory: no less than their peak together.
    """

    cpu_seconds: dict[int, float] = field(default_factory=dict)
    peak_bytes: dict[int, int] = field(default_factory=dict)

    def look(self, pid: int) -> None:
        """Read what ``pid`` has used up to now; one that is gone keeps what was seen of it."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name in parentheses may hold anything; utime and stime are the 12th and 13th field after it.
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            self.cpu_seconds[pid] = (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            if found := re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE):
                self.peak_bytes[pid] = int(found[1]) * 1024

    def __str__(self) -> str:
        return f"{sum(self.cpu_seconds.values()):.1f} s CPU, {sum(self.peak_bytes.values()) / 2**20:.0f} MiB"


def marked(mark: str) -> Iterator[int]:
    """Yield the processes that have ``mark``, a NAME=VALUE, in the environment that they were started with.

    tsung detaches its VMs: neither parent nor process group tells whose they are, the environment does.
    """
    wanted = mark.encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes().split(b"\0"):
                yield int(path.parent.name)


def end_marked(mark: str) -> None:
    """Kill what is left of the processes with ``mark``, and wait until none is."""
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        left = list(marked(mark))
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], output: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command`` while the context lasts, then end it; what it prints goes to the file ``output``."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> int:
    """End ``process``, by force if it does not answer SIGTERM, and return its exit status."""
    process.terminate()
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def wait_ready(server: subprocess.Popen[bytes], output: Path) -> int:
    """Return the port that the server announces in ``output``.

    Raises :exc:`ProcessError` when it ends first or takes longer than ``READY_SECONDS``.
    """
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        ended = server.poll() is not None
        said = output.read_text(encoding="utf-8", errors="replace")
        if found := READY.search(said):
            return int(found[1])
        if ended:
            raise ProcessError(f"the server did not start: {said.strip()}")
        time.sleep(POLL_SECONDS)
    raise ProcessError(f"the server was not ready within {READY_SECONDS:.0f} s")
