"""The environment: what a report says about where a run took place."""

from __future__ import annotations

import os
import sys

import pytest

from fastcast.bench.environment import describe


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["bench", "ws://h/?a b"], "fastcast bench 'ws://h/?a b'"),
        (["bench", "--token", "secret", "--quiet"], "fastcast bench --token ... --quiet"),
        (["bench", "--token=secret"], "fastcast bench --token=..."),
    ],
)
def test_the_command_is_told_without_its_secrets(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], command: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/fastcast", *arguments])
    assert describe()["command"] == command


def test_the_machine_is_told() -> None:
    told = describe()
    assert told["cores"] == len(os.sched_getaffinity(0))
    assert told["kernel"] == os.uname().release
    assert told["memory"] > 1 << 20
    assert "server" not in told


def test_a_measured_server_is_told_by_its_command() -> None:
    assert "pytest" in describe(os.getpid())["server"]


def test_a_server_that_has_gone_is_told_by_its_number() -> None:
    assert describe(2**22 + 1)["server"] == f"process {2**22 + 1}"
