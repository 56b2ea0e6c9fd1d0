"""Who generates the load: this process, or agents elsewhere; both look the same to those who watch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

from fastcast import _load
from fastcast.descriptors import raise_limit
from fastcast.errors import ConfigError, StartError

INTERVAL: Final = 0.5
"""Seconds between two snapshots."""

PHASES: Final = ("connect", "settle", "storm", "messages", "hold", "close")
"""In their order; a run without a storm, or without messages, leaves that one out."""

Snapshot: TypeAlias = Mapping[str, Any]
Result: TypeAlias = dict[str, Any]

Observer: TypeAlias = Callable[[Snapshot], bool]
"""Is told how a run gets on; true ends it early."""


class Engine(Protocol):
    """Runs a load and returns what :func:`fastcast._load.run` does.

    Raises :exc:`~fastcast.errors.ConfigError` for options that contradict each other, and
    :exc:`~fastcast.errors.StartError` when the run can't start.
    """

    def __call__(self, options: Mapping[str, object], observe: Observer) -> Result: ...


def run_here(options: Mapping[str, object], observe: Observer) -> Result:
    """The engine in this process. Blocks; signal handlers run when the observer is called."""
    return load(options, observe, None)


def load(options: Mapping[str, object], observe: Observer, gate: Callable[[str], object] | None) -> Result:
    """:func:`fastcast._load.run` with its errors as those of fastcast."""
    raise_limit()
    try:
        return _load.run(options, observe, gate, INTERVAL)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise StartError(error.strerror or str(error)) from None
