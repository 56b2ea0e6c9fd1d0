"""fastcast.Publisher over real HTTP: before an admin port, and before ports that fail it."""

from __future__ import annotations

import contextlib
import gc
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from weakref import ref

import pytest
import urllib3

import fastcast
from fastcast import PublishError
from fastcast.batches import Background, Batch
from fastcast.errors import OverloadError
from tests.support.fake_server import TOKEN, FakeServer, Port, admin_port
from tests.support.wire import TIMEOUT

Answer = tuple[int, dict[str, str], bytes] | None
"""Status, headers and body; None hangs up without a word."""

GOOD: Answer = (200, {}, b'{"subscribers": [5]}')


@pytest.fixture
def port(nothing_left: None) -> Iterator[Port]:
    with admin_port() as port:
        yield port


@pytest.fixture
def server(port: Port) -> FakeServer:
    return port.server


@pytest.fixture
def publisher(port: Port) -> Iterator[fastcast.Publisher]:
    with fastcast.Publisher(port.url, TOKEN, timeout=TIMEOUT) as publisher:
        yield publisher


class Faulty:
    """An HTTP server that gives the answers it is told to, in turn, and keeps what it was asked.

    With a port behind it, what it is asked is done there first, and the port's own answer follows those.
    """

    def __init__(self, answers: tuple[Answer, ...], behind: Port | None) -> None:
        self.answers = list(answers)
        self.behind = behind
        self.keys: list[str] = []
        self.bodies: list[bytes] = []
        self.targets: list[str] = []
        self.url = ""

    def answer(self, target: str, body: bytes, key: str, kind: str) -> Answer:
        """What is said to a request."""
        self.targets.append(target)
        self.keys.append(key)
        self.bodies.append(body)
        own: Answer = None
        if self.behind is not None:
            told = self.behind.ask("POST", target, body, Idempotency_Key=key, Content_Type=kind)
            own = told.status, {}, told.body
        return self.answers.pop(0) if self.answers else own


@contextlib.contextmanager
def faulty(*answers: Answer, behind: Port | None = None) -> Iterator[Faulty]:
    """The server for the time of the block."""
    told = Faulty(answers, behind)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            given = self.headers
            body = self.rfile.read(int(given["Content-Length"]))
            answer = told.answer(self.path, body, given["Idempotency-Key"], given["Content-Type"])
            if answer is None:
                self.close_connection = True
                return
            status, headers, body = answer
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()


def in_threads(number: int, work: Callable[[int], object]) -> None:
    """Do it on as many threads at a time."""
    threads = [threading.Thread(target=work, args=(each,)) for each in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def until(condition: Callable[[], bool]) -> None:
    """Wait for it, for no more than TIMEOUT."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def python(code: str, port: Port) -> subprocess.CompletedProcess[str]:
    """A program of its own; its arguments are the URL and the token."""
    arguments = [sys.executable, "-c", code, port.url, TOKEN]
    return subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=TIMEOUT)


class TestPublish:
    """One message a request."""

    def test_message_goes_out_and_its_subscribers_are_told(
        self, publisher: fastcast.Publisher, server: FakeServer
    ) -> None:
        assert publisher.publish("news", "hällo", key="k & k") == 3
        assert publisher.publish("/räume/7?", b"\xff") == 0
        assert publisher.broadcast(memoryview(b"all")) == 6
        assert server.published == [
            ("news", "hällo", "k & k"),
            ("/räume/7?", b"\xff", None),
            (None, b"all", None),
        ]

    @pytest.mark.parametrize("data", ["", b"", "\x00\x01", "\ufeffx", "x" * 2**20, b"\r\n" * 1000])
    def test_data_arrives_as_it_is(
        self, publisher: fastcast.Publisher, server: FakeServer, data: str | bytes
    ) -> None:
        publisher.publish("news", data)
        with publisher.batch():
            publisher.publish("news", data)
        assert [message for _, message, _ in server.published] == [data, data]

    @pytest.mark.parametrize(
        ("channel", "data", "error"),
        [
            ("a.*", "x", ValueError),
            ("", "x", ValueError),
            ("a" * 1025, "x", ValueError),
            ("a", "\ud800", ValueError),
            (7, "x", TypeError),
            ("a", 7, TypeError),
            ("a", None, TypeError),
        ],
    )
    @pytest.mark.parametrize("batch", [False, True])
    def test_what_cannot_be_published_is_an_error_at_once(
        self, port: Port, channel: Any, data: Any, error: type[Exception], batch: bool
    ) -> None:
        with fastcast.Publisher(port.url, TOKEN, batch=batch) as publisher:
            with pytest.raises(error):
                publisher.publish(channel, data)
            with pytest.raises(TypeError):
                publisher.publish("a", "x", key=7)  # type: ignore[arg-type]
        assert port.server.published == []

    def test_threads_may_share_it(self, publisher: fastcast.Publisher, server: FakeServer) -> None:
        in_threads(20, lambda number: [publisher.publish("news", f"{number} {n}") for n in range(20)])
        assert sorted(data for _, data, _ in server.published) == sorted(
            f"{number} {n}" for number in range(20) for n in range(20)
        )

    def test_url_may_have_a_path_and_a_slash_at_its_end(self) -> None:
        with faulty(GOOD) as told:
            with fastcast.Publisher(f"{told.url}/live/") as publisher:
                assert publisher.publish("a", "x") == 5
            assert told.targets == ["/live/publish?channel=a"]

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "8001",
            "127.0.0.1:8001",
            "ws://host",
            "http://",
            "http://a:b@host",
            "http://host/?x",
            "http://[::1",
        ],
    )
    def test_wrong_url_is_an_error(self, url: str) -> None:
        with pytest.raises(ValueError, match="URL of an admin port"):
            fastcast.Publisher(url)

    @pytest.mark.parametrize("token", ["", "a\nb", "geheimnis ü"])
    def test_wrong_token_is_an_error(self, token: str) -> None:
        with pytest.raises(ValueError, match="token is empty, or not printable ASCII"):
            fastcast.Publisher("http://127.0.0.1:8001", token)

    def test_closed_one_publishes_nothing(self, port: Port) -> None:
        for batch in (False, True):
            publisher = fastcast.Publisher(port.url, TOKEN, batch=batch)
            publisher.close()
            publisher.close()
            with pytest.raises(PublishError, match="the publisher is closed"):
                publisher.publish("a", "x")


class TestErrors:
    """Each is one line that says where and why."""

    @pytest.mark.parametrize("token", [None, "another token than that"])
    def test_wrong_token_is_told(self, port: Port, token: str | None) -> None:
        with fastcast.Publisher(port.url, token) as publisher, pytest.raises(PublishError) as raised:
            publisher.publish("a", "x")
        assert str(raised.value).startswith(f"{port.url}: 401 Unauthorized: ")
        assert str(raised.value).endswith("(Authorization: Bearer TOKEN)")

    def test_what_the_server_says_is_told(self, publisher: fastcast.Publisher) -> None:
        with pytest.raises(
            PublishError, match=r"413 .*: a message of 1048577 bytes is longer than max_message"
        ):
            publisher.publish("a", b"x" * (2**20 + 1))

    @pytest.mark.parametrize(
        "answer",
        [
            (404, {}, b"not found\n"),
            (200, {}, b"<html>welcome</html>"),
            (200, {}, b'{"a": 1}'),
            (200, {}, b"[]"),
            (302, {"Location": "http://127.0.0.1:1/"}, b""),
        ],
    )
    def test_another_server_is_told(self, answer: Answer) -> None:
        where = r": is that the admin port\?$"
        with (
            faulty(answer) as told,
            fastcast.Publisher(told.url, TOKEN) as publisher,
            pytest.raises(PublishError, match=where),
        ):
            publisher.publish("a", "x")

    def test_nobody_there_is_told(self, nothing_left: None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with fastcast.Publisher(url, retries=1) as publisher, pytest.raises(PublishError) as raised:
            publisher.publish("a", "x")
        assert str(raised.value) == f"{url}: Connection refused"

    def test_who_does_not_answer_is_given_up(self, nothing_left: None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            publisher = fastcast.Publisher(url, timeout=0.05, retries=0)
            with publisher, pytest.raises(PublishError) as raised:
                publisher.publish("a", "x")
        assert str(raised.value) == f"{url}: no answer within 0.05 s"

    def test_lost_connection_is_told(self, nothing_left: None) -> None:
        with faulty(None) as told, fastcast.Publisher(told.url, retries=0) as publisher:
            with pytest.raises(PublishError) as raised:
                publisher.publish("a", "x")
            assert str(raised.value) == f"{told.url}: the connection was lost"

    def test_unknown_host_is_told(self) -> None:
        error = r"^http://nowhere\.invalid: there is no such host$"
        publisher = fastcast.Publisher("http://nowhere.invalid", retries=0)
        with publisher, pytest.raises(PublishError, match=error):
            publisher.publish("a", "x")


class TestRetries:
    """What fails in passing."""

    @pytest.mark.parametrize(
        "answer", [None, (502, {}, b""), (503, {"Retry-After": "0"}, b""), (504, {}, b"x")]
    )
    def test_it_is_tried_again_under_the_same_key(self, answer: Answer) -> None:
        with faulty(answer, GOOD, GOOD) as told, fastcast.Publisher(told.url) as publisher:
            assert publisher.publish("a", "x") == 5
            assert publisher.publish("a", "x") == 5
            assert told.bodies == [b"x"] * 3
            assert told.keys[0] == told.keys[1] != told.keys[2]

    @pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 500])
    def test_what_would_fail_again_is_not_tried_again(self, status: int) -> None:
        with faulty((status, {}, b'{"detail": "no"}')) as told, fastcast.Publisher(told.url) as publisher:
            with pytest.raises(PublishError, match=rf": {status} .*: no$"):
                publisher.publish("a", "x")
            assert len(told.keys) == 1

    def test_it_gives_up_in_the_end(self) -> None:
        busy = (503, {"Retry-After": "0"}, b'{"detail": "too much is under way"}')
        with faulty(*[busy] * 3) as told, fastcast.Publisher(told.url, retries=2) as publisher:
            with pytest.raises(PublishError, match=r": 503 .*: too much is under way$"):
                publisher.publish("a", "x")
            assert told.answers == []

    def test_it_is_not_put_off_for_long(self) -> None:
        retry = fastcast.publisher._Retry()
        assert retry.get_retry_after(urllib3.HTTPResponse(headers={"Retry-After": "86400"})) == 5
        assert retry.get_retry_after(urllib3.HTTPResponse()) is None

    def test_answer_that_is_lost_does_not_publish_twice(self, port: Port, server: FakeServer) -> None:
        with faulty(None, behind=port) as told, fastcast.Publisher(told.url, TOKEN) as publisher:
            assert publisher.publish("news", "x") == 3
            assert len(told.keys) == 2
        assert server.published == [("news", "x", None)]

    def test_batch_that_is_cut_short_goes_on(self, port: Port, publisher: fastcast.Publisher) -> None:
        server = port.server
        server.room = 2

        def overload(data: str | bytes) -> int:
            try:
                return take(data)
            except OverloadError:
                server.room = None
                raise

        take, server.broadcast = server.broadcast, overload  # type: ignore[method-assign]
        with publisher.batch() as subscribers:
            for number in range(5):
                publisher.broadcast(str(number))
        assert subscribers == [6] * 5
        assert [data for _, data, _ in server.published] == list("01234")

    def test_server_that_restarts_is_found_again(self, nothing_left: None) -> None:
        with contextlib.ExitStack() as stack:
            with admin_port() as first:
                publisher = stack.enter_context(fastcast.Publisher(first.url, TOKEN))
                publisher.publish("news", "1")
            heard: list[int] = []
            thread = threading.Thread(target=lambda: heard.append(publisher.publish("news", "2")))
            thread.start()
            second = stack.enter_context(admin_port(admin_port=first.address[1]))
            thread.join()
            assert heard == [3]
            assert second.server.published == [("news", "2", None)]


class TestBatchBlock:
    """``with publisher.batch()``."""

    def test_it_goes_out_in_order_at_its_end(self, publisher: fastcast.Publisher, server: FakeServer) -> None:
        with publisher.batch() as subscribers:
            assert publisher.publish("news", "1", key="k") == 0
            assert publisher.publish("nobody", b"2") == 0
            assert publisher.broadcast("3") == 0
            assert (subscribers, server.published) == ([], [])
        assert subscribers == [3, 0, 6]
        assert server.published == [("news", "1", "k"), ("nobody", b"2", None), (None, "3", None)]

    def test_one_that_raises_sends_nothing(self, publisher: fastcast.Publisher, server: FakeServer) -> None:
        def fail() -> None:
            with publisher.batch():
                publisher.publish("news", "x")
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert publisher.publish("news", "y") == 3
        assert server.published == [("news", "y", None)]

    def test_empty_one_asks_nothing(self) -> None:
        with faulty() as told, fastcast.Publisher(told.url) as publisher:
            with publisher.batch() as subscribers:
                pass
            assert (subscribers, told.keys) == ([], [])

    def test_blocks_within_blocks_keep_the_order(
        self, publisher: fastcast.Publisher, server: FakeServer
    ) -> None:
        with publisher.batch() as outer:
            publisher.publish("news", "1")
            with publisher.batch() as inner:
                publisher.publish("news", "2")
                publisher.publish("nobody", "3")
            assert inner == [3, 0]
            publisher.publish("news", "4")
        assert outer == [3, 3]
        assert [data for _, data, _ in server.published] == list("1234")

    def test_too_many_for_a_request_go_out_in_several(self, port: Port) -> None:
        with faulty(behind=port) as told, fastcast.Publisher(told.url, TOKEN) as publisher:
            with publisher.batch() as subscribers:
                for number in range(2500):
                    publisher.publish("news", str(number))
                assert len(told.bodies) == 2
            assert subscribers == [3] * 2500
            assert [len(json.loads(body)["messages"]) for body in told.bodies] == [1000, 1000, 500]
        assert [data for _, data, _ in port.server.published] == [str(number) for number in range(2500)]

    def test_it_is_of_its_own_thread(self, publisher: fastcast.Publisher, server: FakeServer) -> None:
        with publisher.batch():
            publisher.publish("news", "collected")
            in_threads(1, lambda _: publisher.publish("news", "at once"))
            assert server.published == [("news", "at once", None)]

    def test_its_failure_is_told_at_its_end(self) -> None:
        with (
            faulty((500, {}, b'{"detail": "no"}')) as told,
            fastcast.Publisher(told.url) as publisher,
            pytest.raises(PublishError, match=r": no$"),
            publisher.batch(),
        ):
            publisher.publish("news", "x")


class TestBackground:
    """``Publisher(batch=True)``."""

    LONG = 6 * TIMEOUT
    """Seconds to linger for who isn't hurried."""

    def test_messages_arrive_in_order_and_together(self, port: Port, nothing_left: None) -> None:
        with faulty(behind=port) as told:
            with fastcast.Publisher(told.url, TOKEN, batch=True, linger=self.LONG) as publisher:
                for number in range(100):
                    assert publisher.publish("news", str(number)) == 0
                publisher.flush()
                assert len(port.server.published) == 100
                publisher.broadcast(b"last")
            assert len(told.bodies) == 2
        assert [data for _, data, _ in port.server.published] == [*map(str, range(100)), b"last"]

    def test_they_are_sent_without_being_asked_for(self, port: Port) -> None:
        with fastcast.Publisher(port.url, TOKEN, batch=True, linger=0.01) as publisher:
            publisher.publish("news", "x")
            until(lambda: bool(port.server.published))

    def test_full_batch_does_not_linger(self, port: Port) -> None:
        with fastcast.Publisher(port.url, TOKEN, batch=True, linger=self.LONG) as publisher:
            for number in range(1001):
                publisher.publish("news", str(number))
            until(lambda: len(port.server.published) == 1000)

    def test_block_goes_after_what_was_collected(self, port: Port) -> None:
        with fastcast.Publisher(port.url, TOKEN, batch=True, linger=self.LONG) as publisher:
            publisher.publish("news", "1")
            with publisher.batch() as subscribers:
                publisher.publish("news", "2")
            assert subscribers == [3]
            assert [data for _, data, _ in port.server.published] == ["1", "2"]

    @pytest.mark.parametrize("what", ["flush", "close", "publish", "batch"])
    def test_failure_comes_out_of_the_next_call_once(self, what: str) -> None:
        with faulty((500, {}, b'{"detail": "no"}'), GOOD) as told:
            publisher = fastcast.Publisher(told.url, batch=True, linger=0 if what == "publish" else self.LONG)
            publisher.publish("news", "1")
            until(lambda: bool(told.keys) or what != "publish")
            error = rf"^1 message was collected, but not published: {told.url}: 500 .*: no$"
            with pytest.raises(PublishError, match=error):
                self.next_call(publisher, what)
            publisher.close()
            assert len(told.keys) == 1

    @staticmethod
    def next_call(publisher: fastcast.Publisher, what: str) -> None:
        if what == "batch":
            with publisher.batch():
                pass
        elif what == "publish":
            # The failure may take a moment more; what is collected meanwhile goes out.
            while True:
                publisher.publish("news", "2")
        else:
            getattr(publisher, what)()

    def test_threads_may_share_it(self, port: Port) -> None:
        with fastcast.Publisher(port.url, TOKEN, batch=True) as publisher:
            in_threads(10, lambda one: [publisher.publish("news", f"{one} {n}") for n in range(500)])
        got = [str(data).split() for _, data, _ in port.server.published]
        for one in range(10):
            assert [n for number, n in got if number == str(one)] == [str(n) for n in range(500)]

    def test_it_is_collected_as_garbage(self, port: Port, nothing_left: None) -> None:
        publisher = fastcast.Publisher(port.url, TOKEN)
        publisher.publish("news", "x")
        weak = ref(publisher)
        del publisher
        gc.collect()
        assert weak() is None

    def test_what_is_collected_is_sent_when_the_program_ends(self, port: Port) -> None:
        done = python(
            "import fastcast, sys\n"
            "publisher = fastcast.Publisher(*sys.argv[1:], batch=True, linger=60)\n"
            "publisher.publish('news', 'last words')",
            port,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert port.server.published == [("news", "last words", None)]

    def test_what_cannot_be_sent_when_the_program_ends_is_told(self) -> None:
        with faulty((500, {}, b'{"detail": "no"}')) as told:
            done = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    f"import fastcast; fastcast.Publisher({told.url!r}, batch=True).publish('news', 'x')",
                ],
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
            )
        assert "1 message was collected, but not published" in done.stderr

    def test_child_of_a_fork_does_not_send_what_its_parent_collected(self, port: Port) -> None:
        done = python(
            "import fastcast, os, sys\n"
            "publisher = fastcast.Publisher(*sys.argv[1:], batch=True, linger=60)\n"
            "publisher.publish('news', 'parent')\n"
            "child = os.fork()\n"
            "if child == 0:\n"
            "    publisher.publish('news', 'child')\n"
            "    publisher.close()\n"
            "    os._exit(0)\n"
            "os.waitpid(child, 0)\n",
            port,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert [data for _, data, _ in port.server.published] == ["child", "parent"]

    def test_child_of_a_fork_does_not_send_what_a_block_of_its_parent_has(self, port: Port) -> None:
        done = python(
            "import fastcast, os, sys\n"
            "publisher = fastcast.Publisher(*sys.argv[1:])\n"
            "with publisher.batch():\n"
            "    publisher.publish('news', 'parent')\n"
            "    child = os.fork()\n"
            "    if child == 0:\n"
            "        publisher.publish('news', 'child')\n"
            "if child:\n"
            "    os.waitpid(child, 0)\n",
            port,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(str(data) for _, data, _ in port.server.published) == ["child", "parent"]

    def test_message_that_is_refused_takes_no_other_along(self, port: Port) -> None:
        publisher = fastcast.Publisher(port.url, TOKEN, batch=True, linger=self.LONG)
        for number in range(20):
            publisher.publish("news", str(number) if number != 7 else "x" * (2**20 + 1))
        with pytest.raises(PublishError, match=r"^1 message was collected, but not published: .* 413 "):
            publisher.close()
        assert [data for _, data, _ in port.server.published] == [str(n) for n in range(20) if n != 7]


class TestCollecting:
    """What waits for requests: how much, and who waits with it."""

    def test_batch_has_limits(self) -> None:
        batch = Batch()
        assert batch.takes(b"x" * 2**20)
        batch.add(b"x")
        assert not batch.takes(b"x" * 2**19)
        assert batch.takes(b"x" * 2**18)
        for _ in range(999):
            assert batch.takes(b"x")
            batch.add(b"x")
        assert not batch.takes(b"x")

    def test_who_collects_too_much_waits(self, nothing_left: None) -> None:
        gate, sent = threading.Event(), list[bytes]()

        def send(messages: list[bytes]) -> None:
            gate.wait(TIMEOUT)
            sent.extend(messages)

        background = Background(send, linger=0)
        large = [bytes([n]) * 2**19 for n in range(30)]
        collected: list[int] = []

        def collect(_: int) -> None:
            for message in large:
                background.add(message)
                collected.append(1)

        thread = threading.Thread(target=collect, args=(0,))
        thread.start()
        # One is being sent, eight wait, and the tenth isn't taken yet.
        until(lambda: len(collected) == 9)
        thread.join(0.05)
        assert (len(collected), sent) == (9, [])
        gate.set()
        thread.join()
        background.close()
        assert sent == large

    def test_who_waits_is_told_of_a_failure(self, nothing_left: None) -> None:
        gate = threading.Semaphore(0)

        def send(messages: list[bytes]) -> None:
            gate.acquire(timeout=TIMEOUT)
            raise PublishError("no")

        background = Background(send, linger=0)
        for _ in range(9):
            background.add(b"x" * 2**19)
        threading.Timer(0.05, gate.release).start()
        with pytest.raises(PublishError, match=r"^1 message was collected, but not published: no$"):
            background.add(b"x")
        gate.release(8)
        with pytest.raises(PublishError, match=r"^8 messages were collected, but not published: no$"):
            background.close()


def test_a_thread_that_cannot_start_takes_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    background = Background(sent.extend, 0.01)

    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError):
            background.add(b"1")
    background.add(b"2")
    background.flush()
    background.close()
    assert sent == [b"2"]
