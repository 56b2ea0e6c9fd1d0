"""What a reader would try with each program of the documentation, and has to see."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

from tests.docs.scene import Scene, Visitor
from tests.support.program import Program
from tests.support.wire import until

Conversation: TypeAlias = Callable[[Scene], None]

CONVERSATIONS: Final[dict[str, list[Conversation]]] = {}
"""By the program's title; one for each of its versions, in the order of the page."""

TOKEN: Final = {"FASTCAST_ADMIN_TOKEN": "change-this-secret"}


def holds(*titles: str) -> Callable[[Conversation], Conversation]:
    """The conversation is with the next version of these programs."""

    def add(conversation: Conversation) -> Conversation:
        for title in titles:
            CONVERSATIONS.setdefault(title, []).append(conversation)
        return conversation

    return add


# ---- README, index ----


@holds("README: prices.py")
def prices_are_told(scene: Scene) -> None:
    scene.start()
    with scene.client("/prices") as client:
        client.hears({"EURUSD": 1.0842})


@holds("README: chat.py")
def people_have_names(scene: Scene) -> None:
    scene.start()
    assert scene.status("/rooms/7") == 400
    with scene.client("/rooms/7?name=Ada") as ada:
        ada.hears("welcome")
        with scene.client("/rooms/7?name=Bob") as bob:
            bob.hears("welcome")
            bob.send("hello")
            ada.hears("Bob: hello")
            bob.hears("Bob: hello")
        ada.hears("Bob has left")


@holds("index: chat.py")
def everybody_hears_everybody(scene: Scene) -> None:
    scene.start()
    with scene.client("/rooms/7") as one, scene.client("/rooms/7") as other:
        one.send("hello")
        one.hears("hello")
        other.hears("hello")


# ---- tutorial ----


@holds("tutorial: clock.py")
def clock_ticks(scene: Scene) -> None:
    scene.start()
    with scene.client("/clock") as client:
        assert re.fullmatch(r"\d\d:\d\d:\d\d", client.text())


@holds("tutorial: dashboard.py")
def each_sees_what_is_theirs(scene: Scene) -> None:
    scene.start()
    assert scene.status("/?user=mallory") == scene.status() == 403
    with scene.client("/?user=ada") as ada, scene.client("/?user=bob") as bob:
        assert {ada.next()["machine"] for _ in range(4)} == {"web1", "web2"}
        assert {bob.next()["machine"] for _ in range(2)} == {"db1"}


@holds("tutorial: dashboard.py")
def page_and_its_buttons_work(scene: Scene) -> None:
    scene.start()
    assert "<title>Dashboard</title>" in scene.get("/?user=ada")
    restart_machines(scene, "/?user=ada", "/?user=bob")


def restart_machines(scene: Scene, ada_s: str, bob_s: str) -> None:
    """Each sees the state at once, and may restart their own."""
    with scene.client(ada_s) as ada, scene.client(bob_s) as bob:
        assert [ada.next()["machine"] for _ in range(2)] == ["web1", "web2"]
        bob.send(json.dumps({"restart": "web1"}))
        bob.send(json.dumps({"restart": "db1"}))
        alerts = (message["alert"] for message in iter(bob.next, None) if "alert" in message)
        assert next(alerts) == "db1 was restarted"
        ada.send(json.dumps({"restart": "web2"}))
        alerts = (message["alert"] for message in iter(ada.next, None) if "alert" in message)
        assert next(alerts) == "web2 was restarted"


@holds("tutorial: login.py")
def login_makes_a_token(scene: Scene) -> None:
    assert scene.run("login.py", "ada").count(".") == 2


@holds("tutorial: dashboard.py")
def tokens_are_asked_for(scene: Scene) -> None:
    scene.start()
    ada, bob = (f"/?token={scene.run('login.py', user).strip()}" for user in ("ada", "bob"))
    assert scene.status() == scene.status("/?user=ada") == 401
    assert scene.status(ada.replace(".", ".x", 1)) == 401
    assert "<title>Dashboard</title>" in scene.get(ada)
    restart_machines(scene, ada, bob)


@holds("tutorial: alert.py")
def alert_reaches_ada(scene: Scene) -> None:
    scene.start("dashboard.py")
    scene.await_port(8001)
    token = scene.run("login.py", "ada").strip()
    with scene.client(f"/?token={token}") as ada:
        scene.run()
        alerts = (message["alert"] for message in iter(ada.next, None) if "alert" in message)
        assert next(alerts) == "web1 is on fire"
        publish = ("-m", "fastcast", "publish", "http://127.0.0.1:8001", "alerts.ada")
        environ = {"FASTCAST_ADMIN_TOKEN": "another secret to change"}
        scene.run(*publish, '{"alert": "the backup has failed"}', environ=environ)
        assert next(alerts) == "the backup has failed"


# ---- guides ----


@holds("guides/handlers: echo.py")
def client_is_greeted_and_answered(scene: Scene) -> None:
    program = scene.start()
    assert scene.status() == 400
    with scene.client("/?name=Ada") as ada:
        ada.hears("hello, Ada")
        ada.send("good morning")
        ada.hears("Ada said good morning")
    await_output(program, "Ada left with 1000")


def await_output(program: Program, line: str) -> None:
    """Wait until the program has printed the line."""
    until(lambda: line in program.output().splitlines() or None, line)


@holds("guides/channels: rates.py")
def client_chooses_its_channels(scene: Scene) -> None:
    scene.start()
    with scene.client("/?pairs=eurchf") as one, scene.client("/?pairs=eurchf,eurusd") as both:
        assert {one.next()["pair"] for _ in range(2)} == {"eurchf"}
        assert {both.next()["pair"] for _ in range(2)} == {"eurchf", "eurusd"}


@holds("guides/slow-clients: prices.py")
def prices_have_keys(scene: Scene) -> None:
    scene.start()
    with scene.client("/prices") as client:
        assert {client.next()["symbol"] for _ in range(6)} == {"AAA", "BBB", "CCC"}


@holds("guides/publishing: live.py")
def server_has_an_admin_port(scene: Scene) -> None:
    scene.start()
    scene.await_port(8001)
    headers = {"Authorization": "Bearer change-this-secret", "Content-Type": "text/plain"}
    with scene.client("/news") as client:
        assert json.loads(scene.post("/publish?channel=/news", 8001, b"hello", headers)) == {
            "subscribers": [1]
        }
        headers["Content-Type"] = "application/json"
        message = b'{"channel": "/news", "data": "hello again"}'
        assert json.loads(scene.post("/publish", 8001, message, headers)) == {"subscribers": [1]}
        client.hears("hello", "hello again")
        client.send("nobody hears this")


@holds("guides/publishing: notify.py")
def news_are_told(scene: Scene) -> None:
    with live(scene, "news") as client:
        assert scene.run() == "1\n"
        client.hears("We close at noon", "The server restarts at six")
        publish = ("-m", "fastcast", "publish", "http://127.0.0.1:8001", "news", "from the shell")
        scene.run(*publish, environ=TOKEN)
        client.hears("from the shell")


@holds("guides/publishing: order.py")
def shipping_is_told_if_it_can_be(scene: Scene) -> None:
    assert scene.run() == ""  # there is no server
    with live(scene, "orders.7") as client:
        scene.run()
        client.hears("shipped")


@holds("guides/publishing: many.py")
def many_come_in_order(scene: Scene) -> None:
    with live(scene, "tables.7") as client:
        assert scene.run() == "100\n"
        rows = [f"row {number}" for number in range(7, 1000, 10)]
        client.hears(*rows, *rows)


@contextmanager
def live(scene: Scene, channel: str) -> Iterator[Visitor]:
    """A client of a server that other programs publish to."""
    program = """if True:
        import fastcast
        server = fastcast.Server(port=8000, admin_port=8001, admin_token="change-this-secret")
        server.on_connect(lambda request: fastcast.Accept([request.query["channel"]]))
        server.run()
    """
    scene.start("-c", program)
    scene.await_port(8001)
    with scene.client(f"/?channel={channel}") as client:
        yield client


@holds("guides/presence: lobby.py")
def who_is_there_is_told(scene: Scene) -> None:
    scene.start()
    with scene.client("/lobby?name=Ada") as ada:
        ada.hears({"here": ["Ada"]}, {"came": "Ada"})
        with scene.client("/lobby?name=Bob") as bob:
            bob.hears({"here": ["Ada", "Bob"]}, {"came": "Bob"})
            ada.hears({"came": "Bob"})
        ada.hears({"left": "Bob"})


@holds("guides/embedding: chat.py")
def program_and_command_do_the_same(scene: Scene) -> None:
    scene.start()
    scene.start("-m", "fastcast", "serve", "chat:server", "--port", "8001", listens=8001)
    for port in (8000, 8001):
        with scene.client("/rooms/7", port=port) as client:
            client.send("hello")
            client.hears("HELLO")


@holds("guides/embedding: worker.py")
def work_is_told(scene: Scene) -> None:
    scene.start()
    with scene.client("/jobs") as client:
        assert re.fullmatch(r"job \d+ is done", client.text())


@holds("guides/embedding: shop.py")
def shop_tells_of_orders(scene: Scene) -> None:
    scene.start(listens=8080)
    with scene.client("/orders/ada") as ada:
        assert json.loads(scene.post("/orders/ada?item=lamp", port=8080)) == {"heard": 1}
        ada.hears("lamp")


@holds("guides/embedding: sensor.py")
def sensor_answers(scene: Scene) -> None:
    scene.start()
    with scene.client("/temperature") as client:
        assert 20 <= float(client.text()) <= 25
        client.send("how warm?")
        answers = (message for message in iter(client.next, None) if isinstance(message, str))
        assert next(answers) == "you said how warm?"


@holds("guides/admission: door.py")
def door_opens_for_users(scene: Scene) -> None:
    scene.start()
    assert scene.status() == 401
    with scene.client(additional_headers={"Cookie": "session=s3cr3t-of-ada"}) as ada:
        ada.hears("welcome, ada")


@holds("guides/admission: server.py")
def server_asks_for_a_token(scene: Scene) -> None:
    scene.start()
    assert scene.status() == scene.status("/?token=eyJ") == 401


@holds("guides/admission: login.py")
def token_opens_in_every_place(scene: Scene) -> None:
    scene.start("server.py")
    token = scene.run().strip()
    for place, options in (
        (f"/?token={token}", {}),
        ("/", {"subprotocols": ["bearer", token]}),
        ("/", {"additional_headers": {"Authorization": f"Bearer {token}"}}),
        ("/", {"additional_headers": {"Cookie": f"token={token}"}}),
    ):
        assert scene.status(place, **options) == 101


# ---- coming from ----


@holds("coming-from/websockets: with_websockets.py", "coming-from/websockets: with_fastcast.py")
def rooms_are_chats(scene: Scene) -> None:
    scene.start()
    with scene.client("/a?name=Ada") as ada, scene.client("/b?name=Eve") as eve:
        with scene.client("/a?name=Bob") as bob:
            bob.send("hello")
            ada.hears("Bob: hello")
            bob.hears("Bob: hello")
        ada.hears("Bob has left")
        eve.send("alone")
        eve.hears("Eve: alone")


@holds("coming-from/django-channels: with_channels.py")
def channels_relay(scene: Scene) -> None:
    scene.start()
    with scene.client("/rooms/7") as one, scene.client("/rooms/7") as other:
        one.send("hello")
        one.hears("hello")
        other.hears("hello")


@holds("coming-from/django-channels: with_fastcast.py")
def server_relays_and_announces(scene: Scene) -> None:
    scene.serve("--admin-port", "8001", environ=TOKEN)
    scene.await_port(8001)
    with scene.client("/rooms/7") as one, scene.client("/rooms/7") as other:
        one.send("hello")
        one.hears("hello")
        other.hears("hello")
        scene.run(environ=TOKEN)
        one.hears("dinner is ready")


@holds("coming-from/django-channels: tokens.py")
def view_makes_a_token(scene: Scene) -> None:
    secret = {"FASTCAST_JWT_SECRET": "change this: at least 32 bytes, and secret"}
    scene.serve("--relay", "off", environ=secret)
    assert scene.status(f"/?token={scene.run().strip()}") == 101
    assert scene.status("/") == 401


@holds("coming-from/socketio: with_socketio.py")
def events_reach_the_room(scene: Scene) -> None:
    scene.start()
    with scene.client("/socket.io/?EIO=4&transport=websocket&name=Ada") as ada:
        # Engine.IO: 0 is its handshake, 4 a message; Socket.IO: 0 connects, 2 is an event.
        assert ada.text().startswith("0{")
        ada.send("40")
        assert ada.text().startswith("40{")
        ada.send('42["say","hello"]')
        ada.hears('42["said",{"name":"Ada","text":"hello"}]')


@holds("coming-from/socketio: with_fastcast.py")
def events_are_messages(scene: Scene) -> None:
    scene.start()
    assert scene.status() == 400
    with scene.client("/?name=Ada") as ada:
        ada.send('{"event": "say", "data": "hello"}')
        ada.hears({"event": "said", "data": {"name": "Ada", "text": "hello"}})


@holds("coming-from/centrifugo: notify.py")
def news_reach_who_has_a_token(scene: Scene) -> None:
    scene.serve("--config", "fastcast.toml")
    scene.await_port(8001)
    token = scene.run().strip()
    with scene.client(origin="https://example.org", subprotocols=["bearer", token]) as ada:
        assert scene.run().strip()
        ada.hears({"text": "hello"})
