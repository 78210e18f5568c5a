"""What the secure channel does between two honest nodes."""

import pytest

from guts.noise.cipher import CipherState
from guts.noise.keys import KeyPair
from guts.wire.limits import MAX_PLAINTEXT
from guts.wire.secure import Direction, SecureChannel
from tests.support.channels import ALICE, BOB, connected, dialler, listener, shake_hands


def test_both_sides_learn_who_the_other_is() -> None:
    alice, bob = dialler(), listener()
    assert (alice.direction, bob.direction) == (Direction.OUTBOUND, Direction.INBOUND)
    assert not alice.established
    assert not bob.established
    assert (alice.peer, bob.peer, alice.handshake_hash, bob.handshake_hash) == (None,) * 4
    shake_hands(alice, bob)
    assert alice.peer == BOB.peer_id
    assert bob.peer == ALICE.peer_id
    assert alice.handshake_hash is not None
    assert len(alice.handshake_hash) == 32
    assert alice.handshake_hash == bob.handshake_hash


def test_first_message_is_ready_at_once_and_taken_once() -> None:
    alice = dialler()
    assert alice.buffered == 34
    first = alice.take()
    assert (len(first), first[:2]) == (34, b"\x00\x20")
    assert alice.buffered == 0
    assert alice.take() == b""
    assert listener().take() == b""


def test_handshake_messages_have_the_sizes_of_the_protocol() -> None:
    alice, bob = dialler(), listener()
    credential = 1 + 1 + (2 + 32) + (2 + 64)
    bob.receive(alice.take())
    second = bob.take()
    assert len(second) == 2 + 32 + 48 + credential + 16
    alice.receive(second)
    assert len(alice.take()) == 2 + 48 + credential + 16


def test_plaintexts_arrive_in_order_in_both_directions() -> None:
    alice, bob = connected()
    sent = [b"", b"one", bytes(1000), b"x" * MAX_PLAINTEXT]
    for plaintext in sent:
        alice.send(plaintext)
        bob.send(plaintext[::-1])
    assert alice.buffered == sum(2 + 16 + len(plaintext) for plaintext in sent)
    assert bob.receive(alice.take()) == sent
    assert alice.receive(bob.take()) == [plaintext[::-1] for plaintext in sent]


def test_dialler_may_speak_right_behind_its_last_handshake_message() -> None:
    alice, bob = dialler(), listener()
    bob.receive(alice.take())
    alice.receive(bob.take())
    assert alice.established
    alice.send(b"hello")
    alice.send(b"world")
    assert bob.receive(alice.take()) == [b"hello", b"world"]


def test_bytes_may_come_in_any_pieces() -> None:
    alice, bob = dialler(), listener()

    def carry(sender: SecureChannel, receiver: SecureChannel) -> list[bytes]:
        data = sender.take()
        return [p for at in range(len(data)) for p in receiver.receive(data[at : at + 1])]

    assert carry(alice, bob) == carry(bob, alice) == carry(alice, bob) == []
    sent = [b"one", b"", bytes(500)]
    for plaintext in sent:
        alice.send(plaintext)
        bob.send(plaintext)
    assert carry(alice, bob) == sent
    assert carry(bob, alice) == sent
    assert bob.receive(b"") == []


def test_incomplete_message_waits_for_its_rest() -> None:
    alice, bob = connected()
    alice.send(b"first")
    alice.send(b"second")
    data = alice.take()
    cut = len(data) - 1
    assert bob.receive(data[:cut]) == [b"first"]
    assert bob.receive(data[cut:]) == [b"second"]


def test_plaintext_is_at_most_65519_bytes() -> None:
    alice, bob = connected()
    assert MAX_PLAINTEXT == 65_519
    alice.send(bytes(MAX_PLAINTEXT))
    data = alice.take()
    assert data[:2] == b"\xff\xff"
    assert bob.receive(data) == [bytes(MAX_PLAINTEXT)]
    with pytest.raises(AssertionError, match="65520 bytes"):
        alice.send(bytes(MAX_PLAINTEXT + 1))


def test_nothing_is_sent_before_the_handshake_is_done() -> None:
    alice, bob = dialler(), listener()
    for channel in (alice, bob):
        with pytest.raises(AssertionError, match="not established"):
            channel.send(b"early")
    bob.receive(alice.take())
    with pytest.raises(AssertionError, match="not established"):
        bob.send(b"early")


def test_every_conversation_has_its_own_keys() -> None:
    streams = []
    for seed in (10, 11):
        alice, bob = dialler(seed=seed), listener(seed=2)
        shake_hands(alice, bob)
        alice.send(b"same")
        bob.send(b"same")
        streams += [alice.take(), bob.take()]
    assert len(set(streams)) == 4


def test_ephemeral_key_is_gone_once_established() -> None:
    made: list[KeyPair] = []

    def ephemeral() -> KeyPair:
        made.append(KeyPair.generate())
        return made[-1]

    alice = SecureChannel(
        direction=Direction.OUTBOUND, network="test", key=ALICE, static=KeyPair.generate(), ephemeral=ephemeral
    )
    shake_hands(alice, listener())
    assert len(made) == 1
    assert isinstance(alice._reading, CipherState)
