import pytest
from nacl.bindings import crypto_aead_chacha20poly1305_ietf_encrypt

from guts.errors import Severity
from guts.noise.cipher import MAX_NONCE, TAG_LENGTH, CipherState, DecryptFailed

KEY = bytes(range(32))


def keyed(nonce: int = 0) -> CipherState:
    cipher = CipherState()
    cipher.initialize_key(KEY)
    cipher.n = nonce
    return cipher


def test_cipher_without_key_passes_everything_through() -> None:
    cipher = CipherState()
    assert not cipher.has_key()
    assert cipher.encrypt_with_ad(b"ad", b"plain") == b"plain"
    assert cipher.decrypt_with_ad(b"ad", b"plain") == b"plain"
    assert cipher.n == 0
    with pytest.raises(AssertionError, match="rekey without a key"):
        cipher.rekey()


def test_cipher_nonce_is_little_endian_after_four_zero_bytes() -> None:
    # Noise rev 34 §12.3.
    expected = crypto_aead_chacha20poly1305_ietf_encrypt(
        b"plain", b"ad", bytes.fromhex("000000000807060504030201"), KEY
    )
    assert keyed(0x0102030405060708).encrypt_with_ad(b"ad", b"plain") == expected


def test_cipher_counts_messages_up() -> None:
    sender, receiver = keyed(), keyed()
    assert sender.has_key()
    for number, plaintext in enumerate((b"", b"one", bytes(65_519))):
        assert sender.n == receiver.n == number
        ciphertext = sender.encrypt_with_ad(b"", plaintext)
        assert len(ciphertext) == len(plaintext) + TAG_LENGTH
        assert receiver.decrypt_with_ad(b"", ciphertext) == plaintext


@pytest.mark.parametrize("length", range(TAG_LENGTH))
def test_cipher_refuses_what_is_shorter_than_a_tag(length: int) -> None:
    with pytest.raises(DecryptFailed):
        keyed().decrypt_with_ad(b"", bytes(length))


def test_cipher_keeps_its_nonce_when_a_message_is_not_authentic() -> None:
    sender, receiver = keyed(), keyed()
    ciphertext = sender.encrypt_with_ad(b"ad", b"plain")
    with pytest.raises(DecryptFailed) as caught:
        receiver.decrypt_with_ad(b"other", ciphertext)
    assert caught.value.severity is Severity.NETWORK
    assert receiver.n == 0
    assert receiver.decrypt_with_ad(b"ad", ciphertext) == b"plain"


def test_cipher_refuses_replayed_and_reordered_messages() -> None:
    sender, receiver = keyed(), keyed()
    first, second = sender.encrypt_with_ad(b"", b"1"), sender.encrypt_with_ad(b"", b"2")
    with pytest.raises(DecryptFailed):
        receiver.decrypt_with_ad(b"", second)
    assert receiver.decrypt_with_ad(b"", first) == b"1"
    with pytest.raises(DecryptFailed):
        receiver.decrypt_with_ad(b"", first)


def test_cipher_never_uses_the_reserved_nonce() -> None:
    sender, receiver = keyed(MAX_NONCE - 1), keyed(MAX_NONCE - 1)
    last = sender.encrypt_with_ad(b"", b"last")
    assert receiver.decrypt_with_ad(b"", last) == b"last"
    assert sender.n == receiver.n == MAX_NONCE == 2**64 - 1
    with pytest.raises(AssertionError, match="nonces"):
        sender.encrypt_with_ad(b"", b"one more")
    with pytest.raises(DecryptFailed, match="nonces"):
        receiver.decrypt_with_ad(b"", last)


def test_rekey_follows_the_specification_and_lets_the_nonce_go_on() -> None:
    # Noise rev 34 §4.2: REKEY(k) = first 32 bytes of ENCRYPT(k, maxnonce, zerolen, zeros).
    cipher = keyed(7)
    cipher.rekey()
    assert cipher.n == 7
    reserved = bytes(4) + b"\xff" * 8
    new_key = crypto_aead_chacha20poly1305_ietf_encrypt(bytes(32), b"", reserved, KEY)[:32]
    expected = CipherState()
    expected.initialize_key(new_key)
    expected.n = 7
    assert cipher.encrypt_with_ad(b"", b"plain") == expected.encrypt_with_ad(b"", b"plain")


def test_new_key_starts_again_at_nonce_zero() -> None:
    cipher = keyed(7)
    cipher.initialize_key(KEY)
    assert cipher.n == 0
