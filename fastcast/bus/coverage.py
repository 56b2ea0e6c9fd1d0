"""Patterns that take in all that some patterns do, but none of which overlaps another: those of a stream."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations


def covers(pattern: str, other: str) -> bool:
    """Whether a pattern, or name, takes in every name that another takes in."""
    tokens, others = pattern.split("."), other.split(".")
    for place, token in enumerate(tokens):
        if place == len(others):
            return False
        if token == ">":
            return True
        if others[place] == ">" or token not in ("*", others[place]):
            return False
    return len(tokens) == len(others)


def overlap(pattern: str, other: str) -> bool:
    """Whether some name is taken in by both."""
    tokens, others = pattern.split("."), other.split(".")
    for token, another in zip(tokens, others, strict=False):
        if ">" in (token, another):
            return True
        if "*" not in (token, another) and token != another:
            return False
    return len(tokens) == len(others)


def cover(patterns: Iterable[str]) -> list[str]:
    """Few patterns that take in all names that these take in, and others only where these overlap in part."""
    found: list[str] = []
    for pattern in patterns:
        if not any(covers(each, pattern) for each in found):
            found = [each for each in found if not covers(pattern, each)] + [pattern]
    for one, two in combinations(found, 2):
        if overlap(one, two):
            return cover([_shared(one, two), *found])
    return found


def _shared(one: str, two: str) -> str:
    """What takes in both: whatever begins with the names' tokens that both have."""
    tokens = []
    for token, another in zip(one.split("."), two.split("."), strict=False):
        if token != another or token in ("*", ">"):
            break
        tokens.append(token)
    return ".".join((*tokens, ">"))
