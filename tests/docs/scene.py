"""A program of the documentation as it runs, for a conversation with it."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.docs.examples import Block, files_before
from tests.support.program import Program, free_ports
from tests.support.wire import TIMEOUT, until

PORTS = (8000, 8001, 8080)
"""The ports that the documentation uses: the server's, its admin port, a web application's."""


def listening() -> set[int]:
    """The ports that somebody on this machine listens on; asked of the kernel, to disturb nobody."""
    lines = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
    # proc(5): the second field is the local address and port, the fourth the state; 0A is LISTEN.
    return {
        int(local.rpartition(":")[2], 16) for _, local, _, state, *_ in map(str.split, lines) if state == "0A"
    }


class Visitor:
    """A client that waits for what it expects, but not for ever."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def send(self, message: str | bytes) -> None:
        """Send a message."""
        self.connection.send(message)

    def hears(self, *expected: object) -> None:
        """Read as many messages, and assert that they are those; whatever isn't str or bytes is JSON."""
        for each in expected:
            message = self.connection.recv(TIMEOUT)
            assert (message if isinstance(each, str | bytes) else json.loads(message)) == each

    def text(self) -> str:
        """The next message, as it is."""
        return self.connection.recv(TIMEOUT, decode=True)

    def next(self) -> Any:
        """The next message, from JSON if it is that."""
        message = self.connection.recv(TIMEOUT)
        try:
            return json.loads(message)
        except ValueError:
            return message

    def closed(self) -> tuple[int, str]:
        """Read to the end; the code and the reason with which the server closes."""
        try:
            while True:
                self.connection.recv(TIMEOUT)
        except ConnectionClosed as error:
            if error.rcvd is None:
                raise
            return error.rcvd.code, error.rcvd.reason


class Scene:
    """The files that a reader of a page has after a block, and what runs of them.

    Everywhere in them, ports that nobody listens on stand in for those of the documentation.
    """

    def __init__(self, block: Block, directory: Path) -> None:
        self.block = block
        self.directory = directory
        self._ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self._programs: list[Program] = []
        for name, text in files_before(block).items():
            file = directory / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self._moved(text), "utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running = [program for program in reversed(self._programs) if not program.exited]
        if error is not None:
            print(*(f"{program.output()}{program.log()}" for program in running))
        try:
            for program in running:
                if error is None:
                    # Not every program has a handler for it.
                    program.stop(codes=(0, -signal.SIGTERM))
        finally:
            for program in running:
                program.kill()

    def _moved(self, text: str) -> str:
        return re.sub(
            rf"(?<![\w.])(?:{'|'.join(map(str, PORTS))})(?![\w.])",
            lambda port: str(self._ports[int(port[0])]),
            text,
        )

    def start(
        self, *arguments: str, listens: int | None = 8000, environ: Mapping[str, str] | None = None
    ) -> Program:
        """Start Python, by default with the block's file, and wait until the port, if any, takes connections.

        Numbers of ports in arguments and variables are replaced as well.
        """
        program = Program(
            sys.executable,
            *map(self._moved, arguments or (self.block.name,)),
            environ={name: self._moved(value) for name, value in (environ or {}).items()},
            directory=self.directory,
        )
        self._programs.append(program)
        if listens is not None:
            self.await_port(listens)
        return program

    def serve(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Program:
        """Start ``fastcast serve --port 8000``."""
        return self.start("-m", "fastcast", "serve", "--port", "8000", *arguments, environ=environ)

    def run(self, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
        """Run Python to its end, by default with the block's file; returns what it printed."""
        program = self.start(*arguments, listens=None, environ=environ)
        assert program.wait() == 0, program.log()
        self._programs.remove(program)
        return program.output()

    def await_port(self, port: int) -> None:
        """Wait until a port of the documentation takes connections."""

        def attempt() -> bool | None:
            for program in self._programs:
                assert program.running, f"it has ended: {program.output()}{program.log()}"
            return self._ports[port] in listening() or None

        until(attempt, f"port {port}")

    def url(self, place: str = "/", port: int = 8000, scheme: str = "ws") -> str:
        """A URL of the documentation where it really is."""
        return f"{scheme}://127.0.0.1:{self._ports[port]}{place}"

    @contextlib.contextmanager
    def client(self, place: str = "/", port: int = 8000, **options: Any) -> Iterator[Visitor]:
        """A client that is connected."""
        with connect(self.url(place, port), proxy=None, **options) as connection:
            yield Visitor(connection)

    def status(self, place: str = "/", **options: Any) -> int:
        """The status with which a client is refused; 101 if it isn't."""
        try:
            with self.client(place, **options):
                return 101
        except InvalidStatus as error:
            return error.response.status_code

    def get(self, place: str = "/", port: int = 8000) -> str:
        """A page's text."""
        return self._open(urllib.request.Request(self.url(place, port, "http")))

    def post(self, place: str, port: int, data: bytes = b"", headers: Mapping[str, str] | None = None) -> str:
        """The answer to a POST."""
        return self._open(urllib.request.Request(self.url(place, port, "http"), data, dict(headers or {})))

    @staticmethod
    def _open(request: urllib.request.Request) -> str:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return str(response.read().decode())
