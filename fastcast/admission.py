"""Who is admitted, and to which channels: the answer to each request that the core passes on.

In this order: who the client is behind proxies, the handshake and the page's origin, how many connections its
address has, its token, and what the program's ``on_connect`` says. Where only the handshake has a say, which
is so without any options, its short way is taken.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from fastcast._core import encode_frame
from fastcast.channels import check_name, check_subscription
from fastcast.config import Config
from fastcast.handshake import Handshake, Upgrade
from fastcast.handshake import Refuse as Refusal
from fastcast.history import Since, since_of
from fastcast.launch import MAX_HEAD
from fastcast.proxies import Proxies, address_key
from fastcast.request import Accept, Refuse, Request
from fastcast.tokens import BEARER, InvalidToken, Tokens, split_offer

__all__ = ["Admission", "Answer"]

_log = logging.getLogger("fastcast")

OnConnect: TypeAlias = Callable[[Request], Accept | Awaitable[Accept | None] | None]

# A path of so few characters is a name whatever they are, but for these two.
_SHORT: Final = 256


class Answer(NamedTuple):
    """What the core is to do with a request."""

    response: bytes
    """A complete HTTP response: 101 with the first messages behind it, or a refusal."""
    channels: tuple[str, ...] | None
    """What the client is subscribed to; None: it's refused."""
    address: str = ""
    """Under which it counts for ``max_per_address``; empty: it doesn't."""
    state: Any = None
    """That of the client."""
    since: Since | None = None
    """What it wants of the histories of its channels."""


@dataclass(slots=True)
class _Case:
    """A request that is being decided on."""

    request: Request
    upgrade: Upgrade
    address: str
    fallback: str | None = None
    """The subprotocol to agree to if there is no better one."""


class Admission:
    """Decides on requests.

    ``page`` is HTML for ``/``. ``address_count`` says how many clients an address has. Raises ConfigError
    when the keys for tokens can't be used, and StartError when the library for them is missing.
    """

    def __init__(
        self,
        config: Config,
        *,
        page: bytes | None,
        on_connect: OnConnect | None,
        address_count: Callable[[str], int],
    ) -> None:
        self._handshake = Handshake(
            origins=config.origin, subprotocols=config.subprotocol, page=page, max_head=MAX_HEAD
        )
        self._proxies = Proxies(config.trusted_proxy, proxy_protocol=config.proxy_protocol)
        has_tokens = config.jwt_secret is not None or config.jwt_jwks_file is not None
        self._tokens = Tokens(config) if has_tokens else None
        self._claim = config.jwt_channels
        self._on_connect = on_connect
        self._address_count = address_count
        self._patience = 2 * config.handshake_timeout
        self._most = config.max_per_address
        self._keeps = config.keeps
        self._briefly = not (config.trusted_proxy or has_tokens or on_connect or config.keeps)
        self._failed = Answer(self._handshake.refuse(500, "the server failed to decide").response, None)
        self._full_house = Answer(self._handshake.too_many, None)

        self.timeout = self._handshake.timeout
        """408, for a request that doesn't arrive in time."""
        self.too_large = self._handshake.too_large
        """431, for one that is too long."""
        self.full = self._handshake.full
        """503, for when there is no room."""
        self.too_many = self._handshake.too_many
        """429, for an address with too many connections."""
        self.remotes = bool(config.trusted_proxy or on_connect or self._most is not None)
        """Whether ``decide`` needs to know where a request comes from."""

    def decide(self, head: bytes, host: str, port: int) -> Answer | Coroutine[Any, Any, Answer]:
        """The answer to a request, from the other side's address (empty if unknown) and port.

        ``head`` is all through the CRLF CRLF that ends it, with a PROXY header if one precedes it. Never
        raises. It's a coroutine, to be run on the server's loop, only where ``on_connect`` is one.
        """
        try:
            return self._decide_briefly(head, host) if self._briefly else self._decide(head, host, port)
        except Refuse as refusal:
            return self._refuse(refusal)
        except (Exception, asyncio.CancelledError):
            _log.exception("a request could not be decided on")
            return self._failed

    def _decide_briefly(self, head: bytes, host: str) -> Answer:
        decision = self._handshake.answer(head)
        if isinstance(decision, Refusal):
            return Answer(decision.response, None)
        channels = (_channel_of(decision.channel),)
        if self._most is None:
            return Answer(decision.response, channels)
        address = address_key(host)
        return self._full_house if self._is_full(address) else Answer(decision.response, channels, address)

    def _decide(self, head: bytes, host: str, port: int) -> Answer | Coroutine[Any, Any, Answer]:
        try:
            head, peer, is_proxy = self._proxies.unwrap(head, host, port)
        except ValueError as error:
            raise Refuse(400, str(error)) from None
        upgrade = self._handshake.read(head)
        if isinstance(upgrade, Refusal):
            return Answer(upgrade.response, None)
        request = Request(upgrade, *peer)
        if is_proxy:
            try:
                request.remote, request.port, request.scheme = self._proxies.client(request.headers, peer)
            except ValueError as error:
                raise Refuse(400, str(error)) from None
        address = "" if self._most is None else address_key(request.remote)
        if self._is_full(address):
            return self._full_house
        case = _Case(request, upgrade, address)
        if self._tokens is not None:
            self._check_token(self._tokens, case)
        return self._accept(case, Accept()) if self._on_connect is None else self._ask(case)

    def _is_full(self, address: str) -> bool:
        """Whether the address has all that it may have. The core counts again, exactly; here it's early."""
        return self._most is not None and address != "" and self._address_count(address) >= self._most

    @staticmethod
    def _check_token(tokens: Tokens, case: _Case) -> None:
        try:
            case.request.claims = tokens.verify(case.request)
        except InvalidToken as error:
            raise Refuse(401, str(error), {"WWW-Authenticate": error.challenge}) from None
        if tokens.by_subprotocol:
            # The program has no use for the token, and must not agree to it.
            token, case.request.subprotocols = split_offer(case.upgrade.offered)
            case.fallback = None if token is None else BEARER

    def _ask(self, case: _Case) -> Answer | Coroutine[Any, Any, Answer]:
        assert self._on_connect is not None
        try:
            said = self._on_connect(case.request)
        except Refuse:
            raise
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # also what frameworks raise beside the usual kinds
            return self._fail(case)
        if inspect.isawaitable(said):
            return self._wait(case, said)
        return self._settle(case, said)

    async def _wait(self, case: _Case, said: Awaitable[Accept | None]) -> Answer:
        try:
            # Twice its time to ask is what the core waits for the answer to a request.
            async with asyncio.timeout(self._patience) as patience:
                return self._settle(case, await said)
        except Refuse as refusal:
            return self._refuse(refusal)
        except TimeoutError:
            if not patience.expired():
                return self._fail(case)
            _log.error("on_connect took more than %g s for %r", self._patience, case.request)
            return Answer(self.full, None)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return self._fail(case)  # something that it waited for was cancelled
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            return self._fail(case)

    def _settle(self, case: _Case, said: object) -> Answer:
        """What comes of what ``on_connect`` says."""
        if said is None:
            return self._accept(case, Accept())
        if not isinstance(said, Accept):
            _log.error("on_connect returns an Accept or None, not %s", type(said).__name__)
            return self._failed
        if said.subprotocol is not None and said.subprotocol not in case.request.subprotocols:
            _log.error("on_connect agrees to %r, which the client does not offer", said.subprotocol)
            return self._failed
        return self._accept(case, said)

    def _accept(self, case: _Case, accept: Accept) -> Answer:
        channels = self._default_channels(case.request) if accept.channels is None else accept.channels
        subprotocol = accept.subprotocol or self._handshake.choose(case.request.subprotocols) or case.fallback
        response = self._handshake.accept(case.upgrade, subprotocol, accept.headers)
        hello = [
            encode_frame(message.encode() if isinstance(message, str) else message, isinstance(message, str))
            for message in accept.hello
        ]
        return Answer(
            b"".join((response, *hello)), channels, case.address, accept.state, self._since(case.request)
        )

    def _since(self, request: Request) -> Since | None:
        if not self._keeps:
            return None
        try:
            return since_of(request.query_string)
        except ValueError as error:
            raise Refuse(400, str(error)) from None

    def _default_channels(self, request: Request) -> tuple[str, ...]:
        """Those that the client's token names; the path, if it names none."""
        if request.claims is not None and self._claim in request.claims:
            return _channels_of(request.claims[self._claim])
        return (_channel_of(request.path),)

    def _refuse(self, refusal: Refuse) -> Answer:
        return Answer(self._handshake.refuse(refusal.status, refusal.reason, refusal.headers).response, None)

    def _fail(self, case: _Case) -> Answer:
        """To be called while the exception is handled."""
        _log.exception("on_connect failed for %r", case.request)
        return self._failed


def _channel_of(path: str) -> str:
    """The path as a name of a channel."""
    if len(path) > _SHORT or "*" in path or ">" in path:
        try:
            check_name(path)
        except ValueError as error:
            raise Refuse(400, f"the path is no channel: {error}") from None
    return path


def _channels_of(claim: object) -> tuple[str, ...]:
    """The channels that a token names, one or a list."""
    names = [claim] if isinstance(claim, str) else claim
    if isinstance(names, list):
        try:
            return tuple(dict.fromkeys(map(check_subscription, names)))
        except (TypeError, ValueError):
            pass
    raise Refuse(403, "the channels that the token names are no channels")
