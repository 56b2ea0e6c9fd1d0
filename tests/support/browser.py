"""A real browser for the tests of pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.wire import TIMEOUT

CHROMIUM = shutil.which("chromium")

needs_chromium = pytest.mark.skipif(
    # In CI a browser that is missing is a mistake, and the test says so.
    CHROMIUM is None and "CI" not in os.environ,
    reason="chromium is not installed",
)

ARGUMENTS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium, without a window."""
    expect.set_options(timeout=1000 * TIMEOUT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=6000 * TIMEOUT)
        yield browser
        browser.close()


def take_picture(page: Page, directory: Path, name: str) -> None:
    """For whoever wants to look at it: in FASTCAST_SCREENSHOTS, or else the directory."""
    pictures = Path(os.environ.get("FASTCAST_SCREENSHOTS") or directory)
    pictures.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=pictures / name)


def collect_errors(page: Page, errors: list[str]) -> None:
    """Have all that goes wrong in the page added to the list; a broken Content-Security-Policy, too."""
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
