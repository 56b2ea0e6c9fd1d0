"""Options as flags of a command line."""

from __future__ import annotations

from typing import Any

import click

from fastcast.channels import Rules
from fastcast.options import Option, Several, Switch


class Flag(click.Option):
    """A flag that knows its heading in the help."""

    def __init__(self, *args: Any, heading: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading


class Command(click.Command):
    """A command whose help shows the flags under their headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            # The usage line has the arguments, and the text above says what they are.
            if isinstance(param, click.Argument):
                continue
            if record := param.get_help_record(ctx):
                heading = param.heading if isinstance(param, Flag) else "Other"
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def flag(option: Option) -> Flag:
    """The flag of ``option``. Its value stays text, so that one place checks the values of every source."""
    shown = option.kind.show(option.default)
    text = f"{option.help}  [default: {shown}]" if shown else option.help
    if isinstance(option.kind, Switch):
        negative = option.kind.negative or option.flag.replace("--", "--no-", 1)
        return Flag([f"{option.flag}/{negative}"], heading=option.group, default=None, help=text)
    return Flag(
        [option.flag],
        heading=option.group,
        type=str,
        multiple=isinstance(option.kind, Several | Rules),
        metavar=option.kind.metavar,
        help=text,
    )
