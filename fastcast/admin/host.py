"""What the admin port needs of a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Closable(Protocol):
    """A client, as ``fastcast.Client`` is one."""

    def close(self, code: int = ..., reason: str = ...) -> None: ...


class Host(Protocol):
    """``fastcast.Server``, whose methods these are."""

    def publish(self, channel: str, data: str | bytes, key: str | None = ...) -> int: ...

    def broadcast(self, data: str | bytes) -> int: ...

    def client(self, id: int) -> Closable: ...

    def channels(self) -> Mapping[str, int]: ...

    def stats(self, channel: str | None = ...) -> Mapping[str, Any]: ...

    async def inspect(self, client: Any) -> Mapping[str, Any] | None: ...
