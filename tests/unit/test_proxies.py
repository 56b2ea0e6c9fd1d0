"""Who the client is behind proxies: what they say, and whom to believe."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcast.proxies import NETWORKS, Peer, Proxies, address_key, read_proxy_header

bounded = settings(deadline=None, max_examples=500, database=None)

# Any behind 10.0.0.0/8 or fd00::/8 is a proxy; the rest of the world isn't.
PROXY = Peer("10.0.0.1", 1234)
PROXIES = Proxies(["10.0.0.0/8", "fd00::/8"])
HEADED = Proxies(["10.0.0.0/8"], proxy_protocol=True)

SIGNATURE = bytes.fromhex("0D0A0D0A000D0A515549540A")
HEAD = b"GET / HTTP/1.1\r\nHost: 192.168.0.11\r\n\r\n"


def binary(
    address: bytes = b"", *, version: int = 2, command: int = 1, family: int = 1, transport: int = 1
) -> bytes:
    """A header of version 2, laid out as the specification has it."""
    kinds = bytes([version << 4 | command, family << 4 | transport])
    return SIGNATURE + kinds + struct.pack("!H", len(address)) + address


def ipv4(source: str, port: int) -> bytes:
    return socket.inet_aton(source) + socket.inet_aton("10.0.0.9") + struct.pack("!HH", port, 443)


def ipv6(source: str, port: int) -> bytes:
    addresses = (socket.inet_pton(socket.AF_INET6, address) for address in (source, "2001:db8::9"))
    return b"".join(addresses) + struct.pack("!HH", port, 443)


def extension(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def client(peer: Peer = PROXY, proxies: Proxies = PROXIES, **fields: str) -> Peer:
    return proxies.client({name.replace("_", "-"): value for name, value in fields.items()}, peer)


def complaint(peer: Peer = PROXY, **fields: str) -> str:
    with pytest.raises(ValueError, match="header") as caught:
        client(peer, **fields)
    return str(caught.value)


class TestNetworks:
    @pytest.mark.parametrize("text", ["10.0.0.0/8", "127.0.0.1", "::1", "2001:db8::/32", "0.0.0.0/0"])
    def test_addresses_and_networks_can_be_given(self, text: str) -> None:
        assert NETWORKS.check([text]) == (text,)

    @pytest.mark.parametrize("text", ["", "proxy.example.org", "10.0.0.0/33", "10.0.0", "10.0.0.0-10.0.0.9"])
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="network"):
            NETWORKS.check([text])

    def test_an_address_that_is_meant_as_a_network_is_told_apart(self) -> None:
        with pytest.raises(ValueError, match=r"10\.0\.0\.1/8 has host bits set"):
            NETWORKS.check(["10.0.0.1/8"])


class TestForwardedFor:
    @pytest.mark.parametrize(
        ("header", "host", "port"),
        [
            ("192.0.2.1", "192.0.2.1", 0),
            (" 192.0.2.1 ", "192.0.2.1", 0),
            ("192.0.2.1:4711", "192.0.2.1", 4711),
            ("2001:db8::1", "2001:db8::1", 0),
            ("2001:DB8:0:0::1", "2001:db8::1", 0),
            ("[2001:db8::1]", "2001:db8::1", 0),
            ("[2001:db8::1]:4711", "2001:db8::1", 4711),
            ("::ffff:192.0.2.1", "192.0.2.1", 0),
            ("unknown", "unknown", 0),
            # What stands on the left, anybody can have written.
            ("198.51.100.7, 192.0.2.1", "192.0.2.1", 0),
            ("10.0.0.5, 192.0.2.1", "192.0.2.1", 0),
            ("not an address, 192.0.2.1", "192.0.2.1", 0),
            ("192.0.2.1, ", "192.0.2.1", 0),
            # Trusted proxies pass on what they were told.
            ("198.51.100.7, 192.0.2.1, 10.0.0.2", "192.0.2.1", 0),
            ("192.0.2.1:99, fd00::2, 10.0.0.2", "192.0.2.1", 99),
            ("unknown, 10.0.0.2", "unknown", 0),
            # Of a chain of proxies alone, the farthest is the client.
            ("10.0.0.3, 10.0.0.2", "10.0.0.3", 0),
        ],
    )
    def test_the_client_is_the_first_from_the_right_that_is_no_proxy(
        self, header: str, host: str, port: int
    ) -> None:
        assert client(x_forwarded_for=header) == Peer(host, port)

    def test_without_it_the_proxy_is_the_client(self) -> None:
        assert client() == client(x_forwarded_for="") == client(x_forwarded_for=" ,") == PROXY

    def test_who_is_not_trusted_can_say_what_it_likes(self) -> None:
        assert PROXIES.unwrap(HEAD, "192.0.2.9", 1) == (HEAD, Peer("192.0.2.9", 1), False)
        assert Proxies([]).unwrap(HEAD, PROXY.host, PROXY.port) == (HEAD, PROXY, False)

    @pytest.mark.parametrize(
        "header",
        [
            "example.org",
            "192.0.2.1, 256.0.0.1",
            "192.0.2.1, 10.0.0.2:port",
            "192.0.2.1, [10.0.0.2",
            "fe80::1%eth0",
            "192.0.2.01",
            "1.2.3.4 5.6.7.8",
            "192.0.2.1:123456",
            "evil thing, 10.0.0.2",
        ],
    )
    def test_what_a_proxy_says_must_be_an_address(self, header: str) -> None:
        assert complaint(x_forwarded_for=header) == (
            "the X-Forwarded-For header names a client that is no address"
        )

    @bounded
    @given(st.lists(st.ip_addresses(v=4) | st.ip_addresses(v=6) | st.text(max_size=8), max_size=4))
    def test_whatever_a_client_writes_it_cannot_choose_who_it_is(self, forged: list[object]) -> None:
        written = ", ".join(map(str, forged))
        header = f"{written}, 192.0.2.1" if written else "192.0.2.1"
        assert client(x_forwarded_for=header).host == "192.0.2.1"


class TestForwarded:
    @pytest.mark.parametrize(
        ("header", "host", "port", "scheme"),
        [
            # The examples of RFC 7239.
            ('for="_gazonk"', "_gazonk", 0, "ws"),
            ('For="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17", 4711, "ws"),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60", 0, "ws"),
            ("for=192.0.2.43, for=198.51.100.17", "198.51.100.17", 0, "ws"),
            ('for=192.0.2.43, for="[2001:db8:cafe::17]"', "2001:db8:cafe::17", 0, "ws"),
            ('for="_mystery";by="10.0.0.9", for=10.0.0.2', "_mystery", 0, "ws"),
            ("for=unknown;proto=https", "unknown", 0, "wss"),
            ('for="192.0.2.43:47011"', "192.0.2.43", 47011, "ws"),
            ('for="192.0.2.43:_port"', "192.0.2.43", 0, "ws"),
            # Blanks, empty members, unquoted colons.
            ("for=192.0.2.1 ; proto=HTTPS ,, for=10.0.0.2", "192.0.2.1", 0, "wss"),
            ("for=192.0.2.1:99", "192.0.2.1", 99, "ws"),
            ("for=[2001:db8::1]:99", "2001:db8::1", 99, "ws"),
            (', for=192.0.2.1;host="a,b;c\\"d"', "192.0.2.1", 0, "ws"),
            # The scheme is what the client used, not what the proxies did among each other.
            ("for=192.0.2.1;proto=https, for=10.0.0.2;proto=http", "192.0.2.1", 0, "wss"),
            ("for=192.0.2.7;proto=https, for=192.0.2.1;proto=http", "192.0.2.1", 0, "ws"),
            ("proto=https", PROXY.host, PROXY.port, "wss"),
            ("by=10.0.0.1", PROXY.host, PROXY.port, "ws"),
        ],
    )
    def test_the_client_is_found_as_in_x_forwarded_for(
        self, header: str, host: str, port: int, scheme: str
    ) -> None:
        assert client(forwarded=header) == Peer(host, port, scheme)

    @pytest.mark.parametrize(
        "header",
        [
            "192.0.2.1",
            "for",
            "for=",
            "for 192.0.2.1",
            'for="192.0.2.1',
            'for="192.0.2.1"x',
            "for=192.0.2.1 for=192.0.2.2",
            "for=192.0.2.1;for=192.0.2.2",
            # An open quote would swallow what the proxy adds.
            'for="x, for=192.0.2.1',
            'for="\\", for=192.0.2.1',
        ],
    )
    def test_one_that_can_be_read_in_two_ways_is_refused(self, header: str) -> None:
        assert complaint(forwarded=header) == "the Forwarded header is malformed"

    def test_it_names_addresses_and_known_schemes(self) -> None:
        assert complaint(forwarded="for=example.org") == (
            "the Forwarded header names a client that is no address"
        )
        assert complaint(forwarded="for=192.0.2.1;proto=gopher") == (
            "the Forwarded header names a scheme that is neither http nor https"
        )

    def test_both_headers_may_say_the_same(self) -> None:
        found = client(forwarded="for=192.0.2.1;proto=https", x_forwarded_for="192.0.2.1:80")
        assert found == Peer("192.0.2.1", 80, "wss")

    def test_one_without_a_client_adds_its_scheme(self) -> None:
        for header in ("proto=https", "host=example.org;proto=https", "by=10.0.0.1;proto=https"):
            found = client(forwarded=header, x_forwarded_for="192.0.2.1")
            assert found == Peer("192.0.2.1", 0, "wss")

    def test_one_that_the_proxy_does_not_know_and_passes_on_cannot_win(self) -> None:
        for fields in (
            {"forwarded": "for=198.51.100.7", "x_forwarded_for": "192.0.2.1"},
            {"forwarded": "for=192.0.2.1", "x_forwarded_for": "198.51.100.7"},
        ):
            assert complaint(**fields) == ("the headers Forwarded and X-Forwarded-For name different clients")

    @bounded
    @given(st.text(alphabet='for=";,\\ 10.2[]:_a', max_size=30))
    def test_whatever_a_client_writes_it_is_itself_or_refused(self, forged: str) -> None:
        try:
            found = client(forwarded=f"{forged}, for=192.0.2.1")
        except ValueError:
            return
        assert found.host == "192.0.2.1"


class TestForwardedProto:
    @pytest.mark.parametrize(
        ("header", "scheme"),
        [("https", "wss"), ("wss", "wss"), ("HTTP", "ws"), ("ws", "ws"), ("http, https", "wss"), ("", "ws")],
    )
    def test_the_last_word_is_the_proxy_s(self, header: str, scheme: str) -> None:
        assert client(x_forwarded_proto=header).scheme == scheme
        assert client(x_forwarded_proto=header, x_forwarded_for="192.0.2.1").scheme == scheme

    def test_another_scheme_is_refused(self) -> None:
        assert complaint(x_forwarded_proto="spdy") == (
            "the X-Forwarded-Proto header names a scheme that is neither http nor https"
        )

    def test_the_headers_must_agree(self) -> None:
        assert complaint(forwarded="for=192.0.2.1;proto=http", x_forwarded_proto="https") == (
            "the headers Forwarded and X-Forwarded-Proto name different schemes"
        )


class TestProxyLine:
    def test_the_example_of_the_specification(self) -> None:
        line = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
        assert read_proxy_header(line + HEAD) == (len(line), Peer("192.168.0.1", 56324))

    @pytest.mark.parametrize(
        ("line", "source"),
        [
            ("TCP4 255.255.255.255 255.255.255.255 65535 65535", Peer("255.255.255.255", 65535)),
            ("TCP4 1.2.3.4 5.6.7.8 0 0", Peer("1.2.3.4", 0)),
            (f"TCP6 {'ffff:' * 7}ffff {'ffff:' * 7}ffff 65535 65535", Peer(f"{'ffff:' * 7}ffff", 65535)),
            ("TCP6 2001:DB8::1 ::1 7 8", Peer("2001:db8::1", 7)),
            ("TCP6 ::ffff:192.0.2.1 ::1 7 8", Peer("192.0.2.1", 7)),
            ("UNKNOWN", None),
            ("UNKNOWN anything at all", None),
            (f"UNKNOWN {'ffff:' * 7}ffff {'ffff:' * 7}ffff 65535 65535", None),
        ],
    )
    def test_a_line_of_any_allowed_length_is_read(self, line: str, source: Peer | None) -> None:
        data = f"PROXY {line}\r\n".encode()
        assert read_proxy_header(data + HEAD) == (len(data), source)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            HEAD,
            b"PROXY",
            b"PROXY ",
            b"proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n" + HEAD,
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r" + HEAD,
            b"PROXY UNKNOWN x\n\r\n",
            b"PROXY UNKNOWNX\r\n",
            b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
            b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n",
            b"PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 ::1 ::2 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 ::2 1 2\r\n",
            b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY TCP6 ::1::2 ::2 1 2\r\n",
            b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 \xb2 2\r\n",
        ],
    )
    def test_anything_else_is_refused(self, data: bytes) -> None:
        with pytest.raises(ValueError, match="PROXY header"):
            read_proxy_header(data)


class TestProxyBinary:
    def test_the_layout_of_the_specification(self) -> None:
        data = bytes.fromhex("0D0A0D0A 000D0A51 5549540A 21 11 000C C0000201 0A000009 DC04 01BB")
        assert read_proxy_header(data + HEAD) == (28, Peer("192.0.2.1", 56324))
        assert binary(ipv4("192.0.2.1", 56324)) == data

    @pytest.mark.parametrize(
        ("data", "source"),
        [
            (binary(ipv6("2001:db8::1", 7), family=2), Peer("2001:db8::1", 7)),
            (binary(ipv6("::ffff:192.0.2.1", 7), family=2), Peer("192.0.2.1", 7)),
            (binary(bytes(216), family=3), None),
            (binary(ipv4("192.0.2.1", 7), transport=2), None),
            (binary(ipv6("2001:db8::1", 7), family=2, transport=2), None),
            (binary(family=0, transport=0), None),
            (binary(b"whatever", family=0, transport=0), None),
            (binary(family=0, transport=0, command=0), None),
            (binary(ipv4("192.0.2.1", 7), command=0), None),
            (binary(b"x", family=15, transport=15, command=0), None),
        ],
    )
    def test_what_is_no_tcp_connection_has_no_source(self, data: bytes, source: Peer | None) -> None:
        assert read_proxy_header(data + HEAD) == (len(data), source)

    @pytest.mark.parametrize(
        ("extensions", "scheme"),
        [
            (extension(0x04, bytes(5)), "ws"),
            (extension(0x20, b"\x01\0\0\0\0" + extension(0x21, b"TLSv1.3")), "wss"),
            (extension(0x01, b"h2") + extension(0x20, b"\x07\0\0\0\0") + extension(0xE0, b""), "wss"),
            (extension(0x20, b"\x00\0\0\0\0"), "ws"),
            (extension(0x20, b""), "ws"),
        ],
    )
    def test_extensions_tell_whether_the_client_uses_tls(self, extensions: bytes, scheme: str) -> None:
        data = binary(ipv4("192.0.2.1", 7) + extensions)
        assert read_proxy_header(data + HEAD) == (len(data), Peer("192.0.2.1", 7, scheme))

    @pytest.mark.parametrize(
        "data",
        [
            SIGNATURE,
            binary(ipv4("192.0.2.1", 7))[:15],
            binary(ipv4("192.0.2.1", 7))[:-1],
            binary(ipv4("192.0.2.1", 7), version=1),
            binary(ipv4("192.0.2.1", 7), version=3),
            binary(ipv4("192.0.2.1", 7), command=2),
            binary(ipv4("192.0.2.1", 7), family=4),
            binary(ipv4("192.0.2.1", 7), transport=3),
            binary(ipv4("192.0.2.1", 7)[:-1]),
            binary(ipv4("192.0.2.1", 7), family=2),
            binary(ipv4("192.0.2.1", 7) + b"\x04"),
            binary(ipv4("192.0.2.1", 7) + b"\x04\x00\x02x"),
        ],
    )
    def test_anything_else_is_refused(self, data: bytes) -> None:
        with pytest.raises(ValueError, match="PROXY header"):
            read_proxy_header(data)

    @bounded
    @given(st.binary(max_size=80), st.sampled_from([b"", SIGNATURE, SIGNATURE + b"\x21\x11", b"PROXY TCP4 "]))
    def test_any_bytes_are_read_or_refused(self, garbage: bytes, start: bytes) -> None:
        data = start + garbage
        try:
            header = read_proxy_header(data)
        except ValueError:
            return
        assert 0 < header.length <= len(data)

    @bounded
    @given(st.ip_addresses(v=4) | st.ip_addresses(v=6), st.integers(0, 65535))
    def test_both_versions_say_the_same(self, source: object, port: int) -> None:
        text = str(source)
        is_v6 = ":" in text
        other = "::1" if is_v6 else "10.0.0.9"
        line = f"PROXY {'TCP6' if is_v6 else 'TCP4'} {text} {other} {port} 443\r\n".encode()
        data = binary((ipv6 if is_v6 else ipv4)(text, port), family=2 if is_v6 else 1)
        assert read_proxy_header(line).source == read_proxy_header(data).source


class TestUnwrapping:
    def test_a_trusted_proxy_s_header_is_taken_off(self) -> None:
        for header in (b"PROXY TCP4 192.0.2.1 10.0.0.9 7 443\r\n", binary(ipv4("192.0.2.1", 7))):
            assert HEADED.unwrap(header + HEAD, "10.0.0.1", 1) == (
                HEAD,
                Peer("192.0.2.1", 7),
                False,
            )

    @pytest.mark.parametrize(
        "header",
        [
            b"PROXY UNKNOWN\r\n",
            binary(family=0, transport=0, command=0),
            binary(family=0, transport=0),
            binary(bytes(216), family=3, transport=1),
        ],
    )
    def test_of_whom_a_proxy_knows_nothing_fields_say_nothing_either(self, header: bytes) -> None:
        assert HEADED.unwrap(header + HEAD, "10.0.0.1", 1) == (HEAD, Peer("10.0.0.1", 1), False)

    def test_fields_count_where_the_header_names_a_trusted_proxy(self) -> None:
        header = b"PROXY TCP4 10.0.0.2 10.0.0.9 7 443\r\n"
        assert HEADED.unwrap(header + HEAD, "10.0.0.1", 1) == (HEAD, Peer("10.0.0.2", 7), True)

    def test_a_trusted_proxy_has_to_send_it(self) -> None:
        with pytest.raises(ValueError, match="the PROXY header is missing"):
            HEADED.unwrap(HEAD, "10.0.0.1", 1)

    @pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", binary(ipv4("10.0.0.1", 7))])
    def test_nobody_else_may(self, header: bytes) -> None:
        with pytest.raises(ValueError, match="trusted proxies only"):
            HEADED.unwrap(header + HEAD, "192.0.2.1", 1)
        assert HEADED.unwrap(HEAD, "192.0.2.1", 1) == (HEAD, Peer("192.0.2.1", 1), False)

    def test_without_the_option_nothing_is_taken_off(self) -> None:
        data = b"PROXY UNKNOWN\r\n" + HEAD
        assert PROXIES.unwrap(data, "10.0.0.1", 1) == (data, PROXY._replace(port=1), True)

    def test_a_proxy_s_ipv4_address_is_known_over_ipv6(self) -> None:
        _, peer, _ = HEADED.unwrap(b"PROXY TCP4 192.0.2.1 10.0.0.9 7 443\r\n" + HEAD, "::ffff:10.0.0.1", 1)
        assert peer.host == "192.0.2.1"

    def test_an_unknown_other_side_is_not_trusted(self) -> None:
        assert HEADED.unwrap(HEAD, "", 0) == (HEAD, Peer("", 0), False)

    def test_a_proxy_behind_another_speaks_by_headers(self) -> None:
        _, peer, _ = HEADED.unwrap(binary(ipv4("10.0.0.2", 7)) + HEAD, "10.0.0.1", 1)
        assert client(peer, HEADED, x_forwarded_for="192.0.2.1").host == "192.0.2.1"

    def test_tls_that_the_header_tells_of_lasts(self) -> None:
        tls = extension(0x20, b"\x01\0\0\0\0")
        _, peer, _ = HEADED.unwrap(binary(ipv4("10.0.0.2", 7) + tls) + HEAD, "10.0.0.1", 1)
        assert client(peer, HEADED, x_forwarded_for="192.0.2.1").scheme == "wss"


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("", ""),
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1::5", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff::", "2001:db8:0:1::/64"),
        ("::1", "::/64"),
        ("unknown", "unknown"),
    ],
)
def test_clients_are_counted_by_address_or_network_of_64_bits(host: str, key: str) -> None:
    assert address_key(host) == key
