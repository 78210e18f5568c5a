import pytest

from guts.errors import Severity
from guts.noise.keys import HandshakeFailed, KeyPair

# The points of order 1, 2, 4 and 8 (and, for each, its other encodings below 2^255): what everyone's private
# key maps to a value that everyone knows. The top bit is ignored by X25519, so each has a twin.
LOW_ORDER = [
    bytes.fromhex(point)
    for point in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
]
LOW_ORDER += [point[:31] + bytes([point[31] | 0x80]) for point in LOW_ORDER]


def test_key_pair_agrees_with_rfc_7748() -> None:
    # RFC 7748 §6.1.
    alice = KeyPair(bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
    bob = KeyPair(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    assert alice.public.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert bob.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert alice.exchange(bob.public) == bob.exchange(alice.public) == shared


@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
def test_key_pair_refuses_points_of_low_order(point: bytes) -> None:
    with pytest.raises(HandshakeFailed, match="low order") as caught:
        KeyPair(b"\x11" * 32).exchange(point)
    assert caught.value.severity is Severity.NETWORK


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_have_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match=f"32 bytes, not {length}"):
        KeyPair(bytes(length))
    with pytest.raises(ValueError, match=f"32 bytes, not {length}"):
        KeyPair(b"\x11" * 32).exchange(bytes(length))


def test_generated_key_pairs_differ_and_agree() -> None:
    alice, bob = KeyPair.generate(), KeyPair.generate()
    assert alice.public != bob.public
    assert alice.exchange(bob.public) == bob.exchange(alice.public)


def test_key_pair_never_shows_its_private_key() -> None:
    private = bytes(range(32))
    assert private.hex()[:12] not in repr(KeyPair(private))
    assert KeyPair(private).public.hex()[:12] in repr(KeyPair(private))
