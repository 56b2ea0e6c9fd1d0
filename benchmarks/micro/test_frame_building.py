"""A payload into the frame that a server sends: what must be done once for each message.

fastcast builds frames in C, where Python doesn't see them. ``encode_frame`` is the same code behind a call
that returns the frame as bytes, which is what the other two libraries do.
"""

from __future__ import annotations

from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastcast._core import encode_frame

# A header of 4 bytes for the first, of 10 for the second (RFC 6455 section 5.2).
PAYLOADS = {"128 B": bytes(range(128)), "64 KiB": bytes(range(256)) * 256}


@pytest.fixture(params=PAYLOADS)
def payload(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> bytes:
    """A payload, in a group of its own."""
    benchmark.group = f"build a frame of {request.param}"
    return PAYLOADS[request.param]


def test_fastcast(benchmark: BenchmarkFixture, payload: bytes) -> None:
    assert benchmark(encode_frame, payload).endswith(payload)


def test_websockets(benchmark: BenchmarkFixture, payload: bytes) -> None:
    frames = pytest.importorskip("websockets.frames")

    def build() -> Any:
        return frames.Frame(frames.Opcode.BINARY, payload).serialize(mask=False, extensions=[])

    assert benchmark(build) == encode_frame(payload)


def test_wsproto(benchmark: BenchmarkFixture, payload: bytes) -> None:
    wsproto = pytest.importorskip("wsproto")
    events = pytest.importorskip("wsproto.events")
    connection = wsproto.connection.Connection(wsproto.ConnectionType.SERVER)

    def build() -> Any:
        return connection.send(events.BytesMessage(payload))

    assert benchmark(build) == encode_frame(payload)
