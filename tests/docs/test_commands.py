"""Commands and configuration files of the documentation are such that fastcast takes them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fastcast.cli import main
from fastcast.config import Config
from fastcast.errors import ConfigError
from tests.docs.examples import Block, everything

_PROMPT = re.compile(r"\w*[$#] +")
_VARIABLE = re.compile(r"[A-Z_]+=.*")

Command = tuple[dict[str, str], list[str]]
"""Variables, and the words behind ``fastcast``."""


def commands(block: Block) -> Iterator[Command]:
    """The fastcast commands in a block, each with the variables that it has."""
    exported: dict[str, str] = {}
    for line in block.text.replace("\\\n", " ").splitlines():
        prompt = _PROMPT.match(line)
        if prompt is None:
            continue
        words = shlex.split(line[prompt.end() :], comments=True)
        if words[:1] == ["export"]:
            exported |= dict(word.split("=", 1) for word in words[1:])
        while "|" in words:
            words = words[words.index("|") + 1 :]
        variables = {}
        while words and _VARIABLE.fullmatch(words[0]):
            name, _, variables[name] = words.pop(0).partition("=")
        if words[:1] == ["fastcast"]:
            yield exported | variables, words[1:]


COMMANDS = [
    pytest.param(variables, words, id=f"{block}: {' '.join(words)}")
    for block in everything()
    if block.language == "console"
    for variables, words in commands(block)
    if words[:1] != ["--version"]
]


@pytest.mark.parametrize(("variables", "words"), COMMANDS)
def test_command_is_one(variables: dict[str, str], words: list[str]) -> None:
    context = click.Context(main)
    name, command, arguments = main.resolve_command(context, words)
    assert command is not None
    if {"--help", "-h"} & set(arguments):
        return
    parameters = command.make_context(name, list(arguments), parent=context).params
    if name == "serve":
        del parameters["application"], parameters["config"]
        Config.load(parameters, variables)


@pytest.mark.parametrize(
    "block", [each for each in everything() if each.name.endswith("fastcast.toml")], ids=str
)
def test_configuration_is_one(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "fastcast.toml"
    file.write_text(block.text, "utf-8")
    Config.load({}, {}, file)


def test_there_is_something_to_look_at() -> None:
    assert len(COMMANDS) > 20


def test_a_wrong_flag_would_be_noticed() -> None:
    with pytest.raises(click.UsageError):
        test_command_is_one({}, ["serve", "--prot", "9000"])
    with pytest.raises(ConfigError):
        test_command_is_one({}, ["serve", "--admin-port", "8001"])
