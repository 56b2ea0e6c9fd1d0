"""Who a client is behind proxies: PROXY headers, Forwarded, and X-Forwarded-For and -Proto. No I/O.

Anybody can write anything into these. They count only where a trusted proxy has sent them, and of a chain of
addresses only what trusted proxies have added to its end: read from the right, the first address that isn't a
trusted proxy's is the client. What a trusted proxy says, but can't be understood or contradicts itself, is an
error; to guess would be to let clients choose who they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple, TypeAlias

from fastcast.options import Several

__all__ = ["Networks", "Peer", "Proxies", "ProxyHeader", "address_key", "read_proxy_header"]

_Address: TypeAlias = IPv4Address | IPv6Address


class Peer(NamedTuple):
    """The other side of a connection."""

    host: str
    """An address in its usual spelling; or what a proxy puts in the place of one: ``unknown``, ``_7``."""
    port: int
    """0 if it isn't known."""
    scheme: str = "ws"


@dataclass(frozen=True, slots=True)
class Networks(Several):
    """Any number of addresses and networks: ``127.0.0.1``, ``10.0.0.0/8``, ``2001:db8::/32``."""

    def check(self, value: object) -> tuple[str, ...]:
        # Not super(): a dataclass with slots is another class than the one that is written here.
        checked = Several.check(self, value)
        assert isinstance(checked, tuple)
        for item in checked:
            _network(item)
        return checked


NETWORKS = Networks(re.compile(r".+", re.DOTALL), "a network", "NETWORK")
"""The kind of an option."""


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        told = str(error) if "host bits" in str(error) else f"{text!r} is no address or network"
        raise ValueError(f"{told} (write 10.0.0.0/8, 2001:db8::/32 or 127.0.0.1)") from None


def _address(text: str) -> _Address:
    """An address as it is written anywhere; ValueError if it's none. IPv4 within IPv6 becomes IPv4."""
    if "%" in text:
        raise ValueError(f"{text!r} has a zone")
    address = ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def address_key(host: str) -> str:
    """That under which clients of one address are counted.

    For IPv6 it is the network of 64 bits, since whoever has an address there has all of them.
    """
    if ":" not in host:
        return host
    address = _address(host)
    return str(IPv6Network((int(address), 64), strict=False)) if address.version == 6 else str(address)


# --- PROXY protocol -----------------------------------------------------------------------------------------

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16
_LONGEST_LINE = 107
_NUMBER = r"(0|[1-9][0-9]{0,4})"
_LINE = re.compile(rf"PROXY (TCP4|TCP6) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) {_NUMBER} {_NUMBER}")
_UNKNOWN = re.compile(r"PROXY UNKNOWN(?: [^\r\n]*)?")

_FAMILIES = 3  # unspecified, IPv4, IPv6, Unix
_TRANSPORTS = 2  # unspecified, stream, datagram
_TLS, _TLS_USED = 0x20, 0x01


class ProxyHeader(NamedTuple):
    """What a header of the PROXY protocol says."""

    length: int
    """Bytes that it takes."""
    source: Peer | None
    """Where the connection came from; None for the proxy itself, or for what is no TCP connection."""


def read_proxy_header(data: bytes) -> ProxyHeader:
    """The header of version 1 or 2 that ``data`` begins with; ValueError if there is none, or it's faulty."""
    if data.startswith(_SIGNATURE):
        return _read_binary(data)
    if data.startswith(b"PROXY "):
        return _read_line(data)
    raise ValueError("the PROXY header is missing")


def _read_line(data: bytes) -> ProxyHeader:
    end = data.find(b"\r\n", 0, _LONGEST_LINE)
    if end < 0:
        raise ValueError("the PROXY header does not end with CRLF")
    line = data[:end].decode("latin-1")
    if _UNKNOWN.fullmatch(line):
        return ProxyHeader(end + 2, None)
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("the PROXY header is malformed")
    version = int(match[1][3])
    try:
        source, destination = (ip_address(match[n]) for n in (2, 3))
    except ValueError:
        raise ValueError("the PROXY header has a malformed address") from None
    if {source.version, destination.version} != {version}:
        raise ValueError("the PROXY header has an address of another family than it says")
    ports = int(match[4]), int(match[5])
    if max(ports) > 65535:
        raise ValueError("the PROXY header has a port above 65535")
    return ProxyHeader(end + 2, Peer(_spelling(source), ports[0]))


def _read_binary(data: bytes) -> ProxyHeader:
    if len(data) < _FIXED:
        raise ValueError("the PROXY header is incomplete")
    version, command = divmod(data[12], 16)
    family, transport = divmod(data[13], 16)
    length = int.from_bytes(data[14:16])
    content = data[_FIXED : _FIXED + length]
    if len(content) < length:
        raise ValueError("the PROXY header is incomplete")
    if version != 2 or command > 1:
        raise ValueError("the PROXY header has an unknown version or command")
    if command == 0:
        return ProxyHeader(_FIXED + length, None)
    if family > _FAMILIES or transport > _TRANSPORTS:
        raise ValueError("the PROXY header has an unknown family or transport")
    size = {1: 4, 2: 16}.get(family)
    if size is None or transport != 1:
        return ProxyHeader(_FIXED + length, None)
    if length < 2 * size + 4:
        raise ValueError("the PROXY header is too short for its addresses")
    source = ip_address(content[:size])
    port = int.from_bytes(content[2 * size : 2 * size + 2])
    return ProxyHeader(
        _FIXED + length,
        Peer(_spelling(source), port, "wss" if _uses_tls(content[2 * size + 4 :]) else "ws"),
    )


def _uses_tls(extensions: bytes) -> bool:
    """Whether the extensions (type, length in two bytes, value) say that the client speaks TLS."""
    used = False
    while extensions:
        length = int.from_bytes(extensions[1:3])
        value = extensions[3 : 3 + length]
        if len(extensions) < 3 or len(value) < length:
            raise ValueError("the PROXY header has a malformed extension")
        if extensions[0] == _TLS and value:
            used = bool(value[0] & _TLS_USED)
        extensions = extensions[3 + length :]
    return used


def _spelling(address: _Address) -> str:
    return str(getattr(address, "ipv4_mapped", None) or address)


# --- headers ------------------------------------------------------------------------------------------------

# RFC 7239 section 4, and what programs send that don't quote addresses with colons.
_PAIR = re.compile(
    r"(?P<name>[!#$%&'*+\-.^_`|~0-9A-Za-z]+)="
    r'(?:(?P<plain>[!#$%&\'*+\-.^_`|~0-9A-Za-z:\[\]]+)|"(?P<quoted>(?:[^"\\]|\\.)*)")'
)
_SEPARATOR = re.compile(r"[\t ]*([;,])[\t ;,]*|[\t ]*\Z")

_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::(?:([0-9]{1,5})|_[0-9A-Za-z._\-]+))?")
_CONCEALED = re.compile(r"(unknown|_[0-9A-Za-z._\-]+)(?::(?:[0-9]{1,5}|_[0-9A-Za-z._\-]+))?", re.IGNORECASE)

_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


def _node(text: str, header: str) -> Peer:
    """An address with or without a port, or what stands for one that is concealed (RFC 7239 section 6)."""
    if concealed := _CONCEALED.fullmatch(text):
        name = concealed[1]
        return Peer(name.lower() if name.lower() == "unknown" else name, 0)
    match = _NODE.fullmatch(text)
    try:
        address = _address(match[1] or match[2] if match else text)
    except ValueError:
        raise ValueError(f"the {header} header names a client that is no address") from None
    return Peer(str(address), int(match[3] or 0) if match else 0)


def _scheme(text: str, header: str) -> str:
    scheme = _SCHEMES.get(text.lower())
    if scheme is None:
        raise ValueError(f"the {header} header names a scheme that is neither http nor https")
    return scheme


def _elements(forwarded: str) -> list[dict[str, str]]:
    """The elements of a Forwarded header. One that is malformed anywhere may mean anything further on."""
    elements: list[dict[str, str]] = [{}]
    position = len(forwarded) - len(forwarded.lstrip("\t ;,"))
    while position < len(forwarded):
        pair = _PAIR.match(forwarded, position)
        separator = _SEPARATOR.match(forwarded, pair.end()) if pair else None
        if pair is None or separator is None or pair["name"].lower() in elements[-1]:
            raise ValueError("the Forwarded header is malformed")
        value = pair["plain"] or re.sub(r"\\(.)", r"\1", pair["quoted"] or "")
        elements[-1][pair["name"].lower()] = value
        if "," in separator[0]:
            elements.append({})
        position = separator.end()
    return [element for element in elements if element]


class Proxies:
    """Finds the client behind proxies of these networks.

    With ``proxy_protocol``, every connection of theirs begins with a PROXY header, and no other does.
    """

    def __init__(self, networks: Sequence[str], *, proxy_protocol: bool = False) -> None:
        self._networks = [_network(text) for text in networks]
        self._proxy_protocol = proxy_protocol
        self._trusts = lru_cache(maxsize=1024)(self._look_up)

    def unwrap(self, data: bytes, host: str, port: int) -> tuple[bytes, Peer, bool]:
        """The request without a PROXY header, who sends it, and whether its fields may say more about that.

        They may not where a proxy passes on a connection and doesn't know whose: then they are anybody's.
        ValueError says what is wrong.
        """
        peer = Peer(_canonical(host), port)
        if not self._proxy_protocol:
            return data, peer, self._trusts(peer.host)
        if not self._trusts(peer.host):
            if data.startswith((b"PROXY ", _SIGNATURE)):
                raise ValueError("a PROXY header is welcome from trusted proxies only")
            return data, peer, False
        length, source = read_proxy_header(data)
        return data[length:], source or peer, source is not None and self._trusts(source.host)

    def client(self, fields: Mapping[str, str], peer: Peer) -> Peer:
        """Who a request of a trusted proxy comes from, by its fields (names in lower case).

        ValueError if that is unclear.
        """
        by_forwarded, scheme = self._by_forwarded(fields)
        found = [each for each in (by_forwarded, self._by_forwarded_for(fields)) if each is not None]
        if len({client.host for client in found}) > 1:
            raise ValueError("the headers Forwarded and X-Forwarded-For name different clients")
        schemes = {scheme} if scheme else set()
        if proto := fields.get("x-forwarded-proto"):
            schemes.add(_scheme(proto.rpartition(",")[2].strip("\t "), "X-Forwarded-Proto"))
        if len(schemes) > 1:
            raise ValueError("the headers Forwarded and X-Forwarded-Proto name different schemes")
        client = max(found, key=lambda each: each.port, default=peer)
        return Peer(client.host, client.port, schemes.pop() if schemes else peer.scheme)

    def _by_forwarded_for(self, fields: Mapping[str, str]) -> Peer | None:
        members = [member.strip("\t ") for member in fields.get("x-forwarded-for", "").split(",")]
        nodes = (_node(member, "X-Forwarded-For") for member in reversed(members) if member)
        return self._first_stranger(nodes)

    def _by_forwarded(self, fields: Mapping[str, str]) -> tuple[Peer | None, str]:
        """The client, and the scheme that it used; either may be missing."""
        elements = _elements(fields.get("forwarded", ""))
        scheme = ""

        def nodes() -> Iterator[Peer]:
            nonlocal scheme
            for element in reversed(elements):
                if "proto" in element:
                    scheme = _scheme(element["proto"], "Forwarded")
                if "for" not in element:
                    return
                yield _node(element["for"], "Forwarded")

        client = self._first_stranger(nodes())
        return client, scheme

    def _first_stranger(self, nodes: Iterator[Peer]) -> Peer | None:
        """The first that isn't trusted, or else the last; None of none."""
        client = None
        for client in nodes:
            if not self._trusts(client.host):
                break
        return client

    def _look_up(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def _canonical(host: str) -> str:
    return str(_address(host)) if ":" in host else host
