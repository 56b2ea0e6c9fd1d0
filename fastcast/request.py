"""What ``on_connect`` is asked, and what it may answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from fastcast.channels import check_subscription
from fastcast.handshake import Upgrade
from fastcast.responses import check_fields, is_token

__all__ = ["Accept", "Headers", "Refuse", "Request"]

_Hello: TypeAlias = str | bytes | bytearray | memoryview


class Headers(Mapping[str, str]):
    """Header fields by their names, in either case. Repeated ones are one value, joined with commas.

    Bytes above ASCII are characters of Latin-1.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, str]) -> None:
        """``fields`` have their names in lower case."""
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._fields


class Request:
    """A valid request for WebSocket, before it is answered. What isn't looked at isn't parsed."""

    __slots__ = (
        "_cookies",
        "_headers",
        "_query",
        "_upgrade",
        "claims",
        "port",
        "remote",
        "scheme",
        "subprotocols",
    )

    remote: str
    """The address of the client; behind trusted proxies, of the real one.

    IPv4 addresses are in dots, also where the server listens on IPv6. A proxy that conceals the address may
    give another identifier in its place, such as ``unknown``.
    """
    port: int
    """The client's port; 0 where a proxy doesn't tell it."""
    scheme: str
    """``wss`` if a trusted proxy says that the client uses TLS; else ``ws``."""
    subprotocols: tuple[str, ...]
    """What the client offers, in its order; without a token that came this way."""
    claims: Mapping[str, Any] | None
    """What the client's token says, once it is verified; None where no tokens are asked for."""

    def __init__(self, upgrade: Upgrade, remote: str = "", port: int = 0, scheme: str = "ws") -> None:
        self._upgrade = upgrade
        self._headers: Headers | None = None
        self._query: Mapping[str, str] | None = None
        self._cookies: Mapping[str, str] | None = None
        self.remote = remote
        self.port = port
        self.scheme = scheme
        self.subprotocols = upgrade.offered
        self.claims = None

    @property
    def path(self) -> str:
        """The path, percent-decoded; begins with ``/``."""
        return self._upgrade.path

    @property
    def query_string(self) -> str:
        """What follows the ``?``, as it was sent; empty without one."""
        return self._upgrade.query

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of the query, decoded; of a repeated one, the first value."""
        if self._query is None:
            self._query = _first(parse_qsl(self.query_string, keep_blank_values=True))
        return self._query

    @property
    def headers(self) -> Headers:
        """The header fields."""
        if self._headers is None:
            self._headers = Headers(self._upgrade.fields())
        return self._headers

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies (RFC 6265); of a repeated one, the first: that of the longest path."""
        if self._cookies is None:
            self._cookies = _first(_cookies(self.headers.get("cookie", "")))
        return self._cookies

    def __repr__(self) -> str:
        # Neither query nor headers: a token may be there, and this may end up in a log.
        return f"<Request {self.path!r} of {self.remote}>"


def _first(pairs: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """The first value for each name."""
    values: dict[str, str] = {}
    for name, value in pairs:
        values.setdefault(name, value)
    return MappingProxyType(values)


def _cookies(header: str) -> Iterator[tuple[str, str]]:
    for pair in header.split(";"):
        name, equals, value = (part.strip(" \t") for part in pair.partition("="))
        if equals and name:
            # RFC 6265 section 4.1.1: a value may stand in double quotes, which belong to it only on the wire.
            quoted = len(value) > 1 and value[0] == value[-1] == '"'
            yield name, value[1:-1] if quoted else value


class Accept:
    """The client is admitted. Raises TypeError or ValueError for what can't be done."""

    __slots__ = ("channels", "headers", "hello", "state", "subprotocol")

    def __init__(
        self,
        channels: Iterable[str] | None = None,
        state: Any = None,
        subprotocol: str | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        hello: _Hello | Iterable[_Hello] | None = None,
    ) -> None:
        """``channels`` are names and patterns to subscribe to, a name given twice counting once; an empty
        list is none, and None the default: those that the client's token names, or else the path.

        ``state`` is kept as the client's. ``subprotocol`` is one of those that the client offers; None leaves
        it to the options. ``headers`` are added to the response, in pairs if a name is repeated. ``hello`` is
        a message, or a list of them, that the client gets before all others: str as text, bytes as binary.
        """
        if isinstance(channels, str):
            raise TypeError(f"channels are a list of names: [{channels!r}], not {channels!r}")
        self.channels = None if channels is None else tuple(dict.fromkeys(map(check_subscription, channels)))
        self.state = state
        if subprotocol is not None and not isinstance(subprotocol, str):
            raise TypeError(f"a subprotocol is a str, not {type(subprotocol).__name__}")
        if subprotocol is not None and not is_token(subprotocol):
            raise ValueError(f"{subprotocol!r} is not a subprotocol name")
        self.subprotocol = subprotocol
        self.headers = check_fields(headers)
        self.hello = _messages(hello)

    def __repr__(self) -> str:
        return f"<Accept channels={self.channels!r}>"


def _messages(hello: _Hello | Iterable[_Hello] | None) -> tuple[str | bytes, ...]:
    if hello is None:
        return ()
    if isinstance(hello, str | bytes | bytearray | memoryview):
        hello = (hello,)
    messages: list[str | bytes] = []
    for message in hello:
        if isinstance(message, str):
            message.encode()  # half a character raises
            messages.append(message)
        elif isinstance(message, bytes | bytearray | memoryview):
            messages.append(bytes(message))
        else:
            raise TypeError(f"a message is str or bytes, not {type(message).__name__}")
    return tuple(messages)


class Refuse(Exception):
    """Raised by ``on_connect``: the client gets an HTTP response in place of a WebSocket.

    ``reason`` is its content, and a line end behind it; browsers don't show it to the page. ``headers`` are
    added, in pairs if a name is repeated. Raises ValueError unless the status is between 400 and 599.
    """

    def __init__(
        self,
        status: int = 403,
        reason: str = "",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    ) -> None:
        if not isinstance(status, int) or isinstance(status, bool):
            raise TypeError(f"a status is an int, not {type(status).__name__}")
        if not 400 <= status <= 599:
            raise ValueError(f"a refusal has a status between 400 and 599, not {status}")
        if not isinstance(reason, str):
            raise TypeError(f"a reason is a str, not {type(reason).__name__}")
        reason.encode()  # half a character raises
        self.status = int(status)
        self.reason = reason
        self.headers = check_fields(headers)
        super().__init__(status, reason)

    def __str__(self) -> str:
        return f"{self.status} {self.reason}".rstrip()
