"""Keys and signatures, against RFC 8032 and against forgeries."""

import nacl.bindings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guts.identity import SigningKey, domain, signature_valid

KEY = SigningKey(bytes(range(32)))
ORDER = 2**252 + 27742317777372353535851937790883648493

# RFC 8032 §7.1, TEST 1 to TEST 3: seed, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]

# The points of order 1, 2, 4 and 8, and encodings of them that are not reduced.
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_published_signatures_are_made_and_accepted(seed: str, public: str, message: str, signature: str) -> None:
    key = SigningKey(bytes.fromhex(seed))
    assert key.public.hex() == public
    assert key.sign(b"", bytes.fromhex(message)).hex() == signature
    assert signature_valid(key.public, b"", bytes.fromhex(message), bytes.fromhex(signature))


def test_domain_names_the_kind() -> None:
    assert domain("refs") == b"guts/refs/1\0"


def test_signature_covers_domain_and_body() -> None:
    signature = KEY.sign(domain("refs"), b"body")
    assert len(signature) == 64
    assert signature_valid(KEY.public, domain("refs"), b"body", signature)
    assert not signature_valid(KEY.public, domain("identity"), b"body", signature)
    assert not signature_valid(KEY.public, domain("refs"), b"Body", signature)
    assert not signature_valid(SigningKey(bytes(32)).public, domain("refs"), b"body", signature)


@given(st.integers(0, 511))
def test_signature_with_a_flipped_bit_is_refused(bit: int) -> None:
    signature = bytearray(KEY.sign(b"d", b"body"))
    signature[bit // 8] ^= 1 << bit % 8
    assert not signature_valid(KEY.public, b"d", b"body", bytes(signature))


@pytest.mark.parametrize("public", SMALL_ORDER)
def test_forgery_under_a_small_order_key_is_refused(public: str) -> None:
    # R = 0·B, S = 0 verifies for (some or) every message under such a key, where the verifier lets it.
    key = bytes.fromhex(public)
    for first in SMALL_ORDER:
        for number in range(16):
            assert not signature_valid(key, b"d", bytes([number]), bytes.fromhex(first) + bytes(32))


def test_signature_with_s_plus_the_order_is_refused() -> None:
    signature = KEY.sign(b"d", b"body")
    other = int.from_bytes(signature[32:], "little") + ORDER
    assert not signature_valid(KEY.public, b"d", b"body", signature[:32] + other.to_bytes(32, "little"))


@pytest.mark.parametrize(("public", "signature"), [(31, 64), (33, 64), (32, 63), (32, 65), (0, 0)])
def test_other_lengths_are_refused(public: int, signature: int) -> None:
    assert not signature_valid(bytes(public), b"d", b"body", bytes(signature))


def test_key_has_a_seed_of_32_bytes_and_never_shows_it() -> None:
    for length in (0, 31, 33, 64):
        with pytest.raises(ValueError, match="32 bytes"):
            SigningKey(bytes(length))
    assert KEY.seed == bytes(range(32))
    assert KEY.seed.hex()[:8] not in repr(KEY)
    assert KEY.public.hex()[:12] in repr(KEY)
    assert bytes(KEY.peer_id) == bytes(KEY.author_id) == KEY.public


def test_generated_keys_differ_and_sign() -> None:
    first, second = SigningKey.generate(), SigningKey.generate()
    assert first.public != second.public
    assert SigningKey(first.seed).public == first.public
    assert nacl.bindings.crypto_sign_open(first.sign(b"a", b"b") + b"ab", first.public) == b"ab"
