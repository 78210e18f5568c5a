import hashlib
import hmac

import pytest

from guts.noise.hashes import HashFunction


@pytest.mark.parametrize(
    ("function", "length"),
    [
        (HashFunction.SHA256, 32),
        (HashFunction.SHA512, 64),
        (HashFunction.BLAKE2s, 32),
        (HashFunction.BLAKE2b, 64),
    ],
)
def test_hash_function_has_the_length_of_the_specification(function: HashFunction, length: int) -> None:
    assert function.length == len(function.hash(b"")) == length
    assert [len(output) for output in function.hkdf(bytes(length), b"")] == [length, length]


def test_hkdf_agrees_with_rfc_5869() -> None:
    # RFC 5869 test case 3 has an empty salt (= zeros) and an empty info, as Noise's HKDF has.
    output1, _ = HashFunction.SHA256.hkdf(bytes(32), bytes.fromhex("0b" * 22))
    assert output1.hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"


@pytest.mark.parametrize("function", list(HashFunction))
def test_hkdf_follows_the_formula_of_the_specification(function: HashFunction) -> None:
    def hmac_hash(key: bytes, data: bytes) -> bytes:
        return hmac.new(key, data, getattr(hashlib, function.value)).digest()

    key, material = bytes(range(function.length)), b"input key material"
    temp_key = hmac_hash(key, material)
    output1 = hmac_hash(temp_key, b"\x01")
    output2 = hmac_hash(temp_key, output1 + b"\x02")
    assert function.hkdf(key, material) == (output1, output2)
