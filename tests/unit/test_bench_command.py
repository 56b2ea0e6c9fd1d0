"""The command: from arguments to the load client's options, and from its result to output and exit code."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fastcast.bench import command
from fastcast.bench.scenario import OPTIONS
from fastcast.cli import main
from fastcast.errors import ConfigError
from tests.support.bench import MILLISECOND, result, snapshot

URL = "ws://127.0.0.1:8000/"


class FakeLoad:
    """Stands in for the load client; tells two snapshots and what the test wants."""

    def __init__(self) -> None:
        self.options: list[Mapping[str, Any]] = []
        self.result = result()
        self.error: Exception | None = None
        self.signal: signal.Signals | None = None
        self.ended_early = False

    def __call__(
        self,
        options: Mapping[str, Any],
        progress: Callable[[dict[str, Any]], object],
        gate: Callable[[str], object] | None,
        interval: float,
    ) -> dict[str, Any]:
        self.options.append(options)
        if self.error is not None:
            raise self.error
        progress(snapshot(0.5, "connect"))
        if self.signal is not None:
            os.kill(os.getpid(), self.signal)
        self.ended_early = bool(progress(snapshot(1.0, latency=((MILLISECOND, 5),), received=5)))
        return self.result | {"cancelled": self.ended_early}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> FakeLoad:
    fake = FakeLoad()
    monkeypatch.setattr("fastcast._load.run", fake)
    monkeypatch.setattr("fastcast.bench.engine.raise_limit", lambda: None)
    return fake


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", *arguments], prog_name="fastcast")


def usage_error(*arguments: str) -> str:
    ended = run(*arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    return line


class TestOutput:
    def test_a_clean_run_ends_with_its_summary_and_0(self, load: FakeLoad) -> None:
        ended = run(URL)
        assert ended.exit_code == 0
        assert ended.stdout.splitlines()[0] == f"Target        {URL}"
        assert ended.stdout.splitlines()[-1].startswith("Verdict       clean")
        assert "connect" in ended.stderr

    def test_any_flaw_makes_it_1(self, load: FakeLoad) -> None:
        load.result = result(deliveries={"lost": 7})
        ended = run(URL)
        assert ended.exit_code == 1
        assert "7 of 1,000 deliveries lost" in ended.stdout

    def test_quiet_shows_no_progress(self, load: FakeLoad) -> None:
        ended = run(URL, "--quiet")
        assert ended.stderr == ""
        assert "Verdict" in ended.stdout

    def test_json_has_standard_output_to_itself(self, load: FakeLoad) -> None:
        ended = run(URL, "--connections", "100", "--json", "-")
        figures = json.loads(ended.stdout)
        assert figures["scenario"]["connections"] == 100
        assert figures["verdict"] == {"clean": True, "interrupted": False, "findings": []}
        assert figures["deliveries"]["received"] == 1000
        assert [row["phase"] for row in figures["series"]] == ["connect", "messages"]
        assert {"kernel", "cores", "fastcast", "command"} <= figures["environment"].keys()
        assert "Verdict" in ended.stderr

    def test_json_and_report_are_written_to_files(self, load: FakeLoad, tmp_path: Path) -> None:
        ended = run(URL, "--json", str(tmp_path / "run.json"), "--report", str(tmp_path / "run.html"))
        assert "Verdict" in ended.stdout
        assert json.loads((tmp_path / "run.json").read_text("utf-8"))["clean"] is True
        assert (tmp_path / "run.html").read_text("utf-8").startswith("<!DOCTYPE html>")

    def test_a_live_page_is_told_of(self, load: FakeLoad, nothing_left: None) -> None:
        ended = run(URL, "--web", "0")
        assert ended.exit_code == 0
        assert "fastcast bench: live page at http://127.0.0.1:" in ended.stderr

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_an_interrupted_run_still_has_its_summary(self, load: FakeLoad, number: signal.Signals) -> None:
        before = signal.getsignal(number)
        load.signal = number
        ended = run(URL)
        assert load.ended_early
        assert ended.exit_code == 130
        assert ended.stdout.splitlines()[-1] == "Verdict       interrupted"
        assert signal.getsignal(number) == before


class TestOptions:
    def test_every_option_reaches_the_scenario(self, load: FakeLoad, tmp_path: Path) -> None:
        file = tmp_path / "scenario.toml"
        file.write_text("senders = 5\n[[arrivals]]\ncount = 20\nrate = 5\n")
        run(URL, "--scenario", str(file), "--think", "1s", "--think-fixed", "--text", "--query", "a=b")
        (options,) = load.options
        assert (options["connections"], options["senders"], options["think"]) == (20, 5, 1.0)
        assert (options["think_fixed"], options["text"]) == (True, True)
        assert (options["arrivals"], options["url"]) == ([[20, 5.0]], URL + "?a=b")

    def test_phases_of_connecting_are_one_flag(self, load: FakeLoad) -> None:
        run(URL, "--arrivals", "10@5,20", "--header", "A: b", "--header", "C: d")
        assert load.options[0]["arrivals"] == [[10, 5.0], [20, 0.0]]
        assert load.options[0]["headers"] == "A: b\r\nC: d\r\n"

    def test_binary_is_the_other_side_of_text(self, load: FakeLoad, tmp_path: Path) -> None:
        file = tmp_path / "scenario.toml"
        file.write_text("text = true")
        run(URL, "--scenario", str(file), "--binary")
        assert load.options[0]["text"] is False

    def test_web_may_stand_before_the_url(self, load: FakeLoad, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(command, "_WEB", "127.0.0.1:0")
        assert run("--web", URL).exit_code == 0
        assert load.options[0]["url"] == URL

    def test_help_tells_every_option(self) -> None:
        text = run("--help").stdout
        for option in OPTIONS:
            assert option.flag in text
        for flag in (
            "--scenario",
            "--json",
            "--report",
            "--web",
            "--quiet",
            "--agents",
            "--agent",
            "--token",
        ):
            assert flag in text


class TestMistakes:
    def test_no_url(self) -> None:
        assert "there is no URL" in usage_error()

    def test_tls(self) -> None:
        assert "wss:// is not supported yet" in usage_error("wss://example.org/")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--connections", "many"), "--connections: expected a whole number or auto, not 'many'"),
            (("--size", "1k"), "--size: '1k' is not a size"),
            (("--expect", "some"), "--expect: 'some' is not one of all, sender, any"),
            (("--no-such",), "No such option"),
            (("--scenario", "/nowhere.toml"), "/nowhere.toml: No such file or directory"),
            (("--report", "/nowhere/run.html"), "--report: /nowhere/run.html cannot be written"),
            (("--json", "/"), "--json: / cannot be written"),
            (("--web", "a:b"), "--web: 'a:b' is not an address (write HOST:PORT or PORT)"),
            (("--agents", "127.0.0.1"), "--agents: '127.0.0.1' is not an address (write HOST:PORT)"),
            (("--agents", "a:1,a:1"), "--agents: an agent is named twice"),
            (("--agents", ""), "--agents: '' is not an address (write HOST:PORT)"),
            (("--web", ""), "--web: '' is not an address (write HOST:PORT or PORT)"),
            (("--json", ""), "--json: . cannot be written"),
        ],
    )
    def test_is_one_line(self, load: FakeLoad, arguments: tuple[str, ...], message: str) -> None:
        assert message in usage_error(URL, *arguments)
        assert load.options == []

    @pytest.mark.parametrize(
        "arguments",
        [
            (URL,),
            ("--scenario", "x"),
            ("--agents", "a:1"),
            ("--connections", "5"),
            ("--header", "a: b"),
            ("--storm",),
            ("--json", "-"),
            ("--quiet",),
        ],
    )
    def test_an_agent_has_no_run_of_its_own(self, arguments: tuple[str, ...]) -> None:
        message = "--agent: the driver brings URL, scenario and all other options"
        assert message in usage_error(*arguments, "--agent")

    def test_an_agent_beyond_loopback_has_a_token(self) -> None:
        assert "set a --token" in usage_error("--agent", "0.0.0.0:0")

    def test_a_contradiction_that_the_load_client_finds(self, load: FakeLoad) -> None:
        load.error = ValueError("too many threads")
        assert usage_error(URL, "--quiet").endswith("too many threads")

    def test_standard_output_that_takes_nothing(
        self, load: FakeLoad, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(text: str, err: bool = False) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("fastcast.bench.command.click.echo", full)
        with pytest.raises(ConfigError, match=r"^standard output: No space left on device$"):
            main(["bench", URL, "--quiet"], standalone_mode=False)

    def test_a_run_that_cannot_start_is_3(self, load: FakeLoad) -> None:
        load.error = OSError(24, "1,000 descriptors are too few")
        ended = run(URL)
        assert (ended.exit_code, ended.stderr) == (3, "fastcast: error: 1,000 descriptors are too few\n")

    def test_a_page_that_cannot_be_served_is_3(self, load: FakeLoad) -> None:
        ended = run(URL, "--web", "192.0.2.1:1")
        assert ended.exit_code == 3
        assert len(ended.stderr.splitlines()) == 1
        assert load.options == []
