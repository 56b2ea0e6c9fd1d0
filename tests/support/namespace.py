"""Network namespaces, whose sysctls a test may lower without anybody else noticing."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

TRACK_CONNECTIONS = (
    "nft 'add table ip t; add chain ip t c { type filter hook input priority 0; };"
    " add rule ip t c ct state new'"
)
"""A shell command by which the namespace's firewall begins to track connections; takes nftables."""

_CLONE_NEWNET = 0x40000000  # unshare(2)
_SIOCSIFFLAGS = 0x8914  # netdevice(7)
_IFF_UP = 0x1


def in_namespace(body: Callable[[], None]) -> None:
    """Run `body` in a network namespace of its own, with loopback up; skips where that isn't allowed.

    It runs in a thread, to which alone the namespace belongs: sockets and processes that `body` makes are in
    it, and it is gone when they are. What `body` raises is raised here.
    """
    refused: list[int] = []
    raised: list[BaseException] = []

    def run() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET):
            refused.append(ctypes.get_errno())
            return
        try:
            _raise_loopback()
            body()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if refused:
        pytest.skip(f"no network namespace may be made here: {os.strerror(refused[0])}")
    if raised:
        raise raised[0]


def set_sysctl(name: str, *values: int) -> None:
    """Set a sysctl of the namespace of the calling thread."""
    Path("/proc/sys", name.replace(".", "/")).write_text(" ".join(map(str, values)), "ascii")


def needs_program(name: str) -> None:
    """Skip the test where a program isn't installed."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))
