"""The live page: a server of our own that broadcasts how a run gets on to everybody who looks."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from fastcast.bench.report import live, told
from fastcast.bench.series import Row, Series
from fastcast.client import Client
from fastcast.errors import OverloadError
from fastcast.server import Server


class LivePage:
    """Serves the page from a thread of its own while its ``with`` block lasts.

    Entering raises :exc:`~fastcast.errors.StartError` when the address can't be had.
    """

    def __init__(self, host: str, port: int, target: str, environment: Mapping[str, Any]) -> None:
        # Whoever can read the page knows the channel; the page of another origin can't guess it.
        self._channel = "/" + secrets.token_urlsafe(16)
        page = live(target, self._channel, environment)
        self._server = Server(host=host, port=port, shards=1, html=page.encode())
        self._server.on_message(self._asked)
        self._lock = threading.Lock()
        self._rows: list[dict[str, Any]] = []
        self._halvings = 0
        self._outcome: Mapping[str, Any] | None = None

    def __enter__(self) -> Self:
        self._server.start_in_thread()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close(2)

    @property
    def address(self) -> str:
        """What to open in a browser."""
        host = self._server.config.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self._server.port}/"

    def show(self, row: Row, series: Series) -> None:
        """Tell the latest row; ``series`` is where it comes from."""
        with self._lock:
            halved = series.halvings != self._halvings
            if halved:
                self._halvings = series.halvings
                self._rows = told(series.rows())
            else:
                self._rows += told([row])
        if halved:
            self._tell_all()
        else:
            self._publish({"rows": told([row])})

    def end(self, outcome: Mapping[str, Any]) -> None:
        """Tell what came of the run."""
        with self._lock:
            self._outcome = outcome
        self._tell_all()

    def _asked(self, client: Client, _message: str | bytes) -> None:
        if client.channel == self._channel:
            self._tell_all()

    def _tell_all(self) -> None:
        """Tell everybody everything: who knows it already draws the same again."""
        with self._lock:
            told = {"reset": True, "rows": list(self._rows), "outcome": self._outcome}
        self._publish(told)

    def _publish(self, told: Mapping[str, Any]) -> None:
        try:
            self._server.publish(self._channel, json.dumps(told))
        except OverloadError:
            # Nobody has read the last hundred megabytes: not worth the run.
            return
