"""What holds for all examples."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.examples import EXAMPLES


def test_annotations_hold() -> None:
    command = ("mypy", "--strict", "--explicit-package-bases", EXAMPLES.name)
    ended = subprocess.run(
        [sys.executable, "-m", *command], cwd=EXAMPLES.parent, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "page", sorted(EXAMPLES.rglob("*.html")), ids=lambda page: str(page.relative_to(EXAMPLES))
)
def test_pages_need_nothing_from_elsewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    assert re.findall(r"(?:src|href)\s*=|@import|url\(|https?://(?!www\.w3\.org/2000/svg)", text) == []
