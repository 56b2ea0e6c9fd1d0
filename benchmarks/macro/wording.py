"""How reports say numbers, spreads and the environment."""

# ruff: noqa: RUF001  (en dashes are meant: this text is read by people)

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from summary import Spread

NOTHING: Final = "–"


def number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def amount(spread: Spread | None, digits: int) -> str:
    """The median alone."""
    return NOTHING if spread is None else number(spread.median, digits)


def span(spread: Spread | None, digits: int) -> str:
    """The least and the greatest."""
    return NOTHING if spread is None else f"{number(spread.least, digits)}–{number(spread.greatest, digits)}"


def cell(text: str) -> str:
    """Text that can't end a table's cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def environment(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the report says at its head."""
    machine, commit = results["machine"], results["commit"]
    memory = machine["memory_bytes"]
    said = {
        "commit": f"{commit['hash'] or 'none'}{', with local changes' if commit['modified'] else ''}",
        "measured": f"{results['started']} to {results['ended'] or 'interrupted'}",
        "processor": f"{machine['processors']} × {machine['processor']}",
        "memory": f"{memory / 2**30:.1f} GiB" if memory else NOTHING,
        "system": f"{machine['system']}, kernel {machine['kernel']}",
        "open files": f"at most {machine['open_files']:,} per descriptor table",
        **machine["settings"],
        **machine["tools"],
    }
    return [(name, cell(" ".join(str(value or NOTHING).split()))) for name, value in said.items()]
