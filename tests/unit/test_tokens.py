"""Tokens: which keys verify them, where they are looked for, and what they are refused for."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from fastcast.config import Config
from fastcast.errors import ConfigError, StartError
from fastcast.tokens import InvalidToken, Tokens, split_offer
from tests.unit.test_request import request_of

SECRET = "a secret that is 64 bytes long, as much as any of the three takes"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
EC_384 = ec.generate_private_key(ec.SECP384R1())
ED = ed25519.Ed25519PrivateKey.generate()

HOUR = 3600


def now() -> int:
    return int(time.time())


def public(key: Any, **members: Any) -> dict[str, Any]:
    """The public half of a key, as it stands in a set of keys."""
    kinds: list[tuple[type, Any]] = [
        (rsa.RSAPrivateKey, RSAAlgorithm),
        (ec.EllipticCurvePrivateKey, ECAlgorithm),
        (ed25519.Ed25519PrivateKey, OKPAlgorithm),
    ]
    algorithm = next(algorithm for kind, algorithm in kinds if isinstance(key, kind))
    made: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)
    return {name: value for name, value in made.items() if name != "key_ops"} | members


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def keys(file: Path, *listed: dict[str, Any], **options: Any) -> Tokens:
    file.write_text(json.dumps({"keys": listed}))
    return Tokens(Config(jwt_jwks_file=str(file), **options))


def secret(**options: Any) -> Tokens:
    return Tokens(Config(jwt_secret=SECRET, **options))


def sign(
    claims: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None
) -> str:
    return jwt.encode(claims, key, algorithm, headers)


def claims_of(tokens: Tokens, token: str) -> dict[str, Any]:
    return dict(tokens.verify(request_of(f"/?token={token}")))


def complaint(tokens: Tokens, token: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        claims_of(tokens, token)
    assert token not in str(caught.value) + caught.value.challenge or token == ""
    return str(caught.value)


def unsigned(header: dict[str, Any], claims: Any, signature: bytes = b"") -> str:
    """A token as an attacker may put it together."""
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


class TestSecret:
    def test_a_token_that_the_secret_signs_is_good(self) -> None:
        claims = {"sub": "ada", "channels": ["news"], "exp": now() + HOUR}
        assert claims_of(secret(), sign(claims)) == claims

    def test_the_example_of_rfc_7515_is_good(self) -> None:
        # Appendix A.1, whose key is 64 bytes: its claims have expired in 2011.
        key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
        token = (
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
            ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
            ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
        )
        tokens = secret()
        raw: Any = base64.urlsafe_b64decode(key + "==")
        tokens._keys = [tokens._keys[0]._replace(key=raw)]
        assert complaint(tokens, token) == "the token has expired"
        assert complaint(tokens, token[:-1] + "Q") == "the token has no valid signature"

    def test_a_token_of_another_secret_is_not(self) -> None:
        assert complaint(secret(), sign({}, SECRET[::-1])) == "the token has no valid signature"

    def test_a_token_that_was_changed_is_not(self) -> None:
        head, claims, signature = sign({"sub": "ada"}).split(".")
        other = sign({"sub": "eve"}).split(".")[1]
        assert complaint(secret(), f"{head}.{other}.{signature}") == "the token has no valid signature"
        assert complaint(secret(), f"{head}.{claims}.") == "the token has no valid signature"

    def test_other_algorithms_must_be_asked_for(self) -> None:
        token = sign({"sub": "ada"}, algorithm="HS512")
        assert complaint(secret(), token) == "the token has no valid signature"
        assert claims_of(secret(jwt_algorithm=["HS256", "HS512"]), token) == {"sub": "ada"}
        assert complaint(secret(jwt_algorithm=["HS512"]), sign({})) == "the token has no valid signature"

    @pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, ["HS256"], 7])
    def test_a_token_cannot_do_without_a_signature(self, algorithm: Any) -> None:
        for tokens in (secret(), secret(jwt_algorithm=["HS256", "HS384", "HS512"])):
            assert complaint(tokens, unsigned({"alg": algorithm}, {"sub": "eve"}))
            assert complaint(tokens, unsigned({}, {"sub": "eve"}))

    def test_a_public_key_is_no_secret(self) -> None:
        ssh = ED.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        with pytest.raises(ConfigError, match="jwt_secret: is a public key") as caught:
            Tokens(Config(jwt_secret=ssh.decode()))
        assert ssh.decode() not in str(caught.value)


class TestKeys:
    @pytest.mark.parametrize(
        ("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256"), (EC_384, "ES384"), (ED, "EdDSA")]
    )
    def test_a_key_verifies_with_the_algorithm_of_its_kind(
        self, file: Path, key: Any, algorithm: str
    ) -> None:
        tokens = keys(file, public(key))
        assert claims_of(tokens, sign({"sub": "ada"}, key, algorithm)) == {"sub": "ada"}

    def test_other_algorithms_must_be_named_by_the_key_or_the_options(self, file: Path) -> None:
        token = sign({"sub": "ada"}, RSA, "PS384")
        assert complaint(keys(file, public(RSA)), token) == "the token has no valid signature"
        assert claims_of(keys(file, public(RSA, alg="PS384")), token) == {"sub": "ada"}
        tokens = keys(file, public(RSA), jwt_algorithm=["RS256", "PS384"])
        assert claims_of(tokens, token) == {"sub": "ada"}
        assert claims_of(tokens, sign({"sub": "bob"}, RSA, "RS256")) == {"sub": "bob"}

    def test_what_the_key_names_is_all_that_it_does(self, file: Path) -> None:
        tokens = keys(file, public(RSA, alg="RS512"))
        assert complaint(tokens, sign({}, RSA, "RS256")) == "the token has no valid signature"
        with pytest.raises(ConfigError, match="no key in it verifies signatures with RS256"):
            keys(file, public(RSA, alg="RS512"), jwt_algorithm=["RS256"])

    def test_a_public_key_cannot_be_taken_for_a_secret(self, file: Path) -> None:
        tokens = keys(file, public(RSA, kid="a"), jwt_algorithm=["RS256", "PS256"])
        pem = RSA.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for header in ({"alg": "HS256"}, {"alg": "HS256", "kid": "a"}):
            for forged in (pem, pem.strip(), file.read_bytes()):
                signed = unsigned(header, {"sub": "eve"})[:-1]
                signature = hmac.digest(forged, signed.encode(), hashlib.sha256)
                token = unsigned(header, {"sub": "eve"}, signature)
                assert complaint(tokens, token) == "the token has no valid signature"
        assert complaint(tokens, unsigned({"alg": "none"}, {})) == "the token has no valid signature"

    def test_a_key_in_the_token_itself_is_of_no_use(self, file: Path) -> None:
        token = sign({"sub": "eve"}, OTHER_RSA, "RS256", {"jwk": public(OTHER_RSA), "kid": "a"})
        assert complaint(keys(file, public(RSA, kid="a")), token) == "the token has no valid signature"

    def test_the_token_says_which_key_it_means(self, file: Path) -> None:
        tokens = keys(file, public(RSA, kid="old"), public(OTHER_RSA, kid="new"), public(EC, kid="ec"))
        assert claims_of(tokens, sign({"n": 1}, OTHER_RSA, "RS256", {"kid": "new"})) == {"n": 1}
        assert claims_of(tokens, sign({"n": 2}, EC, "ES256", {"kid": "ec"})) == {"n": 2}
        for kid in ("old", "missing"):
            token = sign({}, OTHER_RSA, "RS256", {"kid": kid})
            assert complaint(tokens, token) == "the token has no valid signature"

    def test_where_it_does_not_say_all_are_tried(self, file: Path) -> None:
        tokens = keys(file, public(EC), public(RSA, kid="old"), public(OTHER_RSA, kid="new"))
        assert claims_of(tokens, sign({"n": 1}, OTHER_RSA, "RS256")) == {"n": 1}

    def test_a_private_key_verifies_as_its_public_half(self, file: Path) -> None:
        private: dict[str, Any] = RSAAlgorithm.to_jwk(RSA, as_dict=True)
        del private["key_ops"]
        assert claims_of(keys(file, private), sign({"n": 1}, RSA, "RS256")) == {"n": 1}

    def test_keys_for_something_else_are_passed_over(self, file: Path) -> None:
        others: list[dict[str, Any]] = [
            public(RSA, use="enc"),
            public(RSA, key_ops=["encrypt"]),
            public(RSA, alg="RSA-OAEP"),
            {"kty": "OKP", "crv": "X25519", "x": "AAAA"},
            {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"},
        ]
        with pytest.raises(ConfigError, match=r"no key in it verifies signatures$"):
            keys(file, *others)
        tokens = keys(file, *others, public(EC, use="sig", key_ops=["verify"]))
        assert claims_of(tokens, sign({"n": 1}, EC, "ES256")) == {"n": 1}


class TestFile:
    def error(self, file: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            Tokens(Config(jwt_jwks_file=str(file)))
        message = str(caught.value)
        assert "\n" not in message
        return message.removeprefix(f"jwt_jwks_file: {file}")

    def test_a_missing_file_is_an_error(self, file: Path) -> None:
        assert self.error(file) == ": No such file or directory"

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
    def test_a_file_that_is_not_json_is_an_error(self, file: Path, content: bytes) -> None:
        file.write_bytes(content)
        assert self.error(file) == ": not valid JSON"

    @pytest.mark.parametrize("content", ["[]", "7", "{}", '{"keys": {}}', '{"keys": [7]}'])
    def test_a_file_that_is_no_set_of_keys_is_an_error(self, file: Path, content: str) -> None:
        file.write_text(content)
        assert self.error(file) == ': not a set of keys ({"keys": [...]})'

    def test_an_empty_set_is_an_error(self, file: Path) -> None:
        file.write_text('{"keys": []}')
        assert self.error(file) == ": no key in it verifies signatures"

    def test_a_key_that_cannot_be_used_is_named_and_not_shown(self, file: Path) -> None:
        weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
        faults: list[tuple[dict[str, Any], str]] = [
            ({"kty": "oct", "k": "c2VjcmV0"}, "is a secret, which belongs into jwt_secret"),
            ({"kty": "RSA", "n": "secret", "e": "!"}, "is not a valid RSA key"),
            ({"kty": "RSA"}, "is not a valid RSA key"),
            ({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}, "is not a valid EC key"),
            ({"kty": "OKP", "crv": "Ed25519", "x": 7}, "is not a valid OKP key"),
            ({"kty": "EC", "crv": "Ed25519", "x": "AAAA"}, "is not a valid EC key"),
            (public(EC, kid=7), "has a kid that is no string"),
            (public(weak), "has 1024 bits; RSA needs at least 2048"),
        ]
        for fault, told in faults:
            file.write_text(json.dumps({"keys": [public(RSA), fault]}))
            assert self.error(file) == f": key 2 {told}"


class TestClaims:
    def test_it_must_not_have_expired(self) -> None:
        assert complaint(secret(), sign({"exp": now() - 1})) == "the token has expired"
        assert claims_of(secret(), sign({})) == {}

    def test_its_time_must_have_come(self) -> None:
        assert complaint(secret(), sign({"nbf": now() + HOUR})) == "the token is not valid yet"

    def test_that_clocks_differ_does_not_matter_for_when_it_was_issued(self) -> None:
        claims = {"iat": now() + HOUR}
        assert claims_of(secret(), sign(claims)) == claims

    @pytest.mark.parametrize("audience", ["live", ["other", "live"]])
    def test_it_must_be_for_the_audience(self, audience: Any) -> None:
        tokens = secret(jwt_audience="live")
        assert claims_of(tokens, sign({"aud": audience})) == {"aud": audience}

    @pytest.mark.parametrize("claims", [{}, {"aud": "other"}, {"aud": []}, {"aud": 7}, {"aud": "LIVE"}])
    def test_one_for_another_audience_is_refused(self, claims: dict[str, Any]) -> None:
        assert complaint(secret(jwt_audience="live"), sign(claims)) == (
            "the token is of another issuer, or for another audience"
        )

    def test_one_for_somebody_is_refused_by_a_server_that_is_nobody(self) -> None:
        assert complaint(secret(), sign({"aud": "live"})) == (
            "the token is of another issuer, or for another audience"
        )

    @pytest.mark.parametrize("claims", [{}, {"iss": "other"}, {"iss": "log"}])
    def test_one_of_another_issuer_is_refused(self, claims: dict[str, Any]) -> None:
        tokens = secret(jwt_issuer="login")
        assert claims_of(tokens, sign({"iss": "login"})) == {"iss": "login"}
        assert complaint(tokens, sign(claims)) == "the token is of another issuer, or for another audience"

    @pytest.mark.parametrize("exp", ["soon", None, [], {}, "NaN", float("nan"), float("inf")])
    def test_a_time_that_is_none_is_refused(self, exp: Any) -> None:
        assert complaint(secret(), sign({"exp": exp})) == "the token is malformed"

    def test_claims_are_an_object(self) -> None:
        head, claims = (
            base64.urlsafe_b64encode(part).rstrip(b"=") for part in (b'{"alg":"HS256"}', b'["exp"]')
        )
        signature = hmac.digest(SECRET.encode(), head + b"." + claims, hashlib.sha256)
        token = b".".join((head, claims, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()
        assert complaint(secret(), token) == "the token is malformed"

    def test_nobody_can_write_into_them(self) -> None:
        claims: Any = secret().verify(request_of(f"/?token={sign({'sub': 'ada'})}"))
        with pytest.raises(TypeError):
            claims["sub"] = "eve"

    @settings(deadline=None, max_examples=300, database=None)
    @given(
        st.text(max_size=60)
        | st.lists(st.binary(max_size=20), max_size=4).map(
            lambda parts: ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
        )
    )
    def test_any_text_is_refused(self, text: str) -> None:
        tokens = secret()
        with pytest.raises(InvalidToken):
            tokens._claims(text)


class TestPlaces:
    TOKEN = sign({"sub": "ada"})

    def found(self, *fields: str, target: str = "/", offer: str = "", **options: Any) -> bool:
        try:
            secret(**options).verify(request_of(target, *fields, offer=offer))
        except InvalidToken as error:
            told = (str(error), error.challenge)
        else:
            return True
        assert told == ("a token is required", 'Bearer realm="fastcast"')
        return False

    def test_it_may_be_in_any_of_four_places(self) -> None:
        assert self.found(target=f"/?token={self.TOKEN}")
        assert self.found(f"Authorization: Bearer {self.TOKEN}")
        assert self.found(f"Authorization: bearer  {self.TOKEN}")
        assert self.found(f"Cookie: a=b; token={self.TOKEN}")
        assert self.found(offer=f"bearer, {self.TOKEN}")
        assert self.found(offer=f"chat, bearer, {self.TOKEN}, news")
        assert not self.found()

    def test_only_the_places_that_are_asked_for_count(self) -> None:
        assert self.found(f"Cookie: token={self.TOKEN}", jwt_from=["cookie"])
        assert not self.found(
            f"Authorization: Bearer {self.TOKEN}",
            target=f"/?token={self.TOKEN}",
            offer=f"bearer, {self.TOKEN}",
            jwt_from=["cookie"],
        )

    def test_parameter_and_cookie_may_have_another_name(self) -> None:
        assert self.found(target=f"/?key={self.TOKEN}", jwt_name="key")
        assert self.found(f"Cookie: key={self.TOKEN}", jwt_name="key")
        assert not self.found(f"Cookie: token={self.TOKEN}", target=f"/?token={self.TOKEN}", jwt_name="key")

    @pytest.mark.parametrize("header", ["Basic YTpi", "Bearers x", "", "bear"])
    def test_other_ways_to_authorize_bring_no_token(self, header: str) -> None:
        assert not self.found(f"Authorization: {header}")

    @pytest.mark.parametrize("header", ["Bearer", "Bearer a b", "Bearer a, Bearer b", 'Bearer "a"'])
    def test_a_malformed_one_counts_as_one(self, header: str) -> None:
        with pytest.raises(InvalidToken, match="the token is malformed") as caught:
            secret().verify(request_of("/", f"Authorization: {header}"))
        assert caught.value.challenge == (
            'Bearer realm="fastcast", error="invalid_token", error_description="the token is malformed"'
        )

    def test_the_first_place_that_has_one_counts(self) -> None:
        bad, good = "/?token=x", f"Cookie: token={self.TOKEN}"
        with pytest.raises(InvalidToken, match="malformed"):
            secret().verify(request_of(bad, good))
        assert secret(jwt_from=["cookie", "query"]).verify(request_of(bad, good))

    @pytest.mark.parametrize(
        ("offered", "token", "rest"),
        [
            ((), None, ()),
            (("chat",), None, ("chat",)),
            (("bearer",), None, ("bearer",)),
            (("chat", "bearer"), None, ("chat", "bearer")),
            (("bearer", "a.b.c"), "a.b.c", ()),
            (("chat", "bearer", "a.b.c", "news"), "a.b.c", ("chat", "news")),
            (("Bearer", "a.b.c"), None, ("Bearer", "a.b.c")),
        ],
    )
    def test_what_is_offered_behind_bearer_is_the_token(
        self, offered: tuple[str, ...], token: str | None, rest: tuple[str, ...]
    ) -> None:
        assert split_offer(offered) == (token, rest)


def test_without_the_library_the_way_to_get_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(StartError, match=r"pip install 'fastcast\[jwt\]'"):
        secret()


def test_without_cryptography_the_way_to_get_it_is_told(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setattr("jwt.algorithms.has_crypto", False)
    with pytest.raises(StartError, match=r"pip install 'fastcast\[jwt\]'"):
        keys(file, public(RSA))
