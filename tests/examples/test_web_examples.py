"""examples/fastapi_app and examples/django_publisher: a web application that publishes."""

from __future__ import annotations

import http.cookiejar
import json
import re
import signal
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from urllib.error import HTTPError
from urllib.parse import urlencode

import pytest
from playwright.sync_api import expect
from websockets.sync.client import connect

from tests.support.browser import chromium, collect_errors, needs_chromium
from tests.support.examples import dial, example
from tests.support.program import Program, started
from tests.support.wire import TIMEOUT, Address

UVICORN = re.compile(r"Uvicorn running on http://(?P<host>[\d.]+):(?P<port>\d+)(?P<six>)")
ADMIN = re.compile(r"admin port at http://(?P<host>[\d.]+):(?P<port>\d+)(?P<six>)")
DJANGO = re.compile(r"development server at http://(?P<host>[\d.]+):(?P<port>\d+)(?P<six>)")


@pytest.fixture(scope="module")
def app() -> Iterator[Program]:
    # With SIGTERM, uvicorn ends gracefully as well, and then by that signal.
    with example("fastapi_app", stop=signal.SIGINT) as program:
        program.await_text(UVICORN)
        yield program


class TestFastAPI:
    """An application with the server in it."""

    @staticmethod
    def ask(app: Program, path: str, order: Any = None) -> Any:
        """What the application answers, from JSON."""
        request = urllib.request.Request(
            "http://{}:{}{}".format(*app.await_address(UVICORN), path),
            None if order is None else json.dumps(order).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return json.load(response)

    def test_an_order_is_heard_by_the_customer_s_browsers(self, app: Program) -> None:
        order = {"customer": "ada", "item": "lamp", "pieces": 2}
        assert self.ask(app, "/orders", order) == {"heard": 0}
        with dial(app.await_address(), "/orders/ada") as ada, dial(app.await_address(), "/orders/bob") as bob:
            assert self.ask(app, "/orders", order) == {"heard": 1}
            assert json.loads(ada.recv(TIMEOUT)) == order
            assert self.ask(app, "/online") == {"/orders/ada": 1, "/orders/bob": 1}
            assert self.ask(app, "/orders", {**order, "customer": "bob"}) == {"heard": 1}
            assert json.loads(bob.recv(TIMEOUT))["customer"] == "bob"

    def test_an_order_that_makes_no_sense_is_refused(self, app: Program) -> None:
        with pytest.raises(HTTPError) as refused:
            self.ask(app, "/orders", {"customer": "a.>", "item": "lamp", "pieces": 2})
        refused.value.close()
        assert refused.value.code == 422


class Visitor:
    """Keeps cookies, as a browser does."""

    def __init__(self, root: str) -> None:
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._root = root
        self._opener = urllib.request.build_opener(cookies)

    def open(self, **form: str) -> tuple[int, str]:
        """GET, or POST a form; the status and the text."""
        data = urlencode(form).encode() if form else None
        try:
            with self._opener.open(self._root, data, TIMEOUT) as response:
                return response.status, response.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()


class TestDjango:
    """A view that publishes to a server beside it."""

    TOKEN: ClassVar = {"FASTCAST_ADMIN_TOKEN": "a token for the test"}
    SERVE = ("-m", "fastcast", "serve", "--port", "0", "--relay", "off", "--admin-port", "0")

    @contextmanager
    def project(self, admin: Address, clients: Address) -> Iterator[str]:
        """Where the project's page is."""
        variables = {
            **self.TOKEN,
            "ADMIN_URL": "http://{}:{}".format(*admin),
            "CLIENTS_URL": "ws://{}:{}".format(*clients),
        }
        with example("django_publisher", variables, stop=signal.SIGINT) as program:
            yield "http://{}:{}/".format(*program.await_address(DJANGO))

    @pytest.fixture
    def root(self) -> Iterator[str]:
        with (
            started(sys.executable, *self.SERVE, environ=self.TOKEN) as server,
            self.project(server.await_address(ADMIN), server.await_address()) as root,
        ):
            yield root

    def test_what_is_posted_is_heard_by_everyone(self, root: str) -> None:
        visitor = Visitor(root)
        status, page = visitor.open()
        assert status == 200
        csrf, url = (re.search(pattern, page) for pattern in (r'value="(\w+)"', r'"(ws://\S+)"'))
        assert csrf is not None
        assert url is not None
        with connect(url[1], proxy=None) as client:
            posted = visitor.open(text="We close at noon", csrfmiddlewaretoken=csrf[1])
            assert posted == (204, "")
            assert json.loads(client.recv(TIMEOUT)) == {"text": "We close at noon"}

    def test_a_post_from_another_page_is_refused(self, root: str) -> None:
        assert Visitor(root).open(text="not from here")[0] == 403

    def test_without_a_server_the_view_says_so(self) -> None:
        nowhere = "127.0.0.1", 9
        with self.project(nowhere, nowhere) as root:
            visitor = Visitor(root)
            csrf = re.search(r'value="(\w+)"', visitor.open()[1])
            assert csrf is not None
            status, text = visitor.open(text="hello", csrfmiddlewaretoken=csrf[1])
            assert status == 503
            assert text.startswith("not announced: http://127.0.0.1:9: ")

    @needs_chromium
    def test_the_page_shows_what_is_announced(self, root: str) -> None:
        errors: list[str] = []
        with chromium() as browser, browser.new_context() as context:
            pages = [context.new_page() for _ in range(2)]
            for page in pages:
                collect_errors(page, errors)
                with page.expect_websocket():
                    page.goto(root)
            pages[0].get_by_label("Announcement").fill("<i>We close at noon</i>")
            pages[0].get_by_role("button", name="Announce").click()
            for page in pages:
                expect(page.locator("#list")).to_have_text("<i>We close at noon</i>")
        # The browser asks for an icon, of which the project has none.
        assert [error for error in errors if "404" not in error] == []
