"""The script of the guide to histories, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import expect

from tests.support.browser import chromium, needs_chromium
from tests.support.hosting import ServerFactory, address_of, await_true

pytestmark = needs_chromium

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "history.md"
PAGE = """<!doctype html><title>history</title><p id=heard></p><p id=gaps></p><script>
%s
const add = (id, text) => { document.getElementById(id).textContent += text; };
follow(`ws://${location.host}/prices`, (message) => add("heard", message), () => add("gaps", "gap"));
</script>"""


def test_a_page_that_comes_back_misses_nothing(server: ServerFactory) -> None:
    script = re.search(r"```javascript\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert script is not None
    html = (PAGE % script[1]).encode()
    with server(html=html, history="10") as running, chromium() as browser:
        page = browser.new_page()
        page.goto("http://{}:{}/".format(*address_of(running)))
        await_true(lambda: running.count("/prices") == 1, "the page to connect")
        running.publish("/prices", "1")
        expect(page.locator("#heard")).to_have_text("1")
        [client] = running.clients("/prices")
        client.close(1001)
        await_true(lambda: running.count("/prices") == 0, "the page to be gone")
        running.publish("/prices", "2")
        expect(page.locator("#heard")).to_have_text("12")
        running.publish("/prices", "3")
        expect(page.locator("#heard")).to_have_text("123")
        [client] = running.clients("/prices")
        client.close(1001)
        await_true(lambda: running.count("/prices") == 0, "the page to be gone again")
        for number in range(20):
            running.publish("/prices", f"<{number}>")
        expect(page.locator("#gaps")).to_have_text("gap")
        expect(page.locator("#heard")).to_have_text(
            "123" + "".join(f"<{number}>" for number in range(10, 20))
        )
