"""The verdict: clean only when nothing was wrong, and else what and how much."""

from __future__ import annotations

from typing import Any

import pytest

from fastcast.bench.verdict import judge, tally
from tests.support.bench import result, storm


def test_a_run_without_flaw_is_clean() -> None:
    verdict = judge(result())
    assert verdict.clean
    assert verdict.findings == ()
    assert verdict.line.startswith("clean: ")


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        (
            {"connections": {"made": 93, "failed": {"Connection refused": 5, "timed out": 2}}},
            "7 of 100 connections not made (5 Connection refused, 2 timed out)",
        ),
        ({"connections": {"made": 99}}, "1 of 100 connections not made"),
        ({"connections": {"closed_unexpectedly": 4}}, "4 connections ended too early"),
        (
            {"storm": storm(back=97, missing=3, refused={"503": 3})},
            "3 connections not back after the storm (3 503)",
        ),
        (
            {"deliveries": {"unexpected": 4}},
            "4 deliveries to connections that were not to have them",
        ),
        ({"churn": {"failed": 2}}, "2 connections not opened anew"),
        ({"messages": {"sent": 8}}, "2 of 10 messages not sent"),
        ({"deliveries": {"lost": 3}}, "3 of 1,000 deliveries lost"),
        ({"deliveries": {"duplicated": 1}}, "1 of 1,000 deliveries duplicated"),
        ({"deliveries": {"reordered": 12}}, "12 of 1,000 deliveries reordered"),
        ({"deliveries": {"damaged": 1000}}, "1,000 of 1,000 deliveries damaged"),
        ({"errors": ["messages: gave up"]}, "messages: gave up"),
        ({"one_order": False}, "the receivers of different agents saw different orders"),
        ({"clean": False}, "the load client saw something that it has no name for"),
    ],
)
def test_a_flaw_is_a_finding(changes: dict[str, Any], finding: str) -> None:
    verdict = judge(result(**changes))
    assert not verdict.clean
    assert verdict.findings == (finding,)
    assert verdict.line == f"not clean: {finding}"


def test_failures_that_a_retry_made_good_are_none() -> None:
    assert judge(result(connections={"failed": {"Connection refused": 5}})).clean


def test_findings_come_together() -> None:
    verdict = judge(result(deliveries={"lost": 1, "damaged": 2}, connections={"made": 99}))
    assert len(verdict.findings) == 3
    assert verdict.line.count(";") == 2


class TestInterrupted:
    def test_what_did_not_come_about_is_no_finding(self) -> None:
        verdict = judge(
            result(
                connections={"made": 50},
                messages={"sent": 3},
                deliveries={"lost": 700},
                errors=["messages: cancelled"],
                cancelled=True,
                clean=False,
            )
        )
        assert verdict.findings == ()
        assert not verdict.clean
        assert verdict.line == "interrupted"

    def test_what_went_wrong_is(self) -> None:
        verdict = judge(result(deliveries={"damaged": 3}, cancelled=True))
        assert verdict.line == "interrupted: 3 of 1,000 deliveries damaged"


def test_the_most_frequent_reason_comes_first() -> None:
    assert tally({"a": 1, "b": 2000, "c": 30}) == "2,000 b, 30 c, 1 a"
