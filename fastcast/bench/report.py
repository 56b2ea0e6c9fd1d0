"""A run as one HTML page that needs nothing else: a report after its end, or a page that follows it live."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib import resources
from importlib.util import find_spec
from typing import Any, Final

from fastcast.bench.distribution import MILLISECONDS, Distribution
from fastcast.bench.series import Row
from fastcast.bench.summary import lines
from fastcast.bench.verdict import Verdict
from fastcast.bench.words import memory
from fastcast.errors import ConfigError

# The library adds one style sheet when it is loaded, unless an element with this id is there already.
_STYLE: Final = re.compile(r'getElementById\("([0-9a-f]{64})"\)')


def require_plotly(flag: str) -> None:
    """Raise :exc:`~fastcast.errors.ConfigError` when there is nothing to draw with."""
    if find_spec("plotly") is None:
        raise ConfigError(f"{flag} draws with plotly, which is not installed: pip install 'fastcast[report]'")


def report(
    target: str,
    rows: Iterable[Row],
    result: Mapping[str, Any],
    verdict: Verdict,
    environment: Mapping[str, Any],
) -> str:
    """The page of a run that has ended."""
    return _page(target, environment, rows=told(rows), outcome=outcome(target, result, verdict))


def live(target: str, channel: str, environment: Mapping[str, Any]) -> str:
    """The page of a run that goes on; it connects to ``channel`` of the server that it comes from."""
    return _page(target, environment, rows=[], outcome=None, channel=channel)


def told(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows as the page reads them."""
    return [asdict(row) for row in rows]


def outcome(target: str, result: Mapping[str, Any], verdict: Verdict) -> dict[str, Any]:
    """What the page shows of a run only when it has ended."""
    curve = Distribution(result["histograms"]["latency"]).curve()
    return {
        "clean": verdict.clean,
        "verdict": verdict.line,
        "summary": lines(target, result, verdict)[1:],
        "curve": [(percent, value / MILLISECONDS) for percent, value in curve],
    }


def _page(target: str, environment: Mapping[str, Any], **data: Any) -> str:
    # Late, because it takes a while, and no other page needs it.
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    script: str = get_plotlyjs()
    style = _STYLE.search(script)
    template = (resources.files("fastcast.bench") / "page" / "run.html").read_text("utf-8")
    data |= {"target": target, "environment": _environment(environment)}
    parts = {
        "STYLE": style[1] if style else "",
        "PLOTLY": script,
        # So that no text ends the script element.
        "DATA": json.dumps(data).replace("<", "\\u003c"),
    }
    return re.sub("@(STYLE|PLOTLY|DATA)@", lambda match: parts[match[1]], template)


def _environment(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, memory(value) if name == "memory" else str(value)) for name, value in environment.items()]
