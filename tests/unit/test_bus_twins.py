"""Messages that several subscriptions bring, once each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastcast.bus.twins import HORIZON, Twins

BOTH = ("a.b", "a.*")


class Clock:
    """Time as the test wants it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_first_copy_is_let_through_and_the_second_is_not() -> None:
    twins = Twins()
    assert twins.first("a.b", b"x", "a.b", BOTH)
    assert not twins.first("a.b", b"x", "a.*", BOTH)
    assert len(twins) == 0


def test_the_same_content_again_is_another_message() -> None:
    twins = Twins()
    for _ in range(3):
        assert twins.first("a.b", b"x", "a.*", BOTH)
        assert not twins.first("a.b", b"x", "a.b", BOTH)


def test_a_subscription_that_begins_later_brings_nothing_twice() -> None:
    twins = Twins()
    assert twins.first("a.b", b"x", "a.b", BOTH)  # the other one isn't in force yet
    assert twins.first("a.b", b"x", "a.b", BOTH)
    assert not twins.first("a.b", b"x", "a.*", BOTH)


def test_a_subscription_that_has_ended_is_not_waited_for() -> None:
    clock = Clock()
    twins = Twins(clock)
    assert twins.first("a.b", b"x", "a.b", BOTH)
    clock.now += HORIZON / 2
    assert len(twins) == 1
    clock.now += HORIZON
    assert twins.first("a.b", b"y", "a.*", BOTH)
    assert len(twins) == 1
    assert twins.first("a.b", b"x", "a.*", BOTH)  # nobody's copy: a message of its own


@given(st.lists(st.integers(0, 2), max_size=30), st.data())
def test_each_message_once_however_copies_interleave(contents: list[int], data: st.DataObject) -> None:
    """Each of three subscriptions brings all messages in their order; any of them may be ahead."""
    sources = ("x", "y", "z")
    twins = Twins(lambda: 0.0)
    places = dict.fromkeys(sources, 0)
    heard = []
    while any(place < len(contents) for place in places.values()):
        source = data.draw(st.sampled_from([each for each in sources if places[each] < len(contents)]))
        payload = b"%d" % contents[places[source]]
        places[source] += 1
        if twins.first("s", payload, source, sources):
            heard.append(int(payload))
    assert heard == contents
    assert len(twins) == 0
