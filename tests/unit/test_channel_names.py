"""Names of channels, patterns, and the rules for those who lag."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fastcast.channels import (
    MOST_RULES,
    Rule,
    Rules,
    check_name,
    check_subscription,
    is_pattern,
    parse_rule,
)
from fastcast.options import KIB

NAMES = ["a", "/", "/rooms/7", "prices.eur", "prices*", "a>b", "*a.b*", "..", "ä.🌍", "a b", "é" * 512]
PATTERNS = ["*", ">", "prices.*", "prices.>", "*.eur", "a.*.c", "*.*", ".*", "*.>"]


class TestNames:
    @pytest.mark.parametrize("name", NAMES)
    def test_a_name_is_anything_without_a_wildcard_between_its_dots(self, name: str) -> None:
        assert check_name(name) == check_subscription(name) == name
        assert not is_pattern(name)

    @pytest.mark.parametrize("name", PATTERNS)
    def test_a_pattern_can_be_subscribed_to_and_not_be_published_to(self, name: str) -> None:
        assert is_pattern(name)
        assert check_subscription(name) == name
        with pytest.raises(ValueError, match="is a pattern"):
            check_name(name)

    @pytest.mark.parametrize("name", [">.a", "a.>.b", ">.>", ">."])
    def test_the_wildcard_for_the_rest_stands_last(self, name: str) -> None:
        for check in (check_name, check_subscription):
            with pytest.raises(ValueError, match="a '>' that isn't its last token"):
                check(name)

    @pytest.mark.parametrize(
        ("name", "complaint"), [("", "is empty"), ("é" * 513, "has 1026 bytes, more than 1024")]
    )
    def test_a_name_is_neither_empty_nor_longer_than_1024_bytes(self, name: str, complaint: str) -> None:
        for check in (check_name, check_subscription):
            with pytest.raises(ValueError, match=complaint):
                check(name)

    def test_half_a_character_is_no_name(self) -> None:
        with pytest.raises(UnicodeEncodeError):
            check_subscription("/\ud800")

    @pytest.mark.parametrize("name", [None, b"/", 7])
    def test_a_name_is_a_str(self, name: object) -> None:
        with pytest.raises(TypeError, match="a channel is a str, not"):
            check_subscription(name)


class TestRules:
    @pytest.mark.parametrize(
        ("text", "rule"),
        [
            ("prices.*", Rule("prices.*")),
            ("a slow=latest", Rule("a", slow="latest")),
            ("  a   slow=Drop-Oldest ", Rule("a", slow="drop-oldest")),
            (
                "prices.> slow=latest max_queue=64KiB max_queue_messages=100",
                Rule("prices.>", "latest", 64 * KIB, 100),
            ),
        ],
    )
    def test_a_rule_is_a_name_and_settings(self, text: str, rule: Rule) -> None:
        assert parse_rule(text) == rule
        assert parse_rule(str(rule)) == rule

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("", "the name of a channel is empty"),
            ("a.>.b", "'a.>.b' has a '>' that isn't its last token"),
            ("a slow", "'a slow': expected settings such as slow=latest behind the name, not 'slow'"),
            (
                "a fast=yes",
                "'a fast=yes': expected settings such as slow=latest behind the name, not 'fast=yes'",
            ),
            ("a slow=close slow=close", "'a slow=close slow=close': expected settings such as slow=latest"),
            ("a slow=never", "'a': slow: 'never' is not one of close, drop-oldest, drop-newest, latest"),
            ("a max_queue=1k", "'a': max_queue: '1k' is not a size (write 65536, 64KiB, 1.5MiB or 2GB)"),
            ("a max_queue=0", "'a': max_queue: 0 bytes is not between 1 and 1024GiB"),
            ("a max_queue_messages=0", "'a': max_queue_messages: 0 is not between 1 and 1000000000"),
            ("a max_queue_messages=x", "'a': max_queue_messages: expected a whole number, not 'x'"),
        ],
    )
    def test_a_mistake_is_told_in_one_line(self, text: str, complaint: str) -> None:
        with pytest.raises(ValueError, match=f"^{re.escape(complaint)}.*$"):
            parse_rule(text)


class TestKind:
    """What the option takes."""

    def test_a_list_of_strings(self) -> None:
        assert Rules().check(["a slow=latest", "b"]) == (Rule("a", "latest"), Rule("b"))

    def test_settings_by_channel_in_their_order(self) -> None:
        value = {"b.*": {"slow": "latest", "max_queue": "1KiB"}, "a b, c": {}}
        assert Rules().check(value) == (Rule("b.*", "latest", KIB), Rule("a b, c"))

    def test_what_it_has_made_itself(self) -> None:
        rules = (Rule("a", "latest"), Rule("b"))
        assert Rules().check(rules) == rules

    def test_a_variable_has_commas_between_rules(self) -> None:
        parsed = Rules().parse("a slow=latest, b max_queue=1KiB,")
        assert Rules().check(parsed) == (Rule("a", "latest"), Rule("b", None, KIB))

    def test_what_is_shown_reads_back(self) -> None:
        rules = (Rule("a.*", "latest", KIB, 5), Rule("b"))
        assert Rules().check(Rules().parse(Rules().show(rules))) == rules

    @pytest.mark.parametrize(
        ("value", "complaint"),
        [
            ("a slow=latest", "expected a list of rules, or settings by channel, not 'a slow=latest'"),
            (7, "expected a list of rules, or settings by channel, not 7"),
            ([7], "expected a rule such as 'prices.* slow=latest', not 7"),
            ({"a": "latest"}, "'a': expected settings by name, not 'latest'"),
            (
                {"a": {"slwo": "latest"}},
                "'a': there is no setting 'slwo' (slow, max_queue, max_queue_messages, history)",
            ),
            ({"a": {"slow": 1}}, "'a': slow: 1 is not one of close, drop-oldest, drop-newest, latest"),
            ({"": {}}, "the name of a channel is empty"),
            ({1: {}}, "a channel is a str, not int"),
            (["a"] * (MOST_RULES + 1), "255 rules are more than 254"),
        ],
    )
    def test_anything_else_is_refused(self, value: Any, complaint: str) -> None:
        with pytest.raises(ValueError, match=f"^{re.escape(complaint)}$"):
            Rules().check(value)
