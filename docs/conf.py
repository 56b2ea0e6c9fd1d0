"""How the documentation is built: ``make docs`` writes it to build/docs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

import fastcast

project = "fastcast"
author = "The fastcast authors"
project_copyright = author
version = release = fastcast.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "options_reference", "outside_files"]
exclude_patterns = ["_extensions"]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "fastcast"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True

# Every reference has to lead somewhere, but for those to what is documented elsewhere.
nitpicky = True
nitpick_ignore = [("py:class", "fastcast.request.Headers")]  # any mapping
nitpick_ignore_regex = [
    ("py:.*", r"(?:asyncio|collections|pathlib|typing|types)\..*|Path|Any|Self|Mapping|Iterable|[a-z]+"),
    ("py:.*", r"(?:[A-Za-z]+Error|Exception|TracebackType|fastcast\.\w+\._\w+|_\w+)"),
]


def _plain(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, result: str | None
) -> tuple[str, str] | None:
    """A decorator returns what it gets: the variable for its type tells a reader nothing."""
    plain = re.sub(r": _\w+T\b", "", signature or "")
    return (plain, "") if signature and plain != signature else None


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", _plain)
