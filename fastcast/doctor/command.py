"""``fastcast doctor``: facts and needs as a table, as JSON, and as files to install."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastcast.doctor import facts
from fastcast.doctor.needs import Check, Role, Verdict, check_all
from fastcast.doctor.probe import probe
from fastcast.doctor.write import write

EXIT_SHORT: Final = 1

_WIDTH: Final = 100
_MOST: Final = 1_000_000_000
_STYLES: Final = {
    Verdict.FITS: "green",
    Verdict.TIGHT: "yellow",
    Verdict.SHORT: "bold red",
    Verdict.UNKNOWN: "dim",
}
_HOW: Final = (
    "The lines are for a root shell, from which the server is then started. `sysctl -w` lasts until the next"
    " boot; --write makes files that stay."
)
_OUTSIDE: Final = (
    "What begins with net.core or net.ipv4 is a container's own, and is given when it's made (docker run"
    " --sysctl NAME=VALUE); the rest is set on the host."
)


@click.command(
    short_help="Tell what this machine can hold, and what to change.",
    epilog="""
    \b
    Examples:
      fastcast doctor --connections 200000
      fastcast doctor --connections 1000000 --role load --json -
      fastcast doctor --connections 200000 --write /tmp/fastcast

    Exit status: 0 if the connections fit, tightly or not; 1 if a limit is too low for them; 2 for wrong
    usage.
    """,
)
@click.option(
    "--connections",
    type=click.IntRange(1, _MOST),
    default=10_000,
    show_default=True,
    metavar="N",
    help="Connections at the same time.",
)
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.SERVER.value,
    show_default=True,
    help="What this machine is to be: the server, the load client (fastcast bench), or both over loopback.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write everything as JSON; - is standard output, in the table's place.",
)
@click.option(
    "--write",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write a sysctl.d file and, for a server, a systemd unit, with what needs to be set.",
)
@click.option("--force", is_flag=True, help="Overwrite what --write finds in DIR.")
@click.pass_context
def doctor(
    ctx: click.Context,
    connections: int,
    role: str,
    json_file: str | None,
    directory: Path | None,
    force: bool,
) -> None:
    """Compare every limit that many connections meet with what they need, and show how to raise it.

    Reads this machine as it is now, with the limits of this very process: run it as the user, in the
    container and from the service manager that the server is to run in. It changes nothing.
    """
    machine = facts.read(probe=probe())
    checks = check_all(machine, connections, Role(role))
    fits = all(check.verdict is not Verdict.SHORT for check in checks)
    if directory is not None:
        try:
            written = write(directory, checks, connections, Role(role), force=force)
        except OSError as error:
            raise click.UsageError(f"cannot write to {directory}: {error.strerror or error}") from error
    else:
        written = []
    if json_file is not None:
        report = _report(machine, checks, connections, role, fits)
        try:
            with click.open_file(json_file, "w", encoding="utf-8") as file:
                json.dump(report, file, indent=2)
                file.write("\n")
        except OSError as error:
            raise click.UsageError(f"cannot write {json_file}: {error.strerror or error}") from error
    if json_file != "-":
        _show(checks, connections, Role(role), written, _locked(machine, checks))
    ctx.exit(0 if fits else EXIT_SHORT)


def _report(
    machine: facts.Facts, checks: Sequence[Check], connections: int, role: str, fits: bool
) -> dict[str, Any]:
    return {
        "connections": connections,
        "role": role,
        "fits": fits,
        "kernel": machine.kernel,
        "locked": _locked(machine, checks),
        "checks": [
            {
                "name": check.name,
                "value": check.value,
                "need": check.need,
                "unit": check.unit,
                "verdict": check.verdict.value,
                "note": check.note,
                "why": check.why,
                "lines": check.lines,
            }
            for check in checks
        ],
    }


def _locked(machine: facts.Facts, checks: Sequence[Check]) -> list[str]:
    """Sysctls that need to be set and can't be from here."""
    needed = [setting.key for check in checks for setting in check.settings if setting.kind == "sysctl"]
    return [name for name in needed if name in machine.locked]


def _show(
    checks: Sequence[Check], connections: int, role: Role, written: Sequence[Path], locked: Sequence[str]
) -> None:
    console = Console(highlight=False, soft_wrap=False)
    console.width = min(console.width, _WIDTH) if sys.stdout.isatty() else _WIDTH
    console.print(_table(checks))
    for verdict in (Verdict.SHORT, Verdict.TIGHT):
        for check in checks:
            if check.verdict is verdict:
                _explain(console, check)
    if any(check.lines for check in checks):
        console.print(Text(f"\n{_HOW}"))
    if locked:
        console.print(Text(f"\nNot to be set from here, as in a container: {', '.join(locked)}. {_OUTSIDE}"))
    console.print(_conclusion(checks, connections, role))
    for path in written:
        console.print(Text(f"Written: {path}"), soft_wrap=True)


def _table(checks: Sequence[Check]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("limit", no_wrap=True)
    table.add_column("here", justify="right", no_wrap=True)
    table.add_column("needed", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("")
    for check in checks:
        unlimited = check.value is None and check.name.startswith("nofile")
        table.add_row(
            check.name,
            "no limit" if unlimited else _number(check, check.value),
            _number(check, check.need),
            Text(check.verdict.value, _STYLES[check.verdict]),
            check.note,
        )
    return table


def _number(check: Check, number: int | None) -> str:
    """The number as people read it; programs have the JSON."""
    if number is None:
        return "-"
    if check.unit == "bytes":
        for size, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
            if number >= size:
                return f"{number / size:.3g} {name}" if number < 1000 * size else f"{number // size:,} {name}"
        return f"{number} B"
    return f"{number:,}" if number < 10**10 else f"{number // 10**9:,} G"


def _explain(console: Console, check: Check) -> None:
    console.print()
    console.print(Text.assemble((check.verdict.value, _STYLES[check.verdict]), " ", (check.name, "bold")))
    console.print(_indented(console, check.why))
    for line in check.lines:
        # Never broken, so that it can be copied.
        console.print(Text(f"    {line}", "cyan"), soft_wrap=True)
    if not check.lines:
        remedy = "it takes more memory, or fewer connections" if check.name == "memory" else check.note
        console.print(_indented(console, f"No setting helps: {remedy}."))


def _indented(console: Console, text: str) -> Text:
    return Text(textwrap.fill(text, console.width, initial_indent=" " * 4, subsequent_indent=" " * 4))


def _conclusion(checks: Sequence[Check], connections: int, role: Role) -> Text:
    short = [check.name for check in checks if check.verdict is Verdict.SHORT]
    tight = [check.name for check in checks if check.verdict is Verdict.TIGHT]
    text = Text("\n")
    if short:
        text.append(f"{connections:,} connections do not fit", _STYLES[Verdict.SHORT])
        text.append(f". Short: {', '.join(short)}.")
    else:
        text.append(f"{connections:,} connections fit", _STYLES[Verdict.FITS])
        text.append(f". Tight: {', '.join(tight)}." if tight else ".")
    unknown = [check.name for check in checks if check.verdict is Verdict.UNKNOWN]
    if unknown:
        text.append(f"\nUnknown, and not counted: {', '.join(unknown)}.")
    if role is not Role.LOAD:
        text.append(f"\nThe server is to know the number: fastcast serve --max-connections {connections}")
    return text
