"""The servers of the benchmark, as peers.toml declares them, and the directories of the benchmark."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MACRO: Final = Path(__file__).resolve().parent
ROOT: Final = MACRO.parent.parent
BUILD: Final = MACRO / "build"
INSTALLED: Final = BUILD / "peers.json"
"""What install.py found out: for each server whether it is installed, its version, or why it is not."""

FLOOR: Final = "floor"
OURS: Final = "fastcast"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One server; peers.toml explains the fields. Placeholders are filled in."""

    name: str
    title: str
    language: str
    about: str
    absent: str | None = None
    make: str | None = None
    pip: Sequence[str] = ()
    npm: Sequence[str] = ()
    apt: Sequence[str] = ()
    build: Sequence[Sequence[str]] = ()
    start: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    version: Mapping[str, str] = field(default_factory=dict)

    @property
    def venv(self) -> Path:
        """The peer's virtual environment."""
        return BUILD / f"venv-{self.name}"


def _fill(value: object, places: Mapping[str, str]) -> object:
    if isinstance(value, str):
        return value.format_map(places)
    if isinstance(value, list):
        return [_fill(item, places) for item in value]
    if isinstance(value, dict):
        return {key: _fill(item, places) for key, item in value.items()}
    return value


def load() -> dict[str, Peer]:
    """Return the servers by name, in the order of peers.toml."""
    with (MACRO / "peers.toml").open("rb") as file:
        tables = tomllib.load(file)
    places = {
        "root": str(ROOT),
        "macro": str(MACRO),
        "build": str(BUILD),
        "peers": str(MACRO / "peers"),
        "python": sys.executable,
    }
    peers = {}
    for name, table in tables.items():
        filled = _fill(table, {**places, "venv": str(BUILD / f"venv-{name}")})
        assert isinstance(filled, dict)
        peers[name] = Peer(name=name, **filled)
    return peers


def select(peers: Mapping[str, Peer], names: str | None) -> list[Peer]:
    """Return the peers of a comma-separated list, all of them for None.

    Raises :exc:`SystemExit` with a message for a name that isn't one.
    """
    if names is None:
        return list(peers.values())
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in peers]
    if unknown:
        raise SystemExit(f"no such server: {', '.join(unknown)} (there are: {', '.join(peers)})")
    return [peers[name] for name in wanted]
