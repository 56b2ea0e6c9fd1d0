"""Figures as people read them."""

from __future__ import annotations

from typing import Any


def count(number: float) -> str:
    """``1234567`` as ``1,234,567``; a small number that isn't whole keeps a decimal."""
    return f"{number:,.1f}" if number < 100 and number != round(number) else f"{number:,.0f}"


def several(number: int, noun: str) -> str:
    """``1 message``, ``1,234 messages``."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def milliseconds(value: float | None) -> str:
    """Milliseconds with three digits that matter, in the unit that suits them."""
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value / 1000:.3g} s"
    if value >= 1:
        return f"{value:.3g} ms"
    return f"{value * 1000:.3g} µs"


def memory(size: float | None) -> str:
    """Bytes in a binary unit, with three digits that matter."""
    if size is None:
        return "-"
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1000:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"


def percentiles(spread: dict[str, Any]) -> str:
    """A spread of the result, whose values are microseconds."""
    names = {"p50": "p50", "p90": "p90", "p99": "p99", "p99.9": "p99.9", "max": "max"}
    return ", ".join(f"{name} {milliseconds(spread[key] / 1000)}" for key, name in names.items())
