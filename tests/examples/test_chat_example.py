"""examples/chat: people in rooms, over the wire and in a browser."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection

from tests.support.browser import chromium, collect_errors, needs_chromium, take_picture
from tests.support.examples import EXAMPLES, dial, example
from tests.support.program import started
from tests.support.wire import TIMEOUT, Address


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    with example("chat") as program:
        yield program.await_address()


def hear(person: ClientConnection) -> dict[str, Any]:
    """The next message."""
    message: dict[str, Any] = json.loads(person.recv(TIMEOUT))
    return message


def test_people_in_a_room_see_and_hear_each_other(address: Address) -> None:
    with dial(address, "/rooms/library?name=Ada") as ada:
        here = hear(ada)
        me = here["you"]
        assert here == {"type": "here", "you": me, "people": {me: "Ada"}}
        assert hear(ada) == {"type": "join", "id": me, "name": "Ada"}
        with dial(address, "/rooms/library?name=Bob") as bob:
            other = hear(bob)["you"]
            for each in (ada, bob):
                assert hear(each) == {"type": "join", "id": other, "name": "Bob"}
            bob.send("Is anybody here?")
            for each in (ada, bob):
                assert hear(each) == {"type": "say", "id": other, "name": "Bob", "text": "Is anybody here?"}
        assert hear(ada) == {"type": "leave", "id": other, "name": "Bob"}


def test_another_room_is_out_of_earshot(address: Address) -> None:
    with dial(address, "/rooms/a?name=Ada") as ada, dial(address, "/rooms/b?name=Bob") as bob:
        bob.send("hello")
        assert [hear(bob)["type"] for _ in range(3)] == ["here", "join", "say"]
        ada.send("hello")
        assert [hear(ada)["type"] for _ in range(3)] == ["here", "join", "say"]


@pytest.mark.parametrize(
    ("place", "status"),
    [
        ("/rooms/a", 400),
        ("/rooms/a?name=%20", 400),
        (f"/rooms/a?name={'x' * 33}", 400),
        ("/rooms/a.*?name=Ada", 400),
        ("/elsewhere?name=Ada", 404),
    ],
)
def test_who_has_no_name_or_no_room_is_refused(address: Address, place: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as refused, dial(address, place):
        pass
    assert refused.value.response.status_code == status


def test_the_command_runs_it_too() -> None:
    command = ("-m", "fastcast", "serve", "app:server", "--port", "0")
    with (
        started(sys.executable, *command, directory=EXAMPLES / "chat") as program,
        dial(program.await_address(), "/rooms/a?name=Ada") as ada,
    ):
        assert hear(ada)["type"] == "here"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def enter(page: Page, address: Address, name: str, room: str) -> None:
    """Open the page, and go into a room."""
    page.set_default_timeout(1000 * TIMEOUT)
    page.goto("http://{}:{}/".format(*address))
    page.get_by_label("Your name").fill(name)
    page.get_by_label("Room").fill(room)
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_role("status")).to_contain_text("in the room")


@needs_chromium
def test_two_tabs_meet_in_a_room(address: Address, browser: Browser, tmp_path: Path) -> None:
    errors: list[str] = []
    with browser.new_context(viewport={"width": 900, "height": 600}) as context:
        ada, bob = context.new_page(), context.new_page()
        for page in (ada, bob):
            collect_errors(page, errors)
        enter(ada, address, "Ada", "attic")
        enter(bob, address, "Bob", "attic")
        for page in (ada, bob):
            expect(page.get_by_role("list", name="People").get_by_role("listitem")).to_have_text(
                ["Ada", "Bob"]
            )
        expect(ada.get_by_role("log")).to_contain_text("Bob has come in")
        bob.get_by_label("Message", exact=True).fill("<b>Good evening</b>")
        bob.get_by_role("button", name="Send").click()
        for page in (ada, bob):
            expect(page.get_by_role("log")).to_contain_text("Bob <b>Good evening</b>")
        expect(bob.locator("p.own")).to_have_count(1)
        expect(ada.locator("p.own")).to_have_count(0)
        take_picture(ada, tmp_path, "chat-example.png")
        bob.get_by_role("button", name="Leave").click()
        expect(ada.get_by_role("log")).to_contain_text("Bob has left")
        expect(ada.get_by_role("status")).to_have_text("1 in the room")
    assert errors == []
