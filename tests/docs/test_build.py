"""The documentation can be built without a warning, and its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

import fastcast
from fastcast.config import OPTIONS
from tests.docs.examples import PAGES, ROOT

FILES = [
    *PAGES,
    *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("*.md") if path.name != "README.md"),
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").rglob("*.md")),
]


class Ids(HTMLParser):
    """The ids of a page's elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {value for name, value in attrs if name == "id" and value}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages, as `make docs` builds them."""
    output = tmp_path_factory.mktemp("docs")
    command = ("--builder", "html", "--fail-on-warning", "--keep-going", "--quiet")
    ended = subprocess.run(
        [sys.executable, "-m", "sphinx", *command, "docs", str(output)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return output


def test_every_page_is_built_without_a_warning(site: Path) -> None:
    pages = [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")]
    assert all((site / page).with_suffix(".html").is_file() for page in pages)


def test_reference_has_everything_that_is_public(site: Path) -> None:
    found = Ids((site / "reference" / "api.html").read_text("utf-8")).found
    assert {f"fastcast.{name}" for name in fastcast.__all__} <= found
    methods = {name for name in vars(fastcast.Server) if not name.startswith("_")}
    assert {f"fastcast.Server.{name}" for name in methods} <= found


def test_reference_has_every_option(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "reference" / "options.html").read_text("utf-8"))
    assert [option.variable for option in OPTIONS if option.variable not in text] == []


def links(tokens: list[Token] | None) -> list[str]:
    """Where the links and pictures of a page lead to."""
    found = []
    for token in tokens or ():
        target = token.attrGet("href") or token.attrGet("src")
        found += [str(target)] if target else links(token.children)
    return found


@pytest.mark.parametrize("name", FILES)
def test_links_to_files_lead_to_files(name: str) -> None:
    file = ROOT / name
    for target in links(MarkdownIt("commonmark").enable("table").parse(file.read_text("utf-8"))):
        if not re.match(r"[a-z]+:|#", target):
            assert (file.parent / target.partition("#")[0]).exists(), target
