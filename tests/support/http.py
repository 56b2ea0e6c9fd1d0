"""Plain HTTP/1.1 exchanges over a raw socket, for requests that no HTTP library would agree to send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.wire import Address, Head, Stream, Violation


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response; the server ended the connection after it."""

    head: Head
    body: bytes

    @property
    def status(self) -> int:
        """The status code."""
        return self.head.status

    def get(self, name: str) -> str | None:
        """The value of a header, or None."""
        return self.head.get(name)


def request(
    target: str = "/",
    *,
    method: str = "GET",
    version: str = "HTTP/1.1",
    host: str | None = "localhost",
    headers: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
) -> bytes:
    """A request's bytes, exactly as told: nothing is added but Host, nothing is checked."""
    lines = [f"{method} {target} {version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def exchange(address: Address, *pieces: bytes, head_only: bool = False) -> Response:
    """Send the pieces, each with a send of its own, and read a response to the end of the stream."""
    with Stream(address) as stream:
        stream.send_while_open(pieces)
        return read_response(stream, head_only=head_only)


def read_response(stream: Stream, *, head_only: bool = False) -> Response:
    """Read a final response and hold it to what each of fastcast's must have.

    Raises Violation unless it announces the end of the connection and its body has the announced length;
    with `head_only` (the request was HEAD), unless no body follows (RFC 9110, 9.3.2).
    """
    head = stream.read_head()
    response = Response(head, stream.read_rest())
    length = head.get("content-length")
    if "close" not in [option.strip().lower() for option in (head.get("connection") or "").split(",")]:
        raise Violation(f"no Connection: close in {head}")
    if length is None or not length.isdecimal():
        raise Violation(f"Content-Length {length}")
    if len(response.body) != (0 if head_only else int(length)):
        raise Violation(f"Content-Length {length} and a body of {len(response.body)} bytes")
    return response
