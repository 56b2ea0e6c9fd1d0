"""A server on a hub that is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fastcast.config import Config
from tests.support.fake_hub import FakeHub, fake_hub

PORT = 4321


class FakeLaunch:
    """In the place of `fastcast.launch.launch`: keeps what is asked for, and has one hub to give."""

    def __init__(self, fake: FakeHub) -> None:
        self.fake = fake
        self.wants: dict[str, Any] = {}
        self.config: Config | None = None
        self.error: Exception | None = None

    def __call__(self, config: Config, responses: Any, **wants: Any) -> tuple[Any, int]:
        if self.error is not None:
            raise self.error
        self.config, self.wants = config, wants
        return self.fake.hub, PORT


@contextmanager
def fake_launch(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLaunch]:
    """Servers start on a fake hub."""
    with fake_hub() as fake:
        launch = FakeLaunch(fake)
        monkeypatch.setattr("fastcast.server.launch", launch)

        def stop(timeout: int) -> None:
            fake.stopped_within.append(timeout)
            fake.end()  # as a hub without clients does

        monkeypatch.setattr(fake, "stop", stop)
        yield launch
