"""The server of a program is found by module and name, and what is wrong is told in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastcast.application import find
from fastcast.errors import ConfigError
from fastcast.server import Server

Write = Callable[[str], None]

NAME = "a_program_of_tests"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes the module of that name in the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(code: str) -> None:
        (tmp_path / f"{NAME}.py").write_text(f"from fastcast import Server\n{code}\n", "utf-8")

    yield write
    sys.modules.pop(NAME, None)


def error_of(application: str) -> str:
    """Why there is no such server."""
    with pytest.raises(ConfigError) as raised:
        find(application)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("code", "attribute"),
    [
        ("server = Server(port=5)", "server"),
        ("def make():\n    return Server(port=5)", "make"),
        ("class its:\n    server = Server(port=5)", "its.server"),
        ("class its:\n    make = staticmethod(lambda: Server(port=5))", "its.make"),
    ],
    ids=["server", "function", "within", "function within"],
)
def test_it_may_be_a_server_or_a_function_that_returns_one(write: Write, code: str, attribute: str) -> None:
    write(code)
    found = find(f"{NAME}:{attribute}")
    assert isinstance(found, Server)
    assert found.config.port == 5


@pytest.mark.parametrize("application", ["", "chat", "chat:", ":server", "chat.py:server:x", "chat/a:server"])
def test_its_form_is_module_and_name(application: str) -> None:
    assert error_of(application) == f"{application!r} is not MODULE:SERVER, such as chat:server"


def test_a_module_that_is_not_there(write: Write, tmp_path: Path) -> None:
    for name in (f"no_{NAME}", f"no_{NAME}.part"):
        complaint = f"{name}:server: there is no module 'no_{NAME}' in {tmp_path}"
        assert error_of(f"{name}:server") == complaint


def test_a_part_that_a_module_has_not(write: Write) -> None:
    write("")
    assert "there is no module" in error_of(f"{NAME}.part:server")


def test_a_name_that_is_not_there(write: Write) -> None:
    write("class its: pass")
    assert error_of(f"{NAME}:server") == f"{NAME}:server: there is no 'server' in {NAME}"
    assert error_of(f"{NAME}:its.server") == f"{NAME}:its.server: there is no 'server' in {NAME}"


@pytest.mark.parametrize("code", ["server = 5", "def server():\n    return 5"])
def test_what_is_no_server(write: Write, code: str) -> None:
    write(code)
    assert error_of(f"{NAME}:server") == f"{NAME}:server is no fastcast.Server, but int"


@pytest.mark.parametrize("code", ["import no_such_module_at_all", "1 / 0", "Server(port=-1)"])
def test_an_exception_of_the_program_is_its_own(write: Write, code: str) -> None:
    write(code)
    with pytest.raises((ModuleNotFoundError, ZeroDivisionError, ConfigError)):
        find(f"{NAME}:server")
