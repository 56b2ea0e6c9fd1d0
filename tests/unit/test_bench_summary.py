"""The summary, and figures as people read them."""

from __future__ import annotations

import pytest

from fastcast.bench import words
from fastcast.bench.summary import lines, summarise
from fastcast.bench.verdict import judge
from tests.support.bench import PHASES, result, spread, storm

URL = "ws://127.0.0.1:8000/"


def told(**changes: object) -> dict[str, str]:
    """The summary's lines by name; the last one of those without a name."""
    made = result(**changes)
    return dict(lines(URL, made, judge(made)))


def test_a_clean_run_in_full() -> None:
    assert summarise(URL, result(), judge(result())).splitlines() == [
        "Target        ws://127.0.0.1:8000/",
        "Connections   100 of 100 in 0.5 s (200/s)",
        "  handshake   p50 500 µs, p90 500 µs, p99 500 µs, p99.9 500 µs, max 500 µs",
        "Messages      10 of 10 sent by 1 sender, 128 bytes each, binary",
        "Deliveries    1,000 of 1,000 (500/s)",
        "Latency       p50 2 ms, p90 2 ms, p99 2 ms, p99.9 2 ms, max 2 ms",
        "  to first    p50 1 ms, p90 1 ms, p99 1 ms, p99.9 1 ms, max 1 ms",
        "  to last     p50 3 ms, p90 3 ms, p99 3 ms, p99.9 3 ms, max 3 ms",
        "Client CPU    0.75 s, busiest thread 50% of a processor",
        "Verdict       clean: every connection made and kept; nothing lost, doubled, reordered or damaged",
    ]


def test_failures_are_told_by_reason() -> None:
    assert told(connections={"failed": {"Connection refused": 3}})["  failures"] == "3 Connection refused"


def test_churn_is_told_when_there_was_some() -> None:
    assert "Churn" not in told()
    assert told(churn={"closed": 7, "reopened": 6, "failed": 1})["Churn"] == (
        "7 closed, 6 opened anew, 1 failed"
    )


def test_retries_are_told_by_reason() -> None:
    names = told(connections={"retried": {"timed out": 5}, "attempts": 105, "reconnected": 2})
    assert names["  retried"] == "5 timed out (105 attempts in all)"
    assert names["  lost"] == "2 came back after they were lost"


def test_a_server_that_leaves_a_close_unanswered_is_told_of() -> None:
    assert "  closing" not in told()
    assert told(connections={"unanswered": 7})["  closing"] == "7 without the server's Close"


def test_a_storm_has_its_own_figures() -> None:
    names = told(storm=storm(attempts=130, refused={"503": 30}))
    assert names["Storm"] == "100 of 100 back in 1 s, 130 attempts; refused: 30 503"
    assert names["  back after"].startswith("p50 700 µs")


def test_a_run_without_messages_tells_of_none() -> None:
    names = told(
        messages={"asked": 0, "sent": 0}, deliveries={"expected": 0, "received": 0}, latency_us=spread()
    )
    assert names.keys().isdisjoint({"Messages", "Deliveries", "Latency"})


def test_what_a_server_publishes_of_itself_is_told_without_an_expectation() -> None:
    names = told(messages={"asked": 0, "sent": 0}, deliveries={"expected": 0, "received": 5000})
    assert names["Deliveries"] == "5,000 (500/s)"


def test_a_measured_server_has_cpu_and_memory() -> None:
    made = result()
    made["cpu"] |= {
        "server_seconds": dict.fromkeys(PHASES, 0.25),
        "server_us_per_connect": 14.2,
        "server_us_per_delivery": None,
    }
    made["memory"]["before_connect"] |= {"server_pss": 20 << 20, "kernel_slab": 50 << 20}
    made["memory"]["after_connect"] |= {
        "server_pss": 22 << 20,
        "kernel_slab": 60 << 20,
        "kernel_tcp": 1 << 20,
    }
    names = dict(lines(URL, made, judge(made)))
    assert names["Server CPU"] == "1.5 s, 14.2 µs per connection"
    assert names["Memory"] == "server process 22 MiB, 2 MiB of it by connecting"
    assert names[""].startswith("kernel, TCP buffers 1 MiB and slabs 10 MiB by connecting")


def test_a_load_client_at_its_limit_says_so() -> None:
    measured = told(client_bound=True, cpu={"server_busiest_thread": 0.3})
    assert measured[""].startswith("The load client was the limit, not the server")
    # Nobody knows what a server had left that wasn't measured.
    assert told(client_bound=True)[""].startswith("The load client was at its limit")


def test_several_findings_take_a_line_each() -> None:
    made = result(deliveries={"lost": 3, "damaged": 2})
    assert lines(URL, made, judge(made))[-3:] == [
        ("Verdict", "not clean"),
        ("", "3 of 1,000 deliveries lost"),
        ("", "2 of 1,000 deliveries damaged"),
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0 µs"), (0.0123, "12.3 µs"), (1.0, "1 ms"), (12.345, "12.3 ms"), (1500.0, "1.5 s")],
)
def test_milliseconds(value: float | None, text: str) -> None:
    assert words.milliseconds(value) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (1536, "1.5 KiB"), (22 << 20, "22 MiB"), (9 << 30, "9 GiB")],
)
def test_memory(size: int | None, text: str) -> None:
    assert words.memory(size) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (7, "7"), (7.25, "7.2"), (123.4, "123"), (1234567.8, "1,234,568")]
)
def test_count(number: float, text: str) -> None:
    assert words.count(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 messages"), (1, "1 message"), (2, "2 messages"), (1234, "1,234 messages")]
)
def test_several(number: int, text: str) -> None:
    assert words.several(number, "message") == text
