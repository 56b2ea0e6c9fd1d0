"""`fastcast serve` as a process: its ready line, its options' sources, and one line for what is wrong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.server import running
from tests.support.wire import TEXT, TIMEOUT, Client, Frame, close_code, frame

USAGE, START = 2, 3


def run(*words: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, which must come by itself."""
    return subprocess.run(
        [sys.executable, "-m", "fastcast", *words],
        env=os.environ | (environ or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=3 * TIMEOUT,
        check=False,
    )


def error_of(ended: subprocess.CompletedProcess[str], code: int) -> str:
    """What is wrong, from a command that failed as it should: one line on stderr, nothing on stdout."""
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == ""
    line, newline, rest = ended.stderr.partition("\n")
    assert (newline, rest) == ("\n", "")
    assert line.startswith("fastcast: error: ")
    return line.removeprefix("fastcast: error: ")


class TestCannotStart:
    """Exit code 3: the configuration is valid, but the system says no."""

    def test_port_in_use(self) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as other:
            port = str(other.getsockname()[1])
            error = error_of(run("serve", "--port", port), START)
        assert f"127.0.0.1 port {port}" in error
        assert "Address already in use" in error

    def test_port_of_another_fastcast(self) -> None:
        with running() as server:
            port = str(server.address[1])
            assert "Address already in use" in error_of(run("serve", "--port", port), START)
            with Client(server.address) as client:
                client.close()

    @pytest.mark.parametrize(
        "host",
        ["203.0.113.1", "no-such-host.invalid", "two..dots", "x" * 300, "a b", "::1%nowhere", "1.2.3.4.5"],
        ids=lambda host: host[:20],
    )
    def test_host_that_is_not_this_machine(self, host: str) -> None:
        assert host[:20] in error_of(run("serve", "--port", "0", "--host", host), START)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may use every port")
    def test_port_that_needs_privileges(self) -> None:
        assert "Permission denied" in error_of(run("serve", "--port", "1"), START)


class TestWrongUsage:
    """Exit code 2: nothing is tried."""

    @pytest.mark.parametrize(
        ("words", "complaint"),
        [
            (("serve", "--prot", "80"), "--prot"),
            (("serve", "--port", "http"), "--port"),
            (("serve", "--port", "65536"), "--port"),
            (("serve", "--max-message", "lots"), "--max-message"),
            (("serve", "--ping-interval", "-1"), "--ping-interval"),
            (("serve", "--max-backlog", "1KiB"), "--max-backlog"),
            (("serve", "surplus"), "surplus"),
            (("sevre",), "sevre"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
    )
    def test_flag_or_argument(self, words: tuple[str, ...], complaint: str) -> None:
        assert complaint in error_of(run(*words), USAGE)

    def test_variable(self) -> None:
        ended = run("serve", environ={"FASTCAST_SHARDS": "several"})
        assert "FASTCAST_SHARDS" in error_of(ended, USAGE)

    @pytest.mark.parametrize(
        ("contents", "complaint"),
        [
            (b"port = \n", "not valid TOML"),
            (b"\xff\xfe", "not valid TOML"),
            (b"prot = 80\n", "'prot'"),
            (b'port = "80"\n', "port"),
            (b"port = true\n", "port"),
            (b"[serve]\nport = 80\n", "'serve'"),
        ],
        ids=lambda value: value.decode("latin-1").strip() if isinstance(value, bytes) else "",
    )
    def test_file_with_a_mistake(self, tmp_path: Path, contents: bytes, complaint: str) -> None:
        file = tmp_path / "fastcast.toml"
        file.write_bytes(contents)
        error = error_of(run("serve", "--config", str(file)), USAGE)
        assert error.startswith(str(file))
        assert complaint in error

    def test_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        for file in (tmp_path, tmp_path / "missing.toml"):
            assert error_of(run("serve", "--config", str(file)), USAGE).startswith(str(file))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
    def test_file_without_permission(self, tmp_path: Path) -> None:
        file = tmp_path / "secret.toml"
        file.touch(mode=0)
        assert "Permission denied" in error_of(run("serve", "--config", str(file)), USAGE)


class TestReady:
    """A start that succeeds."""

    def test_port_0_is_a_free_port_and_the_line_says_which(self) -> None:
        # `running` takes the address from the line.
        with running() as one, running() as two:
            assert one.address[1] != two.address[1]
            with Client(one.address) as client:
                client.close()

    def test_interrupt_before_anyone_connects_is_a_graceful_end(self) -> None:
        with running() as server:
            server.signal(signal.SIGINT)
            assert server.wait() == 0

    def test_flag_wins_over_variable_and_variable_over_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "fastcast.toml"
        file.write_text('max_message = 10\nmax_connections = 2\norigin = ["https://good.example"]\n', "utf-8")
        monkeypatch.setenv("FASTCAST_CONFIG", str(file))
        headers = [("Origin", "https://good.example")]
        expectations: list[tuple[int, dict[str, str], tuple[str, ...]]] = [
            (10, {}, ()),
            (20, {"FASTCAST_MAX_MESSAGE": "20"}, ()),
            (30, {"FASTCAST_MAX_MESSAGE": "20"}, ("--max-message", "30")),
        ]
        for limit, variables, flags in expectations:
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            with running(*flags) as server, Client(server.address, headers=headers) as client:
                client.send(frame(TEXT, b"x" * limit))
                assert client.read_message() == Frame(TEXT, b"x" * limit)
                client.send(frame(TEXT, b"x" * (limit + 1)))
                assert [close_code(received) for received in client.frames()] == [1009]
