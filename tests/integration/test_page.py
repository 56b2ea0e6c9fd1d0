"""The chat page in a real browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from tests.support.browser import chromium, needs_chromium
from tests.support.server import ServerProcess, running
from tests.support.wire import TEXT, TIMEOUT, Client, Frame, frame

pytestmark = needs_chromium

VIOLATIONS = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) => {
  violations.push(event.violatedDirective + " " + event.blockedURI);
});
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server with the page, as it is by default."""
    with running() as process:
        yield process


class Tabs:
    """Opens tabs in one window, and collects what goes wrong in any of them."""

    def __init__(self, context: BrowserContext, server: ServerProcess) -> None:
        self._context = context
        self._root = "http://{}:{}/".format(*server.address)
        self._errors: list[str] = []
        self._pages: list[Page] = []

    def open(self, fragment: str = "") -> Page:
        """A new tab that is connected."""
        page = self._context.new_page()
        page.set_default_timeout(1000 * TIMEOUT)
        page.on("pageerror", lambda error: self._errors.append(str(error)))
        page.on("console", self._on_console)
        page.goto(self._root + fragment)
        expect(page.get_by_role("status")).to_contain_text("Connected to")
        self._pages.append(page)
        return page

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._errors.append(message.text)

    def check(self) -> None:
        """Assert that no tab has had an error or broken its Content-Security-Policy."""
        assert self._errors == []
        for page in self._pages:
            assert page.evaluate("violations") == []


@pytest.fixture
def tabs(browser: Browser, server: ServerProcess) -> Iterator[Tabs]:
    """Tabs that have to be free of errors at the end."""
    with browser.new_context(viewport={"width": 900, "height": 600}) as context:
        context.add_init_script(VIOLATIONS)
        tabs = Tabs(context, server)
        yield tabs
        tabs.check()


def say(page: Page, words: str, name: str = "") -> None:
    """Send a message as a visitor would."""
    page.get_by_label("Name").fill(name)
    page.get_by_label("Message", exact=True).fill(words)
    page.get_by_role("button", name="Send").click()


def lines(page: Page) -> list[list[str]]:
    """The log's lines as they are put together, without their times."""
    parts: list[list[str]] = page.locator("#log p").evaluate_all(
        "lines => lines.map(line => [...line.querySelectorAll(':not(time)')].map(part => part.textContent))"
    )
    return parts


def test_two_tabs_talk_to_each_other(tabs: Tabs, tmp_path: Path) -> None:
    one, other = tabs.open(), tabs.open()
    say(one, "Hello from Ada", "Ada")
    expect(other.get_by_role("log")).to_contain_text("Hello from Ada")
    say(other, "Hello, Ada")
    for page in (one, other):
        expect(page.get_by_role("log")).to_contain_text("Hello, Ada")
    assert lines(one) == [["Ada (you)", "Hello from Ada"], ["Hello, Ada"]]
    assert lines(other) == [["Ada", "Hello from Ada"], ["you", "Hello, Ada"]]
    pictures = Path(os.environ.get("FASTCAST_SCREENSHOTS") or tmp_path)
    pictures.mkdir(parents=True, exist_ok=True)
    one.screenshot(path=pictures / "chat.png")
    assert (pictures / "chat.png").read_bytes().startswith(b"\x89PNG")


def test_message_is_text_whatever_it_looks_like(tabs: Tabs, server: ServerProcess) -> None:
    page = tabs.open("#/markup")
    with Client(server.address, "/markup") as client:
        for words in (
            '<img src=x onerror="document.title=1">',
            '{"name": "<b>", "text": "<script>1</script>"}',
        ):
            client.send(frame(TEXT, words.encode()))
        expect(page.get_by_role("log").locator("p")).to_have_count(2)
        assert lines(page) == [['<img src=x onerror="document.title=1">'], ["<b>", "<script>1</script>"]]
        assert page.locator("#log img, #log script").count() == 0
        client.send(frame(0x2, b"\xff\xfe\xfd"))
        expect(page.get_by_role("log")).to_contain_text("3 bytes of binary data")
        client.close()


def test_channel_is_what_stands_after_the_hash(tabs: Tabs, server: ServerProcess) -> None:
    page = tabs.open("#/rooms/caf\u00e9?")
    with Client(server.address, "/rooms/caf%C3%A9%3F") as client:
        say(page, "from the page")
        assert client.read_message() == Frame(TEXT, b"from the page")
        client.close()
    page.evaluate("location.hash = '#/elsewhere'")
    expect(page.get_by_role("status")).to_have_text("Connected to /elsewhere")
    with Client(server.address, "/elsewhere") as client:
        client.send(frame(TEXT, b"welcome"))
        expect(page.get_by_role("log")).to_contain_text("welcome")
        client.close()


def test_page_says_when_the_server_goes_and_sends_nothing_then(browser: Browser) -> None:
    with browser.new_context() as context, running() as own:
        context.add_init_script(VIOLATIONS)
        page = Tabs(context, own).open()
        own.stop()
        expect(page.get_by_role("status")).to_contain_text("Disconnected (code 1001)")
        expect(page.get_by_role("button", name="Send")).to_be_disabled()
