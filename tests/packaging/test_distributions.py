"""What is published: the source distribution and the wheel, built from nothing and put to use."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.server import READY
from tests.support.wire import TEXT, TIMEOUT, Client, Frame, frame

ROOT = Path(__file__).parent.parent.parent

BUILD_SECONDS = 300
"""Hang protection for a build, which may have to fetch its tools first."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * BUILD_SECONDS)]

SOURCES = ("LICENSE", "README.md", "CHANGELOG.md", "MANIFEST.in", "pyproject.toml", "setup.py", "fastcast")


def tools_are_installed() -> bool:
    """Whether the build's requirements are here, so that it needs no environment of its own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    for requirement in map(Requirement, project["build-system"]["requires"]):
        try:
            if metadata.version(requirement.name) not in requirement.specifier:
                return False
        except metadata.PackageNotFoundError:
            return False
    return True


def build(source: Path, output: Path, kind: str) -> Path:
    """Build one distribution (``sdist`` or ``wheel``) from a directory, and return its file."""
    output.mkdir()
    isolation = ["--no-isolation"] if tools_are_installed() else []
    ended = subprocess.run(
        [sys.executable, "-m", "build", f"--{kind}", *isolation, "--outdir", str(output), str(source)],
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    [made] = output.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, from a copy of the tree, because a build leaves things behind."""
    copy = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy2(ROOT / name, copy / name)
    return build(copy, tmp_path_factory.mktemp("sdist") / "dist", "sdist")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, from the source distribution alone."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    [source] = unpacked.iterdir()
    return build(source, tmp_path_factory.mktemp("wheel") / "dist", "wheel")


def members(wheel: Path) -> set[str]:
    """The names of a wheel's files."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


class TestSdist:
    """The source distribution."""

    @pytest.fixture
    def names(self, sdist: Path) -> set[str]:
        """Its files, without the leading directory."""
        with tarfile.open(sdist) as archive:
            return {name.partition("/")[2] for name in archive.getnames()}

    def test_has_all_sources(self, names: set[str]) -> None:
        expected = {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / "fastcast").rglob("*")
            if path.is_file() and path.suffix not in {".so", ".pyc"}
        }
        assert expected - names == set()
        assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "setup.py"} - names == set()

    def test_has_nothing_that_was_built(self, names: set[str]) -> None:
        assert [name for name in names if name.endswith((".so", ".pyc", ".o")) or "_core.c" in name] == []


class TestWheel:
    """The wheel."""

    def test_has_what_is_needed_at_run_time(self, wheel: Path) -> None:
        names = members(wheel)
        assert {
            "fastcast/__init__.py",
            "fastcast/__main__.py",
            "fastcast/_core.pyi",
            "fastcast/py.typed",
            "fastcast/page/chat.html",
        } <= names
        assert len([name for name in names if re.fullmatch(r"fastcast/_core\.[^/]+\.so", name)]) == 1
        modules = {f"fastcast/{path.name}" for path in (ROOT / "fastcast").glob("*.py")}
        assert modules <= names

    def test_has_neither_sources_of_the_extension_nor_tests(self, wheel: Path) -> None:
        for name in members(wheel):
            assert name.startswith(("fastcast/", "fastcast-"))
            assert not name.endswith((".c", ".h", ".pyx", ".pxd", ".o", ".pyc"))
            assert "test" not in name

    def test_extension_exports_its_init_function_only(self, wheel: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if not name.endswith(".so"):
                    continue
                library = archive.extract(name, tmp_path)
                listing = subprocess.run(
                    ["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True
                ).stdout
                module = Path(name).name.partition(".")[0]
                assert [line.split()[-1] for line in listing.splitlines()] == [f"PyInit_{module}"]

    def test_metadata_has_what_an_index_shows(self, wheel: Path) -> None:
        [name] = [name for name in members(wheel) if name.endswith(".dist-info/METADATA")]
        with zipfile.ZipFile(wheel) as archive:
            head, _, description = archive.read(name).decode().partition("\n\n")
        fields = [tuple(line.split(": ", 1)) for line in head.splitlines() if ": " in line]
        assert ("Name", "fastcast") in fields
        assert ("License-Expression", "MIT") in fields
        assert ("License-File", "LICENSE") in fields
        assert ("Requires-Python", ">=3.11") in fields
        assert description.strip()

    def test_works_where_nothing_else_is_installed(self, wheel: Path, tmp_path: Path) -> None:
        home = tmp_path / "environment"
        venv.create(home, with_pip=True)
        subprocess.run(
            [home / "bin/python", "-m", "pip", "install", "--quiet", wheel],
            check=True,
            timeout=BUILD_SECONDS,
            cwd=tmp_path,
        )
        # Away from the tree, or Python would import the package from there.
        process = subprocess.Popen(
            [home / "bin/fastcast", "serve", "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        )
        with process:
            try:
                assert process.stdout is not None
                assert select.select([process.stdout], [], [], 3 * TIMEOUT)[0], "no ready line"
                ready = READY.search(process.stdout.readline())
                assert ready is not None
                with Client((ready["host"], int(ready["port"]))) as client:
                    client.send(frame(TEXT, b"hello"))
                    assert client.read_message() == Frame(TEXT, b"hello")
                    client.close()
                process.terminate()
                assert process.wait(3 * TIMEOUT) == 0
            finally:
                process.kill()
