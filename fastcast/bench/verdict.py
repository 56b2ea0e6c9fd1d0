"""What was wrong with a run, and how much of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastcast.bench.words import several


@dataclass(frozen=True, slots=True)
class Verdict:
    """Clean means: every connection made and kept; no message lost, doubled, reordered or damaged."""

    findings: tuple[str, ...]
    """What was wrong, in one line each."""
    interrupted: bool = False

    @property
    def clean(self) -> bool:
        """Whether nothing was wrong."""
        return not self.findings and not self.interrupted

    @property
    def line(self) -> str:
        """The verdict in one line."""
        if self.interrupted:
            return "interrupted" + (": " + "; ".join(self.findings) if self.findings else "")
        if self.findings:
            return "not clean: " + "; ".join(self.findings)
        return "clean: every connection made and kept; nothing lost, doubled, reordered or damaged"


def judge(result: Mapping[str, Any]) -> Verdict:
    """The verdict on what :func:`fastcast._load.run` returned.

    Of a run that was interrupted, what didn't come about is no finding; what went wrong is.
    """
    interrupted = result["cancelled"]
    findings = [*_of_connections(result, interrupted), *_of_messages(result, interrupted)]
    if not interrupted:
        findings += result["errors"]
        if not findings and not result["clean"]:
            findings.append("the load client saw something that it has no name for")
    return Verdict(tuple(findings), interrupted)


def tally(counts: Mapping[str, int]) -> str:
    """Reasons and how often, the most frequent first."""
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{count:,} {reason}" for reason, count in ranked)


def _of_connections(result: Mapping[str, Any], interrupted: bool) -> list[str]:
    connections, churn = result["connections"], result["churn"]
    findings = []
    missing = connections["asked"] - connections["made"]
    if missing > 0 and not interrupted:
        reasons = f" ({tally(connections['failed'])})" if connections["failed"] else ""
        findings.append(f"{missing:,} of {connections['asked']:,} connections not made{reasons}")
    storm = result["storm"]
    if storm and storm["missing"] and not interrupted:
        reasons = f" ({tally(storm['refused'])})" if storm["refused"] else ""
        findings.append(f"{several(storm['missing'], 'connection')} not back after the storm{reasons}")
    if connections["closed_unexpectedly"]:
        findings.append(f"{several(connections['closed_unexpectedly'], 'connection')} ended too early")
    if churn["failed"]:
        findings.append(f"{several(churn['failed'], 'connection')} not opened anew")
    return findings


def _of_messages(result: Mapping[str, Any], interrupted: bool) -> list[str]:
    messages, deliveries = result["messages"], result["deliveries"]
    findings = []
    unsent = messages["asked"] - messages["sent"]
    if unsent > 0 and not interrupted:
        findings.append(f"{unsent:,} of {messages['asked']:,} messages not sent")
    for name in ("lost", "duplicated", "reordered", "damaged"):
        # What was under way when somebody pressed Ctrl-C has not been lost by the server.
        if deliveries[name] and not (name == "lost" and interrupted):
            findings.append(f"{deliveries[name]:,} of {deliveries['expected']:,} deliveries {name}")
    if deliveries["unexpected"]:
        findings.append(f"{deliveries['unexpected']:,} deliveries to connections that were not to have them")
    # Agents compare their receivers; one process compares as it goes.
    if result.get("one_order") is False:
        findings.append("the receivers of different agents saw different orders")
    return findings
