"""The directive ``options``: every option of the server, from where it is declared."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from fastcast.config import OPTIONS


class Options(SphinxDirective):
    """A section for each heading of the help, with its options."""

    def run(self) -> list[nodes.Node]:
        lines: list[str] = []
        heading = None
        for option in OPTIONS:
            if option.group != heading:
                heading = option.group
                lines += [f"## {heading}", ""]
            shown = option.kind.show(option.default)
            default = f" Default: `{shown}`." if shown else ""
            values = f" {option.kind.metavar}" if option.kind.metavar else ""
            lines += [
                f"`{option.name}`, `{option.flag}{values}`, `{option.variable}`",
                f": {_plain(option.help)}{default}",
                "",
            ]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def _plain(help_text: str) -> str:
    """Text of the help, which isn't Markdown, as Markdown."""
    return "".join(f"\\{letter}" if letter in "\\*_<>[]`#|" else letter for letter in help_text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("options", Options)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
