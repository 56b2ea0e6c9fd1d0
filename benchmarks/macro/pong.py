"""How long a Pong takes while a broadcast is under way: python benchmarks/macro/pong.py [--connections N].

Starts `fastcast serve` and the load client with one message in flight, so that the server is always amid a
broadcast, and pings it from one more client. Prints percentiles in milliseconds, beside those of an idle one.
Who reads is on the same processors, so that the numbers include its own waiting.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
UPGRADE = (
    "GET {} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
PING = bytes([0x89, 0x80, 1, 2, 3, 4])


def connect(port: int) -> socket.socket:
    """A client on a channel of its own, so that all it receives are Pongs."""
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(UPGRADE.format("/pong").encode())
    while not client.recv(4096).endswith(b"\r\n\r\n"):
        pass
    return client


def measure(client: socket.socket, seconds: float) -> list[float]:
    """Round trips, in milliseconds, one every ten milliseconds or so."""
    times: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        client.sendall(PING)
        assert client.recv(16) == b"\x8a\x00"
        times.append((time.perf_counter() - began) * 1000)
        time.sleep(0.01)
    return times


def show(title: str, times: list[float]) -> None:
    cuts = statistics.quantiles(times, n=100)
    most = f"{max(times):.2f} ms of {len(times)} pings"
    print(f"{title}: p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms, most {most}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Pong latency during a broadcast.")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, "-m", "fastcast", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"FASTCAST_PING_INTERVAL": "0"},
    )
    try:
        assert server.stdout is not None
        found = re.search(r"http://[^/]*:(\d+)/", server.stdout.readline())
        assert found is not None
        port = int(found[1])
        client = connect(port)
        show("idle", measure(client, options.seconds / 2))
        load = subprocess.Popen(
            [
                *(HERE / "build" / "load", "--quiet", "--url", f"ws://127.0.0.1:{port}/"),
                *("--messages", "1000000", "--connections", str(options.connections)),
                *("--timeout", str(options.seconds + 10)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            time.sleep(3)  # until all are connected: a measurement, not a test
            show(f"broadcasting to {options.connections}", measure(client, options.seconds))
        finally:
            load.terminate()
            load.wait()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
