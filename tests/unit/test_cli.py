"""The command line: help that teaches, one-line errors, exit codes, and what reaches the server."""

from __future__ import annotations

import itertools
import logging
import resource
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

import fastcast
from fastcast.channels import Rule
from fastcast.cli import main
from fastcast.config import OPTIONS, Config
from fastcast.errors import StartError
from fastcast.history import Keep
from fastcast.options import MIB, Option

if TYPE_CHECKING:
    from fastcast.server import Server

GIVEN: dict[str, tuple[str, Any]] = {
    "host": ("::1", "::1"),
    "port": ("0", 0),
    "shards": ("3", 3),
    "page": ("", True),
    "origin": ("https://a.b", ("https://a.b",)),
    "subprotocol": ("chat", ("chat",)),
    "trusted_proxy": ("10.0.0.0/8", ("10.0.0.0/8",)),
    "proxy_protocol": ("", True),
    "jwt_secret": (48 * "s", 48 * "s"),
    "jwt_jwks_file": ("keys.json", "keys.json"),
    "jwt_algorithm": ("HS384", ("HS384",)),
    "jwt_audience": ("live", "live"),
    "jwt_issuer": ("login", "login"),
    "jwt_channels": ("rooms", "rooms"),
    "jwt_from": ("cookie", ("cookie",)),
    "jwt_name": ("session", "session"),
    "relay": ("all", "all"),
    "slow": ("latest", "latest"),
    "history": ("100/5m", Keep(100, 300.0)),
    "channel": ("'a.* slow=latest'", (Rule("a.*", "latest"),)),
    "max_connections": ("100", 100),
    "max_handshakes": ("50", 50),
    "max_per_address": ("3", 3),
    "max_message": ("64KiB", 65536),
    "max_queue": ("4MiB", 4 * MIB),
    "max_queue_messages": ("7", 7),
    "max_history": ("2MiB", 2 * MIB),
    "rate_limit": ("0.5", 0.5),
    "rate_burst": ("9", 9),
    "presence": ("", True),
    "max_handlers": ("8", 8),
    "io": ("epoll", "epoll"),
    "flush_interval": ("50ms", 0.05),
    "max_backlog": ("1.5MB", 1_500_000),
    "handshake_timeout": ("500ms", 0.5),
    "ping_interval": ("0", 0.0),
    "ping_timeout": ("7", 7.0),
    "close_timeout": ("1.5s", 1.5),
    "shutdown_timeout": ("1m", 60.0),
    "admin_host": ("::1", "::1"),
    "admin_port": ("0", 0),
    "admin_token": ("'no token to guess'", "no token to guess"),
    "bus": ("nats://a:4222", ("nats://a:4222",)),
    "bus_prefix": ("app", "app"),
    "bus_alone": ("refuse", "refuse"),
    "bus_credentials": ("user.creds", "user.creds"),
    "bus_nkey": ("user.nk", "user.nk"),
    "bus_ca": ("ca.pem", "ca.pem"),
    "bus_certificate": ("cert.pem", "cert.pem"),
    "bus_key": ("key.pem", "key.pem"),
    "log_level": ("ERROR", "error"),
}
"""What is written after each flag, and what the server is to get for it."""

NEEDED: dict[str, tuple[str, ...]] = {
    "proxy_protocol": ("trusted_proxy",),
    "jwt_algorithm": ("jwt_secret",),
    "jwt_audience": ("jwt_secret",),
    "jwt_issuer": ("jwt_secret",),
    "jwt_channels": ("jwt_secret",),
    "jwt_from": ("jwt_secret",),
    "jwt_name": ("jwt_secret",),
    "admin_host": ("admin_port", "admin_token"),
    "admin_port": ("admin_token",),
    "admin_token": ("admin_port",),
    **dict.fromkeys(("bus_prefix", "bus_alone", "bus_credentials", "bus_nkey"), ("bus",)),
    **dict.fromkeys(("bus_ca", "bus_certificate"), ("bus",)),
    "bus_key": ("bus", "bus_certificate"),
}
"""Options that make no sense without others."""


class FakeRun:
    """Stands in for ``Server.run``: records the configurations that reach it, and ends as the test wants."""

    def __init__(self) -> None:
        self.configs: list[Config] = []
        self.code = 0
        self.error: BaseException | None = None
        self.logs: dict[int, str] = {}

    def run(self, server: Server, ready: Callable[[], object]) -> int:
        self.configs.append(server.config)
        if self.error is not None:
            raise self.error
        for level, message in self.logs.items():
            logging.getLogger("fastcast").log(level, message)
        ready()
        return self.code

    @property
    def config(self) -> Config:
        (config,) = self.configs
        return config


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    fake = FakeRun()
    monkeypatch.setattr("fastcast.server.Server.run", lambda server, ready: fake.run(server, ready))
    monkeypatch.setattr("fastcast.server.Server.describe", lambda server: "the ready line")
    return fake


class FakeLimit:
    """The process's descriptor limit, so that the tests leave the real one alone."""

    def __init__(self, soft: int, hard: int) -> None:
        self.limit = (soft, hard)
        self.error: Exception | None = None

    def get(self, _which: int) -> tuple[int, int]:
        return self.limit

    def set(self, which: int, limit: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE
        if self.error is not None:
            raise self.error
        self.limit = limit


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> FakeLimit:
    fake = FakeLimit(1024, 20_000)
    monkeypatch.setattr(resource, "getrlimit", fake.get)
    monkeypatch.setattr(resource, "setrlimit", fake.set)
    return fake


@contextmanager
def fresh_logging() -> Iterator[None]:
    """The root logger without handlers, as a new process has it; put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def invoke(*args: str, **environ: str) -> Result:
    unset: dict[str, str | None] = dict.fromkeys((option.variable for option in OPTIONS), None)
    with fresh_logging():
        return CliRunner().invoke(
            main, args, prog_name="fastcast", env=unset | {"FASTCAST_CONFIG": None} | environ
        )


def python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], check=False, capture_output=True, text=True, timeout=60)


def assert_error(result: Result, code: int, message: str) -> None:
    assert result.stderr == f"fastcast: error: {message}\n"
    assert result.stdout == ""
    assert result.exit_code == code


class TestHelp:
    def test_the_program_lists_its_commands(self) -> None:
        result = invoke("--help")
        assert result.exit_code == 0
        assert "Relay messages between the clients of a channel." in result.stdout

    def test_the_version_is_the_package_version(self) -> None:
        result = invoke("--version")
        assert (result.exit_code, result.stdout) == (0, f"fastcast {fastcast.__version__}\n")

    @pytest.fixture
    def words(self) -> str:
        """The help of serve, in one line: where it wraps does not matter."""
        result = invoke("serve", "--help")
        assert result.exit_code == 0
        return " ".join(result.stdout.split())

    def test_every_option_is_shown_with_its_help_and_default(self, words: str) -> None:
        for option in OPTIONS:
            assert f"{option.flag} " in words
            shown = option.kind.show(option.default)
            assert option.help + (f" [default: {shown}]" if shown else "") in words

    def test_options_stand_under_headings_in_the_order_of_the_configuration(self, words: str) -> None:
        headings = list(dict.fromkeys(option.group for option in OPTIONS))
        places = [words.index(f" {heading}: --") for heading in [*headings, "Other"]]
        assert places == sorted(places)

    def test_units_variables_file_and_examples_are_taught(self, words: str) -> None:
        for lesson in ("64KiB", "500ms", "FASTCAST_MAX_QUEUE=4MiB", 'max_queue = "4MiB"', "FASTCAST_CONFIG"):
            assert lesson in words
        assert words.count(" fastcast serve --") >= 2

    def test_no_line_is_wider_than_a_terminal(self) -> None:
        result = invoke("serve", "--help")
        assert max(map(len, result.stdout.splitlines())) <= 80

    def test_help_needs_no_server(self) -> None:
        code = (
            "import sys; from fastcast.cli import main\n"
            "try: main(['serve', '--help'])\n"
            "finally: print('asyncio' in sys.modules, 'fastcast._core' in sys.modules, file=sys.stderr)"
        )
        done = python("-c", code)
        assert (done.returncode, done.stderr) == (0, "False False\n")


class TestServe:
    def test_without_arguments_the_defaults_are_served(self, run: FakeRun) -> None:
        result = invoke("serve")
        assert (result.exit_code, result.stderr) == (0, "")
        assert run.config == Config()

    def test_the_ready_line_is_all_that_goes_to_stdout(self, run: FakeRun) -> None:
        assert invoke("serve").stdout == "the ready line\n"

    def test_repeated_flags_and_a_switch_that_is_off_reach_the_server(self, run: FakeRun) -> None:
        assert invoke("serve", "--origin", "https://a.b", "--no-page", "--origin", "*").exit_code == 0
        assert run.config == Config(origin=("https://a.b", "*"), page=False)

    @pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
    def test_every_option_can_be_given_as_a_flag(self, run: FakeRun, option: Option) -> None:
        names = (*NEEDED.get(option.name, ()), option.name)
        flags = [(f"--{name.replace('_', '-')}", *shlex.split(GIVEN[name][0])) for name in names]
        assert invoke("serve", *itertools.chain(*flags)).exit_code == 0
        assert run.config == Config(**{name: GIVEN[name][1] for name in names})

    def test_flag_wins_over_variable_and_variable_over_file(self, run: FakeRun, tmp_path: Path) -> None:
        file = tmp_path / "fastcast.toml"
        file.write_text('port = 3\nmax_queue = "3MiB"\nhost = "::1"')
        result = invoke(
            "serve", "--config", str(file), "--port", "1", FASTCAST_PORT="2", FASTCAST_MAX_QUEUE="2MiB"
        )
        assert result.exit_code == 0
        assert (run.config.port, run.config.max_queue, run.config.host) == (1, 2 * MIB, "::1")

    def test_the_file_may_be_named_by_a_variable(self, run: FakeRun, tmp_path: Path) -> None:
        file = tmp_path / "fastcast.toml"
        file.write_text("port = 3")
        assert invoke("serve", FASTCAST_CONFIG=str(file)).exit_code == 0
        assert run.config.port == 3

    def test_an_empty_variable_names_no_file(self, run: FakeRun) -> None:
        assert invoke("serve", FASTCAST_CONFIG="").exit_code == 0

    def test_rules_of_channels_may_be_given_in_the_file(self, run: FakeRun, tmp_path: Path) -> None:
        file = tmp_path / "fastcast.toml"
        file.write_text('[channel."a.*"]\nslow = "latest"\nmax_queue = "1KiB"\n[channel.b]\n')
        assert invoke("serve", "--config", str(file)).exit_code == 0
        assert run.config.channel == (Rule("a.*", "latest", 1024), Rule("b"))

    def test_the_exit_code_is_the_one_of_the_server(self, run: FakeRun) -> None:
        run.code = 7
        assert invoke("serve").exit_code == 7

    def test_the_descriptor_limit_is_raised_as_far_as_allowed(self, run: FakeRun, limit: FakeLimit) -> None:
        invoke("serve")
        assert limit.limit == (20_000, 20_000)

    def test_a_descriptor_limit_that_stays_is_logged(self, run: FakeRun, limit: FakeLimit) -> None:
        limit.error = ValueError("not allowed to raise maximum limit")
        result = invoke("serve")
        assert result.exit_code == 0
        assert "the file descriptor limit stays at 1024 of 20000: not allowed" in result.stderr
        assert result.stdout == "the ready line\n"

    def test_logs_go_to_stderr_from_the_level_asked_for(self, run: FakeRun) -> None:
        run.logs = {logging.INFO: "of little weight", logging.WARNING: "of some weight"}
        result = invoke("serve", "--log-level", "warning")
        assert result.stderr.endswith(" WARNING fastcast: of some weight\n")
        assert (result.stderr.count("\n"), result.stdout) == (1, "the ready line\n")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the current directory that has a server; its name."""
    (tmp_path / "its_program.py").write_text(
        "import fastcast\nserver = fastcast.Server(port=3, max_message='2KiB', log_level='error')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield "its_program"
    sys.modules.pop("its_program", None)


class TestProgram:
    """serve MODULE:SERVER."""

    def test_its_server_is_served_with_its_options(self, run: FakeRun, program: str) -> None:
        result = invoke("serve", f"{program}:server")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "the ready line\n", "")
        assert run.config == Config(port=3, max_message=2048, log_level="error")

    def test_what_is_given_outside_of_it_wins(self, run: FakeRun, program: str) -> None:
        assert invoke("serve", f"{program}:server", "--port", "4", FASTCAST_SHARDS="2").exit_code == 0
        assert run.config == Config(port=4, shards=2, max_message=2048, log_level="error")

    def test_logs_go_to_stderr_from_the_level_that_it_asks_for(self, run: FakeRun, program: str) -> None:
        run.logs = {logging.WARNING: "of some weight", logging.ERROR: "of great weight"}
        result = invoke("serve", f"{program}:server")
        assert result.stderr.endswith(" ERROR fastcast: of great weight\n")
        assert result.stderr.count("\n") == 1

    def test_one_that_is_not_there_is_an_error_in_one_line(self, run: FakeRun, program: str) -> None:
        result = invoke("serve", f"{program}:srever")
        assert_error(result, 2, "its_program:srever: there is no 'srever' in its_program")

    def test_a_wrong_option_for_it_is_an_error_in_one_line(self, run: FakeRun, program: str) -> None:
        result = invoke("serve", f"{program}:server", "--port", "70000")
        assert_error(result, 2, "--port: 70000 is not between 0 and 65535")


class TestErrors:
    def test_no_command(self) -> None:
        assert_error(invoke(), 2, "Missing command. (see 'fastcast --help')")

    def test_an_unknown_command(self) -> None:
        result = invoke("sevre")
        assert result.stderr.startswith("fastcast: error: No such command 'sevre'")
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)

    def test_an_unknown_flag(self) -> None:
        result = invoke("serve", "--prot", "1")
        assert result.stderr.startswith("fastcast: error: No such option")
        assert "--port" in result.stderr
        assert result.stderr.endswith("(see 'fastcast serve --help')\n")
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)

    def test_a_flag_without_its_value(self) -> None:
        result = invoke("serve", "--port")
        assert result.stderr.startswith("fastcast: error: Option '--port' requires an argument.")
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)

    def test_an_argument_too_many(self) -> None:
        result = invoke("serve", "chat:server", "8000")
        assert "unexpected extra argument (8000)" in result.stderr
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)

    def test_a_wrong_value_never_reaches_the_server(self, run: FakeRun) -> None:
        result = invoke("serve", "--port", "70000")
        assert_error(result, 2, "--port: 70000 is not between 0 and 65535")
        assert run.configs == []

    def test_a_wrong_variable(self) -> None:
        result = invoke("serve", FASTCAST_MAX_QUEUE="1k")
        assert_error(result, 2, "FASTCAST_MAX_QUEUE: '1k' is not a size (write 65536, 64KiB, 1.5MiB or 2GB)")

    def test_a_wrong_key_in_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "fastcast.toml"
        file.write_text('port = "8000"')
        result = invoke("serve", "--config", str(file))
        assert_error(result, 2, f"{file}: port: expected a whole number, not '8000'")

    def test_a_missing_file(self, tmp_path: Path) -> None:
        file = tmp_path / "absent.toml"
        assert_error(invoke("serve", "--config", str(file)), 2, f"{file}: No such file or directory")

    def test_a_file_name_with_a_line_break_still_gives_one_line(self) -> None:
        assert_error(invoke("serve", "--config", "no\nfile"), 2, "no file: No such file or directory")

    def test_a_server_that_cannot_start(self, run: FakeRun) -> None:
        run.error = StartError("cannot listen on 127.0.0.1:80: Permission denied")
        assert_error(invoke("serve"), 3, "cannot listen on 127.0.0.1:80: Permission denied")

    def test_an_interrupt_before_the_server_handles_signals(self, run: FakeRun) -> None:
        run.error = KeyboardInterrupt()
        result = invoke("serve")
        assert (result.exit_code, result.stdout) == (130, "")
        assert result.stderr.strip() == ""

    def test_a_defect_of_the_program_is_not_hidden(self, run: FakeRun) -> None:
        run.error = ZeroDivisionError("a defect")
        assert isinstance(invoke("serve").exception, ZeroDivisionError)


class TestModule:
    def test_the_module_is_the_command(self) -> None:
        done = python("-m", "fastcast", "serve", "--port", "x")
        assert done.stderr == "fastcast: error: --port: expected a whole number, not 'x'\n"
        assert (done.returncode, done.stdout) == (2, "")
