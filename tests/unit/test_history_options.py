"""How much of a channel is kept, as options say it, and where a client wants to go on."""

from __future__ import annotations

from typing import Any

import pytest

from fastcast.channels import parse_rule
from fastcast.config import Config
from fastcast.errors import ConfigError
from fastcast.history import MOST_POSITIONS, History, Keep, since_of


class TestKeep:
    @pytest.mark.parametrize(
        ("text", "keep"),
        [
            ("100", Keep(100)),
            (100, Keep(100)),
            ("5m", Keep(None, 300)),
            ("100/5m", Keep(100, 300)),
            ("5m / 100", Keep(100, 300)),
            ("off", Keep()),
            ("", Keep()),
            (Keep(7), Keep(7)),
        ],
    )
    def test_is_read(self, text: Any, keep: Keep) -> None:
        assert History().check(text) == keep
        assert History().check(str(keep)) == keep
        assert bool(keep) == (keep != Keep())

    @pytest.mark.parametrize(
        "text", ["0", "-1", "x", "100/200", "5m/6m", "1000001", "0s", "31d", "1/", True, 1.5, None]
    )
    def test_is_refused(self, text: Any) -> None:
        with pytest.raises(ValueError, match=r"."):
            History().check(text)


class TestRules:
    def test_the_first_rule_that_takes_the_channel_in_holds(self) -> None:
        config = Config(history="10", channel=("a.b history=20", "a.* history=off", "b.> slow=latest"))
        kept = {name: config.keep_of(name) for name in ("a.b", "a.c", "b.c.d", "c", "a.*")}
        assert kept == {"a.b": Keep(20), "a.c": Keep(), "b.c.d": Keep(10), "c": Keep(10), "a.*": Keep()}
        assert [rule[4:] for rule in config.rules] == [(20, None), (None, None), (10, None), (10, None)]

    def test_a_rule_is_shown_as_it_is_read(self) -> None:
        assert str(parse_rule("a history=100/5m slow=latest")) == "a slow=latest history=100/5m"
        assert str(parse_rule("a history=off")) == "a history=off"

    def test_one_rule_is_enough_for_a_history(self) -> None:
        assert not Config().keeps
        assert not Config(channel=("a history=off",)).keeps
        assert Config(channel=("a history=1s",)).keeps

    def test_rules_with_a_history_count_twice(self) -> None:
        Config(channel=tuple(f"{n} history=1" for n in range(127)))
        for history, count in (("off", 128), ("1", 127)):
            with pytest.raises(ConfigError, match="count twice"):
                Config(history=history, channel=tuple(f"{n} history=1" for n in range(count)))


class TestSince:
    @pytest.mark.parametrize(
        ("query", "since"),
        [
            ("", None),
            ("a=b", None),
            ("xsince=1", None),
            ("since=", "new"),
            ("since=new", "new"),
            ("a=b&since=all", "all"),
            ("since=0123456789ab:17", [(b"0123456789ab", 17)]),
            ("since=0123456789ab%3A17%2Cabcdefabcdef:0", [(b"0123456789ab", 17), (b"abcdefabcdef", 0)]),
            ("since=0123456789ab:9999999999999999999", [(b"0123456789ab", 2**63)]),
            ("since=all&since=new", "all"),
        ],
    )
    def test_is_read(self, query: str, since: Any) -> None:
        assert since_of(query) == since

    @pytest.mark.parametrize(
        "text",
        [
            "x",
            "1",
            "0123456789ab",
            "0123456789ab:",
            ":1",
            "0123456789AB:1",
            "0123456789ab:1,",
            "0123456789ab:-1",
        ],
    )
    def test_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="EPOCH:OFFSET"):
            since_of(f"since={text}")

    def test_has_so_many_positions_and_no_more(self) -> None:
        position = "0123456789ab:1"
        assert len(since_of("since=" + ",".join([position] * MOST_POSITIONS)) or ()) == MOST_POSITIONS
        with pytest.raises(ValueError, match="more than"):
            since_of("since=" + ",".join([position] * (MOST_POSITIONS + 1)))
