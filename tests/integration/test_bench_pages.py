"""The report and the live page of `fastcast bench` in a real browser."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from tests.support.browser import chromium, needs_chromium
from tests.support.hosting import await_true
from tests.support.load import bench, started, url
from tests.support.server import ServerProcess, running
from tests.support.wire import TIMEOUT

pytestmark = needs_chromium

HEADINGS = [
    "Verdict",
    "Connections",
    "Deliveries per second",
    "Latency over time",
    "Latency by percentile",
    "Handshake latency",
    "CPU",
    "Memory: process and kernel side by side",
    "Environment",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server as it is by default."""
    with running() as process:
        yield process


class Visitor:
    """Opens pages, and collects what goes wrong in them and what they fetch."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._errors: list[str] = []
        self.fetched: list[str] = []

    def open(self, address: str, scheme: str = "light") -> Page:
        """A page in a window of its own, in which every plot has been drawn."""
        context = self._browser.new_context(
            color_scheme="dark" if scheme == "dark" else "light", viewport={"width": 1400, "height": 900}
        )
        page = context.new_page()
        page.set_default_timeout(1000 * TIMEOUT)
        page.on("pageerror", lambda error: self._errors.append(str(error)))
        page.on("console", self._on_console)
        page.on("request", lambda request: self.fetched.append(request.url))
        page.goto(address)
        page.wait_for_selector("body[data-rows]")
        return page

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._errors.append(message.text)

    def check(self) -> None:
        """Assert that nothing went wrong."""
        assert self._errors == []


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    """A visitor whose pages have to be free of errors at the end."""
    visitor = Visitor(browser)
    yield visitor
    visitor.check()


def picture(page: Page, name: str, tmp_path: Path) -> bytes:
    """The whole page as an image, kept where FASTCAST_SCREENSHOTS says."""
    folder = Path(os.environ.get("FASTCAST_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return page.screenshot(path=folder / name, full_page=True)


def plots(page: Page) -> list[str]:
    """The ids of the plots that have lines or points in them."""
    ids: list[str] = page.locator(".plot").evaluate_all(
        "plots => plots.filter(plot => plot.querySelector('.scatterlayer .trace path')).map(plot => plot.id)"
    )
    return ids


def await_rows(page: Page, number: int) -> None:
    """Wait until so many intervals are drawn."""
    await_true(
        lambda: int(page.locator("body").get_attribute("data-rows") or 0) >= number, f"{number} intervals"
    )


def test_report_shows_the_run(server: ServerProcess, visitor: Visitor, tmp_path: Path) -> None:
    file = tmp_path / "run.html"
    ended = bench(
        url(server.address),
        *("--connections", "1000", "--connect-rate", "1000", "--rate", "20", "--messages", "30"),
        *("--hold", "1s", "--server-pid", str(server.pid), "--report", str(file)),
    )
    assert ended.code == 0, ended.stdout
    page = visitor.open(file.as_uri())
    expect(page.get_by_role("status")).to_contain_text("clean: every connection made and kept")
    assert page.get_by_role("heading", level=2).all_text_contents() == HEADINGS
    assert plots(page) == ["connections", "deliveries", "latency", "curve", "handshake", "cpu", "memory"]
    expect(page.locator("#summary")).to_contain_text("30,000 of 30,000")
    expect(page.locator("#environment")).to_contain_text("--server-pid")
    assert visitor.fetched == [file.as_uri()]
    light = picture(page, "bench-report.png", tmp_path)
    dark = picture(visitor.open(file.as_uri(), "dark"), "bench-report-dark.png", tmp_path)
    assert light != dark


def test_report_of_a_run_that_was_not_clean_says_so_first(visitor: Visitor, tmp_path: Path) -> None:
    file = tmp_path / "run.html"
    assert bench("ws://127.0.0.1:1/", "--connections", "5", "--report", str(file)).code == 1
    page = visitor.open(file.as_uri())
    expect(page.get_by_role("status")).to_contain_text("5 of 5 connections not made")
    # Nothing was known of the server, so there is nothing to compare side by side.
    expect(page.locator("#memory")).to_be_hidden()


def test_live_page_follows_the_run_to_its_end(
    server: ServerProcess, visitor: Visitor, tmp_path: Path
) -> None:
    with started(
        *("--web", "127.0.0.1:0", url(server.address), "--connections", "500"),
        *("--rate", "20", "--messages", "40", "--server-pid", str(server.pid), "--hold", "1h"),
    ) as run:
        address = run.await_stderr(r"live page at (\S+)")[1]
        page = visitor.open(address)
        expect(page.get_by_role("status")).to_have_text("Running")
        await_rows(page, 4)
        wanted = {"connections", "deliveries", "latency", "cpu", "memory"}
        await_true(lambda: wanted <= set(plots(page)), "the plots")
        picture(page, "bench-live.png", tmp_path)
        # Who comes later sees what was before.
        late = visitor.open(address, "dark")
        await_rows(late, 4)
        run.await_stderr(r" s  hold ")
        run.signal(signal.SIGINT)
        ended = run.wait()
        assert ended.code == 130, ended.stdout
    for each in (page, late):
        expect(each.get_by_role("status")).to_have_text("interrupted")
        expect(each.locator("#summary")).to_contain_text("20,000 of 20,000")
        expect(each.locator("#curve .scatterlayer .trace path").first).to_be_attached()
    picture(late, "bench-live-dark.png", tmp_path)
