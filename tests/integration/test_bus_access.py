"""How servers get at a bus that doesn't let in everybody: TLS, passwords, nkeys, credentials, Sentinels."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nkeys
import pytest

import fastcast
from tests.support.brokers import Broker, broker, cluster
from tests.support.hosting import ServerFactory, address_of, await_true
from tests.support.pki import Pki
from tests.support.wire import TIMEOUT, Client

OPERATOR, ACCOUNT, USER = (kind << 3 for kind in (14, 0, 20))


def new_key(kind: int) -> tuple[str, nkeys.KeyPair, bytes]:
    """A key of NATS: its public name, the pair, and its seed."""
    seed = nkeys.encode_seed(os.urandom(32), kind)
    pair = nkeys.from_seed(bytearray(seed))
    return pair.public_key.decode(), pair, bytes(seed)


def signed(claims: Mapping[str, Any], issuer: str, by: nkeys.KeyPair) -> str:
    """A token as NATS wants it."""

    def encoded(part: bytes) -> str:
        return base64.urlsafe_b64encode(part).rstrip(b"=").decode()

    claims = {"iat": 1_700_000_000, "iss": issuer, **claims}
    claims["jti"] = (
        base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")
    )
    head = encoded(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
    text = f"{head}.{encoded(json.dumps(claims).encode())}"
    return f"{text}.{encoded(by.sign(text.encode()))}"


def reaches(server: ServerFactory, url: str, **options: Any) -> None:
    """A message goes through the bus."""
    with (
        server(bus=(url,), **options) as one,
        server(bus=(url,), **options) as two,
        Client(address_of(two), "/a") as client,
    ):
        one.publish("/a", "hello")
        assert client.read_message().payload == b"hello"


def is_turned_away(server: ServerFactory, url: str, **options: Any) -> None:
    """The server doesn't start, and says why in a line."""
    with pytest.raises(fastcast.StartError, match="bus") as refused, server(bus=(url,), **options):
        pass
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


class TestNats:
    def test_tls_with_certificates_on_both_sides(self, server: ServerFactory, tmp_path: Path) -> None:
        pki = Pki(tmp_path)
        tls = (
            "--tls",
            f"--tlscert={pki.certificate}",
            f"--tlskey={pki.key}",
            f"--tlscacert={pki.ca}",
            "--tlsverify",
        )
        both = {"bus_ca": str(pki.ca), "bus_certificate": str(pki.certificate), "bus_key": str(pki.key)}
        with broker("nats", *tls) as bus:
            url = f"tls://127.0.0.1:{bus.port}"
            reaches(server, url, **both)
            is_turned_away(server, url, bus_ca=str(pki.ca))
            is_turned_away(server, url)

    def test_user_and_password(self, server: ServerFactory) -> None:
        with broker("nats", "--user=ann", "--pass=secret") as bus:
            reaches(server, f"nats://ann:secret@127.0.0.1:{bus.port}")
            is_turned_away(server, f"nats://ann:secretly@127.0.0.1:{bus.port}")
            is_turned_away(server, bus.url)

    def test_an_nkey(self, server: ServerFactory, tmp_path: Path) -> None:
        public, _, seed = new_key(USER)
        _, _, wrong = new_key(USER)
        (tmp_path / "nkey").write_bytes(seed)
        (tmp_path / "wrong").write_bytes(wrong)
        (tmp_path / "nats.conf").write_text(f"authorization: {{ users: [ {{ nkey: {public} }} ] }}\n")
        with broker("nats", "-c", str(tmp_path / "nats.conf")) as bus:
            reaches(server, bus.url, bus_nkey=str(tmp_path / "nkey"))
            is_turned_away(server, bus.url, bus_nkey=str(tmp_path / "wrong"))
            is_turned_away(server, bus.url, bus_nkey=str(tmp_path / "none"))

    def test_credentials(self, server: ServerFactory, tmp_path: Path) -> None:
        operator, operator_pair, _ = new_key(OPERATOR)
        account, account_pair, _ = new_key(ACCOUNT)
        user, _, user_seed = new_key(USER)
        limits = {"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1}
        of_operator = signed(
            {"name": "op", "sub": operator, "nats": {"type": "operator", "version": 2}},
            operator,
            operator_pair,
        )
        of_account = signed(
            {
                "name": "acc",
                "sub": account,
                "nats": {"type": "account", "version": 2, "limits": limits | {"wildcards": True}},
            },
            operator,
            operator_pair,
        )
        of_user = signed(
            {
                "name": "me",
                "sub": user,
                "nats": {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1},
            },
            account,
            account_pair,
        )
        (tmp_path / "nats.conf").write_text(
            f"operator: {of_operator}\nresolver: MEMORY\nresolver_preload: {{ {account}: {of_account} }}\n"
        )
        (tmp_path / "creds").write_text(
            f"-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user_seed.decode()}\n------END USER NKEY SEED------\n"
        )
        with broker("nats", "-c", str(tmp_path / "nats.conf")) as bus:
            reaches(server, bus.url, bus_credentials=str(tmp_path / "creds"))
            is_turned_away(server, bus.url)

    @pytest.mark.parametrize(
        ("login", "options"),
        [("ann:secret", ("--user=ann", "--pass=secret")), ("secret", ("--auth=secret",))],
    )
    def test_servers_of_the_cluster_that_were_not_given_let_in_the_same(
        self, server: ServerFactory, login: str, options: tuple[str, ...]
    ) -> None:
        def told(broker: Broker) -> bytes:
            """What it tells whoever connects."""
            with socket.create_connection(("127.0.0.1", broker.port), TIMEOUT) as connection:
                return connection.makefile("rb").readline()

        with cluster(2, *options) as (given, other):
            await_true(lambda: b"%d" % other.port in told(given), "the brokers to know each other")
            with (
                server(bus=(f"nats://{login}@127.0.0.1:{given.port}",)) as one,
                Client(address_of(one), "/a") as client,
            ):
                given.kill()
                await_true(lambda: one.stats()["bus"]["losses"] == 1, "the loss")
                await_true(lambda: one.stats()["bus"]["up"], "the other one to be found")
                one.publish("/a", "over the other")
                assert client.read_message().payload == b"over the other"

    def test_what_is_denied_is_told_of(
        self, server: ServerFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "nats.conf").write_text(
            "authorization: { users: ["
            ' { user: ann, password: secret, permissions: { subscribe: { deny: "fastcast./denied" } } } ] }\n'
        )
        with (
            broker("nats", "-c", str(tmp_path / "nats.conf")) as bus,
            server(bus=(f"nats://ann:secret@127.0.0.1:{bus.port}",)) as one,
            Client(address_of(one), "/a") as client,
            Client(address_of(one), "/denied"),
        ):
            one.publish("/denied", "nobody hears this")
            one.publish("/a", "hello")
            assert client.read_message().payload == b"hello"
            assert one.stats()["bus"]["losses"] == 0
        (record,) = [record for record in caplog.records if "permissions violation" in record.message]
        assert record.levelname == "WARNING"
        assert '"fastcast./denied"' in record.message

    def test_of_several_addresses_any_will_do(self, server: ServerFactory) -> None:
        with broker("nats") as first, broker("nats") as second:
            urls = (first.url, second.url)
            first.kill()
            with server(bus=urls) as one, Client(address_of(one), "/a") as client:
                first.start()
                second.kill()
                await_true(lambda: one.stats()["bus"]["losses"] == 1, "the loss")
                await_true(lambda: one.stats()["bus"]["up"], "the other one to be found")
                first.publish("fastcast./a", b"over the other")
                assert client.read_message().payload == b"over the other"


class TestRedis:
    def test_tls_and_password(self, server: ServerFactory, tmp_path: Path) -> None:
        pki = Pki(tmp_path)
        tls = ("--tls-port", "{port}", "--port", "0", "--tls-cert-file", str(pki.certificate))
        tls += ("--tls-key-file", str(pki.key), "--tls-ca-cert-file", str(pki.ca), "--requirepass", "secret")
        with broker("redis", *tls) as bus:
            url = f"rediss://:secret@127.0.0.1:{bus.port}"
            both = {"bus_ca": str(pki.ca), "bus_certificate": str(pki.certificate), "bus_key": str(pki.key)}
            reaches(server, url, **both)
            is_turned_away(server, f"rediss://:secretly@127.0.0.1:{bus.port}", **both)
            is_turned_away(server, url, bus_ca=str(pki.ca))

    def test_the_master_that_sentinels_name(self, server: ServerFactory, tmp_path: Path) -> None:
        with broker("redis") as master:
            (tmp_path / "sentinel.conf").write_text(f"sentinel monitor mine 127.0.0.1 {master.port} 1\n")
            with broker("redis", "--sentinel", config=tmp_path / "sentinel.conf") as sentinel:
                reaches(server, f"redis+sentinel://127.0.0.1:{sentinel.port}/mine")
                is_turned_away(server, f"redis+sentinel://127.0.0.1:{sentinel.port}/other")
