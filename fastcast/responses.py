"""HTTP responses that end a connection, as bytes; and which header fields may be added to a response."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from hashlib import sha256
from http import HTTPStatus
from types import MappingProxyType
from typing import TypeAlias

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""RFC 9110 section 5.6.2: what the names of fields and of subprotocols are."""

Fields: TypeAlias = tuple[tuple[str, str], ...]
"""Header fields for a response, checked: pairs of name and value."""

# RFC 9110 calls it by another name than RFC 7231 did, and older Pythons.
_PHRASES = {413: "Content Too Large", 422: "Unprocessable Content"}

_NO_FIELDS: Mapping[str, str] = MappingProxyType({})
_UNCACHED = MappingProxyType({"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"})


def phrase(status: int) -> str:
    """The status in words."""
    try:
        return _PHRASES.get(status) or HTTPStatus(status).phrase
    except ValueError:
        return "Refused"


def response(
    status: int, content: bytes, fields: Mapping[str, str], more: Fields = (), *, head_only: bool = False
) -> bytes:
    """A complete response that ends the connection.

    ``fields`` may replace the ones set here, and ``more``, in which names may be repeated, both of them.
    """
    head = {"Connection": "close", "Content-Length": str(len(content)), **fields}
    replaced = {name.lower() for name, _ in more}
    pairs = [*(pair for pair in head.items() if pair[0].lower() not in replaced), *more]
    lines = [f"HTTP/1.1 {status} {phrase(status)}", *(f"{name}: {value}" for name, value in pairs)]
    # RFC 9110 section 9.3.2: HEAD gets the fields of GET, Content-Length included, and no content.
    return "\r\n".join([*lines, "\r\n"]).encode() + (b"" if head_only else content)


def explain(
    status: int,
    reason: str,
    fields: Mapping[str, str] = _NO_FIELDS,
    more: Fields = (),
    *,
    head_only: bool = False,
) -> bytes:
    """A response whose content is one line for a person to read."""
    return response(status, f"{reason}\n".encode(), {**_UNCACHED, **fields}, more, head_only=head_only)


_VALUE = re.compile(r"[!-~](?:[\t -~]*[!-~])?|")

# Those that belong to the connection and to the handshake itself.
_RESERVED = re.compile(r"(?i)connection|upgrade|content-length|transfer-encoding|trailer|sec-websocket-.*")


def is_token(text: str) -> bool:
    """Whether ``text`` is what names of fields and of subprotocols are made of (RFC 9110 section 5.6.2)."""
    return text.isascii() and TOKEN.fullmatch(text.encode()) is not None


def check_fields(fields: Mapping[str, str] | Iterable[tuple[str, str]]) -> Fields:
    """Header fields that a response may have beside its own, as pairs of name and value.

    Raises TypeError for what isn't text, and ValueError for a name that isn't a token or that the handshake
    keeps for itself, and for a value that isn't printable ASCII: a line end would begin another field.
    """
    pairs = tuple(fields.items()) if isinstance(fields, Mapping) else tuple(fields)
    for name, value in pairs:
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"a header is a str for a str, not {value!r} for {name!r}")
        if not is_token(name):
            raise ValueError(f"{name!r} is not the name of a header")
        if _RESERVED.fullmatch(name):
            raise ValueError(f"the header {name} is the handshake's own")
        if not _VALUE.fullmatch(value):
            raise ValueError(
                f"the header {name} has a value that is not printable ASCII, or blanks around it"
            )
    return pairs


def content_security_policy(page: bytes) -> str:
    """A policy under which the page's own inline scripts and style sheets run, and nothing else.

    It admits them by their hashes, so it covers ``<script>`` and ``<style>`` elements; attributes such as
    ``style`` or ``onclick`` stay forbidden.
    """
    # Browsers hash what is left after the HTML parser has made every line end an LF.
    page = page.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def sources(element: bytes) -> str:
        contents = re.findall(rb"(?is)<%b(?:\s[^>]*)?>(.*?)</%b\s*>" % (element, element), page)
        hashes = (b64encode(sha256(content).digest()).decode() for content in contents)
        return " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"

    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {sources(b'script')}",
            f"style-src {sources(b'style')}",
            "img-src data:",
            "connect-src 'self' ws: wss:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
