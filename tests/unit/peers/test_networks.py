"""Hosts, prefixes and surroundings."""

import ipaddress

import pytest

from guts.addresses import Address
from guts.peers.networks import Surroundings, diversely, host, means_the_same, prefix


def test_ipv4_is_counted_by_address_and_24_and_ipv6_by_64_and_48() -> None:
    assert host("1.2.3.4") != host("1.2.3.5")
    assert prefix("1.2.3.4") == prefix("1.2.3.255") != prefix("1.2.4.4")
    assert host("2a00:1:2:3::1") == host("2a00:1:2:3:ffff::9") != host("2a00:1:2:4::1")
    assert prefix("2a00:1:2:3::1") == prefix("2a00:1:2:ffff::1") != prefix("2a00:1:3::1")


@pytest.mark.parametrize(
    ("ip", "port", "dialled"),
    [
        ("8.8.8.8", 9000, True),
        ("8.8.8.8", 1024, True),
        ("8.8.8.8", 1023, False),
        ("10.200.0.9", 80, True),
        ("172.16.0.1", 9000, False),
        ("192.168.1.1", 9000, False),
        ("100.64.0.1", 9000, False),
        ("127.0.0.1", 9000, False),
        ("127.255.255.255", 9000, False),
        ("169.254.169.254", 9000, False),
        ("224.0.0.1", 9000, False),
        ("255.255.255.255", 9000, False),
        ("240.0.0.1", 9000, False),
        ("0.0.0.0", 9000, False),
        ("0.1.2.3", 9000, False),
        ("2606:4700::1", 9000, True),
        ("::1", 9000, False),
        ("::", 9000, False),
        ("::ffff:127.0.0.1", 9000, False),
        ("::ffff:8.8.8.8", 9000, False),
        ("::127.0.0.1", 9000, False),
        ("fe80::1", 9000, False),
        ("fec0::1", 9000, False),
        ("fd00::1", 9000, False),
        ("ff02::1", 9000, False),
    ],
)
def test_node_in_10_8_dials_on_anothers_word(ip: str, port: int, dialled: bool) -> None:
    assert Surroundings(("10.0.0.1", "203.0.113.5")).may_dial(Address(str(ipaddress.ip_address(ip)), port)) is dialled


def test_node_with_a_public_address_alone_is_in_no_range() -> None:
    surroundings = Surroundings(("45.1.1.1",))
    assert not any(surroundings.is_local(ip) for ip in ("45.1.1.1", "127.0.0.1", "10.0.0.1", "fd00::1"))
    one, other = Address("127.0.0.2", 1), Address("127.0.0.2", 2)
    assert surroundings.place(Address("45.1.1.1", 9000)) == "45.1.1.0/24"
    assert surroundings.place(one) == surroundings.place(other)
    assert Surroundings(("127.0.0.1",)).place(one) != Surroundings(("127.0.0.1",)).place(other)


def test_private_address_means_the_same_inside_its_range_only() -> None:
    assert means_the_same("10.0.0.2", "10.0.0.3")
    assert not means_the_same("8.8.8.8", "10.0.0.3")
    assert not means_the_same("127.0.0.1", "10.0.0.3")
    assert means_the_same("10.0.0.2", "8.8.8.8")


def test_places_take_turns_and_keep_their_order() -> None:
    assert "".join(diversely("aaabbac", lambda item: item)) == "abcabaa"
    assert diversely([], str) == []
