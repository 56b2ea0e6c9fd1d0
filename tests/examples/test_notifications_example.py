"""examples/notifications: each user hears what is theirs, if they have a token."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import expect
from websockets.exceptions import InvalidStatus

import fastcast
from tests.support.browser import chromium, collect_errors, needs_chromium, take_picture
from tests.support.examples import EXAMPLES, dial, example
from tests.support.program import free_ports
from tests.support.wire import TIMEOUT, Address

SECRETS = {
    "FASTCAST_JWT_SECRET": "a secret for this test, of 32 bytes and more",
    "FASTCAST_ADMIN_TOKEN": "a token for this test",
}


class Running(NamedTuple):
    """The server, and what publishes to it."""

    address: Address
    publisher: fastcast.Publisher


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    [port] = free_ports(1)
    with (
        example("notifications", {**SECRETS, "FASTCAST_ADMIN_PORT": str(port)}) as program,
        fastcast.Publisher(f"http://127.0.0.1:{port}", SECRETS["FASTCAST_ADMIN_TOKEN"]) as publisher,
    ):
        yield Running(program.await_address(), publisher)


def token(user: str, secret: str = SECRETS["FASTCAST_JWT_SECRET"]) -> str:
    """What make_token.py prints."""
    return subprocess.run(
        [sys.executable, str(EXAMPLES / "notifications" / "make_token.py"), user],
        env={"FASTCAST_JWT_SECRET": secret},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_each_user_hears_their_own_and_the_news(running: Running) -> None:
    with (
        dial(running.address, subprotocols=["bearer", token("ada")]) as ada,
        dial(running.address, f"/?token={token('bob')}") as bob,
    ):
        assert running.publisher.publish("users.ada", "Your parcel is here") == 1
        assert running.publisher.publish("news", "We close at noon") == 2
        assert [ada.recv(TIMEOUT) for _ in range(2)] == ["Your parcel is here", "We close at noon"]
        assert bob.recv(TIMEOUT) == "We close at noon"


@pytest.mark.parametrize(
    "place",
    ["/", "/?token=", "/?token=eyJ", f"/?token={token('ada', 'another secret, of 32 bytes and more')}"],
    ids=["none", "empty", "broken", "of another secret"],
)
def test_who_has_no_valid_token_is_refused(running: Running, place: str) -> None:
    with pytest.raises(InvalidStatus) as refused, dial(running.address, place):
        pass
    assert refused.value.response.status_code == 401


def test_a_token_is_for_somebody() -> None:
    command = [sys.executable, str(EXAMPLES / "notifications" / "make_token.py")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "usage: make_token.py USER\n")


@needs_chromium
def test_the_page_shows_what_comes(running: Running, tmp_path: Path) -> None:
    errors: list[str] = []
    with chromium() as browser, browser.new_context(viewport={"width": 700, "height": 500}) as context:
        page = context.new_page()
        page.set_default_timeout(1000 * TIMEOUT)
        collect_errors(page, errors)
        root = "http://{}:{}/".format(*running.address)
        page.goto(root)
        expect(page.get_by_role("status")).to_contain_text("no token")
        page.goto(f"{root}#{token('ada')}")
        expect(page.get_by_role("status")).to_have_text("Connected")
        expect(page.get_by_text("Nothing yet.")).to_be_visible()
        running.publisher.publish("users.ada", "<b>Your parcel is here</b>")
        running.publisher.publish("news", "We close at noon")
        expect(page.get_by_role("listitem")).to_contain_text(
            ["We close at noon", "<b>Your parcel is here</b>"]
        )
        expect(page.get_by_text("Nothing yet.")).to_be_hidden()
        take_picture(page, tmp_path, "notifications-example.png")
    assert errors == []
