"""Scenarios: what flags and files ask for, what contradicts itself, and what the load client is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastcast.bench.scenario import OPTIONS, Scenario
from fastcast.errors import ConfigError

URL = "ws://127.0.0.1:8000/room"


def scenario(**values: Any) -> Scenario:
    """A scenario from keywords, without the static types that some tests violate on purpose."""
    return Scenario(url=URL, **values)


def load_error(flags: dict[str, object], file: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        Scenario.load(flags, file)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "scenario.toml"


class TestUrl:
    @pytest.mark.parametrize(
        "url", ["ws://localhost", "ws://[::1]:8000/a?b=c", "WS://10.0.0.1:1/", "ws://h:80/#fragment"]
    )
    def test_an_address_is_accepted(self, url: str) -> None:
        assert Scenario.load({"url": url}).url == url

    def test_tls_is_not_there_yet(self) -> None:
        assert load_error({"url": "wss://example.org/"}).startswith("URL: wss:// is not supported yet")

    @pytest.mark.parametrize("url", ["http://a/", "127.0.0.1:8000", "ws:/a", "ws://a\n/", "ws://ä/"])
    def test_what_is_no_address_is_refused(self, url: str) -> None:
        assert "is not a WebSocket address (write ws://HOST:PORT/PATH)" in load_error({"url": url})

    @pytest.mark.parametrize(
        "url", ["ws://", "ws://:80/", "ws://a:99999/", "ws://a:x/", "ws://a:0/", "ws://me@a/", "ws://[::1/"]
    )
    def test_host_and_port_are_checked(self, url: str) -> None:
        assert "has no valid host and port" in load_error({"url": url})

    def test_none_is_an_error(self) -> None:
        assert load_error({"url": None}).startswith("there is no URL")

    def test_a_file_may_have_it(self, toml: Path) -> None:
        toml.write_text(f'url = "{URL}"')
        assert Scenario.load({"url": None}, toml).url == URL


class TestDefaults:
    def test_ten_messages_go_to_a_thousand_clients_in_a_closed_loop(self) -> None:
        made = scenario()
        assert (made.connection_count, made.message_count, made.senders) == (1000, 10, 1)
        assert (made.rate, made.in_flight, made.expect) == (0.0, 1, "all")

    def test_every_default_passes_its_own_check_unchanged(self) -> None:
        for option in OPTIONS:
            if not option.argument:
                assert option.check(option.default, option.name) == option.default

    def test_nothing_is_sent_to_a_server_that_publishes_of_itself(self) -> None:
        assert scenario(expect="any").message_count == 0


class TestArrivals:
    def test_a_flag_has_counts_and_rates(self) -> None:
        made = Scenario.load({"url": URL, "arrivals": "1000@50, 5000,10@0.5"})
        assert made.arrivals == ((1000, 50.0), (5000, 0.0), (10, 0.5))
        assert made.connection_count == 6010

    def test_a_file_has_tables_with_two_of_three(self, toml: Path) -> None:
        toml.write_text(
            "[[arrivals]]\ncount = 1000\nrate = 50\n[[arrivals]]\ncount = 300\nduration = '1m'\n"
            "[[arrivals]]\nrate = 20.5\nduration = 10\n[[arrivals]]\ncount = 7\n"
        )
        made = Scenario.load({"url": URL}, toml)
        assert made.arrivals == ((1000, 50.0), (300, 5.0), (205, 20.5), (7, 0.0))

    @pytest.mark.parametrize("text", ["", "a", "10@", "@5", "10@5@6", "-1", "10 5", "1e3"])
    def test_a_flag_of_another_form_is_refused(self, text: str) -> None:
        assert "is not COUNT@RATE (such as 1000@50) or COUNT" in load_error({"url": URL, "arrivals": text})

    @pytest.mark.parametrize(
        "line",
        [
            "{count = 1, rate = 1, duration = 1}",
            "{rate = 1}",
            "{duration = 1}",
            "{}",
            "{rate = 0, duration = 5}",
            "{count = 0}",
            "{count = true}",
            "{count = 1, rate = 'x'}",
            "{count = 1, speed = 1}",
            "{count = 1, duration = 0}",
            "5",
            "[1, 2, 3]",
        ],
    )
    def test_a_table_of_another_form_is_refused(self, toml: Path, line: str) -> None:
        toml.write_text(f"arrivals = [{line}]")
        assert load_error({"url": URL}, toml).startswith(f"{toml}: arrivals: ")

    def test_they_and_the_connections_agree(self) -> None:
        assert scenario(arrivals=[[30, 0], [70, 5]], connections=100).connection_count == 100
        assert load_error({"url": URL, "arrivals": "10,20", "connections": "31"}) == (
            "--arrivals: they are 30 connections, and 31 are asked for"
        )

    def test_they_do_without_another_rate(self) -> None:
        assert load_error({"url": URL, "arrivals": "10", "connect_rate": "5"}) == (
            "--connect-rate: the arrivals have rates of their own"
        )

    def test_what_is_shown_reads_back(self) -> None:
        kind = next(option.kind for option in OPTIONS if option.name == "arrivals")
        phases = ((1000, 50.0), (5000, 0.0), (10, 0.5))
        assert kind.parse(kind.show(phases)) == phases


class TestTogether:
    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (
                {"connections": "5", "senders": "6"},
                "--senders: 6 senders are more than the 5 connections",
            ),
            (
                {"connections": "5", "stalled": "5"},
                "--stalled: the senders and those who stall are more than the connections",
            ),
            ({"text": True, "size": "63"}, "--size: a text message has at least 64 bytes"),
            (
                {"rate": "5", "think": "1s"},
                "--think: a pause belongs to a closed loop, and a rate to an open one",
            ),
            ({"storm_reset": True}, "--storm-reset: there is no storm (see storm)"),
            ({"think_fixed": True}, "--think-fixed: there is no pause to be fixed (see think)"),
            (
                {"expect": "any", "messages": "5"},
                "--messages: the server publishes, and clients send no messages (see expect)",
            ),
            (
                {"expect": "any", "rate": "5"},
                "--rate: the server publishes, and clients send no messages (see expect)",
            ),
            (
                {"expect": "any", "senders": "2"},
                "--senders: the server publishes, and clients send no messages (see expect)",
            ),
            ({"header": ("Upgrade: h2c",)}, "--header: Upgrade belongs to the handshake itself"),
            ({"header": ("no colon",)}, "--header: 'no colon' is not a header (write 'Name: value')"),
            (
                {"header": ("A: b\r\nC: d",)},
                "--header: 'A: b\\r\\nC: d' is not a header (write 'Name: value')",
            ),
            ({"query": ("a b=c",)}, "--query: 'a b=c' is not a parameter (write name=value)"),
            ({"source": ("eth0",)}, "--source: 'eth0' is not an address, a range A-B or a network A/N"),
            ({"size": "31"}, "--size: 31 bytes is not between 32 and 256MiB"),
            ({"connect_rate": "fast"}, "--connect-rate: expected a number, not 'fast'"),
        ],
    )
    def test_a_contradiction_is_named(self, flags: dict[str, object], message: str) -> None:
        assert load_error({"url": URL, **flags}) == message

    def test_flags_win_over_the_file(self, toml: Path) -> None:
        toml.write_text('connections = 5\nhold = "1m"')
        made = Scenario.load({"url": URL, "connections": "7"}, toml)
        assert (made.connections, made.hold) == (7, 60.0)

    def test_an_unknown_key_is_met_with_the_nearest_option(self, toml: Path) -> None:
        toml.write_text("conections = 5")
        assert load_error({"url": URL}, toml) == (
            f"{toml}: unknown option 'conections' (did you mean connections?)"
        )


class TestLoadOptions:
    def test_parameters_are_added_to_the_query(self) -> None:
        made = Scenario(url="ws://h/a?x=1#part", query=("room=a b", "flag", "q=ä&b"))
        assert made.load_options()["url"] == "ws://h/a?x=1&room=a+b&flag=&q=%C3%A4%26b"
        assert scenario(query=("a=1",)).load_options()["url"] == URL + "?a=1"

    def test_headers_are_lines(self) -> None:
        options = scenario(header=("A: b", "C:d")).load_options()
        assert options["headers"] == "A: b\r\nC:d\r\n"

    def test_lists_are_joined_as_the_load_client_reads_them(self) -> None:
        options = scenario(subprotocol=("one", "two"), source=("10.0.0.1", "10.1.0.0/24")).load_options()
        assert (options["subprotocol"], options["sources"]) == ("one, two", "10.0.0.1,10.1.0.0/24")

    def test_what_is_not_asked_for_is_not_told(self) -> None:
        assert scenario().load_options().keys().isdisjoint({"headers", "subprotocol", "sources", "arrivals"})

    def test_auto_is_what_it_comes_to(self) -> None:
        options = scenario(arrivals=[[20, 5]]).load_options()
        assert (options["connections"], options["messages"], options["threads"]) == (20, 10, 0)
        assert options["arrivals"] == [[20, 5.0]]


class TestTimeout:
    def test_one_that_is_asked_for_is_kept(self) -> None:
        assert scenario(timeout="5s", hold="1h").timeout_seconds == 5.0

    def test_the_automatic_one_is_at_most_a_year(self) -> None:
        run = Scenario(url=URL, connections=1_000_000, senders=1_000_000, messages=4000)
        assert run.timeout_seconds == 365 * 86400

    @pytest.mark.parametrize(
        ("options", "least"),
        [
            ({"arrivals": [[1000, 1]]}, 1000),
            ({"connect_rate": 0.5}, 2000),
            ({"rate": 10, "messages": 5000}, 500),
            ({"think": 60, "messages": 10}, 600),
            ({"connections": 1_000_000}, 2000),
            ({"storm": True, "connections": 100_000}, 2000),
        ],
    )
    def test_the_automatic_one_leaves_time_for_everything(
        self, options: dict[str, Any], least: float
    ) -> None:
        assert scenario(**options).timeout_seconds > least
