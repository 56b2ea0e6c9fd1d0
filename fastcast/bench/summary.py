"""What a run came to, in a few lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fastcast.bench.verdict import Verdict, tally
from fastcast.bench.words import count, memory, percentiles, several

_WIDTH: Final = 14


def lines(url: str, result: Mapping[str, Any], verdict: Verdict) -> list[tuple[str, str]]:
    """Names and figures, the verdict last; an empty name belongs to the one before."""
    return [("Target", url), *_connections(result), *_messages(result), *_costs(result), *_verdict(verdict)]


def summarise(url: str, result: Mapping[str, Any], verdict: Verdict) -> str:
    """The lines as text; no line end after it."""
    return "\n".join(f"{name:<{_WIDTH}}{text}" for name, text in lines(url, result, verdict))


def _connections(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    connections, churn = result["connections"], result["churn"]
    yield (
        "Connections",
        f"{count(connections['made'])} of {count(connections['asked'])}"
        f" in {connections['connect_seconds']:.3g} s ({count(connections['rate'])}/s)",
    )
    if connections["failed"]:
        yield "  failures", tally(connections["failed"])
    if result["handshake_us"]["count"]:
        yield "  handshake", percentiles(result["handshake_us"])
    if connections["retried"]:
        yield (
            "  retried",
            f"{tally(connections['retried'])} ({count(connections['attempts'])} attempts in all)",
        )
    if connections["reconnected"]:
        yield "  lost", f"{count(connections['reconnected'])} came back after they were lost"
    if connections["unanswered"]:
        yield "  closing", f"{count(connections['unanswered'])} without the server's Close"
    if storm := result["storm"]:
        refused = f"; refused: {tally(storm['refused'])}" if storm["refused"] else ""
        yield (
            "Storm",
            f"{count(storm['back'])} of {count(storm['dropped'])} back in {storm['seconds']:.3g} s,"
            f" {count(storm['attempts'])} attempts{refused}",
        )
        yield "  back after", percentiles(storm["back_us"])
        yield "  handshake", percentiles(storm["handshake_us"])
    if churn["closed"]:
        yield (
            "Churn",
            f"{count(churn['closed'])} closed, {count(churn['reopened'])} opened anew,"
            f" {count(churn['failed'])} failed",
        )


def _messages(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    messages, deliveries = result["messages"], result["deliveries"]
    if messages["asked"]:
        kind = "text" if messages["text"] else "binary"
        yield (
            "Messages",
            f"{count(messages['sent'])} of {count(messages['asked'])} sent by"
            f" {several(messages['senders'], 'sender')}, {several(messages['size'], 'byte')} each, {kind}",
        )
    if not messages["asked"] and not deliveries["received"]:
        return
    expected = f" of {count(deliveries['expected'])}" if deliveries["expected"] else ""
    yield (
        "Deliveries",
        f"{count(deliveries['received'])}{expected} ({count(result['throughput'])}/s)",
    )
    for title, name in (
        ("Latency", "latency_us"),
        ("  to first", "first_receiver_us"),
        ("  to last", "last_receiver_us"),
    ):
        if result[name]["count"]:
            yield title, percentiles(result[name])


def _costs(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    cpu, moments = result["cpu"], result["memory"]
    seconds = [value for value in cpu["server_seconds"].values() if value is not None]
    if seconds:
        details = "".join(
            f", {cpu[name]:.3g} µs per {what}"
            for name, what in (
                ("server_us_per_connect", "connection"),
                ("server_us_per_delivery", "delivery"),
            )
            if cpu[name] is not None
        )
        yield "Server CPU", f"{sum(seconds):.3g} s{details}"
        before, after = moments["before_connect"], moments["after_connect"]
        grown = {name: memory(max(0, after[name] - before[name])) for name in after}
        yield (
            "Memory",
            f"server process {memory(after['server_pss'])}, {grown['server_pss']} of it by connecting",
        )
        yield (
            "",
            f"kernel, TCP buffers {grown['kernel_tcp']} and slabs {grown['kernel_slab']} by connecting"
            " (both ends, if both are here)",
        )
    client = sum(value for value in cpu["client_seconds"].values() if value is not None)
    yield (
        "Client CPU",
        f"{client:.3g} s, busiest thread {cpu['client_busiest_thread'] or 0:.0%} of a processor",
    )
    if result["client_bound"]:
        if cpu["server_busiest_thread"] is None:
            yield (
                "",
                "The load client was at its limit: the server may be able to do more (see --server-pid).",
            )
        else:
            yield "", "The load client was the limit, not the server: its figures are lower bounds."


def _verdict(verdict: Verdict) -> Iterator[tuple[str, str]]:
    if verdict.clean or verdict.interrupted or len(verdict.findings) == 1:
        yield "Verdict", verdict.line
        return
    yield "Verdict", "not clean"
    for finding in verdict.findings:
        yield "", finding
