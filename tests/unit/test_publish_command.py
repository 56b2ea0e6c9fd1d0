"""``fastcast publish``, before an admin port that writes down what reaches it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fastcast.cli import main
from tests.support.fake_server import TOKEN, FakeServer, Port, admin_port


@pytest.fixture
def port(nothing_left: None) -> Iterator[Port]:
    with admin_port() as port:
        yield port


@pytest.fixture
def server(port: Port) -> FakeServer:
    return port.server


def publish(*words: str, stdin: str | bytes = "", token: str | None = TOKEN) -> Result:
    """Run the command with the token in the variable."""
    return CliRunner().invoke(
        main, ["publish", *words], input=stdin, prog_name="fastcast", env={"FASTCAST_ADMIN_TOKEN": token}
    )


def assert_silent(result: Result) -> None:
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def assert_error(result: Result, code: int, *parts: str) -> None:
    """One line on stderr that has the parts, and nothing else."""
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("fastcast: error: ")
    assert result.stderr.count("\n") == 1
    for part in parts:
        assert part in result.stderr


class TestMessage:
    """One message of the command line or of a file."""

    def test_it_is_published(self, port: Port, server: FakeServer) -> None:
        assert_silent(publish(port.url, "news", "We close at noon, très tôt"))
        assert server.published == [("news", "We close at noon, très tôt", None)]

    def test_it_may_be_empty_and_begin_with_a_dash(self, port: Port, server: FakeServer) -> None:
        assert_silent(publish(port.url, "news", ""))
        assert_silent(publish(port.url, "news", "--", "-5 degrees"))
        assert server.published == [("news", "", None), ("news", "-5 degrees", None)]

    def test_key_goes_with_it(self, port: Port, server: FakeServer) -> None:
        assert_silent(publish(port.url, "prices.eur", "1.09", "--key", "eurusd"))
        assert server.published == [("prices.eur", "1.09", "eurusd")]

    def test_file_is_one_binary_message(self, port: Port, server: FakeServer, tmp_path: Path) -> None:
        (tmp_path / "chart.png").write_bytes(b"\x89PNG\n\n\xff")
        assert_silent(publish(port.url, "images", "--binary-file", str(tmp_path / "chart.png")))
        assert_silent(publish(port.url, "images", "--binary-file", "-", stdin=b"\xfe\n"))
        assert server.published == [("images", b"\x89PNG\n\n\xff", None), ("images", b"\xfe\n", None)]

    def test_token_of_the_command_line_wins(self, port: Port, server: FakeServer) -> None:
        assert_silent(publish(port.url, "news", "x", "--token", TOKEN, token="another one than that"))
        assert len(server.published) == 1


class TestLines:
    """Each line of standard input."""

    def test_each_is_a_message_without_its_end(self, port: Port, server: FakeServer) -> None:
        assert_silent(publish(port.url, "news", "--key", "k", stdin="1\n\n 2\u2028 \r\nlast"))
        assert server.published == [("news", line, "k") for line in ("1", "", " 2\u2028 \r", "last")]

    def test_no_input_is_no_message(self, port: Port, server: FakeServer) -> None:
        assert_silent(publish(port.url, "news"))
        assert server.published == []

    def test_many_keep_their_order(self, port: Port, server: FakeServer) -> None:
        lines = [str(number) for number in range(5000)]
        assert_silent(publish(port.url, "news", stdin="\n".join(lines)))
        assert [data for _, data, _ in server.published] == lines

    def test_what_is_no_text_is_told_with_its_line_and_the_lines_before_it_are_published(
        self, port: Port, server: FakeServer
    ) -> None:
        result = publish(port.url, "news", stdin=b"one\n\xff\nthree\n")
        assert_error(result, 1, "line 2 is not valid UTF-8")
        assert server.published == [("news", "one", None)]


class TestErrors:
    """One line, and an exit status that tells a user's mistake from a failure."""

    @pytest.mark.parametrize("stdin", [None, "x"])
    def test_wrong_token(self, port: Port, server: FakeServer, stdin: str | None) -> None:
        words = ("news", "x") if stdin is None else ("news",)
        result = publish(port.url, *words, stdin=stdin or "", token="another one than that")
        assert_error(result, 1, "401 Unauthorized", "Authorization: Bearer TOKEN")
        assert "another one" not in result.stderr
        assert server.published == []

    @pytest.mark.parametrize("token", [None, ""])
    def test_no_token(self, port: Port, token: str | None) -> None:
        assert_error(publish(port.url, "news", "x", token=token), 1, "401 Unauthorized: a token is needed")

    @pytest.mark.slow
    def test_nobody_there(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert_error(publish(url, "news", "x"), 1, f"{url}: Connection refused")

    @pytest.mark.parametrize(
        ("words", "part"),
        [
            (("ws://host", "news", "x"), "is not the URL of an admin port"),
            (("http://host", "a.*", "x"), "a.*"),
            (("http://host", "", "x"), "channel"),
            (("http://host", "news", "x", "--token", "a b\nc"), "not printable ASCII"),
            (("http://host", "news", "x", "--binary-file", __file__), "exclude each other"),
            (("http://host", "news", "--binary-file", "/nowhere"), "No such file"),
            (("http://host",), "CHANNEL"),
            (("http://host", "news", "x", "y"), "unexpected extra argument"),
        ],
    )
    def test_wrong_usage(self, words: tuple[str, ...], part: str) -> None:
        assert_error(publish(*words), 2, part)


def test_help_teaches() -> None:
    text = " ".join(publish("--help").stdout.split())
    for lesson in ("FASTCAST_ADMIN_TOKEN", "each line of standard input", "--binary-file", "Exit status: 0"):
        assert lesson in text
    assert text.count("fastcast publish http://") >= 3
