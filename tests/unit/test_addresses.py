"""Addresses, bootstrap addresses and URLs, as people write them."""

import pytest

from guts.addresses import Address, BadAddress, BootstrapAddress, RepositoryUrl, split_host_port
from guts.ids import BadId, PeerId, RepositoryId

NODE, REPOSITORY = PeerId(bytes(range(32))), RepositoryId(bytes(range(32)))


@pytest.mark.parametrize(
    ("text", "ip", "port"),
    [
        ("127.0.0.1:9000", "127.0.0.1", 9000),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("[::1]:9000", "::1", 9000),
        (" [2001:DB8:0:0::1]:65535 ", "2001:db8::1", 65_535),
    ],
)
def test_numeric_addresses_are_read(text: str, ip: str, port: int) -> None:
    address = Address.parse(text)
    assert (address.ip, address.port, address.transport) == (ip, port, "tcp")
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1",
        ":9000",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:65536",
        "::1:9000:",
        "[::1]",
        "[::1:9000",
        "1.2.3.4:123456",
        "a b:1",
        "1.2.3.4:9000/x",
        "u@1.2.3.4:9000",
    ],
)
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(BadAddress, match="is needed"):
        Address.parse(text)


@pytest.mark.parametrize("text", ["example.org:9000", "localhost:9000", "256.1.1.1:9000", "[1:2]:9000"])
def test_names_are_not_resolved(text: str) -> None:
    with pytest.raises(BadAddress, match="numeric"):
        Address.parse(text)


@pytest.mark.parametrize(("ip", "port"), [("::0:1", 1), ("1.2.3.4", -1), ("1.2.3.4", 65_536), ("name", 1)])
def test_address_that_is_not_canonical_cannot_be_made(ip: str, port: int) -> None:
    with pytest.raises(ValueError, match=r"canonical|range|appear"):
        Address(ip, port)


def test_host_and_port_are_split() -> None:
    assert split_host_port("example.org:80") == ("example.org", 80)
    assert split_host_port("[::1]:80") == ("::1", 80)


@pytest.mark.parametrize("text", ["example.org:9000", "[::1]:9000", f"{NODE}@example.org:9000", f"{NODE}@[::1]:1"])
def test_bootstrap_addresses_read_back(text: str) -> None:
    address = BootstrapAddress.parse(text)
    assert str(address) == text
    assert address.peer == (NODE if "@" in text else None)


def test_bootstrap_address_with_a_wrong_id_or_host_is_told() -> None:
    with pytest.raises(BadId, match="a repository id"):
        BootstrapAddress.parse(f"{REPOSITORY}@example.org:9000")
    with pytest.raises(BadId):
        BootstrapAddress.parse("@example.org:9000")
    with pytest.raises(BadAddress):
        BootstrapAddress.parse(f"{NODE}@example.org")


@pytest.mark.parametrize(
    ("text", "name", "hint"),
    [
        (f"guts://{REPOSITORY}", None, None),
        (f"guts://{REPOSITORY}/linux", "linux", None),
        (f"guts://1.2.3.4:9000/{REPOSITORY}", None, "1.2.3.4:9000"),
        (f"guts://[::1]:9000/{REPOSITORY}/a.b-c_d", "a.b-c_d", "[::1]:9000"),
        (f"guts://{NODE}@host:9000/{REPOSITORY}/x", "x", f"{NODE}@host:9000"),
    ],
)
def test_urls_read_back(text: str, name: str | None, hint: str | None) -> None:
    url = RepositoryUrl.parse(text)
    assert (url.repository, url.name) == (REPOSITORY, name)
    assert (None if url.hint is None else str(url.hint)) == hint
    assert str(url) == text
    assert RepositoryUrl.parse(str(url)) == url


@pytest.mark.parametrize(
    "text",
    [str(REPOSITORY), f"{REPOSITORY}/x", f"guts:{REPOSITORY}", f"GUTS://{REPOSITORY}", f" guts://{REPOSITORY}/ "],
)
def test_short_forms_of_a_url_are_read(text: str) -> None:
    assert RepositoryUrl.parse(text).repository == REPOSITORY


def test_git_suffix_of_the_name_is_cosmetic() -> None:
    assert RepositoryUrl.parse(f"guts://{REPOSITORY}/linux.git").name == "linux"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "guts://",
        f"https://{REPOSITORY}",
        "guts://1.2.3.4:9000",
        f"guts://{REPOSITORY}/a/b",
        f"guts://{REPOSITORY}/..",
        f"guts://{REPOSITORY}/-x",
        f"guts://{REPOSITORY}/" + "n" * 101,
    ],
)
def test_what_is_no_url_is_told(text: str) -> None:
    with pytest.raises((BadAddress, BadId)):
        RepositoryUrl.parse(text)


def test_url_with_another_kind_of_id_is_told() -> None:
    with pytest.raises(BadId, match="is a node id"):
        RepositoryUrl.parse(f"guts://{NODE}")
