"""Messages as they cross the bus: the bare text, or a line of JSON before what isn't text alone.

Any program in any language publishes by sending bytes: valid UTF-8 becomes a text message, anything else a
binary one. What that can't say stands in a header: a byte that no UTF-8 begins with, a JSON object, a
newline, and then the payload::

    \\xFC{"type":"binary","key":"EURUSD"}\\n…

``type`` is ``text`` (the default) or ``binary``; ``key`` is that of channels which keep the latest message.
"""

from __future__ import annotations

import json
from typing import Final

from fastcast.client import Data

MARK: Final = b"\xfc"
"""Never the first byte of UTF-8 (RFC 3629, section 3)."""

_MOST_HEADER: Final = 4096


def encode(data: Data, key: str | None) -> bytes:
    """The bytes for a message: str goes as text, bytes-like data as binary."""
    if isinstance(data, str):
        if key is None:
            return data.encode()
        payload, header = data.encode(), {"type": "text", "key": key}
    else:
        payload, header = bytes(data), {"type": "binary"}
        if key is not None:
            header["key"] = key
    return b"".join((MARK, json.dumps(header, separators=(",", ":")).encode(), b"\n", payload))


def decode(data: bytes) -> tuple[str | bytes, str | None]:
    """The message, and its key if it has one; whatever is no header of ours is payload."""
    if not data.startswith(MARK):
        return _guess(data), None
    line, newline, payload = data[1 : 1 + _MOST_HEADER].partition(b"\n")
    try:
        header = json.loads(line) if newline else None
    except ValueError:
        header = None
    if not isinstance(header, dict):
        return data, None
    payload = data[len(line) + 2 :]
    key = header.get("key")
    text = header.get("type", "text") != "binary"
    return (_guess(payload) if text else payload), (key if isinstance(key, str) else None)


def _guess(payload: bytes) -> str | bytes:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return payload
