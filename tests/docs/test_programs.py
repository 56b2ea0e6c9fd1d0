"""Every program of the documentation runs as it stands there, and does what the page says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.docs.conversations import CONVERSATIONS, Conversation
from tests.docs.examples import Block, programs
from tests.docs.scene import Scene
from tests.support.browser import chromium, collect_errors, needs_chromium, take_picture
from tests.support.wire import TIMEOUT


def cases() -> list[tuple[Block, Conversation | None]]:
    """Each program with its conversation; the versions of one in the order of the page."""
    seen: Counter[str] = Counter()
    found: list[tuple[Block, Conversation | None]] = []
    for block in programs():
        conversations = CONVERSATIONS.get(block.title, [])
        number = seen[block.title]
        found.append((block, conversations[number] if number < len(conversations) else None))
        seen[block.title] += 1
    return found


@pytest.mark.parametrize(
    ("block", "conversation"), cases(), ids=lambda each: str(each) if isinstance(each, Block) else ""
)
def test_program_does_what_its_page_says(
    block: Block, conversation: Conversation | None, tmp_path: Path
) -> None:
    assert conversation is not None, f"{block} is a program without a conversation in conversations.py"
    with Scene(block, tmp_path) as scene:
        conversation(scene)


def test_every_conversation_has_its_program() -> None:
    assert {title: len(each) for title, each in CONVERSATIONS.items()} == Counter(
        block.title for block in programs()
    )


@needs_chromium
def test_dashboard_of_the_tutorial_is_live_in_a_browser(tmp_path: Path) -> None:
    block = [block for block in programs() if block.title == "tutorial: dashboard.py"][-1]
    errors: list[str] = []
    with Scene(block, tmp_path) as scene, chromium() as browser, browser.new_context() as context:
        scene.start()
        token = scene.run("login.py", "ada").strip()
        page = context.new_page()
        page.set_default_timeout(1000 * TIMEOUT)
        collect_errors(page, errors)
        page.goto(scene.url(f"/?token={token}", scheme="http"))
        expect(page.get_by_role("status")).to_have_text("Live")
        expect(page.locator("#machines b")).to_have_text(["web1", "web2"])
        page.get_by_role("button", name="Restart").first.click()
        expect(page.locator("#alerts")).to_contain_text("web1 was restarted")
        take_picture(page, tmp_path, "tutorial-dashboard.png")
    assert errors == []
