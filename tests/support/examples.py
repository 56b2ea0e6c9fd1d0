"""The programs in examples/, each as a process of its own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.support.program import Program, started
from tests.support.wire import Address

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@contextmanager
def example(
    name: str, environ: Mapping[str, str] | None = None, stop: signal.Signals = signal.SIGTERM
) -> Iterator[Program]:
    """``python examples/NAME/app.py`` on free ports; it has to end with 0, and without a traceback."""
    variables = {"FASTCAST_PORT": "0", "FASTCAST_SHARDS": "2", "PORT": "0", **(environ or {})}
    file = EXAMPLES / name / "app.py"
    with started(sys.executable, str(file), environ=variables, stop=stop) as program:
        yield program


@contextmanager
def dial(address: Address, place: str = "/", **options: Any) -> Iterator[ClientConnection]:
    """A client that is connected."""
    with connect(f"ws://{address[0]}:{address[1]}{place}", proxy=None, **options) as client:
        yield client
