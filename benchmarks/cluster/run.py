"""Several servers on one bus, while servers and the bus are killed and one server is cut off.

Starts a real nats-server (with JetStream) or redis-server, servers by ``fastcast serve``, and clients that
count what they hear, miss, and hear twice. One more server, without clients, publishes ten messages a second
to ten channels in turn; what it can't publish it publishes later, so that each message has its number.
Everything is on this machine, and ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "macro"))

from crowd import CHANNELS  # noqa: E402
from machine import commit, describe  # noqa: E402

import fastcast  # noqa: E402

RATE: Final = 10
PIECE: Final = 5_000
"""Clients in one process of them."""


def free_port() -> int:

    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Broker:
    """A broker that can be killed and started again."""

    def __init__(self, kind: str, directory: str) -> None:
        self.kind = kind
        self.port = free_port()
        self.url = f"{kind}://127.0.0.1:{self.port}"
        self._directory = directory
        self.start()

    def start(self) -> None:
        nats = Path(sys.executable).parent / "nats-server"
        command = (
            [str(nats), "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", "store"]
            if self.kind == "nats"
            else [
                str(shutil.which("redis-server")),
                "--bind",
                "127.0.0.1",
                "--port",
                str(self.port),
                "--save",
                "",
            ]
        )
        self._process = subprocess.Popen(
            command, cwd=self._directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise SystemExit(f"{command[0]} did not start") from None
                time.sleep(0.05)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Node:
    """``fastcast serve`` in a process of its own."""

    def __init__(self, bus: str, resumes: bool) -> None:
        self.port = free_port()
        self._bus = bus
        self._resumes = resumes
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "fastcast", "serve", "--port", str(self.port), "--bus", self._bus]
        command += ["--history", "1000", "--max-history", "64MiB"] if self._resumes else []
        self._process = subprocess.Popen(
            [*command, "--shards", "2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "ready at" in line:
                break
        else:
            raise SystemExit(f"a server did not start: {''.join(said)}")
        threading.Thread(target=self._process.stdout.read, daemon=True).start()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid


class Line:
    """A proxy to the bus that can be cut: nothing arrives, and nobody is told."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._whole = asyncio.Event()
        self._whole.set()
        self._ready = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()
        self._ready.wait()

    def set(self, whole: bool) -> None:
        self._loop.call_soon_threadsafe(self._whole.set if whole else self._whole.clear)

    def _run(self) -> None:
        self._loop.run_until_complete(asyncio.start_server(self._connect, "127.0.0.1", self.port))
        self._ready.set()
        self._loop.run_forever()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._whole.wait()
            there = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(self._pump(reader, there[1]), self._pump(there[0], writer))
        except OSError:
            pass
        finally:
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


class Publisher(threading.Thread):
    """Publishes numbered messages, each until it's accepted."""

    def __init__(self, server: fastcast.Server) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._over = threading.Event()
        self.next = [0] * CHANNELS
        self.refused = 0

    def run(self) -> None:
        turn = 0
        while not self._over.wait(1 / RATE):
            channel = turn % CHANNELS
            try:
                self._server.publish(f"/c{channel}", f"{self.next[channel]} of some hundred bytes {'.' * 80}")
            except (fastcast.BusError, fastcast.OverloadError):
                self.refused += 1
                continue
            self.next[channel] += 1
            turn += 1

    def end(self) -> int:
        """Stop at the end of a turn over the channels; returns the last number of each."""
        self._over.set()
        self.join()
        highest = max(self.next)
        for channel in range(CHANNELS):
            while self.next[channel] < highest:
                self._server.publish(f"/c{channel}", f"{self.next[channel]} the end")
                self.next[channel] += 1
        return highest - 1


@contextmanager
def crowd(clients: int, ports: list[int], resumes: bool) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes of clients; the last line of each says that all are connected."""
    source = random.randrange(10, 200)
    processes = []
    for first in range(0, clients, PIECE):
        arguments = (min(PIECE, clients - first), first, source + first // PIECE, int(resumes), *ports)
        processes.append(
            subprocess.Popen(
                [sys.executable, str(HERE / "crowd.py"), *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    try:
        for process in processes:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise SystemExit("the clients did not connect")
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def report(processes: list[subprocess.Popen[str]], end: int | None = None) -> Counter[str]:
    """What all clients have counted; with an end, once they have heard it."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("report\n" if end is None else f"report {end}\n")
        process.stdin.flush()
    total: Counter[str] = Counter()
    for process in processes:
        assert process.stdout is not None
        total.update(json.loads(process.stdout.readline()))
    return total


class Trial:
    """The phases of a run, and what the clients counted in each."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes
        self._before: Counter[str] = Counter()
        self.phases: list[dict[str, Any]] = []

    def phase(self, name: str, end: int | None = None) -> None:
        now = report(self._processes, end)
        counts = {
            key: now[key] - self._before[key]
            for key in ("heard", "missed", "twice or out of order", "gaps", "lost connections")
        }
        self.phases.append({"phase": name, **counts, "away": now["away"], "behind": now["behind"]})
        self._before = now
        print(
            f"{name:32}",
            *(f"{key} {value}" for key, value in self.phases[-1].items() if key != "phase"),
            sep="  ",
        )


def run(kind: str, nodes: int, clients: int, resumes: bool) -> dict[str, Any]:
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="fastcast-cluster-"))
        broker = Broker(kind, directory)
        stack.callback(lambda: broker.kill())
        line = Line(broker.port)
        # The last of the servers is the one that is cut off.
        urls = [broker.url] * (nodes - 1) + [f"{kind}://127.0.0.1:{line.port}"]
        servers = []
        for url in urls:
            servers.append(node := Node(url, resumes))
            stack.callback(node.kill)
        history: dict[str, Any] = {"history": "1000", "max_history": "64MiB"} if resumes else {}
        source = fastcast.Server(
            port=0, shards=1, bus=(broker.url,), bus_alone="refuse", log_level="error", **history
        )
        stack.enter_context(source.start_in_thread())
        ports = [node.port for node in servers]
        begun = time.monotonic()
        processes = stack.enter_context(crowd(clients, ports, resumes))
        print(f"{clients} clients on {nodes} servers after {time.monotonic() - begun:.0f} s")
        publisher = Publisher(source)
        publisher.start()
        trial = Trial(processes)
        time.sleep(10)
        trial.phase("all is well")
        servers[0].kill()
        time.sleep(2)
        servers[0].start()
        time.sleep(10)
        trial.phase("a server killed, and back")
        broker.kill()
        time.sleep(2)
        broker.start()
        time.sleep(10)
        trial.phase("the bus killed, and back")
        line.set(False)
        time.sleep(10)
        line.set(True)
        time.sleep(10)
        trial.phase("a server cut off, and back")
        end = publisher.end()
        trial.phase("the end", end)
        return {
            "bus": kind,
            "servers": nodes,
            "clients": clients,
            "resume": resumes,
            "published": sum(publisher.next),
            "refused": publisher.refused,
            "phases": trial.phases,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bus", choices=("nats", "redis"), default="nats")
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=20_000)
    parser.add_argument(
        "--no-resume", action="store_true", help="clients that don't come back with a position"
    )
    parser.add_argument("--output", type=Path, help="a file for the figures, in JSON")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    resumes = not given.no_resume
    result = run(given.bus, given.servers, given.clients, resumes) | {
        "commit": commit(),
        "machine": describe(),
    }
    if given.output:
        given.output.write_text(json.dumps(result, indent=1) + "\n")
    bad = sum(phase["twice or out of order"] for phase in result["phases"])
    if given.bus == "nats" and resumes:
        bad += (
            sum(phase["missed"] + phase["gaps"] for phase in result["phases"])
            + result["phases"][-1]["behind"]
        )
    os._exit(1 if bad else 0)  # not waiting for the proxy's thread


if __name__ == "__main__":
    main()
