"""Verifies the JSON Web Tokens that clients bring, with the keys of the options. PyJWT does the cryptography.

With a secret, only HMAC verifies; with a file of public keys, only the algorithm that goes with the key. So a
token can't choose to have a public key taken for a secret (RFC 8725 section 2.1), nor to have no signature.
Neither a token nor a key is ever part of a message or a log line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastcast.config import Config
from fastcast.consistency import SIGNATURES
from fastcast.errors import ConfigError, StartError
from fastcast.request import Request

if TYPE_CHECKING:
    from jwt import PyJWK

__all__ = ["BEARER", "InvalidToken", "Tokens"]

BEARER: Final = "bearer"
"""The subprotocol that announces a token as the one behind it."""

_LEAST_RSA_BITS: Final = 2048

# By the key's type and curve (RFC 7518 section 3.1, RFC 8037). The first is for a key that names none.
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}

_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

# RFC 6750 section 2.1. The scheme's name has no case (RFC 9110 section 11.1).
_AUTHORIZATION: Final = re.compile(r"(?i:bearer) +(?P<token>[A-Za-z0-9\-._~+/]+=*)")
_SCHEME: Final = re.compile(r"(?i:bearer)(?:[ \t].*)?")


class InvalidToken(Exception):
    """There is no token, or none that holds; the message says why."""

    def __init__(self, reason: str, *, missing: bool = False) -> None:
        super().__init__(reason)
        # RFC 6750 section 3: who has brought none isn't told about errors.
        error = "" if missing else f', error="invalid_token", error_description="{reason}"'
        self.challenge = f'Bearer realm="fastcast"{error}'


class _Key(NamedTuple):
    id: str | None
    algorithm: str
    key: PyJWK | str


class Tokens:
    """Finds the token of a request, and says what it holds.

    Raises ConfigError when the keys can't be read or used, and StartError when PyJWT is missing.
    """

    def __init__(self, config: Config) -> None:
        """``config`` has a secret, or a file with keys."""
        try:
            import jwt
        except ImportError:
            raise StartError("tokens need PyJWT: pip install 'fastcast[jwt]'") from None
        self._jwt = jwt
        self._name = config.jwt_name
        self._audience = config.jwt_audience
        self._issuer = config.jwt_issuer
        if config.jwt_secret is not None:
            try:
                jwt.get_algorithm_by_name("HS256").prepare_key(config.jwt_secret)
            except jwt.InvalidKeyError:
                raise ConfigError("jwt_secret: is a public key, which belongs into jwt_jwks_file") from None
            self._keys = [
                _Key(None, algorithm, config.jwt_secret) for algorithm in config.jwt_algorithm or ("HS256",)
            ]
        else:
            assert config.jwt_jwks_file is not None
            self._keys = _public_keys(Path(config.jwt_jwks_file), config.jwt_algorithm)
        places: dict[str, Callable[[Request], str | None]] = {
            "query": self._of_query,
            "header": self._of_header,
            "cookie": self._of_cookie,
            "subprotocol": self._of_subprotocols,
        }
        self._places = [places[name] for name in config.jwt_from]
        self.by_subprotocol = "subprotocol" in config.jwt_from
        """Whether a token may be offered as a subprotocol."""

    def verify(self, request: Request) -> Mapping[str, Any]:
        """What the request's token claims; InvalidToken if there is none, or it doesn't hold."""
        token = next((token for place in self._places if (token := place(request)) is not None), None)
        if token is None:
            raise InvalidToken("a token is required", missing=True)
        return MappingProxyType(self._claims(token))

    def _of_query(self, request: Request) -> str | None:
        return request.query.get(self._name)

    def _of_header(self, request: Request) -> str | None:
        header = request.headers.get("authorization", "")
        if not _SCHEME.fullmatch(header):
            return None
        match = _AUTHORIZATION.fullmatch(header)
        return match["token"] if match else ""

    def _of_cookie(self, request: Request) -> str | None:
        return request.cookies.get(self._name)

    def _of_subprotocols(self, request: Request) -> str | None:
        return split_offer(request.subprotocols)[0]

    def _claims(self, token: str) -> dict[str, Any]:
        jwt = self._jwt
        try:
            header = jwt.get_unverified_header(token)
            named, algorithm = header.get("kid"), header.get("alg")
            keys = [
                each
                for each in self._keys
                if each.algorithm == algorithm and (each.id == named or named is None or each.id is None)
            ]
        except Exception:
            raise InvalidToken("the token is malformed") from None
        for key in keys:
            try:
                # By default a token with an audience is only for those who say that they are in it; and since
                # clocks differ, that a token seems to be issued later than now is no reason to refuse it.
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key.key,
                    algorithms=[key.algorithm],
                    audience=self._audience,
                    issuer=self._issuer,
                    options={"verify_iat": False},
                )
                return claims
            except jwt.InvalidSignatureError:
                continue
            except jwt.ExpiredSignatureError:
                raise InvalidToken("the token has expired") from None
            except jwt.ImmatureSignatureError:
                raise InvalidToken("the token is not valid yet") from None
            except (jwt.InvalidAudienceError, jwt.InvalidIssuerError, jwt.MissingRequiredClaimError):
                raise InvalidToken("the token is of another issuer, or for another audience") from None
            except Exception:
                # Whatever else a token makes the library raise: the token is to blame.
                raise InvalidToken("the token is malformed") from None
        raise InvalidToken("the token has no valid signature")


def split_offer(offered: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """The token that follows ``bearer`` in an offer, and what is offered beside these two."""
    if BEARER not in offered[:-1]:
        return None, offered
    at = offered.index(BEARER)
    return offered[at + 1], offered[:at] + offered[at + 2 :]


def _public_keys(file: Path, algorithms: tuple[str, ...]) -> list[_Key]:
    """The keys of a JWK set (RFC 7517) that verify signatures, once for each algorithm that they serve."""
    from jwt.algorithms import has_crypto

    if not has_crypto:
        raise StartError("signatures need cryptography: pip install 'fastcast[jwt]'")
    where = f"jwt_jwks_file: {file}"
    try:
        found = json.loads(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{where}: not valid JSON") from None
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise ConfigError(f'{where}: not a set of keys ({{"keys": [...]}})')
    keys = [
        key
        for number, each in enumerate(listed, 1)
        for key in _read_key(each, algorithms, f"{where}: key {number}")
    ]
    if not keys:
        told = f" with {', '.join(algorithms)}" if algorithms else ""
        raise ConfigError(f"{where}: no key in it verifies signatures{told}")
    return keys


def _read_key(each: Mapping[str, Any], wanted: tuple[str, ...], where: str) -> list[_Key]:
    """One key, for each algorithm; none if it is for something else."""
    import jwt

    kind, name = each.get("kty"), each.get("alg")
    if kind == "oct":
        raise ConfigError(f"{where} is a secret, which belongs into jwt_secret")
    operations = each.get("key_ops")
    if each.get("use", "sig") != "sig" or (isinstance(operations, list) and "verify" not in operations):
        return []
    fitting = _RSA if kind == "RSA" else tuple(filter(None, (_CURVES.get(str(each.get("crv"))),)))
    if name is not None:
        fitting = tuple(algorithm for algorithm in fitting if algorithm == name)
    elif not wanted:
        fitting = fitting[:1]
    # Others may use a set as well: keys of kinds that aren't known here are passed over (RFC 7517 section 5).
    usable = [algorithm for algorithm in fitting if algorithm in (wanted or SIGNATURES)]
    id = each.get("kid")
    if id is not None and not isinstance(id, str):
        raise ConfigError(f"{where} has a kid that is no string")
    public = {member: value for member, value in each.items() if member not in _PRIVATE}
    keys: list[_Key] = []
    for algorithm in usable:
        try:
            key = jwt.PyJWK(public, algorithm)
            bits = key.key.key_size if kind == "RSA" else None
        except Exception:
            # What the library says would show the key.
            raise ConfigError(f"{where} is not a valid {kind} key") from None
        if bits is not None and bits < _LEAST_RSA_BITS:
            raise ConfigError(f"{where} has {bits} bits; RSA needs at least {_LEAST_RSA_BITS}")
        keys.append(_Key(id, algorithm, key))
    return keys
