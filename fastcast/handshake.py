"""The opening handshake without I/O: the bytes of a request head in, the bytes of the whole answer out.

The rules are those of RFC 9112 (message syntax), RFC 9110 (semantics) and RFC 6455 section 4.2 (WebSocket).
Where the first two let a server choose between repairing a request and refusing it, it is refused: a proxy in
front may have repaired it differently, and a request that two parties read in two ways is how one client's
bytes end up in another's request.

`Handshake._decide` applies the rules to any request. Two regular expressions tell whether the head is well
formed, a third picks out the few fields that matter, and what is wrong with a malformed head is worked out
only once it is known to be malformed. When a server comes back, all of its clients do so at once, and nearly
all of them spell their request alike; so one more expression, `_USUAL_UPGRADE`, recognises that spelling in a
single pass. It matches only what `_decide` would let through, with the same outcome.

`Handshake.answer` goes all the way. Where somebody else has a say, `Handshake.read` stops at a request for
WebSocket that is valid, and `Handshake.accept` or `Handshake.refuse` makes the response.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from types import MappingProxyType
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

from fastcast.responses import TOKEN, Fields, content_security_policy, explain, phrase, response

__all__ = ["Accept", "Handshake", "Refuse", "Upgrade"]


@dataclass(slots=True)
class Accept:
    """The client becomes a WebSocket client of a channel."""

    response: bytes
    """The complete 101 response."""
    channel: str
    """The percent-decoded path of the request, without its query; begins with ``/``."""
    subprotocol: str | None
    """The subprotocol named in the response, if one was agreed on."""


@dataclass(slots=True)
class Refuse:
    """The connection gets a plain HTTP response and is closed after it."""

    response: bytes
    """The complete response; it announces the close."""
    status: int
    """Its status code: 200 for the page and the health check, 4xx or 5xx for everything else."""


@dataclass(slots=True)
class Upgrade:
    """A valid request for WebSocket, of a page that may connect; it has no answer yet."""

    path: str
    """As :attr:`Accept.channel`."""
    offered: tuple[str, ...]
    """The subprotocols that the client offers, in its order; none twice."""
    key: bytes
    """The value of Sec-WebSocket-Key."""
    head: bytes
    """The request, from its first byte through the CRLF CRLF that ends it."""

    @property
    def query(self) -> str:
        """What is behind the ``?`` of the request's target, as it was sent."""
        target = self.head.lstrip(b"\r\n").split(b" ", 2)[1]
        return target.partition(b"?")[2].decode()

    def fields(self) -> dict[str, str]:
        """All header fields by their names in lower case; bytes above ASCII are characters of Latin-1.

        Repeated fields are joined as RFC 9110 section 5.3 has it, cookies as RFC 9113 section 8.2.3.
        """
        fields: dict[str, str] = {}
        for spelling, value in _FIELD.findall(self.head):
            name, text = spelling.decode().lower(), value.decode("latin-1")
            joint = "; " if name == "cookie" else ", "
            fields[name] = f"{fields[name]}{joint}{text}" if name in fields else text
        return fields


_NO_FIELDS: Mapping[str, str] = MappingProxyType({})
# RFC 9110 section 7.8: a 426 names the protocol in Upgrade, and whoever sends Upgrade lists it in Connection.
_UPGRADE_REQUIRED = MappingProxyType(
    {"Upgrade": "websocket", "Connection": "Upgrade, close", "Sec-WebSocket-Version": "13"}
)

# Of a request for WebSocket: path, key, origin, and the subprotocols that are offered.
_Asked: TypeAlias = tuple[str, bytes, bytes | None, bytes | None]


class _Refused(Exception):
    """Raised wherever a rule decides against the request; becomes a `Refuse` in `Handshake`."""

    def __init__(self, status: int, reason: str, fields: Mapping[str, str] = _NO_FIELDS) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.fields = fields


# --- syntax -------------------------------------------------------------------------------------------------

_TOKEN = TOKEN.pattern

# RFC 3986 section 2, except '?' and '%', which are added where they may occur, and '#', as a request target
# has no fragment. '[' and ']' belong to a host, but browsers leave them as they are in paths and queries.
_URI = rb"A-Za-z0-9\-._~!$&'()*+,;=:@/\[\]"
# Queries are cut off unread, and browsers leave these too as they are: new WebSocket("ws://host/?q={}").
_QUERY = rb"(?:\?[" + _URI + rb"%?{}|\\^`]*)?"
_PATH_AND_QUERY = rb"(/[" + _URI + rb"%]*)" + _QUERY

# RFC 3986 section 3.2.2. Never empty: RFC 9110 section 4.2.1 has no http URI without a host. No user
# information either: section 4.2.4 has a recipient treat it as an error.
_PLAIN = rb"[A-Za-z0-9\-._~!$&'()*+,;=]"
_ESCAPE = rb"%[0-9A-Fa-f]{2}"
_HOST_NAME = rb"(?:" + _PLAIN + rb"|" + _ESCAPE + rb")" + _PLAIN + rb"*(?:" + _ESCAPE + _PLAIN + rb"*)*"
_AUTHORITY = rb"(?:" + _HOST_NAME + rb"|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?"

# RFC 9112 section 3: exactly one space on either side of the target. Section 2.2: empty lines in front are
# ignored, as some clients send one after an earlier request's content.
_REQUEST_LINE = re.compile(
    rb"(?:\r\n)*(" + _TOKEN + rb") (?:" + _PATH_AND_QUERY + rb"|([!-~]+)) HTTP/([0-9])\.([0-9])\r\n"
)

# RFC 9110 section 5.5: a value is visible characters, blanks and opaque bytes above ASCII. RFC 9112 section
# 5.1: no blank before the colon. Section 5.2: a line that begins with a blank (obs-fold) is refused.
_FIELD_LINE = _TOKEN + rb":[\t -~\x80-\xff]*\r\n"
_FIELD_SECTION = re.compile(rb"(?:" + _FIELD_LINE + rb")*\r\n")

_HOST = re.compile(_AUTHORITY)
_ABSOLUTE_FORM = re.compile(
    rb"(?i:https?|wss?)://" + _AUTHORITY + rb"(?:" + _PATH_AND_QUERY + rb"|" + _QUERY + rb")"
)

_KNOWN_NAME = (
    rb"(?i:host|connection|upgrade|origin|sec-websocket-(?:key|version|protocol)"
    rb"|content-length|transfer-encoding)"
)
# Only ever applied to a field section that is well formed: there, every line feed ends a line.
_KNOWN_FIELD = re.compile(rb"\n(" + _KNOWN_NAME + rb"):[\t ]*((?:[^\r]*[^\r\t ])?)")

_FIELD = re.compile(rb"\n(" + _TOKEN + rb"):[\t ]*((?:[^\r]*[^\r\t ])?)")

# RFC 9110 sections 7.6.1 and 7.8: members of a list, compared without regard to case. To Upgrade,
# "websocket/13" is another protocol than "websocket".
_LISTS_UPGRADE = re.compile(rb"(?i)(?:.*,)?[\t ]*upgrade[\t ]*(?:,.*)?")
_LISTS_WEBSOCKET = re.compile(rb"(?i)(?:.*,)?[\t ]*websocket[\t ]*(?:,.*)?")

# RFC 6455 section 4.2.1: base64 that decodes to 16 bytes. The four bits left over in the last digit may be
# anything: RFC 4648 section 3.5 lets a decoder ignore them, small clients send 22 random digits, and the key
# is only ever hashed as it was sent.
_KEY_VALUE = rb"[A-Za-z0-9+/]{22}=="
_KEY = re.compile(_KEY_VALUE)
_KEY_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3

_SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)

# RFC 6454 section 6.2, the form in which browsers send it.
_ORIGIN = re.compile(r"(?ai)null|[a-z][a-z0-9+.\-]*://(?:[a-z0-9._\-]+|\[[0-9a-f:.]+\])(?::[0-9]+)?")
# The same with "*." in front of a host name, for all of its subdomains; not of a top-level domain, whose
# subdomains are everybody's.
_ORIGIN_PATTERN = re.compile(r"(?ai)[a-z][a-z0-9+.\-]*://\*(?:\.[a-z0-9_\-]+){2,}(?::[0-9]+)?")
_DEFAULT_PORT = re.compile(rb"((?:http|ws)://.*):80|((?:https|wss)://.*):443")

_DIGITS = re.compile(rb"[0-9]+")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def _usual_upgrade() -> re.Pattern[bytes]:
    """The request that nearly all clients send, with the headers in any order.

    Of the fields that matter, each occurs at most once and is spelt in the usual way; any other spelling is
    left to the general rules, as the last alternative takes none of them.
    """
    required = (
        (rb"Host: ", rb"[A-Za-z0-9.\-]+(?::[0-9]+)?()"),
        (rb"Connection: ", rb"(?:keep-alive, )?[Uu]pgrade()"),
        (rb"Upgrade: ", rb"websocket()"),
        (rb"Sec-WebSocket-Version: ", rb"13()"),
        (rb"Sec-WebSocket-Key: ", rb"(?P<key>" + _KEY_VALUE + rb")"),
    )
    optional = (
        (rb"Origin: ", rb"(?P<origin>[!-~]+)"),
        (rb"Sec-WebSocket-Protocol: ", rb"(?P<offer>[!-~]+(?:, [!-~]+)*)"),
    )
    # Each line has one group. "(?(n)(?!))" fails if group n has matched before, "(?(n)|(?!))" if it has not.
    first = 2
    once = b"".join(
        rb"%b(?(%d)(?!))%b\r\n|" % (name, n, value)
        for n, (name, value) in enumerate(required + optional, first)
    )
    all_present = b"".join(rb"(?(%d)|(?!))" % n for n in range(first, first + len(required)))
    request_line = rb"GET (?P<path>/[" + _URI + rb"]*)" + _QUERY + rb" HTTP/1\.1\r\n"
    other = rb"(?!" + _KNOWN_NAME + rb":)" + _FIELD_LINE
    return re.compile(request_line + rb"(?:" + once + other + rb")*\r\n" + all_present)


_USUAL_UPGRADE = _usual_upgrade()

# Searched in this order in what is malformed, to say why. They decide nothing; the last of each always fits.
_BARE_LINE_END = (re.compile(rb"\r(?!\n)|(?<!\r)\n"), "a line ends with a bare CR or LF; CRLF is needed")
_REQUEST_LINE_COMPLAINTS = (
    _BARE_LINE_END,
    (re.compile(rb"\A(?:\r\n)*[ -~]*[^\r\n -~]"), "the request line has a byte that is not printable ASCII"),
    (re.compile(rb""), "the request line is not METHOD, space, target, space, HTTP/1.1, CRLF"),
)
_FIELD_COMPLAINTS = (
    _BARE_LINE_END,
    (re.compile(rb"\n\r\n(?s:.)|(?<!\r\n\r\n)\Z"), "the request head does not end with its first empty line"),
    (re.compile(rb"\n[\t ]"), "a header line begins with a blank; folded headers are obsolete"),
    (re.compile(rb"\n" + _TOKEN + rb"[\t ]+:"), "a header has a blank between its name and the colon"),
    (re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"), "a header has a control character"),
    (re.compile(rb"\n[^:\r]+\r"), "a header line has no colon"),
    (re.compile(rb""), "a header's name is not a token"),
)


def _complaint(complaints: Sequence[tuple[re.Pattern[bytes], str]], head: bytes, start: int = 0) -> str:
    return next(complaint for pattern, complaint in complaints if pattern.search(head, start))


# --- rules --------------------------------------------------------------------------------------------------


def _known_fields(head: bytes, start: int) -> dict[bytes, bytes]:
    """The fields that matter, by their name in lower case, from a field section that begins at ``start``.

    Repeated fields are joined as RFC 9110 section 5.3 has it. No valid Host, Origin or key contains a comma
    with a space after it, so its syntax finds out a field that may occur only once and occurs twice.
    """
    if not _FIELD_SECTION.fullmatch(head, start):
        raise _Refused(400, _complaint(_FIELD_COMPLAINTS, head, start - 1))
    fields: dict[bytes, bytes] = {}
    for spelling, value in _KNOWN_FIELD.findall(head, start - 1):
        name = spelling.lower()
        fields[name] = fields[name] + b", " + value if name in fields else value
    return fields


def _check_host(fields: Mapping[bytes, bytes], minor: bytes) -> None:
    """RFC 9112 section 3.2; it holds even for the absolute form, which has an authority of its own."""
    host = fields.get(b"host")
    if host is None:
        if minor != b"0":
            raise _Refused(400, "the Host header is missing")
    elif not _HOST.fullmatch(host):
        raise _Refused(400, "the Host header has to occur once and name a host, with or without a port")


def _announces_content(fields: Mapping[bytes, bytes], minor: bytes) -> bool:
    """Whether content follows the head, by RFC 9112 sections 6.1 to 6.3; refuses what they call faulty."""
    length = fields.get(b"content-length")
    if b"transfer-encoding" in fields:
        if minor == b"0":
            raise _Refused(400, "HTTP/1.0 has no Transfer-Encoding")
        if length is not None:
            raise _Refused(400, "Content-Length and Transfer-Encoding exclude each other")
        return True
    if length is None:
        return False
    lengths = _members(length)
    if not all(map(_DIGITS.fullmatch, lengths)):
        raise _Refused(400, "the Content-Length is not a decimal number")
    # Compared without int(), which refuses numbers as long as a head can hold.
    distinct = {digits.lstrip(b"0") for digits in lengths}
    if len(distinct) > 1:
        raise _Refused(400, "there are two different values of Content-Length")
    return distinct != {b""}


def _members(value: bytes) -> list[bytes]:
    """The members of a comma-separated list, empty ones included."""
    return [member.strip(b"\t ") for member in value.split(b",")]


def _path_of(target: bytes) -> bytes:
    """The path of a target not in origin form; only the absolute form has one (RFC 9112 section 3.2)."""
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    if absolute:
        return absolute[1] or b"/"
    if b"#" in target:
        raise _Refused(400, "the request target has a fragment ('#'), which is never sent")
    raise _Refused(400, "the request target is neither a path nor an http, https, ws or wss URL")


def _channel_of(path: bytes) -> str:
    """The channel that a path names: the path itself, percent-decoded."""
    if b"%" not in path:
        return path.decode()
    if _BAD_ESCAPE.search(path):
        raise _Refused(400, "the path has a '%' that two hexadecimal digits do not follow")
    try:
        channel = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise _Refused(400, "the path is not UTF-8 once it is percent-decoded") from None
    if _CONTROL.search(channel):
        raise _Refused(400, "the path has a control character once it is percent-decoded")
    return channel


def _wants_websocket(fields: Mapping[bytes, bytes]) -> bool:
    """Whether both headers ask for an upgrade to WebSocket (RFC 6455 section 4.2.1)."""
    return bool(
        _LISTS_UPGRADE.fullmatch(fields.get(b"connection", b""))
        and _LISTS_WEBSOCKET.fullmatch(fields.get(b"upgrade", b""))
    )


def _check_version(fields: Mapping[bytes, bytes]) -> None:
    distinct = set(_members(fields.get(b"sec-websocket-version", b"")))
    if distinct == {b""}:
        raise _Refused(400, "the Sec-WebSocket-Version header is missing")
    if len(distinct) > 1:
        raise _Refused(400, "there are two different values of Sec-WebSocket-Version")
    # RFC 6455 section 4.4: the answer lists the versions that would do.
    if distinct != {b"13"}:
        raise _Refused(426, "the only version of WebSocket here is 13", _UPGRADE_REQUIRED)


def _canonical(origin: bytes) -> bytes:
    """The one spelling that equal origins share: lower case, without the scheme's default port."""
    origin = origin.lower()
    explicit = _DEFAULT_PORT.fullmatch(origin)
    return explicit[1] or explicit[2] if explicit else origin


class Handshake:
    """Answers request heads; immutable, so one of it serves every connection.

    ``origins`` are the origins whose pages may connect, such as ``https://example.org``, ``null``,
    ``https://*.example.org`` for its subdomains at any depth but not itself, or ``*`` for all; if there are
    none, nothing is asked of the Origin header. ``subprotocols`` are the names that may be agreed on, the
    most wanted first. ``page`` is an HTML document in UTF-8 for a browser that opens ``/``. ``max_head`` is
    the longest request head that is looked at, in bytes; ``retry_after`` is how long a client is told to stay
    away when the server is full, in seconds.

    Raises ValueError if an origin or a subprotocol could never match.
    """

    timeout: bytes
    """Complete 408 response, for a client whose head does not arrive in time."""
    too_large: bytes
    """Complete 431 response, for a head that is longer than ``max_head``."""
    full: bytes
    """Complete 503 response with Retry-After, for a client that there is no room for."""
    too_many: bytes
    """Complete 429 response with Retry-After, for an address that has as many clients as it may have."""

    def __init__(
        self,
        *,
        origins: Sequence[str] = (),
        subprotocols: Sequence[str] = (),
        page: bytes | None = None,
        max_head: int = 8192,
        retry_after: int = 5,
    ) -> None:
        self._max_head = max_head
        self._origins = self._parse_origins(origins)
        self._subprotocols = self._parse_subprotocols(subprotocols)
        self._page = page
        self._page_fields = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": content_security_policy(page or b""),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        }
        self.timeout = explain(408, "the request head did not arrive in time")
        self.too_large = explain(431, f"the request head is longer than {max_head} bytes")
        later = {"Retry-After": str(retry_after)}
        self.full = explain(503, f"the server is full; try again in {retry_after} s", later)
        self.too_many = explain(429, "this address has too many connections", later)

    @staticmethod
    def _parse_origins(origins: Sequence[str]) -> re.Pattern[bytes] | None:
        """What the origins that may connect match, as `_canonical` spells them; None if all are welcome."""
        for origin in origins:
            if origin != "*" and not (_ORIGIN.fullmatch(origin) or _ORIGIN_PATTERN.fullmatch(origin)):
                raise ValueError(
                    f"{origin!r} is not an origin; write scheme://host, scheme://host:port or scheme://*.host"
                )
        if not origins or "*" in origins:
            return None
        # "*" stands for one label or several. Nothing else in an origin is special but to be taken as it is.
        return re.compile(
            b"|".join(
                re.escape(_canonical(origin.encode())).replace(rb"\*", rb"[a-z0-9_\-]+(?:\.[a-z0-9_\-]+)*")
                for origin in origins
            )
        )

    @staticmethod
    def _parse_subprotocols(subprotocols: Sequence[str]) -> tuple[bytes, ...]:
        for name in subprotocols:
            if not re.fullmatch(_TOKEN, name.encode()):
                raise ValueError(f"{name!r} is not a subprotocol; a token is needed (RFC 9110 section 5.6.2)")
        return tuple(name.encode() for name in subprotocols)

    def answer(self, head: bytes) -> Accept | Refuse:
        """Decide on a request from its head: its first byte through the CRLF CRLF that ends it.

        Never raises, whatever the bytes are.
        """
        try:
            if len(head) > self._max_head:
                return Refuse(self.too_large, 431)
            # Written out, here and in _accept: nearly all of a storm's requests end here.
            usual = _USUAL_UPGRADE.fullmatch(head)
            if usual:
                path, key, origin, offer = usual.group("path", "key", "origin", "offer")
                return self._accept(path.decode(), key, origin, offer)
            asked = self._decide(head)
            return asked if isinstance(asked, Refuse) else self._accept(*asked)
        except _Refused as refused:
            return self._refusal(head, refused)

    def read(self, head: bytes) -> Upgrade | Refuse:
        """What ``answer`` does with a head, up to the point where it would accept.

        Never raises, whatever the bytes are.
        """
        if len(head) > self._max_head:
            return Refuse(self.too_large, 431)
        try:
            usual = _USUAL_UPGRADE.fullmatch(head)
            if usual:
                path, key, origin, offer = usual.group("path", "key", "origin", "offer")
                path = path.decode()
            else:
                asked = self._decide(head)
                if isinstance(asked, Refuse):
                    return asked
                path, key, origin, offer = asked
            if self._origins is not None:
                self._check_origin(self._origins, origin)
            offered = () if offer is None else self._parse_offer(offer)
        except _Refused as refused:
            return self._refusal(head, refused)
        return Upgrade(path, tuple(name.decode() for name in offered), key, head)

    def choose(self, offered: Sequence[str]) -> str | None:
        """The server's first choice among the subprotocols that a client offers."""
        return next((name for name in map(bytes.decode, self._subprotocols) if name in offered), None)

    @staticmethod
    def accept(upgrade: Upgrade, subprotocol: str | None, fields: Fields = ()) -> bytes:
        """The complete 101 response; ``subprotocol`` is one that the client offers."""
        pairs = fields if subprotocol is None else (("Sec-WebSocket-Protocol", subprotocol), *fields)
        lines = "".join(f"{name}: {value}\r\n" for name, value in pairs)
        proof = b2a_base64(sha1(upgrade.key + _KEY_SUFFIX).digest(), newline=False)
        return b"%b%b\r\n%b\r\n" % (_SWITCHING, proof, lines.encode())

    @staticmethod
    def refuse(status: int, reason: str, fields: Fields = ()) -> Refuse:
        """A refusal whose content is ``reason``, or the status in words where that is empty."""
        return Refuse(explain(status, reason or phrase(status), more=fields), status)

    @staticmethod
    def _refusal(head: bytes, refused: _Refused) -> Refuse:
        line = _REQUEST_LINE.match(head)
        head_only = line is not None and line[1] == b"HEAD"
        return Refuse(
            explain(refused.status, refused.reason, refused.fields, head_only=head_only), refused.status
        )

    def _decide(self, head: bytes) -> _Asked | Refuse:
        """Apply the rules in order: first what makes a message malformed, then what is not done here."""
        line = _REQUEST_LINE.match(head)
        if line is None:
            raise _Refused(400, _complaint(_REQUEST_LINE_COMPLAINTS, head))
        method, path, target, major, minor = line.groups()
        if major != b"1":
            raise _Refused(505, "the only version of HTTP here is 1.1")
        fields = _known_fields(head, line.end())
        _check_host(fields, minor)
        has_content = _announces_content(fields, minor)
        if method not in (b"GET", b"HEAD"):
            raise _Refused(405, "the only methods here are GET and HEAD", {"Allow": "GET, HEAD"})
        channel = _channel_of(_path_of(target) if path is None else path)
        if has_content:
            raise _Refused(413, "a request to this server has no content")
        # RFC 9110 section 7.8: Upgrade in HTTP/1.0 is ignored.
        if method == b"GET" and minor != b"0" and _wants_websocket(fields):
            return self._upgrade(channel, fields)
        return self._serve(channel, head_only=method == b"HEAD")

    def _upgrade(self, channel: str, fields: Mapping[bytes, bytes]) -> _Asked:
        """Check what RFC 6455 section 4.2.1 asks of the request beyond the upgrade itself."""
        _check_version(fields)
        key = fields.get(b"sec-websocket-key", b"")
        if not _KEY.fullmatch(key):
            raise _Refused(400, "the Sec-WebSocket-Key header has to occur once, as 16 bytes in base64")
        return channel, key, fields.get(b"origin"), fields.get(b"sec-websocket-protocol")

    def _accept(self, channel: str, key: bytes, origin: bytes | None, offer: bytes | None) -> Accept:
        """RFC 6455 section 4.2.2, for a request that is valid. Extensions are optional; none is agreed on."""
        if self._origins is not None:
            self._check_origin(self._origins, origin)
        subprotocol = None
        if offer is not None:
            offered = self._parse_offer(offer)
            subprotocol = next((name for name in self._subprotocols if name in offered), None)
        proof = b2a_base64(sha1(key + _KEY_SUFFIX).digest(), newline=False)
        if subprotocol is None:
            return Accept(_SWITCHING + proof + b"\r\n\r\n", channel, None)
        agreed = b"%b%b\r\nSec-WebSocket-Protocol: %b\r\n\r\n" % (_SWITCHING, proof, subprotocol)
        return Accept(agreed, channel, subprotocol.decode())

    @staticmethod
    def _check_origin(origins: re.Pattern[bytes], origin: bytes | None) -> None:
        if origin is None or not origins.fullmatch(_canonical(origin)):
            raise _Refused(403, "pages of this origin may not connect")

    @staticmethod
    def _parse_offer(offer: bytes) -> list[bytes]:
        """The subprotocols that the client offers."""
        # RFC 9110 section 5.6.1.2: empty members do not count. RFC 6455 section 4.1: one or more, none twice.
        offered = [name for name in _members(offer) if name]
        if not offered or not all(re.fullmatch(_TOKEN, name) for name in offered):
            raise _Refused(400, "the Sec-WebSocket-Protocol header is not a list of tokens")
        if len(set(offered)) < len(offered):
            raise _Refused(400, "the Sec-WebSocket-Protocol header names a subprotocol twice")
        return offered

    def _serve(self, path: str, *, head_only: bool) -> Refuse:
        """What a client that does not ask for WebSocket gets."""
        if path == "/" and self._page is not None:
            return Refuse(response(200, self._page, self._page_fields, head_only=head_only), 200)
        if path == "/healthz":
            return Refuse(explain(200, "ok", head_only=head_only), 200)
        raise _Refused(426, "this is a WebSocket server; use a WebSocket client", _UPGRADE_REQUIRED)
