"""Who is on which channel."""

from __future__ import annotations

from fastcast.presence import Presence


def test_who_has_joined_and_not_left_is_there_in_the_order_of_joining() -> None:
    presence = Presence()
    for client in (3, 1, 2):
        presence.join(client, "/a")
    presence.join(1, "b.*")
    presence.leave(1, "/a")
    assert presence.clients("/a") == [3, 2]
    assert presence.clients("b.*") == [1]
    assert presence.clients("b.c") == []


def test_nothing_is_kept_of_a_channel_that_all_have_left() -> None:
    presence = Presence()
    presence.join(1, "/a")
    presence.leave(1, "/a")
    presence.leave(1, "/a")
    assert presence._channels == {}


def test_what_was_told_before_is_a_list_of_its_own() -> None:
    presence = Presence()
    presence.join(1, "/a")
    before = presence.clients("/a")
    presence.join(2, "/a")
    assert before == [1]
