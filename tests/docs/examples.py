"""The code blocks of README.md and docs/.

A Python block whose first line is ``# name.py`` is a program, run by the conversation that has its name in
tests/docs/conversations*.py. Every other one is a fragment, which test_fragments.py runs. A comment
``<!-- not run: why -->`` before a block exempts it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent.parent

PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
PAGES.insert(0, "README.md")

# What a block's first line says in the syntax of its language.
_NAME = re.compile(r"(?:# |// |<!-- )(?P<name>[\w/]+\.(?:py|html|toml|json|js|cfg|conf|yaml))(?: -->)?\n")
_NOT_RUN = re.compile(r"<!-- not run: (?P<why>.+) -->\n*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `name` is "" unless it is a file, `not_run` says why it isn't run, if so."""

    page: str
    line: int
    language: str
    text: str
    name: str
    not_run: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def title(self) -> str:
        """The name by which a conversation is found."""
        return f"{self.page.removeprefix('docs/').removesuffix('.md')}: {self.name}"


@cache
def blocks(page: str) -> tuple[Block, ...]:
    """All fenced blocks of a page."""
    return tuple(_blocks(page, (ROOT / page).read_text("utf-8")))


def _blocks(page: str, text: str) -> Iterator[Block]:
    not_run = ""
    for token in MarkdownIt("commonmark").parse(text):
        if token.type == "html_block" and (comment := _NOT_RUN.fullmatch(token.content)):
            not_run = comment["why"]
        elif token.type == "fence":
            assert token.map is not None
            name = _NAME.match(token.content)
            yield Block(
                page,
                token.map[0] + 1,
                token.info.split()[0] if token.info else "",
                token.content,
                name["name"] if name else "",
                not_run,
            )
            not_run = ""


def everything() -> list[Block]:
    """All fenced blocks of all pages."""
    return [block for page in PAGES for block in blocks(page)]


def programs() -> list[Block]:
    """The Python blocks that are files, and run."""
    return [each for each in everything() if each.language == "python" and each.name and not each.not_run]


def fragments() -> list[Block]:
    """The Python blocks that are not files, and run."""
    return [each for each in everything() if each.language == "python" and not each.name and not each.not_run]


def files_before(block: Block) -> dict[str, str]:
    """The files that a reader of the page has after this block: of several with one name, the last."""
    return {each.name: each.text for each in blocks(block.page) if each.name and each.line <= block.line}
