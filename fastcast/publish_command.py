"""``fastcast publish``: one message, or each line of standard input, over a server's admin port."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import BinaryIO, Final

import click

from fastcast.errors import PublishError
from fastcast.publisher import Publisher

EXIT_FAILED: Final = 1

_VARIABLE: Final = "FASTCAST_ADMIN_TOKEN"


@click.command(
    short_help="Publish messages to a running server.",
    epilog="""
    \b
    Examples:
      export FASTCAST_ADMIN_TOKEN=...
      fastcast publish http://127.0.0.1:8001 news "We close at noon"
      tail -f prices.jsonl | fastcast publish http://127.0.0.1:8001 prices.eur --key eurusd
      fastcast publish http://127.0.0.1:8001 images --binary-file chart.png
      fastcast publish http://127.0.0.1:8001 news -- "-5 degrees"

    Exit status: 0 if all is published, heard by somebody or not; 1 if something was not; 2 for wrong usage.
    """,
)
@click.argument("url")
@click.argument("channel")
@click.argument("message", required=False)
@click.option(
    "--token",
    envvar=_VARIABLE,
    metavar="TOKEN",
    help=f"The server's admin_token. Better in the variable {_VARIABLE} than here, where others on the"
    " machine see it.",
)
@click.option("--key", metavar="KEY", help="What it replaces in channels whose policy is latest.")
@click.option(
    "--binary-file",
    type=click.File("rb"),
    metavar="FILE",
    help="Publish a file as one binary message; - is standard input.",
)
def publish(
    url: str,
    channel: str,
    message: str | None,
    token: str | None,
    key: str | None,
    binary_file: BinaryIO | None,
) -> None:
    """Publish MESSAGE to CHANNEL of the server whose admin port is at URL.

    Without MESSAGE, each line of standard input is a message, in UTF-8. Lines that come quickly are sent
    together; a single one doesn't wait for others.

    What may go through later, as while the server restarts, is tried again for some seconds; a server that
    has had a request before doesn't publish it twice.
    """
    if message is not None and binary_file is not None:
        raise click.UsageError("MESSAGE and --binary-file exclude each other")
    lines = message is None and binary_file is None
    try:
        with Publisher(url, token or None, batch=lines) as publisher:
            if message is not None:
                publisher.publish(channel, message, key)
            elif binary_file is not None:
                publisher.publish(channel, binary_file.read(), key)
            else:
                for line in _lines(sys.stdin.buffer):
                    publisher.publish(channel, line, key)
    except PublishError as error:
        _fail(str(error))
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _lines(stream: BinaryIO) -> Iterator[str]:
    """Lines without their ends; PublishError for one that is no text."""
    for number, line in enumerate(stream, 1):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            raise PublishError(f"line {number} is not valid UTF-8") from None
        yield text.removesuffix("\n")


def _fail(message: str) -> None:
    click.echo(f"fastcast: error: {message}", err=True)
    click.get_current_context().exit(EXIT_FAILED)
