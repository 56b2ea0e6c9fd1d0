"""What goes wrong with a request, as RFC 9457 has it: a status and one line that says why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

MEDIA_TYPE: Final = "application/problem+json"

RETRY_AFTER: Final = {"Retry-After": "1"}
"""Seconds, for what may go through then."""


class Problem(Exception):
    """Ends a request. ``subscribers`` are those of the messages that were published all the same."""

    def __init__(
        self,
        status: int,
        detail: str,
        headers: Mapping[str, str] | None = None,
        subscribers: Sequence[int] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})
        self._subscribers = subscribers

    def body(self) -> bytes:
        """The JSON that the client gets."""
        members: dict[str, Any] = {
            "status": self.status,
            "title": HTTPStatus(self.status).phrase,
            "detail": " ".join(str(self).split()),
        }
        if self._subscribers is not None:
            members["subscribers"] = list(self._subscribers)
        # A lone surrogate of the client's would not survive any other way.
        return json.dumps(members).encode()
