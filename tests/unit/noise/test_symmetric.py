import hashlib

import pytest

from guts.noise.cipher import DecryptFailed
from guts.noise.hashes import HashFunction
from guts.noise.symmetric import SymmetricState


def test_protocol_name_as_long_as_the_hash_is_used_as_it_is() -> None:
    assert SymmetricState(b"n" * 31, HashFunction.SHA256).h == b"n" * 31 + b"\0"
    assert SymmetricState(b"n" * 32, HashFunction.SHA256).h == b"n" * 32
    assert SymmetricState(b"n" * 33, HashFunction.SHA256).h == hashlib.sha256(b"n" * 33).digest()


def test_payload_travels_in_clear_until_there_is_a_key() -> None:
    state = SymmetricState(b"name", HashFunction.SHA256)
    assert state.encrypt_and_hash(b"clear") == b"clear"
    state.mix_key(b"secret")
    assert b"hidden" not in state.encrypt_and_hash(b"hidden")


def test_payload_is_bound_to_all_that_was_said() -> None:
    alice, bob, eve = (SymmetricState(b"name", HashFunction.SHA256) for _ in range(3))
    eve.mix_hash(b"another prologue")
    for state in (alice, bob, eve):
        state.mix_key(b"secret")
    ciphertext = alice.encrypt_and_hash(b"payload")
    with pytest.raises(DecryptFailed):
        eve.decrypt_and_hash(ciphertext)
    assert bob.decrypt_and_hash(ciphertext) == b"payload"
    assert alice.h == bob.h


def test_split_gives_each_direction_its_own_key() -> None:
    state = SymmetricState(b"name", HashFunction.SHA512)
    state.mix_key(b"secret")
    c1, c2 = state.split()
    assert c1.encrypt_with_ad(b"", b"same") != c2.encrypt_with_ad(b"", b"same")
    assert c1.n == c2.n == 1
