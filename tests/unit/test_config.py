"""Configuration: precedence, limits, and error messages that name the option as it was written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from fastcast.config import HEADROOM, OPTIONS, Config
from fastcast.errors import ConfigError, FastcastError
from fastcast.options import GIB, KIB, MIB


def config(**values: Any) -> Config:
    """A configuration from keywords, without the static types that some tests violate on purpose."""
    return Config(**values)


def message_of(**values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config(**values)
    return str(caught.value)


def load_error(
    flags: dict[str, object] | None = None, environ: dict[str, str] | None = None, file: Path | None = None
) -> str:
    with pytest.raises(ConfigError) as caught:
        Config.load(flags or {}, environ or {}, file)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "fastcast.toml"


class TestDefaults:
    def test_nothing_given_is_the_default_configuration(self) -> None:
        assert Config.load({}, {}) == Config()

    def test_every_default_passes_its_own_check_unchanged(self) -> None:
        for option in OPTIONS:
            assert option.check(option.default, option.name) == option.default

    def test_every_default_reads_back_as_it_is_shown(self) -> None:
        for option in OPTIONS:
            shown = option.kind.show(option.default)
            assert option.check(option.parse(shown, option.name), option.name) == option.default

    def test_the_server_is_local_unless_told_otherwise(self) -> None:
        assert Config().host == "127.0.0.1"

    def test_the_automatic_queue_is_4_mib_or_two_of_the_largest_messages(self) -> None:
        assert (Config().max_queue, Config().queue_limit) == (None, 4 * MIB)
        assert Config(max_message=64 * MIB).queue_limit == 2 * (64 * MIB + HEADROOM)

    def test_the_automatic_backlog_is_256_mib_or_eight_of_the_largest_messages(self) -> None:
        assert (Config().max_backlog, Config().backlog_limit) == (None, 256 * MIB)
        assert Config(max_message=64 * MIB).backlog_limit == 8 * (64 * MIB + HEADROOM)

    def test_a_configuration_is_immutable(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            Config().port = 1  # type: ignore[misc]

    def test_all_names_of_an_option_follow_from_its_field(self) -> None:
        names = {option.name: (option.flag, option.variable) for option in OPTIONS}
        assert names.keys() == {item.name for item in dataclasses.fields(Config)}
        assert names["max_queue"] == ("--max-queue", "FASTCAST_MAX_QUEUE")


class TestKeywords:
    def test_strings_with_units_become_bytes_and_seconds(self) -> None:
        made = config(max_message="2KiB", ping_interval="1m", close_timeout=3)
        assert (made.max_message, made.ping_interval, made.close_timeout) == (2048, 60.0, 3.0)
        assert isinstance(made.close_timeout, float)

    def test_a_list_becomes_a_tuple(self) -> None:
        assert config(subprotocol=["chat.v2", "chat"]).subprotocol == ("chat.v2", "chat")

    @pytest.mark.parametrize("value", [None, "auto"])
    def test_auto_is_none(self, value: object) -> None:
        made = config(shards=value, max_connections=value)
        assert (made.shards, made.max_connections) == (None, None)

    def test_the_log_level_may_be_in_upper_case(self) -> None:
        assert config(log_level="DEBUG").log_level == "debug"

    @pytest.mark.parametrize(
        "origin",
        [
            "https://a.b",
            "http://[::1]:8000",
            "HTTP://a_b.c:1",
            "null",
            "*",
            "https://*.a.b",
            "https://*.a.b:1",
        ],
    )
    def test_an_origin_is_accepted(self, origin: str) -> None:
        assert config(origin=(origin,)).origin == (origin,)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"host": ""}, "host: '' is empty or not printable"),
            ({"host": "a\nb"}, "host: 'a\\nb' is empty or not printable"),
            ({"host": 7}, "host: expected a string, not 7"),
            ({"port": -1}, "port: -1 is not between 0 and 65535"),
            ({"port": 65536}, "port: 65536 is not between 0 and 65535"),
            ({"port": "8000"}, "port: expected a whole number, not '8000'"),
            ({"port": True}, "port: expected a whole number, not True"),
            ({"port": 8.0}, "port: expected a whole number, not 8.0"),
            ({"port": None}, "port: expected a whole number, not None"),
            ({"shards": 0}, "shards: 0 is not between 1 and 1024"),
            ({"shards": 1025}, "shards: 1025 is not between 1 and 1024"),
            ({"shards": "many"}, "shards: expected a whole number or auto, not 'many'"),
            ({"max_connections": 0}, "max_connections: 0 is not between 1 and 100000000"),
            ({"max_message": 0}, "max_message: 0 bytes is not between 1 and 1GiB"),
            ({"max_message": GIB + 1}, "max_message: 1073741825 bytes is not between 1 and 1GiB"),
            ({"max_queue": 1.5}, "max_queue: expected a size in bytes or a string such as '64KiB', not 1.5"),
            (
                {"max_queue": True},
                "max_queue: expected a size in bytes or a string such as '64KiB', not True",
            ),
            ({"max_queue": "1k"}, "max_queue: '1k' is not a size (write 65536, 64KiB, 1.5MiB or 2GB)"),
            ({"close_timeout": 0}, "close_timeout: 0 seconds is not between 0.01s and 1h"),
            ({"ping_interval": -1}, "ping_interval: -1 seconds is not 0 or between 0.01s and 24h"),
            ({"ping_timeout": float("nan")}, "ping_timeout: nan seconds is not between 0.01s and 24h"),
            ({"ping_timeout": float("inf")}, "ping_timeout: inf seconds is not between 0.01s and 24h"),
            (
                {"ping_timeout": "soon"},
                "ping_timeout: 'soon' is not a duration (write 500ms, 20s, 1.5m or 1h)",
            ),
            (
                {"ping_timeout": False},
                "ping_timeout: expected a number of seconds or a string such as '20s', not False",
            ),
            ({"page": 1}, "page: expected true or false, not 1"),
            ({"log_level": "loud"}, "log_level: 'loud' is not one of debug, info, warning, error"),
            ({"log_level": 10}, "log_level: 10 is not one of debug, info, warning, error"),
            ({"origin": "https://a.b"}, "origin: expected a list of strings, not 'https://a.b'"),
            ({"origin": [1]}, "origin: expected a list of strings, not [1]"),
            (
                {"origin": ["https://*.org"]},
                "origin: 'https://*.org' is not an origin (write https://example.org, without a path)",
            ),
            (
                {"origin": ["https://a.b/"]},
                "origin: 'https://a.b/' is not an origin (write https://example.org, without a path)",
            ),
            (
                {"subprotocol": ["a b"]},
                "subprotocol: 'a b' is not a subprotocol name (letters, digits and !#$%&'*+-.^_`|~)",
            ),
        ],
    )
    def test_a_wrong_value_is_named_and_explained(self, values: dict[str, Any], message: str) -> None:
        assert message_of(**values) == message

    def test_every_configuration_error_is_a_fastcast_error(self) -> None:
        assert issubclass(ConfigError, FastcastError)


class TestTogether:
    @pytest.mark.parametrize("size", [1024, 8 * MIB])
    def test_a_queue_that_was_asked_for_is_kept(self, size: int) -> None:
        assert Config(max_queue=size, max_message=MIB).queue_limit == size

    def test_a_burst_is_what_a_second_allows_unless_it_is_given(self) -> None:
        assert [Config(rate_limit=limit).burst_limit for limit in (0, 0.5, 2.5, 10)] == [1, 1, 3, 10]
        assert Config(rate_limit=10, rate_burst=2).burst_limit == 2

    def test_auto_may_be_written_out(self) -> None:
        assert Config(max_queue="auto") == Config()  # type: ignore[arg-type]

    def test_the_backlog_must_hold_the_largest_message(self) -> None:
        assert message_of(max_backlog=MIB) == (
            "max_backlog: 1MiB is too little for max_message, 1MiB (it takes 1088KiB)"
        )

    def test_the_smallest_sufficient_backlog_is_accepted(self) -> None:
        assert Config(max_backlog=MIB + HEADROOM).backlog_limit == MIB + HEADROOM

    def test_a_contradiction_names_each_option_as_it_was_written(self, toml: Path) -> None:
        toml.write_text('max_message = "512MiB"')
        assert load_error({"max_backlog": "1MiB"}, {}, toml) == (
            f"--max-backlog: 1MiB is too little for {toml}: max_message, 512MiB (it takes 524352KiB)"
        )
        assert load_error({}, {"FASTCAST_MAX_MESSAGE": "512MiB", "FASTCAST_MAX_BACKLOG": "1MiB"}).startswith(
            "FASTCAST_MAX_BACKLOG: 1MiB is too little for FASTCAST_MAX_MESSAGE, 512MiB"
        )


class TestProxies:
    def test_addresses_and_networks_are_trusted(self) -> None:
        networks = ("127.0.0.1", "10.0.0.0/8", "2001:db8::/32")
        assert config(trusted_proxy=list(networks), proxy_protocol=True).trusted_proxy == networks

    def test_what_is_no_network_is_explained(self) -> None:
        assert message_of(trusted_proxy=["proxy.local"]) == (
            "trusted_proxy: 'proxy.local' is no address or network"
            " (write 10.0.0.0/8, 2001:db8::/32 or 127.0.0.1)"
        )

    def test_a_proxy_header_needs_somebody_who_may_send_it(self) -> None:
        told = "needs trusted_proxy, the proxies that send the header"
        assert message_of(proxy_protocol=True) == f"proxy_protocol: {told}"
        assert load_error(environ={"FASTCAST_PROXY_PROTOCOL": "yes"}) == f"FASTCAST_PROXY_PROTOCOL: {told}"


class TestTokens:
    SECRET = "32 bytes are as few as they can be"

    def test_a_secret_is_not_shown(self) -> None:
        assert self.SECRET not in repr(config(jwt_secret=self.SECRET))
        for wrong in ("short and secret", f"{self.SECRET}\n", 7_777_777):
            assert str(wrong).strip() not in message_of(jwt_secret=wrong)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (
                {"jwt_secret": SECRET, "jwt_jwks_file": "keys.json"},
                "jwt_secret: excludes jwt_jwks_file",
            ),
            ({"jwt_secret": "é" * 15}, "jwt_secret: HS256 takes 32 bytes at least"),
            (
                {"jwt_secret": SECRET, "jwt_algorithm": ["HS256", "HS384"]},
                "jwt_secret: HS384 takes 48 bytes at least",
            ),
            (
                {"jwt_secret": SECRET, "jwt_algorithm": ["RS256"]},
                "jwt_algorithm: RS256 doesn't go with jwt_secret",
            ),
            (
                {"jwt_jwks_file": "keys.json", "jwt_algorithm": ["RS256", "HS256"]},
                "jwt_algorithm: HS256 doesn't go with jwt_jwks_file",
            ),
            (
                {"jwt_secret": SECRET, "jwt_algorithm": ["none"]},
                "jwt_algorithm: 'none' is not an algorithm for tokens",
            ),
            ({"jwt_secret": SECRET, "jwt_from": []}, "jwt_from: no place is left for a token"),
            (
                {"jwt_secret": SECRET, "jwt_from": ["body"]},
                "jwt_from: 'body' is not one of query, header, cookie, subprotocol",
            ),
            ({"jwt_secret": SECRET, "jwt_name": "a b"}, "jwt_name: 'a b' can't be the name of a cookie"),
            ({"jwt_audience": "live"}, "jwt_audience: needs jwt_secret or jwt_jwks_file"),
            ({"jwt_from": ["query"]}, "jwt_from: needs jwt_secret or jwt_jwks_file"),
        ],
    )
    def test_what_does_not_go_together_is_explained(self, values: dict[str, Any], message: str) -> None:
        assert message_of(**values) == message

    def test_a_contradiction_names_each_option_as_it_was_written(self) -> None:
        given: dict[str, object] = {"jwt_jwks_file": "keys.json"}
        assert load_error(given, {"FASTCAST_JWT_SECRET": self.SECRET}) == (
            "FASTCAST_JWT_SECRET: excludes --jwt-jwks-file"
        )


class TestRules:
    def test_what_a_rule_leaves_open_is_as_everywhere_else(self) -> None:
        made = config(
            slow="drop-oldest",
            max_queue="1MiB",
            max_queue_messages=50,
            channel=["a slow=latest", "b.* max_queue=1KiB max_queue_messages=2", "c"],
        )
        assert made.rules == [
            ("a", "latest", MIB, 50, None, None),
            ("b.*", "drop-oldest", KIB, 2, None, None),
            ("c", "drop-oldest", MIB, 50, None, None),
            (">", "drop-oldest", MIB, 50, None, None),
        ]

    def test_without_any_one_rule_is_for_all(self) -> None:
        assert Config().rules == [(">", "close", 4 * MIB, None, None, None)]

    def test_a_mistake_in_one_names_the_option_as_it_was_written(self, toml: Path) -> None:
        toml.write_text('channel = ["a slow=never"]')
        told = "'a': slow: 'never' is not one of close, drop-oldest, drop-newest, latest"
        assert load_error(file=toml) == f"{toml}: channel: {told}"
        assert load_error({"channel": ("a slow=never",)}) == f"--channel: {told}"
        assert load_error(environ={"FASTCAST_CHANNEL": "b, a slow=never"}) == f"FASTCAST_CHANNEL: {told}"
        assert message_of(channel={"a": {"slow": "never"}}) == f"channel: {told}"


class TestPrecedence:
    def test_what_is_not_given_is_as_in_another_configuration(self, toml: Path) -> None:
        toml.write_text("shards = 3")
        base = Config(port=1, shards=1, max_message=1000)
        made = Config.load({"port": "2"}, {}, toml, base)
        assert made == Config(port=2, shards=3, max_message=1000)

    def test_flag_then_variable_then_file_then_default(self, toml: Path) -> None:
        toml.write_text("port = 3")
        environ = {"FASTCAST_PORT": "2"}
        assert Config.load({"port": "1"}, environ, toml).port == 1
        assert Config.load({}, environ, toml).port == 2
        assert Config.load({}, {}, toml).port == 3
        assert Config.load({}, {}).port == 8000

    def test_an_empty_variable_is_not_set(self, toml: Path) -> None:
        toml.write_text("port = 3")
        assert Config.load({}, {"FASTCAST_PORT": ""}, toml).port == 3

    def test_a_flag_not_given_is_not_set(self) -> None:
        environ = {"FASTCAST_PORT": "2", "FASTCAST_ORIGIN": "*", "FASTCAST_PAGE": "no"}
        made = Config.load({"port": None, "origin": (), "page": None}, environ)
        assert (made.port, made.origin, made.page) == (2, ("*",), False)

    def test_a_switch_that_is_off_wins_like_one_that_is_on(self) -> None:
        assert Config.load({"page": False}, {"FASTCAST_PAGE": "yes"}).page is False
        assert Config.load({"page": True}, {"FASTCAST_PAGE": "no"}).page is True

    def test_auto_wins_over_a_number(self) -> None:
        assert Config.load({"shards": "auto"}, {"FASTCAST_SHARDS": "4"}).shards is None

    def test_a_repeated_flag_replaces_the_list_of_the_variable(self) -> None:
        made = Config.load({"origin": ("https://a.b", "https://c.d")}, {"FASTCAST_ORIGIN": "https://e.f"})
        assert made.origin == ("https://a.b", "https://c.d")

    def test_a_wrong_value_that_is_overridden_does_no_harm(self) -> None:
        assert Config.load({"port": "1"}, {"FASTCAST_PORT": "x"}).port == 1


class TestVariables:
    def test_values_are_read_as_flags_are(self) -> None:
        made = Config.load(
            {}, {"FASTCAST_MAX_MESSAGE": "1.5MiB", "FASTCAST_PING_INTERVAL": "0", "FASTCAST_SHARDS": " 2 "}
        )
        assert (made.max_message, made.ping_interval, made.shards) == (1536 * KIB, 0.0, 2)

    def test_commas_separate_several_values(self) -> None:
        assert Config.load({}, {"FASTCAST_SUBPROTOCOL": "chat.v2, chat,"}).subprotocol == ("chat.v2", "chat")

    @pytest.mark.parametrize(
        ("word", "page"),
        [("1", True), ("Yes", True), ("on", True), ("0", False), ("FALSE", False), ("no", False)],
    )
    def test_a_switch_understands_common_words(self, word: str, page: bool) -> None:
        assert Config.load({}, {"FASTCAST_PAGE": word}).page is page

    def test_an_error_names_the_variable(self) -> None:
        assert load_error(environ={"FASTCAST_PORT": "http"}) == (
            "FASTCAST_PORT: expected a whole number, not 'http'"
        )
        assert load_error(environ={"FASTCAST_PAGE": "maybe"}) == (
            "FASTCAST_PAGE: expected true or false, not 'maybe'"
        )
        assert load_error(environ={"FASTCAST_PING_TIMEOUT": "1d"}) == (
            "FASTCAST_PING_TIMEOUT: '1d' is not a duration (write 500ms, 20s, 1.5m or 1h)"
        )

    def test_variables_of_other_programs_are_ignored(self) -> None:
        assert Config.load({}, {"PORT": "1", "FASTCAST_": "1", "fastcast_port": "1"}) == Config()


class TestFlags:
    def test_an_error_names_the_flag(self) -> None:
        assert load_error({"max_queue": "lots"}).startswith("--max-queue: 'lots' is not a size")
        assert load_error({"port": "99999"}) == "--port: 99999 is not between 0 and 65535"
        assert load_error({"port": "9" * 10_000}).startswith("--port: expected a whole number")


class TestFile:
    def test_every_kind_of_value_is_read(self, toml: Path) -> None:
        toml.write_text(
            'host = "::1"\nport = 0\nshards = "auto"\npage = false\norigin = ["https://a.b"]\n'
            'max_queue = "4MiB"\nmax_message = 1024\nping_interval = 1.5\nping_timeout = "2s"\n'
            'log_level = "debug"\n'
        )
        assert Config.load({}, {}, toml) == Config(
            host="::1",
            port=0,
            max_queue=4 * MIB,
            max_message=1024,
            ping_interval=1.5,
            ping_timeout=2.0,
            page=False,
            origin=("https://a.b",),
            log_level="debug",
        )

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('port = "8000"', "port: expected a whole number, not '8000'"),
            ("port = true", "port: expected a whole number, not True"),
            ("port = 8000.5", "port: expected a whole number, not 8000.5"),
            ('page = "yes"', "page: expected true or false, not 'yes'"),
            ('origin = "https://a.b"', "origin: expected a list of strings, not 'https://a.b'"),
            ("ping_interval = nan", "ping_interval: nan seconds is not 0 or between 0.01s and 24h"),
            ("host = 2026-01-01", "host: expected a string, not datetime.date(2026, 1, 1)"),
        ],
    )
    def test_an_error_names_file_and_key(self, toml: Path, line: str, message: str) -> None:
        toml.write_text(line)
        assert load_error(file=toml) == f"{toml}: {message}"

    @pytest.mark.parametrize(
        ("key", "hint"), [("max_queu", "max_queue"), ("max-queue", "max_queue"), ("orgin", "origin")]
    )
    def test_an_unknown_key_is_met_with_the_nearest_option(self, toml: Path, key: str, hint: str) -> None:
        toml.write_text(f"{key} = 1")
        assert load_error(file=toml) == f"{toml}: unknown option {key!r} (did you mean {hint}?)"

    def test_an_unknown_key_like_no_option_gets_no_suggestion(self, toml: Path) -> None:
        toml.write_text("[xyzzy]\nport = 1")
        assert load_error(file=toml) == f"{toml}: unknown option 'xyzzy'"

    def test_a_missing_file_is_an_error(self, toml: Path) -> None:
        assert load_error(file=toml) == f"{toml}: No such file or directory"

    def test_a_directory_is_an_error(self, tmp_path: Path) -> None:
        assert load_error(file=tmp_path) == f"{tmp_path}: Is a directory"

    @pytest.mark.parametrize("content", [b"port = ", b"port 1", b"a = 1\na = 2", b"x = '\xff'", b'x = "'])
    def test_a_file_that_is_not_toml_is_an_error(self, toml: Path, content: bytes) -> None:
        toml.write_bytes(content)
        assert load_error(file=toml).startswith(f"{toml}: not valid TOML: ")

    def test_an_empty_file_changes_nothing(self, toml: Path) -> None:
        toml.write_text("# nothing here\n")
        assert Config.load({}, {}, toml) == Config()
