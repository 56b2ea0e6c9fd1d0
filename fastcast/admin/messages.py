"""What a request wants published: JSON with one message or many, or a body that is a message. No I/O."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from fastcast.admin.problem import Problem
from fastcast.channels import check_name

MOST_MESSAGES: Final = 10_000
"""In one request."""

_JSON: Final = "application/json"
_CHARSET: Final = re.compile(r';\s*charset\s*=\s*"?([^\s;"]*)', re.IGNORECASE)
_MEMBERS: Final = {"channel", "data", "base64", "key"}
_KINDS: Final = {dict: "an object", list: "an array", bool: "a boolean", type(None): "null"}


class Message(NamedTuple):
    """One message, checked: without a channel it is for everybody."""

    channel: str | None
    data: str | bytes
    key: str | None


def body_limit(max_message: int) -> int:
    """Bytes of a body: one message of the largest size fits, in whatever way JSON spells it."""
    return 6 * max_message + 1024 * 1024


def read_messages(
    content_type: str | None, query: Mapping[str, str], body: bytes, max_message: int
) -> list[Message]:
    """The messages in a request's body; Problem says why they can't be had.

    ``channel`` and ``key`` of the query are for messages that don't say their own. None is published if any
    of them is wrong.
    """
    kind = None if content_type is None else content_type.partition(";")[0].strip().lower()
    found = _parse(body) if kind == _JSON else [("", {"data": _plain(kind, content_type or "", body)})]
    return [_check(place, {**query, **members}, max_message) for place, members in found]


def _parse(body: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The members of each message, behind the words that tell which it is."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the body is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise Problem(400, f"expected an object, not {_kind(document)}")
    if "messages" not in document:
        return [("", _members("", document))]
    if len(document) > 1:
        raise Problem(400, "nothing else may stand beside messages")
    messages = document["messages"]
    if not isinstance(messages, list):
        raise Problem(400, f"messages is an array, not {_kind(messages)}")
    if not 1 <= len(messages) <= MOST_MESSAGES:
        raise Problem(400, f"{len(messages)} messages are not between 1 and {MOST_MESSAGES}")
    places = [f"messages[{number}]: " for number in range(len(messages))]
    return [(place, _members(place, each)) for place, each in zip(places, messages, strict=True)]


def _members(place: str, message: object) -> dict[str, Any]:
    """Of a message in JSON, with what is in base64 as bytes."""
    if not isinstance(message, dict):
        raise Problem(400, f"{place}expected an object, not {_kind(message)}")
    # A channel that is misspelt must not become a message for everybody.
    for name, value in message.items():
        if name not in _MEMBERS:
            raise Problem(400, f"{place}there is no {name!r} in a message")
        if not isinstance(value, str):
            hint = ": what is to reach clients as JSON is a string, too" if name == "data" else ""
            raise Problem(400, f"{place}{name} is a string, not {_kind(value)}{hint}")
    if ("data" in message) == ("base64" in message):
        raise Problem(400, f"{place}expected either data or base64")
    if "base64" not in message:
        return message
    try:
        data = base64.b64decode(message["base64"], validate=True)
    except ValueError as error:
        raise Problem(400, f"{place}base64: {error}") from None
    return {name: value for name, value in message.items() if name != "base64"} | {"data": data}


def _plain(kind: str | None, content_type: str, body: bytes) -> str | bytes:
    """A body that is itself the message."""
    if kind == "application/octet-stream":
        return body
    if kind is not None and not kind.startswith("text/"):
        raise Problem(
            415,
            f"Content-Type {kind!r} is none of application/json, text/plain (text for clients) and"
            " application/octet-stream (binary)",
        )
    charset = _CHARSET.search(content_type)
    if charset is not None and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
        raise Problem(415, f"text is UTF-8, not {charset[1]!r}")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        if kind is None:
            return body
        raise Problem(400, f"the text is not valid UTF-8: {error.reason} at byte {error.start}") from None


def _check(place: str, members: Mapping[str, Any], max_message: int) -> Message:
    message = Message(members.get("channel"), members["data"], members.get("key"))
    try:
        if message.channel is not None:
            check_name(message.channel)
        elif message.key is not None:
            raise Problem(400, f"{place}a key needs a channel")
        if message.key is not None:
            message.key.encode()
        size = len(message.data.encode() if isinstance(message.data, str) else message.data)
    except UnicodeEncodeError:
        raise Problem(400, f"{place}half of a surrogate pair is no text") from None
    except ValueError as error:
        raise Problem(400, f"{place}{error}") from None
    if size > max_message:
        raise Problem(413, f"{place}a message of {size} bytes is longer than max_message, {max_message}")
    return message


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "a string" if isinstance(value, str) else "a number")
