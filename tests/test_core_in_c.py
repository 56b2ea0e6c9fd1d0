"""Builds the C tests of the core under sanitizers and runs each program; replays the fuzz targets' corpus."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SANITIZERS = ("address,undefined", "thread")
FUZZ_TARGETS = tuple(sorted(path.stem.removeprefix("fuzz_") for path in (HERE / "fuzz").glob("fuzz_*.c")))

# A program ends itself when one of its tests takes too long, and says which: this is for what can't.
PATIENCE_SECONDS = 600

pytestmark = [
    pytest.mark.skipif(not (shutil.which("make") and shutil.which("gcc")), reason="make and gcc are needed"),
    pytest.mark.timeout(2 * PATIENCE_SECONDS),
]


def make(directory: str, *arguments: str) -> str:
    """Runs make in a directory next to this file; what it prints is shown when it fails."""
    # Whoever runs pytest by make has variables for their own make in the environment.
    environment = {
        name: value for name, value in os.environ.items() if "MAKE" not in name and name != "MFLAGS"
    }
    done = subprocess.run(
        ["make", "--no-print-directory", "-C", str(HERE / directory), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(done.stdout, pytrace=False)
    return done.stdout


def programs(sanitizer: str) -> list[str]:
    """The names that the Makefile gives to the programs of a build; none where there is no make."""
    return make("c", "-s", "list", f"SANITIZE={sanitizer}").split() if shutil.which("make") else []


@pytest.fixture(scope="session", params=SANITIZERS)
def built(request: pytest.FixtureRequest) -> str:
    """The sanitizer of a complete build."""
    sanitizer: str = request.param
    make("c", "-j2", "all", f"SANITIZE={sanitizer}")
    return sanitizer


@pytest.fixture(scope="session")
def replays() -> None:
    """The fuzz targets as programs that replay files."""
    make("fuzz", "-j2", "all")


@pytest.mark.parametrize(
    ("built", "program"),
    [(sanitizer, program) for sanitizer in SANITIZERS for program in programs(sanitizer)],
    indirect=["built"],
)
def test_program(built: str, program: str) -> None:
    assert "FAILED" not in make("c", f"run-{program}", f"SANITIZE={built}")


@pytest.mark.usefixtures("replays")
@pytest.mark.parametrize("target", FUZZ_TARGETS)
def test_corpus(target: str) -> None:
    corpus = {path.name for path in (HERE / "fuzz" / "corpus" / target).iterdir()}
    lines = make("fuzz", f"check-{target}").splitlines()
    assert corpus <= {Path(line).name for line in lines}
