"""Run the conformance table against `fastcast serve`, each row in several cuts, before a witness."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from tests.conformance.case import (
    ABNORMAL,
    MAX_MESSAGE,
    OPEN,
    Case,
    as_binary,
    as_text,
    binary,
    close,
    last,
    ping,
    text,
)
from tests.conformance.cases import CASES
from tests.conformance.opinion import Opinion, second_opinion
from tests.support.server import ServerProcess, running
from tests.support.wire import (
    CLOSE,
    PONG,
    TEXT,
    Client,
    Frame,
    close_code,
    close_payload,
    frame,
)

Cut = Callable[[Case], list[bytes]]

channel_numbers = count()


def whole(case: Case) -> list[bytes]:
    """Everything with one send."""
    return [b"".join(case.chunks)]


def by_chunk(case: Case) -> list[bytes]:
    """Each chunk of the row with a send of its own."""
    return list(case.chunks)


def by_byte(case: Case) -> list[bytes]:
    """One send per byte. Of a long row only the first and last bytes, where the headers are, go one by one;
    the middle goes in pieces of a prime size, so that cuts fall everywhere."""
    data = b"".join(case.chunks)
    edge = 300
    head, middle, tail = data[:edge], data[edge:-edge], data[max(edge, len(data) - edge) :]
    return [
        *(head[i : i + 1] for i in range(len(head))),
        *(middle[i : i + 1021] for i in range(0, len(middle), 1021)),
        *(tail[i : i + 1] for i in range(len(tail))),
    ]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """Two shards, so that a row's client and its witness can be on different threads."""
    with running("--shards", "2", "--max-message", str(MAX_MESSAGE)) as process:
        yield process


def is_subsequence(some: list[bytes], every: tuple[bytes, ...]) -> bool:
    """Whether `some` is `every` with items left out."""
    rest = iter(every)
    return all(item in rest for item in some)


def read_until_settled(client: Client, case: Case) -> list[Frame]:
    """Read what a row must give, or to the end of the stream where the row ends the connection."""
    if case.closes != OPEN:
        return list(client.frames())
    received: list[Frame] = []
    messages, answered = 0, not case.pongs
    while messages < len(case.delivers) or not answered:
        received.append(client.read_frame())
        messages += not received[-1].is_control
        answered = answered or received[-1] == Frame(PONG, case.pongs[-1])
        if received[-1].opcode == CLOSE:
            break
    return received


def check_own_frames(case: Case, received: list[Frame]) -> None:
    """Compare what the row's client got with what the row says."""
    messages = tuple(item for item in received if not item.is_control)
    if case.closes == OPEN:
        assert messages == case.delivers
    else:
        # A client that closes, or breaks the protocol, right after a message may be gone from the channel
        # before its own message comes round. What does come must be right.
        assert messages == case.delivers[: len(messages)]
    pongs = [item.payload for item in received if item.opcode == PONG]
    assert is_subsequence(pongs, case.pongs)
    assert pongs[-1:] == list(case.pongs[-1:])
    closes = [close_code(item) for item in received if item.opcode == CLOSE]
    assert closes == ([] if case.closes in (OPEN, ABNORMAL) else [case.closes])


def check_witness(case: Case, witness: Client) -> None:
    """Assert that the witness got the row's messages and nothing else.

    The row is over when this is called, so whatever it gave the channel comes before the mark sent here.
    """
    mark = Frame(TEXT, b"end of row")
    witness.send(frame(mark.opcode, mark.payload))
    received = []
    while (item := witness.read_frame()) != mark:
        received.append(item)
    assert tuple(received) == case.delivers
    witness.send(close(1000))
    assert list(witness.frames()) == [Frame(CLOSE, close_payload(1000))]


def run_row(server: ServerProcess, case: Case, pieces: list[bytes], *, early: bytes = b"") -> None:
    """Play a row on a channel of its own."""
    channel = f"/row/{next(channel_numbers)}"
    with (
        Client(server.address, channel) as witness,
        Client(server.address, channel, early=early) as client,
    ):
        if case.closes == OPEN:
            client.send(*pieces)
        else:
            client.send_while_open(pieces)
        if case.half_close:
            client.half_close()
        received = read_until_settled(client, case)
        if case.closes == OPEN:
            # The closing handshake shows that the server is still in step and that nothing was left over.
            client.send(close(1000))
            *more, farewell = client.frames()
            assert close_code(farewell) == 1000
            received += more
        check_own_frames(case, received)
        check_witness(case, witness)


@pytest.mark.parametrize("cut", [whole, by_chunk, by_byte])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_row(server: ServerProcess, case: Case, cut: Cut) -> None:
    run_row(server, case, cut(case))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_row_in_one_segment_with_the_upgrade_request(server: ServerProcess, case: Case) -> None:
    run_row(server, case, [], early=b"".join(case.chunks))


@pytest.mark.parametrize("case", [case for case in CASES if not case.differs], ids=str)
def test_the_websockets_library_agrees_with_the_row(case: Case) -> None:
    assert second_opinion(case) == Opinion(case.delivers, case.pongs, case.closes)


@pytest.mark.parametrize("case", [case for case in CASES if case.differs], ids=str)
def test_the_websockets_library_still_differs_where_the_row_says_so(case: Case) -> None:
    assert second_opinion(case) != Opinion(case.delivers, case.pongs, case.closes)


def test_rows_have_names_of_their_own() -> None:
    names = [str(case) for case in CASES]
    assert len(names) == len(set(names))


SHORT = [
    Case(
        "5.4",
        "fragments with a Ping between",
        (text("ab", fin=False), ping(b"p"), last(b"cd")),
        (as_text("abcd"),),
        pongs=(b"p",),
    ),
    Case("5.2", "a 16-bit length", (binary(bytes(range(126))),), (as_binary(bytes(range(126))),)),
    Case("8.1", "half a character", (text("😀".encode()[:3]),), closes=1007),
    Case("5.5.1", "a Close with a reason", (close(4000, b"bye"),), closes=4000),
]


@pytest.mark.parametrize("case", SHORT, ids=str)
def test_row_cut_in_two_at_every_byte(server: ServerProcess, case: Case) -> None:
    data = b"".join(case.chunks)
    for at in range(1, len(data)):
        run_row(server, case, [data[:at], data[at:]])
