"""Real brokers for the bus: nats-server and redis-server, which a test may kill and start again."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.program import free_ports, is_listening
from tests.support.wire import until


def _find(name: str) -> str:
    """A program beside this Python, as pip installs it, or on the path."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found is not None, f"{name} is missing"
    return found


class Broker:
    """A broker on a port of its own, which it keeps when it's started again."""

    def __init__(self, kind: str, *options: str, config: Path | None = None) -> None:
        self.kind = kind
        self._config = config
        self._directory = tempfile.TemporaryDirectory(prefix="fastcast-broker-")
        [self.port] = free_ports(1)
        self._options = [option.format(port=self.port) for option in options]
        self.start()

    @property
    def url(self) -> str:
        """What `--bus` takes."""
        return f"{self.kind}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        if self.kind == "nats":
            command = [_find("nats-server"), "-a", "127.0.0.1", "-p", str(self.port), *self._options]
        else:
            command = [_find("redis-server"), *([str(self._config)] if self._config else [])]
            command += ["--bind", "127.0.0.1", "--port", str(self.port), *self._options]
            command += [] if self._config else ["--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            command, cwd=self._directory.name, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._listens, f"{self.kind} to listen")

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()

    def publish(self, subject: str, payload: bytes) -> None:
        """Publish as any program might, in the broker's own protocol."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            if self.kind == "nats":
                size = len(payload)
                connection.sendall(b'CONNECT {"verbose":false}\r\nPUB %b %d\r\n' % (subject.encode(), size))
                connection.sendall(payload + b"\r\nPING\r\n")
                answer = b"PONG"
            else:
                parts = (b"PUBLISH", subject.encode(), payload)
                connection.sendall(
                    b"*3\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
                )
                answer = b":"
            received = b""
            while answer not in received:
                piece = connection.recv(65536)
                assert piece, f"{self.kind} has closed: {received!r}"
                received += piece

    def end(self) -> None:
        """Kill it, and leave nothing."""
        self.kill()
        self._directory.cleanup()

    def _listens(self) -> bool | None:
        assert self._process.poll() is None, f"{self.kind} ended with {self._process.returncode}"
        return is_listening(self.port)


@contextmanager
def broker(kind: str, *options: str, config: Path | None = None) -> Iterator[Broker]:
    """A broker for the time of the block; `{port}` in an option is its own, and `config` a file for Redis."""
    running = Broker(kind, *options, config=config)
    try:
        yield running
    finally:
        running.end()


@contextmanager
def cluster(count: int, *options: str) -> Iterator[list[Broker]]:
    """So many nats-servers that are one, with JetStream, and with these options."""
    routes = [f"nats://127.0.0.1:{port}" for port in free_ports(count)]
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                broker(
                    "nats",
                    *("-js", "-sd", "store", "--server_name", f"n{number}", "--cluster_name", "test"),
                    *("--cluster", route, "--routes", ",".join(routes)),
                    *options,
                )
            )
            for number, route in enumerate(routes)
        ]


KINDS = ("nats", "redis")
"""What `broker` takes."""
