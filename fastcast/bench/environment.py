"""Where a run took place: what a reader of its figures needs to know about the machine and the programs."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from fastcast import __version__


def describe(server_pid: int = 0) -> dict[str, Any]:
    """Names and values, in the order in which a report shows them."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command(sys.argv[1:]),
        "machine": platform.node(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "fastcast": __version__,
        "python": platform.python_version(),
        "uvloop": metadata.version("uvloop"),
    } | ({"server": _command_of(server_pid)} if server_pid else {})


def _command(arguments: Sequence[str]) -> str:
    """The command line without its secrets, because reports are shown around."""
    told = []
    before = ""
    for argument in arguments:
        if before == "--token":
            told.append("...")
        elif argument.startswith("--token="):
            told.append("--token=...")
        else:
            told.append(argument)
        before = argument
    return shlex.join(["fastcast", *told])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _command_of(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return f"process {pid}"
    return shlex.join(part.decode("utf-8", "replace") for part in command.split(b"\0") if part)
