"""What a result depends on besides the servers: the machine, the kernel's settings, the tools, the commit."""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from catalogue import ROOT

SETTINGS: Final = (
    "net/core/somaxconn",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_wmem",
    "net/ipv4/ip_local_port_range",
)
TOOLS: Final = {
    "gcc": ("gcc", "-dumpfullversion"),
    "node": ("node", "--version"),
    "go": ("go", "version"),
    "ghc": ("ghc", "--numeric-version"),
    "nginx": ("nginx", "-v"),
    "erlang": ("erl", "-noinput", "-eval", "io:put_chars(erlang:system_info(otp_release)), halt()."),
}


def _said(command: Sequence[str]) -> str | None:
    """The first line that a command prints, None when it fails or isn't there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True, cwd=ROOT)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter((done.stdout + done.stderr).splitlines()), "").strip()


def _find(path: str, pattern: str) -> str | None:
    try:
        found = re.search(pattern, Path(path).read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    except OSError:
        return None
    return found[1].strip() if found else None


def describe() -> dict[str, Any]:
    """Return the description as JSON-ready values; what can't be found is None."""
    kilobytes = _find("/proc/meminfo", r"^MemTotal:\s+(\d+) kB$")
    return {
        "processor": _find("/proc/cpuinfo", r"^model name\s*:(.*)$"),
        "processors": os.cpu_count(),
        "memory_bytes": int(kilobytes) * 1024 if kilobytes else None,
        "kernel": platform.release(),
        "system": _find("/etc/os-release", r'^PRETTY_NAME="?([^"\n]*)'),
        "settings": {name: _find(f"/proc/sys/{name}", r"^(.*)$") for name in SETTINGS},
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "tools": {
            "python": platform.python_version(),
            **{name: _said(command) for name, command in TOOLS.items()},
        },
    }


def commit() -> dict[str, Any]:
    """Return the commit of the repository, and whether the files differ from it."""
    return {
        "hash": _said(("git", "rev-parse", "--verify", "HEAD")),
        "modified": bool(_said(("git", "status", "--porcelain"))),
    }
