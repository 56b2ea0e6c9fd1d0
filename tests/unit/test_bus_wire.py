"""Messages as they cross the bus."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcast.bus.wire import MARK, decode, encode

KEYS = st.none() | st.text(max_size=20)


@given(st.one_of(st.text(), st.binary()), KEYS)
def test_every_message_arrives_as_it_was(data: str | bytes, key: str | None) -> None:
    assert decode(encode(data, key)) == (data, key)


@given(st.binary())
def test_whatever_others_publish_is_a_message(payload: bytes) -> None:
    data, _ = decode(payload)
    assert isinstance(data, str | bytes)


def test_text_is_sent_as_it_is() -> None:
    assert encode("hello", None) == b"hello"


@pytest.mark.parametrize("data", [bytearray(b"ab"), memoryview(b"ab")])
def test_other_bytes_are_binary(data: bytearray | memoryview) -> None:
    assert decode(encode(data, None)) == (b"ab", None)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"text", ("text", None)),
        (b"\xff\x00", (b"\xff\x00", None)),
        (b"", ("", None)),
        (MARK + b"no header", (MARK + b"no header", None)),
        (MARK + b"[1]\nx", (MARK + b"[1]\nx", None)),
        (MARK + b"{\nx", (MARK + b"{\nx", None)),
        (MARK + b'{"key":7}\nx', ("x", None)),
        (MARK + b'{"key":"k"}\nx', ("x", "k")),
        (MARK + b'{"type":"binary"}\nx\ny', (b"x\ny", None)),
        (MARK + b'{"type":"text"}\n\xff', (b"\xff", None)),
    ],
)
def test_what_other_programs_may_send(payload: bytes, message: tuple[str | bytes, str | None]) -> None:
    assert decode(payload) == message
