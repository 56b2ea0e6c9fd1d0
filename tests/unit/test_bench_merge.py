"""A run on several agents: the parts make up the whole, and so do their figures."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fastcast.bench.merge import merge_results, merge_snapshots, split
from fastcast.bench.scenario import Scenario
from fastcast.errors import ConfigError
from tests.support.bench import MILLISECOND, PHASES, result, server_at, snapshot, storm


def options(**values: Any) -> dict[str, Any]:
    return Scenario(url="ws://h/", **values).load_options()


class TestSplit:
    @given(
        st.integers(1, 9),
        st.integers(20, 10_000),
        st.integers(1, 15),
        st.integers(0, 5),
        st.integers(0, 500),
    )
    def test_shares_add_up(self, parts: int, connections: int, senders: int, stalled: int, rate: int) -> None:
        whole = options(
            connections=connections,
            senders=senders,
            stalled=stalled,
            rate=rate,
            connect_rate=70,
            churn=7,
        )
        try:
            made = split(whole, parts)
        except ConfigError:
            assert connections < parts * (senders + stalled)
            return
        assert len(made) == parts
        for name in ("connections", "senders", "stalled", "rate", "connect_rate", "churn"):
            assert sum(part[name] for part in made) == pytest.approx(whole[name])
        assert all(part["senders"] + part["stalled"] <= part["connections"] for part in made)

    def test_senders_keep_their_numbers_in_the_whole(self) -> None:
        made = split(options(connections=10, senders=5), 3)
        assert [(part["sender_base"], part["senders"]) for part in made] == [(0, 2), (2, 2), (4, 1)]
        assert {part["senders_total"] for part in made} == {5}

    def test_an_echo_is_between_one_client_and_the_server(self) -> None:
        made = split(options(connections=10, senders=1, expect="sender"), 2)
        assert [(part["senders"], part["messages"]) for part in made] == [(1, 10), (0, 0)]
        assert "senders_total" not in made[0]

    def test_arrivals_are_shared_phase_by_phase(self) -> None:
        made = split(options(arrivals=[[3, 0], [100, 50], [1, 5]]), 2)
        assert [part["arrivals"] for part in made] == [
            [[2, 0], [50, 25]],
            [[1, 0], [50, 25], [1, 5]],
        ]
        assert [part["connections"] for part in made] == [52, 52]

    @given(st.lists(st.integers(1, 20), min_size=1, max_size=9), st.integers(1, 9))
    def test_arrivals_are_those_of_the_connections(self, counts: list[int], parts: int) -> None:
        whole = options(arrivals=[[count, 10] for count in counts])
        assume(sum(counts) >= parts)
        made = split(whole, parts)
        for part in made:
            assert sum(count for count, _ in part["arrivals"]) == part["connections"]
        rates = sum(rate for part in made for _, rate in part["arrivals"])
        assert rates == pytest.approx(10 * len(counts))

    def test_only_the_first_measures_the_server(self) -> None:
        made = split(options(server_pid=7), 3)
        assert [part["server_pid"] for part in made] == [7, 0, 0]

    def test_more_agents_than_connections_are_too_many(self) -> None:
        with pytest.raises(ConfigError, match="connections: 2 are too few for 3 agents"):
            split(options(connections=2), 3)


class TestSnapshots:
    def test_counters_are_added_and_histograms_collected(self) -> None:
        merged = merge_snapshots(
            [
                snapshot(3.0, made=10, failed=1, sent=2, received=20, client_cpu=0.5),
                snapshot(3.2, made=5, failed=2, sent=1, received=7, client_cpu=0.25, server=server_at(2.0)),
            ],
            {"latency": [[1, 2], [3, 4]], "handshake": []},
        )
        assert merged["connections"]["made"] == 15
        assert merged["failures"] == {"Connection refused": 3}
        assert (merged["sent"], merged["received"], merged["seconds"]) == (3, 27, 3.2)
        assert merged["latency"] == [[1, 2], [3, 4]]
        assert merged["client"]["cpu_seconds"] == 0.75
        assert merged["server"] == server_at(2.0)

    def test_the_phase_is_that_of_the_slowest(self) -> None:
        nothing: dict[str, list[Any]] = {"latency": [], "handshake": []}
        parts = [snapshot(1, "messages"), snapshot(1, "connect"), snapshot(1, "settle")]
        assert merge_snapshots(parts, nothing)["phase"] == "connect"


class TestResults:
    def test_one_part_is_the_whole(self) -> None:
        merged = merge_results({"a": result()})
        for name in ("connections", "churn", "messages", "deliveries", "phase_seconds", "closes", "clean"):
            assert merged[name] == result()[name]
        assert merged["latency_us"]["p99"] == pytest.approx(2000, rel=0.01)
        assert merged["throughput"] == 500

    def test_figures_are_added(self) -> None:
        one = result(connections={"failed": {"timed out": 2}}, closes={"1000": 100})
        other = result(
            connections={"failed": {"timed out": 1, "reset": 4}, "connect_seconds": 1.0},
            deliveries={"lost": 3},
            phase_seconds={"messages": 4.0},
        )
        merged = merge_results({"a": one, "b": other})
        assert merged["connections"]["made"] == 200
        assert merged["connections"]["failed"] == {"timed out": 3, "reset": 4}
        assert merged["connections"]["rate"] == 200
        assert merged["deliveries"]["lost"] == 3
        assert merged["throughput"] == 500
        assert merged["messages"] == result()["messages"] | {"asked": 20, "sent": 20, "senders": 2}
        assert merged["closes"] == {"1000": 100}

    def test_percentiles_are_those_of_all_deliveries(self) -> None:
        slow = result(histograms={"latency": [[20 * MILLISECOND, 1000]]})
        merged = merge_results({"a": result(), "b": slow})
        assert merged["latency_us"]["count"] == 2000
        assert merged["latency_us"]["p50"] == pytest.approx(2000, rel=0.01)
        assert merged["latency_us"]["p90"] == pytest.approx(20_000, rel=0.01)

    def test_costs_are_per_delivery_of_the_whole(self) -> None:
        measured = result()
        measured["cpu"]["server_seconds"] = dict.fromkeys(PHASES, 0.5)
        merged = merge_results({"a": measured, "b": result()})["cpu"]
        assert merged["server_us_per_delivery"] == pytest.approx(250)
        assert merged["server_us_per_connect"] == pytest.approx(2500)
        assert merged["client_seconds"]["messages"] == 1.0
        assert merged["client_us_per_delivery"] == pytest.approx(500)

    def test_storms_are_added(self) -> None:
        parts = {"a": result(storm=storm()), "b": result(storm=storm(seconds=3.0, refused={"503": 1}))}
        parts["b"]["histograms"]["storm_back"] = [[MILLISECOND, 7]]
        merged = merge_results(parts)["storm"]
        assert (merged["back"], merged["seconds"], merged["refused"]) == (200, 3.0, {"503": 1})
        assert merged["back_us"]["count"] == 7
        assert merge_results({"a": result(), "b": result()})["storm"] is None

    def test_errors_say_where(self) -> None:
        merged = merge_results({"a:1": result(errors=["stuck"], clean=False), "b:2": result()})
        assert (merged["errors"], merged["clean"]) == (["a:1: stuck"], False)

    @pytest.mark.parametrize(
        ("digests", "one_order"), [(("x", "x"), True), (("x", "y"), False), (("x", None), True)]
    )
    def test_orders_are_compared(self, digests: tuple[str, str | None], one_order: bool) -> None:
        parts = {str(number): result() | {"order_digest": each} for number, each in enumerate(digests)}
        merged = merge_results(parts)
        assert (merged["one_order"], merged["clean"]) == (one_order, one_order)

    def test_each_part_is_kept_without_its_histograms(self) -> None:
        merged = merge_results({"a": result(), "b": result()})
        assert merged["agents"].keys() == {"a", "b"}
        assert "histograms" not in merged["agents"]["a"]
