import pytest
from hypothesis import given
from hypothesis import strategies as st

from guts.discovery.contact import (
    AddressPolicy,
    Contact,
    InvalidContacts,
    address_group,
    decode_contacts,
    encode_address,
    encode_contacts,
    normal_ip,
)
from guts.discovery.keys import Key

ips = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str).filter(lambda ip: normal_ip(ip) == ip)
contacts = st.builds(Contact, st.binary(min_size=20, max_size=20).map(Key), ips, st.integers(1, 65_535))


@given(st.lists(contacts, max_size=20))
def test_contacts_survive_the_wire(sent: list[Contact]) -> None:
    v4, v6 = encode_contacts(sent)
    assert len(v4) % 26 == 0
    assert len(v6) % 38 == 0
    received = decode_contacts(v4, v6)
    assert sorted(received, key=repr) == sorted(sent, key=repr)


@given(st.binary(max_size=600), st.binary(max_size=600))
def test_any_bytes_are_contacts_or_a_fault(v4: bytes, v6: bytes) -> None:
    try:
        received = decode_contacts(v4, v6)
    except InvalidContacts:
        return
    assert all(1 <= c.port <= 65_535 for c in received)


def test_20_contacts_are_taken_and_21_are_not() -> None:
    assert len(decode_contacts((b"k" * 20 + b"\x08\x08\x08\x08\x23\x28") * 20, b"")) == 20
    with pytest.raises(InvalidContacts):
        decode_contacts((b"k" * 20 + b"\x08\x08\x08\x08\x23\x28") * 20, b"k" * 38)


def test_port_0_and_mapped_addresses_are_left_out() -> None:
    mapped = b"k" * 20 + bytes(10) + b"\xff\xff\x08\x08\x08\x08" + b"\x23\x28"
    assert decode_contacts(b"k" * 20 + b"\x08\x08\x08\x08\0\0", mapped) == ()


def test_an_address_is_its_bytes_and_port() -> None:
    assert encode_address("1.2.3.4", 9000) == bytes([1, 2, 3, 4, 0x23, 0x28])
    assert len(encode_address("2a00::1", 9000)) == 18


def test_groups_are_24_and_48() -> None:
    assert address_group("1.2.3.4") == address_group("1.2.3.200") != address_group("1.2.4.4")
    assert address_group("2a00:1:2:3::1") == address_group("2a00:1:2:ffff::9") != address_group("2a00:1:3::1")


def test_socket_addresses_become_canonical() -> None:
    assert normal_ip("::ffff:1.2.3.4") == "1.2.3.4"
    assert normal_ip("fe80::1%eth0") == "fe80::1"


@pytest.mark.parametrize(
    ("ip", "port", "allowed"),
    [
        ("8.8.8.8", 9000, True),
        ("8.8.8.8", 1024, True),
        ("8.8.8.8", 1023, False),
        ("10.9.9.9", 80, True),
        ("192.168.1.1", 9000, False),
        ("127.0.0.1", 9000, False),
        ("169.254.169.254", 9000, False),
        ("224.0.0.1", 9000, False),
        ("255.255.255.255", 9000, False),
        ("0.0.0.0", 9000, False),
        ("192.0.2.1", 9000, False),
        ("2606:4700::1", 9000, True),
        ("ff02::1", 9000, False),
        ("::", 9000, False),
        ("::1", 9000, False),
        ("fd00::1", 9000, False),
    ],
)
def test_a_node_on_10_8_contacts_global_addresses_and_its_own_range(ip: str, port: int, allowed: bool) -> None:
    policy = AddressPolicy(lambda _: "10.0.0.1")
    assert policy.allows(ip, port) is allowed


def test_private_addresses_are_told_only_inside_their_range() -> None:
    policy = AddressPolicy(lambda _: "10.0.0.1")
    assert policy.may_tell("10.0.0.2", "10.0.0.3")
    assert not policy.may_tell("8.8.8.8", "10.0.0.3")
    assert not policy.may_tell("127.0.0.1", "10.0.0.3")
    assert policy.may_tell("10.0.0.2", "8.8.8.8")


def test_interfaces_are_asked_again_after_forget() -> None:
    own: list[str | None] = [None]
    policy = AddressPolicy(lambda _: own[0])
    assert not policy.is_local("10.0.0.2")
    own[0] = "192.168.0.1"
    assert not policy.is_local("10.0.0.2")
    own[0] = "10.0.0.1"
    assert not policy.is_local("10.0.0.2")
    policy.forget()
    assert policy.is_local("10.0.0.2")


def test_a_family_that_the_socket_does_not_reach_is_not_asked() -> None:
    policy = AddressPolicy(lambda _: "10.0.0.1")
    policy.use(ipv4=True, ipv6=False)
    assert policy.allows("8.8.8.8", 9000)
    assert not policy.allows("2606:4700::1", 9000)
    policy.use(ipv4=False, ipv6=True)
    assert not policy.allows("8.8.8.8", 9000)
    assert policy.allows("2606:4700::1", 9000)
