"""`fastcast doctor` as a command: what it prints and writes, and how it ends."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fastcast.doctor import command, facts
from fastcast.doctor.facts import Facts
from fastcast.doctor.write import SYSCTL_FILE, UNIT_FILE
from tests.support.machine import ROOMY, N, with_sysctl


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[Facts]:
    """The machine that the doctor finds: the last in the list."""
    machines = [ROOMY]
    monkeypatch.setattr(facts, "read", lambda probe: machines[-1])
    return machines


def run(*arguments: str) -> Result:
    """Run it. Whatever it raises but an exit fails the test."""
    return CliRunner().invoke(command.doctor, ["--connections", str(N), *arguments])


def report(*arguments: str) -> dict[str, Any]:
    """Its JSON."""
    found: dict[str, Any] = json.loads(run("--json", "-", *arguments).stdout)
    return found


class TestOutcome:
    """0 when the number fits, 1 when it doesn't, 2 for what makes no sense."""

    def test_of_a_machine_where_it_fits(self, machine: list[Facts]) -> None:
        result = run()
        assert result.exit_code == 0
        assert "200,000 connections fit." in result.stdout
        assert "fastcast serve --max-connections 200000" in result.stdout

    def test_tight_fits(self, machine: list[Facts]) -> None:
        machine.append(with_sysctl("net.core.somaxconn", 4096))
        result = run()
        assert result.exit_code == 0
        assert "connections fit. Tight: net.core.somaxconn." in result.stdout

    def test_short_does_not_and_the_line_to_set_is_there(self, machine: list[Facts]) -> None:
        machine.append(with_sysctl("fs.epoll.max_user_watches", 1000))
        result = run()
        assert result.exit_code == 1
        assert "do not fit. Short: fs.epoll.max_user_watches." in result.stdout
        assert "\n    sysctl -w fs.epoll.max_user_watches=2" in result.stdout

    def test_what_no_setting_changes_is_said(self, machine: list[Facts]) -> None:
        machine.append(replace(ROOMY, memory_available=10))
        result = run()
        assert result.exit_code == 1
        assert "more memory, or fewer connections" in result.stdout

    def test_what_is_unknown_is_named(self, machine: list[Facts]) -> None:
        assert "Unknown" not in run().stdout
        machine.append(with_sysctl("fs.file-max"))
        result = run()
        assert result.exit_code == 0
        assert "Unknown, and not counted: fs.file-max." in result.stdout

    def test_what_a_container_cannot_set_is_said(self, machine: list[Facts]) -> None:
        low = with_sysctl("net.core.somaxconn", 4096)
        machine.append(low)
        assert "container" not in run().stdout
        machine.append(replace(low, locked=frozenset(["net.core.somaxconn", "fs.file-max"])))
        found = " ".join(run().stdout.split())
        assert "Not to be set from here, as in a container: net.core.somaxconn. What" in found
        assert report()["locked"] == ["net.core.somaxconn"]

    @pytest.mark.parametrize(
        "arguments", [("--connections", "0"), ("--connections", "many"), ("--role", "proxy"), ("--unknown",)]
    )
    def test_wrong_usage(self, machine: list[Facts], arguments: tuple[str, ...]) -> None:
        assert run(*arguments).exit_code == 2

    def test_a_report_that_cannot_be_written(self, machine: list[Facts], tmp_path: Path) -> None:
        assert run("--json", str(tmp_path / "none" / "report.json")).exit_code == 2


@pytest.mark.parametrize("role", ["server", "load", "both"])
def test_table_is_at_most_100_columns_wide(machine: list[Facts], role: str) -> None:
    # The least of everything, so that everything has something to say; lines to be copied are never broken.
    machine.append(
        replace(
            ROOMY,
            sysctls={name: tuple(1 for _ in values) for name, values in ROOMY.sysctls.items()},
            nofile_hard=100,
            memory_available=1,
        )
    )
    output = run("--role", role, "--connections", "1000000000").stdout
    lines = [line for line in output.splitlines() if not line.startswith("    ")]
    assert max(len(line.rstrip()) for line in lines) <= 100
    assert "short" in output


class TestJson:
    """For programs: numbers as they are."""

    def test_has_every_check(self, machine: list[Facts]) -> None:
        found = report()
        assert (found["connections"], found["role"], found["fits"]) == (N, "server", True)
        files = next(each for each in found["checks"] if each["name"] == "nofile hard")
        assert files["value"] == 1_048_576
        assert files["verdict"] == "fits"
        assert files["lines"] == []
        assert set(files) == {"name", "value", "need", "unit", "verdict", "note", "why", "lines"}

    def test_goes_to_a_file_beside_the_table(self, machine: list[Facts], tmp_path: Path) -> None:
        file = tmp_path / "report.json"
        result = run("--json", str(file))
        assert "nofile hard" in result.stdout
        assert json.loads(file.read_text("utf-8"))["fits"] is True

    def test_says_that_it_does_not_fit(self, machine: list[Facts]) -> None:
        machine.append(with_sysctl("fs.file-max", 1000))
        assert report()["fits"] is False


class TestWrite:
    """--write makes files, and touches nothing else."""

    def test_only_what_is_needed_with_what_it_does(self, machine: list[Facts], tmp_path: Path) -> None:
        machine.append(with_sysctl("net.core.somaxconn", 4096))
        result = run("--write", str(tmp_path / "new"))
        text = (tmp_path / "new" / SYSCTL_FILE).read_text("utf-8")
        assert str(tmp_path / "new" / SYSCTL_FILE) in result.stdout
        settings = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert settings == ["net.core.somaxconn = 65535"]
        assert "# Found: 4,096; needed: 65,535." in text
        assert "listener's queue" in text

    def test_nothing_to_set_is_said(self, machine: list[Facts], tmp_path: Path) -> None:
        run("--write", str(tmp_path))
        text = (tmp_path / SYSCTL_FILE).read_text("utf-8")
        assert all(line.startswith("#") for line in text.splitlines() if line)
        assert "nothing to set" in text

    def test_the_unit_starts_a_server_with_files_enough(self, machine: list[Facts], tmp_path: Path) -> None:
        machine.append(replace(ROOMY, nofile_soft=200, nofile_hard=200))
        run("--write", str(tmp_path))
        lines = (tmp_path / UNIT_FILE).read_text("utf-8").splitlines()
        assert "LimitNOFILE=65536" in lines
        start = next(line for line in lines if line.startswith("ExecStart="))
        assert start.endswith(f"serve --max-connections {N}")
        assert start.startswith("ExecStart=/")  # systemd.service(5): an absolute path

    def test_the_unit_asks_for_no_more_files_than_can_be_had(
        self, machine: list[Facts], tmp_path: Path
    ) -> None:
        low = replace(ROOMY, nofile_soft=200, nofile_hard=200)
        machine.append(with_sysctl("fs.nr_open", 4096, facts=low))
        (line,) = next(each["lines"] for each in report()["checks"] if each["name"] == "nofile hard")
        run("--write", str(tmp_path))
        limit = f"LimitNOFILE={line.removeprefix('ulimit -n ')}"
        assert limit in (tmp_path / UNIT_FILE).read_text("utf-8").splitlines()

    def test_the_unit_of_a_machine_without_a_limit(self, machine: list[Facts], tmp_path: Path) -> None:
        machine.append(replace(ROOMY, nofile_soft=None, nofile_hard=None))
        run("--write", str(tmp_path))
        assert "LimitNOFILE=65536" in (tmp_path / UNIT_FILE).read_text("utf-8").splitlines()

    def test_the_program_of_the_unit_may_have_any_path(
        self, machine: list[Facts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("shutil.which", lambda _: '/opt/my "100%" programs/fastcast')
        run("--write", str(tmp_path))
        start = 'ExecStart="/opt/my \\"100%%\\" programs/fastcast" serve'
        assert start in (tmp_path / UNIT_FILE).read_text("utf-8")

    def test_a_number_of_the_firewall_names_its_module(self, machine: list[Facts], tmp_path: Path) -> None:
        machine.append(with_sysctl("net.netfilter.nf_conntrack_max", 1000))
        run("--write", str(tmp_path))
        assert "/etc/modules-load.d/" in (tmp_path / SYSCTL_FILE).read_text("utf-8")

    def test_a_limit_that_is_enough_already_is_kept(self, machine: list[Facts], tmp_path: Path) -> None:
        machine.append(replace(ROOMY, nofile_soft=20_000, nofile_hard=20_000))
        run("--write", str(tmp_path))
        assert "LimitNOFILE=20000" in (tmp_path / UNIT_FILE).read_text("utf-8").splitlines()

    def test_a_load_client_has_no_unit(self, machine: list[Facts], tmp_path: Path) -> None:
        run("--write", str(tmp_path), "--role", "load")
        assert [file.name for file in tmp_path.iterdir()] == [SYSCTL_FILE]

    def test_what_is_no_sysctl_is_a_comment(self, machine: list[Facts], tmp_path: Path) -> None:
        machine.append(replace(ROOMY, addresses=1, device="ens5"))
        run("--write", str(tmp_path), "--role", "load")
        text = (tmp_path / SYSCTL_FILE).read_text("utf-8")
        assert "net.ipv4.ip_local_port_range = 1024 65535" in text.splitlines()
        assert "# No sysctl, to be set elsewhere: ip addr add" in text

    def test_another_content_is_overwritten_by_force_only(self, machine: list[Facts], tmp_path: Path) -> None:
        (tmp_path / UNIT_FILE).write_text("mine\n", "utf-8")
        result = run("--write", str(tmp_path))
        assert result.exit_code == 2
        assert "--force" in result.stderr
        assert [file.name for file in tmp_path.iterdir()] == [UNIT_FILE]
        assert (tmp_path / UNIT_FILE).read_text("utf-8") == "mine\n"
        assert run("--write", str(tmp_path), "--force").exit_code == 0
        assert "LimitNOFILE" in (tmp_path / UNIT_FILE).read_text("utf-8")

    def test_the_same_content_is_no_conflict(self, machine: list[Facts], tmp_path: Path) -> None:
        assert [run("--write", str(tmp_path)).exit_code for _ in range(2)] == [0, 0]

    def test_a_place_that_cannot_be_written(self, machine: list[Facts], tmp_path: Path) -> None:
        (tmp_path / "file").write_text("", "utf-8")
        assert run("--write", str(tmp_path / "file" / "below")).exit_code == 2
