"""The documentation's files for what stands before servers: load balancers, and containers."""

from __future__ import annotations

import re
import shlex
import shutil
import ssl
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from websockets.sync.client import ClientConnection, connect

import fastcast
from fastcast.cli import main
from fastcast.config import Config
from tests.docs.examples import ROOT, blocks
from tests.support.brokers import broker
from tests.support.hosting import hosted
from tests.support.pki import Pki
from tests.support.program import Program, free_ports, is_listening
from tests.support.wire import TIMEOUT, until

FILES = {
    block.name: block.text
    for page in ("docs/cluster.md", "docs/guides/deploying.md")
    for block in blocks(page)
    if block.name.endswith((".cfg", ".conf", ".yaml"))
}

CLUSTER = {block.name: block.text for block in blocks("docs/cluster.md")}["fastcast.toml"]

SERVERS = ("10.0.0.11:8000", "10.0.0.12:8000", "10.0.0.13:8000")
"""Where the servers are in it."""

NGINX = ROOT / "build/nginx/usr/sbin/nginx"
"""Where `make tools` unpacks it, since an installed one would start to listen."""


def haproxy(text: str, directory: Path) -> Program:
    """HAProxy with a configuration."""
    file = directory / "haproxy.cfg"
    file.write_text(re.sub(r"maxconn \d+", "maxconn 1000", text), "utf-8")
    return Program("haproxy", "-db", "-f", str(file))


def nginx(text: str, directory: Path) -> Program:
    """The same with nginx."""
    text = re.sub(r"worker_connections +\d+", "worker_connections 1000", text)
    text = re.sub(r"worker_rlimit_nofile +\d+;", "", text)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {directory}/{kind};" for kind in kinds)
    text = text.replace("http {", f"http {{ access_log off; {places}")
    file = directory / "nginx.conf"
    file.write_text(f"daemon off; pid {directory}/pid; error_log stderr;\n{text}", "utf-8")
    program = NGINX if NGINX.exists() else shutil.which("nginx")
    assert program is not None, "nginx is missing"
    return Program(str(program), "-p", str(directory), "-c", str(file))


@contextmanager
def balanced(name: str, places: Mapping[str, str], directory: Path) -> Iterator[int]:
    """A load balancer with a file of the documentation, and `places` of that where they are here.

    What is to be the port that it listens on is written as {port}.
    """
    [port] = free_ports(1)
    text = FILES[name]
    for there, here in places.items():
        assert there in text, there
        text = text.replace(there, here.format(port=port))
    proxy = (haproxy if name.endswith(".cfg") else nginx)(text, directory)

    def listens() -> bool | None:
        assert proxy.running, proxy.log()
        return is_listening(port)

    try:
        until(listens, f"{name} to listen")
        yield port
    finally:
        proxy.kill()


def visitor(url: str, address: str, tls: ssl.SSLContext | None = None) -> ClientConnection:
    """A browser at an address of its own."""
    return connect(url, proxy=None, ssl=tls, source_address=(address, 0), open_timeout=TIMEOUT)


def note_addresses(server: fastcast.Server) -> None:
    """Have a server keep the address of each client, as it's told before it lets one in."""

    @server.on_connect
    def admit(request: fastcast.Request) -> fastcast.Accept:
        return fastcast.Accept(state=request.remote)


def addresses_at(server: fastcast.Server) -> list[str]:
    """The addresses of a server's clients."""
    return [client.state for client in server.clients("/rooms/7")]


@pytest.mark.parametrize(
    ("name", "listens", "own"),
    [
        ("haproxy.cfg", {"bind :80\n": "bind 127.0.0.1:{port}\n"}, {}),
        ("nginx.conf", {"listen 80;": "listen 127.0.0.1:{port};"}, {"proxy_protocol": False}),
    ],
)
def test_clients_are_spread_known_by_their_addresses_and_served_by_who_is_left(
    name: str, listens: dict[str, str], own: dict[str, Any], tmp_path: Path
) -> None:
    addresses = [f"127.0.7.{number}" for number in range(1, 7)]
    with ExitStack() as stack:
        bus = stack.enter_context(broker("nats"))
        here = {
            "host": "127.0.0.1",
            "port": 0,
            "max_connections": 100,
            "trusted_proxy": ["127.0.0.1"],
            "bus": [bus.url],
        }
        options: dict[str, Any] = tomllib.loads(CLUSTER) | here | own
        one, two = (stack.enter_context(hosted(note_addresses, **options)) for _ in SERVERS[:2])
        with hosted(note_addresses, **options) as three:
            servers = (one, two, three)
            places = {
                place: f"127.0.0.1:{server.port}" for place, server in zip(SERVERS, servers, strict=True)
            }
            url = f"ws://127.0.0.1:{stack.enter_context(balanced(name, listens | places, tmp_path))}/rooms/7"
            visitors = [stack.enter_context(visitor(url, address)) for address in addresses]
            known = [addresses_at(each) for each in servers]
            assert [len(each) for each in known] == [2, 2, 2]
            assert sorted(address for each in known for address in each) == addresses
            visitors[0].send("hello")
            assert [each.recv(TIMEOUT) for each in visitors] == ["hello"] * 6
        # The clients of one that has gone come back at once, before the balancer's checks have found out.
        again = [stack.enter_context(visitor(url, address)) for address in known[-1]]
        assert sorted(addresses_at(one) + addresses_at(two)) == addresses
        again[0].send("anew")
        assert [each.recv(TIMEOUT) for each in again] == ["anew"] * 2


@pytest.mark.parametrize(
    ("name", "path", "places", "own"),
    [
        (
            "tls.cfg",
            "/rooms/7",
            {":443": "127.0.0.1:{port}", "/etc/haproxy/example.org.pem": "{both}"},
            {"proxy_protocol": True},
        ),
        (
            "tls.conf",
            "/live/rooms/7",
            {
                "listen 443": "listen 127.0.0.1:{port}",
                "/etc/ssl/example.org.pem": "{certificate}",
                "/etc/ssl/example.org.key": "{key}",
            },
            {},
        ),
    ],
)
def test_with_tls_servers_know_that_and_the_address(
    name: str, path: str, places: dict[str, str], own: dict[str, Any], tmp_path: Path
) -> None:
    pki = Pki(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(pki.certificate.read_bytes() + pki.key.read_bytes())
    told: list[tuple[str, str, str]] = []

    def note(server: fastcast.Server) -> None:
        @server.on_connect
        def admit(request: fastcast.Request) -> None:
            told.append((request.remote, request.scheme, request.path))

    with hosted(note, trusted_proxy=["127.0.0.1"], **own) as server:
        files = {"both": both, "certificate": pki.certificate, "key": pki.key, "port": "{port}"}
        moved = {there: here.format(**files) for there, here in places.items()}
        tls = ssl.create_default_context(cafile=pki.ca)
        with (
            balanced(name, moved | {"127.0.0.1:8000": f"127.0.0.1:{server.port}"}, tmp_path) as port,
            visitor(f"wss://127.0.0.1:{port}{path}", "127.0.7.7", tls) as client,
        ):
            client.send("hello")
            assert client.recv(TIMEOUT) == "hello"
    assert told == [("127.0.7.7", "wss", "/rooms/7")]


def test_containers_are_given_what_they_take() -> None:
    composed = yaml.safe_load(FILES["compose.yaml"])
    services = composed["services"]
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in composed["volumes"] or source.removeprefix("./") in FILES
    [line] = re.findall(r"exec (fastcast .*)", shlex.split(services["fastcast"]["command"])[-1])
    context = click.Context(main)
    name, command, arguments = main.resolve_command(context, shlex.split(line)[1:])
    assert command is not None
    parameters = command.make_context(name, arguments, parent=context).params
    del parameters["application"], parameters["config"]
    assert Config.load(parameters, {}).bus == ("nats://nats:4222",)


def test_haproxy_takes_what_is_for_containers(tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text(FILES["containers.cfg"], "utf-8")
    check = Program("haproxy", "-c", "-f", str(file))
    assert check.wait() == 0
