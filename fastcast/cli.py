"""The command line: turns arguments into a :class:`~fastcast.config.Config`, and outcomes into exit codes.

Exit codes: what the server returns (0 after a graceful stop), 2 for wrong usage or configuration, 3 if the
server cannot start, 130 if it is interrupted before it has. A mistake of the user is one line on stderr, and
never a traceback.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from fastcast import __version__
from fastcast.config import OPTIONS, Config
from fastcast.descriptors import raise_limit
from fastcast.errors import ConfigError, StartError
from fastcast.flags import Command, flag

EXIT_USAGE: Final = 2
EXIT_START: Final = 3
EXIT_INTERRUPTED: Final = 130

_ELSEWHERE: Final = {
    "bench": "fastcast.bench.command:bench",
    "doctor": "fastcast.doctor.command:doctor",
    "publish": "fastcast.publish_command:publish",
}


class _Program(click.Group):
    """A group whose errors are one line each; click's own usage errors take three.

    Commands with much to import are found by name when they are asked for.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, name = _ELSEWHERE[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            sys.exit(super().main(args, prog_name, complete_var, standalone_mode=False, **extra))
        except click.UsageError as error:
            hint = f" (see '{error.ctx.command_path} --help')" if error.ctx else ""
            _fail(error.format_message() + hint, EXIT_USAGE)
        except ConfigError as error:
            _fail(str(error), EXIT_USAGE)
        except StartError as error:
            _fail(str(error), EXIT_START)
        except click.Abort:
            sys.exit(EXIT_INTERRUPTED)


@click.group(
    cls=_Program,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="fastcast %(version)s")
def main() -> None:
    """Broadcast over WebSocket."""


def _serve(application: str | None, config: Path | None, **flags: object) -> int:
    """Relay every message that a client sends to all clients of the same channel, the sender included.

    With MODULE:SERVER, run the fastcast.Server of that name in a Python module, or the one that a function of
    that name returns; the current directory is searched first. Options that are given here win over those in
    the program.

    The channel is the path of the client's URL: whoever connects to ws://127.0.0.1:8000/rooms/7 is on the
    channel /rooms/7. Browsers find a chat page at http://127.0.0.1:8000/, and the channel after its #.

    When the server listens, it prints one line on stdout; it logs to stderr. SIGTERM and SIGINT stop it
    gracefully.

    SIZE is in bytes, or has a unit: 65536, 64KiB, 1.5MiB (powers of 1024), 2GB (powers of 1000). TIME is in
    seconds, or has a unit: 20, 500ms, 1.5m, 1h.

    An option can be given as a flag, as a variable or in a TOML file, in this order of precedence:
    --max-queue 4MiB is FASTCAST_MAX_QUEUE=4MiB, or max_queue = "4MiB" in the file. Options that may be
    repeated are separated by commas in a variable, and a list in the file.
    """
    # Imported late, because --help and a mistyped option need neither asyncio nor the extension.
    if application is None:
        settings = Config.load(flags, os.environ, config)
        from fastcast.server import Server

        server = Server(settings)
    else:
        from fastcast.application import find

        server = find(application)
        server.config = settings = Config.load(flags, os.environ, config, server.config)
    logging.basicConfig(
        stream=sys.stderr,
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    raise_limit()
    # click.echo flushes: whoever waits for this line reads it from a pipe.
    return server.run(ready=lambda: click.echo(server.describe()))


main.add_command(
    Command(
        "serve",
        callback=_serve,
        params=[
            click.Argument(["application"], required=False, metavar="[MODULE:SERVER]"),
            *map(flag, OPTIONS),
            click.Option(
                ["--config"],
                type=click.Path(path_type=Path),
                envvar="FASTCAST_CONFIG",
                metavar="FILE",
                help="TOML file with options; also FASTCAST_CONFIG.",
            ),
        ],
        help=_serve.__doc__,
        short_help="Relay messages between the clients of a channel.",
        epilog="""
        \b
        Examples:
          fastcast serve --port 9000
          fastcast serve --host :: --origin https://example.org --max-message 64KiB
          fastcast serve chat:server --port 9000

        Exit status: 0 after a graceful stop, 2 for wrong usage or configuration, 3 if the server cannot
        start.
        """,
    )
)


def _fail(message: str, code: int) -> NoReturn:
    # click breaks some messages, and a file name may contain anything.
    click.echo(f"fastcast: error: {' '.join(message.split())}", err=True)
    sys.exit(code)
