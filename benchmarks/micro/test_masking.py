"""Undo the mask of a client's payload (RFC 6455 section 5.3).

Masking is its own inverse, so that this is also what a client does. Both functions are C code that returns
new bytes, and with the largest payload it is mostly memory that is measured.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastcast._core import unmask

MASK = b"\x37\xfa\x21\x3d"
SIZES = {"125 B": 125, "4 KiB": 4096, "1 MiB": 1024 * 1024}


@pytest.fixture(params=SIZES)
def payload(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> bytes:
    """A payload, in a group of its own."""
    benchmark.group = f"unmask {request.param}"
    return bytes(i % 251 for i in range(SIZES[request.param]))


def test_fastcast(benchmark: BenchmarkFixture, payload: bytes) -> None:
    assert unmask(benchmark(unmask, payload, MASK), MASK) == payload


def test_websockets(benchmark: BenchmarkFixture, payload: bytes) -> None:
    speedups = pytest.importorskip("websockets.speedups", reason="websockets is installed without its C code")
    assert benchmark(speedups.apply_mask, payload, MASK) == unmask(payload, MASK)
