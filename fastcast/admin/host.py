"""What the admin port needs of a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Member(Protocol):
    """A client, as ``fastcast.Client`` is one."""

    @property
    def id(self) -> int: ...

    def close(self, code: int = ..., reason: str = ...) -> None: ...


class Host(Protocol):
    """``fastcast.Server``, whose methods these are."""

    def publish(self, channel: str, data: str | bytes, key: str | None = ...) -> int: ...

    def broadcast(self, data: str | bytes) -> int: ...

    def client(self, id: int) -> Member: ...

    def clients(self, channel: str) -> Sequence[Member]: ...

    def channels(self) -> Mapping[str, int]: ...

    def stats(self, channel: str | None = ...) -> Mapping[str, Any]: ...

    async def inspect(self, client: Any) -> Mapping[str, Any] | None: ...
