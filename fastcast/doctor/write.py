"""``--write DIR``: what needs to be set, as files that stay in force."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fastcast.doctor.needs import Check, Role, Verdict

SYSCTL_FILE: Final = "90-fastcast.conf"
UNIT_FILE: Final = "fastcast.service"

_WIDTH: Final = 100
_LEAST_FILES: Final = 65536
_LEAST_TASKS: Final = 4096
_TRACKING: Final = "net.netfilter."


def write(
    directory: Path, checks: Sequence[Check], connections: int, role: Role, *, force: bool
) -> list[Path]:
    """Write the files and return their paths; ``directory`` is made if it isn't there.

    Only lines that are needed are written: each limit that is short or tight, and none that fits already. All
    or nothing: raises FileExistsError before anything is written, if a file is there with another content and
    not ``force``; other OSErrors as they come.
    """
    files = {SYSCTL_FILE: _sysctls(checks, connections)}
    if role is not Role.LOAD:
        files[UNIT_FILE] = _unit(checks, connections)
    for name, content in files.items():
        path = directory / name
        if not force and path.exists() and path.read_text("utf-8", "replace") != content:
            problem = f"{name} is there already, and differs (--force overwrites it)"
            raise FileExistsError(errno.EEXIST, problem)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name).write_text(content, "utf-8")
    return [directory / name for name in files]


def _comment(text: str) -> list[str]:
    # What is to be copied has hyphens, in flags and paths.
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def _sysctls(checks: Sequence[Check], connections: int) -> str:
    lines = [
        *_comment(f"For {connections:,} connections of fastcast, by `fastcast doctor`."),
        *_comment(f"Install: cp {SYSCTL_FILE} /etc/sysctl.d/ && sysctl --system"),
    ]
    found = False
    elsewhere = set()
    for check in checks:
        for setting in check.settings:
            if setting.kind == "sysctl":
                found = True
                lines.append("")
                lines += _comment(check.why)
                if check.need is not None and check.value is not None:
                    lines += _comment(f"Found: {check.value:,}; needed: {check.need:,}.")
                if setting.key.startswith(_TRACKING):
                    lines += _comment(
                        "It is there at boot only if its module is: echo nf_conntrack >"
                        " /etc/modules-load.d/nf_conntrack.conf"
                    )
                lines.append(f"{setting.key} = {setting.value}")
            elif setting.line not in elsewhere:
                elsewhere.add(setting.line)
                lines += ["", *_comment(f"No sysctl, to be set elsewhere: {setting.line}")]
    if not found:
        lines += ["", *_comment("Every sysctl is high enough already: there is nothing to set.")]
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    """A word of a command line as systemd reads it (systemd.service(5), systemd.syntax(7))."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if any(letter in word for letter in " \t;'\"\\") else escaped


def _unit(checks: Sequence[Check], connections: int) -> str:
    by_name = {check.name: check for check in checks}
    files = by_name["nofile hard"]
    raised = [int(setting.value) for setting in files.settings]
    if files.verdict is Verdict.FITS and files.value is not None:
        limit = files.value  # perhaps as high as this machine allows
    elif raised and (by_name["fs.nr_open"].value or _LEAST_FILES) < _LEAST_FILES:
        limit = raised[0]
    else:
        limit = max([_LEAST_FILES, *raised])  # more than the least costs nothing
    threads = max((check.need or 0 for check in checks if check.name == "kernel.threads-max"), default=0)
    program = shutil.which("fastcast")
    command = [os.path.abspath(program)] if program else [sys.executable, "-m", "fastcast"]
    start = " ".join(map(_quoted, command))
    lines = [
        *_comment(f"A server for {connections:,} connections, by `fastcast doctor`."),
        *_comment(f"Install: cp {UNIT_FILE} /etc/systemd/system/ && systemctl enable --now fastcast"),
        "[Unit]",
        "Description=fastcast, broadcast over WebSocket",
        *_comment("An address to listen on must be there first."),
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        *_comment(
            "From the number follows how many shards there are: each has an fd table of its own. It"
            " listens on loopback; --host and --port are for others."
        ),
        f"ExecStart={start} serve --max-connections {connections}",
        *_comment(files.why),
        f"LimitNOFILE={limit}",
        *_comment("Threads of the service: systemd counts them as tasks."),
        f"TasksMax={max(threads, _LEAST_TASKS)}",
        *_comment("A mistake in the options (exit status 2) doesn't go away by trying again."),
        "Restart=on-failure",
        "RestartPreventExitStatus=2",
        *_comment(
            "A user that exists only while the service runs. The program must be where everybody can read it,"
            " which nobody can below /root."
        ),
        "DynamicUser=yes",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"
