"""``fastcast bench`` on the command line: from arguments to a run, and from its verdict to an exit code."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from fastcast.bench import agent as agents_own
from fastcast.bench import report as pages
from fastcast.bench.driver import AgentLost, run_on
from fastcast.bench.engine import Engine, run_here
from fastcast.bench.environment import describe
from fastcast.bench.link import address
from fastcast.bench.progress import Progress
from fastcast.bench.run import Outcome, Watcher, execute
from fastcast.bench.scenario import OPTIONS, Scenario
from fastcast.bench.summary import summarise
from fastcast.errors import ConfigError
from fastcast.flags import Command, Flag, flag

EXIT_CLEAN: Final = 0
EXIT_NOT_CLEAN: Final = 1
EXIT_INTERRUPTED: Final = 130

_HOST: Final = "127.0.0.1"
_WEB: Final = "127.0.0.1:8089"
_AGENT: Final = "127.0.0.1:8088"

_OUTPUT: Final = "Output"
_MACHINES: Final = "Several machines"


def _bench(
    scenario: Path | None,
    json_file: str | None,
    report: Path | None,
    web: str | None,
    quiet: bool,
    agents: str | None,
    agent: str | None,
    token: str,
    **flags: object,
) -> int:
    """Open many connections to a WebSocket server, send messages, and tell what became of every one of them.

    Without options of messages, one client sends ten messages, each when everybody has got the one before,
    and every client must get each of them once, in order and undamaged. That is what fastcast serve does, and
    what most chat servers do; --expect is for others.

    Latency is measured from the time at which a message was due to be sent, so a server that stalls cannot
    hide it by delaying the load.

    SIZE is in bytes, or has a unit: 65536, 64KiB. TIME is in seconds, or has a unit: 20, 500ms, 1.5m, 1h. In
    a scenario file (TOML) each option has the flag's name with underscores, and flags win over the file.
    """
    if agent is not None:
        others = (scenario, json_file, report, web, agents, *flags.values())
        if quiet or any(value is not None and value != () for value in others):
            raise ConfigError("--agent: the driver brings URL, scenario and all other options")
        agents_own.serve(
            *_address("--agent", agent), token, lambda where: click.echo(f"fastcast bench: agent at {where}")
        )
        return EXIT_CLEAN
    if web is not None and "://" in web and not flags.get("url"):
        # `--web URL`: the address of the page is the one that may be missing.
        flags["url"], web = web, _WEB
    settings = Scenario.load(flags, scenario)
    if report is not None:
        _check_writable("--report", report)
        pages.require_plotly("--report")
    if web is not None:
        pages.require_plotly("--web")
    if json_file not in (None, "-"):
        _check_writable("--json", Path(json_file))
    engine: Engine = run_here if agents is None else partial(run_on, _addresses(agents), token)
    environment = describe(settings.server_pid)
    console = Console(stderr=True)
    try:
        outcome = _run(settings, engine, environment, console, web=web, quiet=quiet)
    except AgentLost as error:
        click.echo(f"fastcast: error: {error}", err=True)
        return EXIT_NOT_CLEAN
    # The summary is for people: where a program reads standard output, it moves out of its way.
    _say(summarise(settings.url, outcome.result, outcome.verdict), err=json_file == "-")
    if json_file is not None:
        text = json.dumps(_figures(settings, outcome, environment), indent=2)
        if json_file == "-":
            _say(text)
        else:
            _write("--json", Path(json_file), text + "\n")
    if report is not None:
        page = pages.report(settings.url, outcome.series.rows(), outcome.result, outcome.verdict, environment)
        _write("--report", report, page)
    if outcome.verdict.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_CLEAN if outcome.verdict.clean else EXIT_NOT_CLEAN


def _run(
    settings: Scenario,
    engine: Engine,
    environment: dict[str, Any],
    console: Console,
    *,
    web: str | None,
    quiet: bool,
) -> Outcome:
    watchers: list[Watcher] = []
    with contextlib.ExitStack() as stack:
        live = None
        if web is not None:
            # Late, because only this needs the server.
            from fastcast.bench.web import LivePage

            live = stack.enter_context(LivePage(*_address("--web", web), settings.url, environment))
            watchers.append(live.show)
            click.echo(f"fastcast bench: live page at {live.address}", err=True)
        if not quiet:
            progress = stack.enter_context(Progress(console, settings.connection_count))
            watchers.append(lambda row, _series: progress.show(row))
        outcome = execute(settings.load_options(), engine, watchers)
        if live:
            live.end(pages.outcome(settings.url, outcome.result, outcome.verdict))
    return outcome


def _figures(settings: Scenario, outcome: Outcome, environment: dict[str, Any]) -> dict[str, Any]:
    verdict = outcome.verdict
    return {
        "scenario": {option.name: getattr(settings, option.name) for option in OPTIONS},
        "environment": environment,
        "verdict": {
            "clean": verdict.clean,
            "interrupted": verdict.interrupted,
            "findings": list(verdict.findings),
        },
        **outcome.result,
        "series": pages.told(outcome.series.rows()),
    }


def _address(spelled: str, text: str) -> tuple[str, int]:
    try:
        return address(text, _HOST)
    except ValueError as error:
        raise ConfigError(f"{spelled}: {error}") from None


def _addresses(text: str) -> list[tuple[str, int]]:
    try:
        found = [address(item.strip()) for item in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--agents: {error}") from None
    if len(set(found)) < len(found):
        raise ConfigError("--agents: an agent is named twice, and takes one run at a time")
    return found


def _check_writable(spelled: str, file: Path) -> None:
    """A run may take hours, and its figures should have a place to go to."""
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ConfigError(f"{spelled}: {file} cannot be written")


def _say(text: str, *, err: bool = False) -> None:
    try:
        click.echo(text, err=err)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ConfigError(f"standard {'error' if err else 'output'}: {error.strerror}") from None


def _write(spelled: str, file: Path, text: str) -> None:
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"{spelled}: {file}: {error.strerror}") from None


def _parameters() -> Sequence[click.Parameter]:
    file = click.Path(path_type=Path, dir_okay=False)
    return [
        click.Argument(["url"], required=False),
        *(flag(option) for option in OPTIONS if not option.argument),
        Flag(
            ["--scenario"],
            heading="Scenario",
            type=file,
            metavar="FILE",
            help="TOML file with options; arrivals are tables there: [[arrivals]] with two of count, rate and"
            " duration.",
        ),
        Flag(
            ["--json", "json_file"],
            heading=_OUTPUT,
            metavar="FILE",
            help="Write all figures as JSON; - is standard output, with nothing else there.",
        ),
        Flag(
            ["--report"],
            heading=_OUTPUT,
            type=file,
            metavar="FILE",
            help="Write an HTML page with plots, which needs nothing else.",
        ),
        Flag(
            ["--web"],
            heading=_OUTPUT,
            is_flag=False,
            flag_value=_WEB,
            metavar="[HOST:]PORT",
            help=f"Serve a page that shows the run as it goes on; alone, at {_WEB}.",
        ),
        Flag(["--quiet"], heading=_OUTPUT, is_flag=True, help="Do not show how the run gets on."),
        Flag(
            ["--agents"],
            heading=_MACHINES,
            metavar="HOST:PORT,...",
            help="Have these agents generate the load, in equal shares.",
        ),
        Flag(
            ["--agent"],
            heading=_MACHINES,
            is_flag=False,
            flag_value=_AGENT,
            metavar="[HOST:]PORT",
            help=f"Be an agent; alone, at {_AGENT}.",
        ),
        Flag(
            ["--token"],
            heading=_MACHINES,
            envvar="FASTCAST_AGENT_TOKEN",
            default="",
            metavar="TEXT",
            help="Secret that driver and agents share, needed beyond loopback; also FASTCAST_AGENT_TOKEN.",
        ),
    ]


bench: Final = Command(
    "bench",
    callback=_bench,
    params=list(_parameters()),
    help=_bench.__doc__,
    short_help="Measure a WebSocket server with very many clients.",
    epilog="""
    \b
    Examples:
      fastcast bench ws://127.0.0.1:8000/ --connections 10000
      fastcast bench ws://127.0.0.1:8000/ --connections 10000 --rate 20 --messages 600 --report run.html
      fastcast bench ws://[::1]:8000/echo --expect sender --senders 100 --think 1s

    Exit status: 0 for a clean run (every connection made and kept; nothing lost, doubled, reordered or
    damaged), 1 for any other, 2 for wrong usage, 3 if the run cannot start, 130 if it is interrupted.
    """,
)
