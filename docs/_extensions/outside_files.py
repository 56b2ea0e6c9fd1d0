"""Links to files of the repository outside of docs/ become downloads, since they are no pages here."""

from __future__ import annotations

import os
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

# Before what collects downloads.
_EARLY = 400


def _link_files(app: Sphinx, document: nodes.document) -> None:
    source = Path(app.srcdir)
    for link in list(document.findall(addnodes.pending_xref)):
        target = Path(f"{link.get('reftarget')}.md")
        if link.get("refdomain") != "doc" or target.is_relative_to(source) or not target.is_file():
            continue
        page = source / app.env.docname
        relative = os.path.relpath(target, page.parent)
        download = addnodes.download_reference(
            "", "", refdoc=app.env.docname, reftarget=relative, reftype="download"
        )
        download += link.children
        link.replace_self(download)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("doctree-read", _link_files, priority=_EARLY)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
