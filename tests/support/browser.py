"""A real browser for the tests of pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

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
