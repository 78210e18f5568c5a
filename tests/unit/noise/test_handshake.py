import pytest

from guts.noise.cipher import MAX_MESSAGE, DecryptFailed
from guts.noise.handshake import HandshakeState
from guts.noise.keys import HandshakeFailed, KeyPair
from tests.unit.noise.handshakes import (
    INITIATOR_STATIC,
    PROLOGUE,
    RESPONDER_STATIC,
    ciphers,
    finish,
    initiator,
    responder,
)
from tests.unit.noise.test_keys import LOW_ORDER


def test_both_sides_learn_static_key_payload_and_hash() -> None:
    alice, bob = initiator(), responder()
    assert bob.read_message(alice.write_message(b"one")) == b"one"
    assert (alice.remote_static, bob.remote_static) == (None, None)
    assert alice.read_message(bob.write_message(b"two")) == b"two"
    assert bob.read_message(alice.write_message(b"three")) == b"three"
    assert alice.remote_static == KeyPair(RESPONDER_STATIC).public
    assert bob.remote_static == KeyPair(INITIATOR_STATIC).public
    assert alice.handshake_hash == bob.handshake_hash
    assert alice.finished
    assert bob.finished


def test_transport_messages_go_both_ways() -> None:
    alice, bob = initiator(), responder()
    finish(alice, bob)
    (alice_sends, alice_receives), (bob_sends, bob_receives) = alice.split(), bob.split()
    for number in range(3):
        ping, pong = b"ping %d" % number, b"pong %d" % number
        assert bob_receives.decrypt_with_ad(b"", alice_sends.encrypt_with_ad(b"", ping)) == ping
        assert alice_receives.decrypt_with_ad(b"", bob_sends.encrypt_with_ad(b"", pong)) == pong


def test_message_sizes_are_those_of_the_pattern() -> None:
    alice, bob = initiator(), responder()
    first = alice.write_message(b"")
    bob.read_message(first)
    second = bob.write_message(b"")
    alice.read_message(second)
    third = alice.write_message(b"")
    assert [len(first), len(second), len(third)] == [32, 32 + 48 + 16, 48 + 16]


def test_sides_take_turns() -> None:
    alice, bob = initiator(), responder()
    assert alice.writes_next
    assert not bob.writes_next
    with pytest.raises(AssertionError, match="turn to read"):
        alice.read_message(bytes(32))
    with pytest.raises(AssertionError, match="turn to write"):
        bob.write_message(b"")
    with pytest.raises(AssertionError, match="before the handshake is finished"):
        alice.split()
    finish(alice, bob)
    for state in (alice, bob):
        assert not state.writes_next
        with pytest.raises(AssertionError, match="turn to write"):
            state.write_message(b"")
        with pytest.raises(AssertionError, match="turn to read"):
            state.read_message(bytes(100))


def test_message_is_at_most_65535_bytes() -> None:
    assert len(initiator().write_message(bytes(MAX_MESSAGE - 32))) == MAX_MESSAGE
    with pytest.raises(AssertionError, match="65536 bytes"):
        initiator().write_message(bytes(MAX_MESSAGE - 32 + 1))


def test_other_prologue_fails_at_the_second_message() -> None:
    alice, bob = initiator(b"one network"), responder(b"other network")
    bob.read_message(alice.write_message(b""))
    with pytest.raises(DecryptFailed):
        alice.read_message(bob.write_message(b""))


def test_ephemeral_key_is_asked_for_once_per_handshake() -> None:
    asked: list[KeyPair] = []

    def ephemeral() -> KeyPair:
        asked.append(KeyPair(bytes([len(asked)]) * 32))
        return asked[-1]

    def alice() -> HandshakeState:
        return HandshakeState(initiator=True, prologue=PROLOGUE, static=KeyPair(INITIATOR_STATIC), ephemeral=ephemeral)

    first, second = alice(), alice()
    assert asked == []
    finish(first, responder())
    finish(second, responder())
    assert len(asked) == 2
    assert first.handshake_hash != second.handshake_hash


def test_key_missing_for_a_dh_is_a_bug_not_a_fault() -> None:
    # Unreachable through the pattern XX: every DH comes after its keys.
    with pytest.raises(AssertionError, match="token ee before its keys"):
        initiator()._mix_dh("ee")


@pytest.mark.parametrize(("message", "keys"), [(1, 32), (2, 32 + 48), (3, 48)])
def test_truncated_messages_are_faults(message: int, keys: int) -> None:
    written = _messages()[message - 1]
    for length in range(len(written)):
        alice, bob = initiator(), responder()
        # Without room for the keys it is too short; with it, the payload's tag is cut.
        expected = HandshakeFailed if length < keys else DecryptFailed
        with pytest.raises(expected):
            _replay(alice, bob, message, written[:length])


@pytest.mark.parametrize("message", [1, 2, 3])
@pytest.mark.parametrize("bit", [0, 7])
def test_flipping_any_byte_ends_the_handshake(message: int, bit: int) -> None:
    written = _messages()[message - 1]
    for position in range(len(written)):
        altered = bytearray(written)
        altered[position] ^= 1 << bit
        alice, bob = initiator(), responder()
        with pytest.raises((DecryptFailed, HandshakeFailed)):
            _replay(alice, bob, message, bytes(altered))


def _messages() -> list[bytes]:
    """Return the three messages of an undisturbed handshake."""
    alice, bob = initiator(), responder()
    first = alice.write_message(b"")
    bob.read_message(first)
    second = bob.write_message(b"from bob")
    alice.read_message(second)
    return [first, second, alice.write_message(b"from alice")]


def _replay(alice: HandshakeState, bob: HandshakeState, message: int, altered: bytes) -> None:
    """Run a handshake in which ``altered`` arrives in the place of one message."""
    first = alice.write_message(b"")
    bob.read_message(altered if message == 1 else first)
    second = bob.write_message(b"from bob")
    alice.read_message(altered if message == 2 else second)
    third = alice.write_message(b"from alice")
    bob.read_message(altered if message == 3 else third)


@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
def test_ephemeral_keys_of_low_order_are_refused(point: bytes) -> None:
    bob = responder()
    bob.read_message(point)
    with pytest.raises(HandshakeFailed, match="low order"):
        bob.write_message(b"")
    alice = initiator()
    alice.write_message(b"")
    with pytest.raises(HandshakeFailed, match="low order"):
        alice.read_message(point + bytes(64))


@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
def test_static_keys_of_low_order_are_refused(point: bytes) -> None:
    crooked = KeyPair(b"\x31" * 32)
    crooked.public = point

    def eve(*, plays_initiator: bool) -> HandshakeState:
        return HandshakeState(
            initiator=plays_initiator,
            prologue=PROLOGUE,
            static=crooked,
            ephemeral=lambda: KeyPair(b"\x32" * 32),
        )

    alice, answering = initiator(), eve(plays_initiator=False)
    answering.read_message(alice.write_message(b""))
    with pytest.raises(HandshakeFailed, match="low order"):
        alice.read_message(answering.write_message(b""))

    bob, dialling = responder(), eve(plays_initiator=True)
    bob.read_message(dialling.write_message(b""))
    dialling.read_message(bob.write_message(b""))
    with pytest.raises(HandshakeFailed, match="low order"):
        bob.read_message(dialling.write_message(b""))


@pytest.mark.parametrize("bit", [0, 7])
def test_flipping_any_byte_of_a_transport_message_is_noticed(bit: int) -> None:
    sending, receiving = ciphers()
    ciphertext = sending.encrypt_with_ad(b"", b"forty bytes of plaintext, more or less..")
    for position in range(len(ciphertext)):
        altered = bytearray(ciphertext)
        altered[position] ^= 1 << bit
        with pytest.raises(DecryptFailed):
            receiving.decrypt_with_ad(b"", bytes(altered))
