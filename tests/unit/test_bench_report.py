"""The report: it has everything in it, and nothing that comes from elsewhere can break out."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from fastcast.bench import report
from fastcast.bench.series import Series
from fastcast.bench.verdict import judge
from fastcast.errors import ConfigError
from tests.support.bench import MILLISECOND, result, snapshot

EVIL = '</script><script>alert("<b>1</b>")</script><!--'


def page_of(target: str = "ws://h/", environment: dict[str, Any] | None = None) -> str:
    series = Series()
    series.add(snapshot(0.5, latency=((MILLISECOND, 5),)))
    made = result(errors=[EVIL])
    return report.report(target, series.rows(), made, judge(made), environment or {"memory": 1 << 30})


def data_of(page: str) -> dict[str, Any]:
    """What is told to the page's script."""
    found = re.search(r"^const run = (.*);$", page, re.MULTILINE)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_figures_are_in_it() -> None:
    data = data_of(page_of())
    assert data["target"] == "ws://h/"
    assert data["rows"][0]["seconds"] == 0.5
    assert data["outcome"]["clean"] is False
    assert data["outcome"]["curve"][-1] == [100.0, pytest.approx(2, rel=0.01)]
    assert data["environment"] == [["memory", "1 GiB"]]


def test_no_text_ends_the_script() -> None:
    page = page_of(EVIL, {"command": EVIL})
    assert EVIL not in page
    assert data_of(page)["target"] == EVIL
    assert data_of(page)["environment"] == [["command", EVIL]]


def test_nothing_is_fetched() -> None:
    elements = re.sub(r"(?s)<script>.*?</script>", "", page_of())
    assert not re.search(r"\b(src|href)\s*=|@import|url\(", elements)


def test_every_placeholder_is_filled() -> None:
    elements = re.sub(r"(?s)<script>.*?</script>", "", page_of())
    assert re.findall(r"@[A-Z]+@", elements) == []
    assert re.search(r'<style id="[0-9a-f]{64}">', elements)


def test_a_run_that_goes_on_has_a_channel_and_no_outcome() -> None:
    data = data_of(report.live("ws://h/", "/secret", {}))
    assert (data["channel"], data["rows"], data["outcome"]) == ("/secret", [], None)


def test_without_a_library_to_draw_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError) as caught:
        report.require_plotly("--web")
    assert str(caught.value) == (
        "--web draws with plotly, which is not installed: pip install 'fastcast[report]'"
    )
