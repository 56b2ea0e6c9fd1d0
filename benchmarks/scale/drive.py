"""One trial from start to end: a server, a load client, and what the machine says about both."""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from common import ServerError, ServerProcess
from trial import Trial

CHANNEL: Final = "/scale"
MEMORY_PER_CONNECTION: Final = 9_500
"""Bytes for the sockets of both ends, the server's slot and the load client's."""

MEMORY_TO_SPARE: Final = 512 << 20
# The kernel keeps a connection in TIME_WAIT for a minute.
QUIET_SECONDS: Final = 75.0
DRAIN_SECONDS: Final = 120.0
STOP_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.05

HOLDING: Final = re.compile(r"^ *[\d.]+ s +hold ", re.MULTILINE)
ALL_GONE: Final = re.compile(r"^ *[\d.]+ s +hold +connections 0 open", re.MULTILINE)

# In the bench's JSON, but too long to keep, or said elsewhere in the record.
LEFT_OUT: Final = ("series", "histograms", "scenario", "environment")


class TrialError(Exception):
    """The trial came to no result; the message is the reason in one line."""


class Watched(ServerProcess):
    """A process that is also waited for."""

    def wait(self, seconds: float) -> int | None:
        """The exit status, once the process has ended; None when it takes longer."""
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def terminate(self) -> None:
        """Send SIGTERM."""
        assert self._process is not None
        self._process.terminate()

    def tells(self, pattern: re.Pattern[str], seconds: float) -> bool:
        """Whether a match comes to stand on standard error before the process ends or the time is over."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            # Asked before the file is read: what a process that has ended did print must not be missed.
            ended = self.ended()
            if pattern.search(self._stderr.read_text(encoding="utf-8", errors="replace")):
                return True
            if ended:
                return False
            time.sleep(POLL_SECONDS)
        return False


def count(path: str, pattern: str) -> int:
    """The number in a file of the kernel's, 0 when it isn't there."""
    try:
        found = re.search(pattern, Path(path).read_text(encoding="ascii", errors="replace"), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def measure_memory(pid: int) -> dict[str, int]:
    """Bytes of a process and of the machine's kernel, under the names that the load client has for them."""
    return {
        "server_pss": count(f"/proc/{pid}/smaps_rollup", r"^Pss:\s+(\d+) kB$") * 1024,
        "server_rss": count(f"/proc/{pid}/smaps_rollup", r"^Rss:\s+(\d+) kB$") * 1024,
        "kernel_tcp": count("/proc/net/sockstat", r"^TCP:.* mem (\d+)") * os.sysconf("SC_PAGE_SIZE"),
        "kernel_slab": count("/proc/meminfo", r"^Slab:\s+(\d+) kB$") * 1024,
    }


def shortage(connections: int) -> str | None:
    """Why this machine can't hold so many connections now; None when it can."""
    available = count("/proc/meminfo", r"^MemAvailable:\s+(\d+) kB$") * 1024
    needed = connections * MEMORY_PER_CONNECTION + MEMORY_TO_SPARE
    if not available or available >= needed:
        return None
    return f"too little memory: {available / 2**30:.1f} GiB available, {needed / 2**30:.1f} GiB needed"


def wait_for_quiet(connections: int) -> None:
    """Wait until what an earlier trial left in TIME_WAIT is little next to so many connections.

    The kernel frees it bit by bit, which would look as if a connection took less memory than it does. Gives
    up after :data:`QUIET_SECONDS`, because the machine may have other work.
    """
    deadline = time.monotonic() + QUIET_SECONDS
    while count("/proc/net/sockstat", r"^TCP:.* tw (\d+)") > max(500, connections // 20):
        if time.monotonic() > deadline:
            return
        time.sleep(POLL_SECONDS)


def fastcast(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fastcast", *arguments]


# The installation of the interpreter, also where the working directory is a source tree; lines instead of a
# panel that is redrawn.
ENVIRONMENT: Final = {"PYTHONSAFEPATH": "1", "TERM": "dumb"}


def started(arguments: list[str], directory: Path, name: str) -> Watched:
    """A process to be entered; what it prints goes to a directory of that name."""
    own = directory / name
    own.mkdir()
    return Watched(fastcast(*arguments), ENVIRONMENT, own)


def rehearse(trial: Trial, url: str, directory: Path) -> None:
    """Run the load before the one that counts. Raises :exc:`TrialError` when it isn't clean."""
    with started(trial.rehearse(url), directory, "rehearsal") as load:
        status = load.wait(trial.seconds)
        if status != 0:
            raise TrialError(f"the rehearsal failed: {load.said()}")


def drain(server: Watched, load: Watched, trial: Trial) -> tuple[float, int | None]:
    """Tell the server to end while the load client holds its connections.

    Returns the seconds until it has ended and its exit status. Raises :exc:`TrialError`.
    """
    if not load.tells(HOLDING, trial.seconds):
        raise TrialError(f"the load client did not get to hold its connections: {load.said()}")
    since = time.monotonic()
    server.terminate()
    status = server.wait(DRAIN_SECONDS)
    seconds = time.monotonic() - since
    # The load client may be behind with reading what was said before the end.
    load.tells(ALL_GONE, STOP_SECONDS)
    load.terminate()
    return seconds, status


def apply(trial: Trial, directory: Path) -> dict[str, Any]:
    """Run the trial's processes. Raises :exc:`TrialError` and :exc:`ServerError`."""
    file = directory / "bench.json"
    with started(trial.serve(), directory, "server") as server:
        host, port = server.wait_ready()
        url = f"ws://{host}:{port}{CHANNEL}"
        rehearse(trial, url, directory)
        before = measure_memory(server.pid)
        after: dict[str, int] | None = None
        exit_seconds: float | None = None
        exit_status: int | None = None
        with started(trial.bench(url, str(server.pid), str(file)), directory, "bench") as load:
            if trial.drained:
                exit_seconds, exit_status = drain(server, load, trial)
            status = load.wait(trial.seconds)
            if status is None:
                raise TrialError("the load client did not end")
            if not file.exists():
                raise TrialError(f"the load client failed with status {status}: {load.said()}")
        if not trial.drained:
            if ended := server.ended():
                raise TrialError(f"the server {ended}")
            if trial.aftermath:
                wait_for_quiet(0)
                after = measure_memory(server.pid)
        peak_rss = server.peak_rss()
        if not trial.drained:
            since = time.monotonic()
            server.terminate()
            exit_status = server.wait(STOP_SECONDS)
            exit_seconds = time.monotonic() - since
        result = json.loads(file.read_text(encoding="utf-8"))
        return {
            "result": {key: value for key, value in result.items() if key not in LEFT_OUT},
            "server": {
                "before": before,
                "after": after,
                "peak_rss": peak_rss,
                "exit_seconds": exit_seconds,
                "exit_status": exit_status,
                "said": server.said(),
            },
            "failure": None if exit_status is not None else "the server did not end when it was told to",
        }


def attempt(trial: Trial) -> dict[str, Any]:
    """Run one trial and return what there is to record; never raises for what goes wrong in it."""
    record: dict[str, Any] = {
        "label": trial.label,
        "connections": trial.connections,
        "shards": trial.shards,
        "threads": trial.threads,
        "group": trial.group,
        "base": trial.base,
        "drained": trial.drained,
        "commands": [
            " ".join(["fastcast", *arguments])
            for arguments in (
                trial.serve(),
                trial.rehearse(f"ws://127.0.0.1:PORT{CHANNEL}"),
                trial.bench(f"ws://127.0.0.1:PORT{CHANNEL}", "PID", "FILE"),
            )
        ],
        "result": None,
        "server": None,
        "failure": None,
        "skipped": None,
    }
    if trial.weighed:
        wait_for_quiet(trial.connections)
    record["started"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record["load_average"] = os.getloadavg()[0]
    record["skipped"] = shortage(trial.connections)
    if record["skipped"]:
        return record
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        try:
            record |= apply(trial, Path(name))
        except TrialError as error:
            record["failure"] = str(error)
        except ServerError as error:
            record["failure"] = f"the server {error}"
    return record
