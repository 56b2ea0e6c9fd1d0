"""examples/ticker: prices, a live table, and clients that don't keep up."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.support.browser import chromium, collect_errors, needs_chromium, take_picture
from tests.support.examples import dial, example
from tests.support.program import free_ports
from tests.support.slow import stalled
from tests.support.wire import TIMEOUT, Address, until

SYMBOLS = 12

ROUND = SYMBOLS // 2
"""Prices that change at a time."""


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    with example("ticker") as program:
        yield program.await_address()


def quote(message: str | bytes) -> tuple[str, float]:
    """Symbol and price."""
    told = json.loads(message)
    return told["symbol"], told["price"]


def test_a_client_gets_all_prices_at_once_and_then_those_that_change(address: Address) -> None:
    with dial(address) as client:
        picture = dict(quote(client.recv(TIMEOUT)) for _ in range(SYMBOLS))
        assert len(picture) == SYMBOLS
        assert all(price > 0 for price in picture.values())
        changes = [quote(client.recv(TIMEOUT)) for _ in range(2 * ROUND)]
        assert {symbol for symbol, _ in changes} <= picture.keys()


def test_what_a_client_sends_goes_nowhere(address: Address) -> None:
    with dial(address) as client:
        client.send("sell everything")
        assert all(quote(client.recv(TIMEOUT)) for _ in range(SYMBOLS + 4 * ROUND))


def test_who_does_not_keep_up_skips_prices_and_stays() -> None:
    [port] = free_ports(1)
    token = "a token for this test"
    # As fast as it can, so that what the kernel keeps for a client is soon full.
    variables = {"TICKER_INTERVAL": "0", "FASTCAST_ADMIN_PORT": str(port), "FASTCAST_ADMIN_TOKEN": token}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/channels/prices", headers={"Authorization": f"Bearer {token}"}
    )

    def skipped() -> int | None:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            stats: dict[str, int] = json.load(response)
        assert (stats["members"], stats["gone"]) == (1, 0)
        return stats["dropped"] or None

    with example("ticker", variables) as program, stalled(program.await_address()) as slow:
        assert until(skipped, "prices to be skipped") > 0
        assert all(quote(slow.read_message().payload) for _ in range(1000))


@needs_chromium
def test_the_page_is_a_live_table(address: Address, tmp_path: Path) -> None:
    errors: list[str] = []
    with chromium() as browser, browser.new_context(viewport={"width": 800, "height": 700}) as context:
        page = context.new_page()
        page.set_default_timeout(1000 * TIMEOUT)
        collect_errors(page, errors)
        page.goto("http://{}:{}/".format(*address))
        rows = page.locator("#rows tr")
        expect(rows).to_have_count(SYMBOLS)
        symbols = [text.split()[0] for text in rows.all_inner_texts()]
        assert symbols == sorted(symbols)
        # Half of the prices change at a time: after a few rounds every one has.
        for row in rows.all():
            before = row.locator("polyline").get_attribute("points")
            expect(row.locator("polyline")).not_to_have_attribute("points", before or "")
        expect(page.get_by_role("status")).to_contain_text("prices a second")
        take_picture(page, tmp_path, "ticker-example.png")
    assert errors == []
