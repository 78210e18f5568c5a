"""Our engine against two independent implementations: the same keys give the same bytes, in both roles."""

import pytest

from guts.noise.handshake import HandshakeState
from guts.noise.hashes import HashFunction
from tests.support.noise_references import REFERENCES, Reference
from tests.unit.noise.handshakes import (
    INITIATOR_EPHEMERAL,
    INITIATOR_STATIC,
    PROLOGUE,
    RESPONDER_EPHEMERAL,
    RESPONDER_STATIC,
    initiator,
    responder,
)

PAYLOADS = (b"one", b"", b"three " * 100)


def reference(name: str, function: HashFunction, *, plays_initiator: bool) -> Reference:
    return REFERENCES[name](
        initiator=plays_initiator,
        prologue=PROLOGUE,
        static=INITIATOR_STATIC if plays_initiator else RESPONDER_STATIC,
        ephemeral=INITIATOR_EPHEMERAL if plays_initiator else RESPONDER_EPHEMERAL,
        hash_name=function.name,
    )


@pytest.mark.parametrize("function", list(HashFunction))
@pytest.mark.parametrize("name", REFERENCES)
def test_transcripts_are_equal_byte_for_byte(name: str, function: HashFunction) -> None:
    ours = [initiator(hash_function=function), responder(hash_function=function)]
    theirs = [reference(name, function, plays_initiator=first) for first in (True, False)]
    for number, payload in enumerate(PAYLOADS):
        writer, reader = number % 2, 1 - number % 2
        message = ours[writer].write_message(payload)
        assert message == theirs[writer].write(payload)
        assert ours[reader].read_message(message) == theirs[reader].read(message) == payload
        for our, their in zip(ours, theirs, strict=True):
            assert our.handshake_hash == their.handshake_hash
    for our, their in zip(ours, theirs, strict=True):
        sending, _ = our.split()
        for number in range(3):
            assert sending.encrypt_with_ad(b"", b"%d" % number) == their.encrypt(b"%d" % number)


@pytest.mark.parametrize("we_dial", [True, False], ids=["we dial", "they dial"])
@pytest.mark.parametrize("name", REFERENCES)
def test_conversation_with_rekeying(name: str, *, we_dial: bool) -> None:
    our = initiator() if we_dial else responder()
    their = reference(name, HashFunction.SHA256, plays_initiator=not we_dial)
    _shake_hands(our, their, we_dial=we_dial)
    assert our.handshake_hash == their.handshake_hash
    assert our.remote_static is not None
    sending, receiving = our.split()
    for number in range(12):
        there, back = b"there %d" % number, bytes(number * 1000)
        assert their.decrypt(sending.encrypt_with_ad(b"", there)) == there
        assert receiving.decrypt_with_ad(b"", their.encrypt(back)) == back
        if number % 3 == 2:
            sending.rekey()
            their.rekey_receiving()
        if number % 4 == 3:
            receiving.rekey()
            their.rekey_sending()


def _shake_hands(our: HandshakeState, their: Reference, *, we_dial: bool) -> None:
    for number, payload in enumerate(PAYLOADS):
        if (number % 2 == 0) == we_dial:
            assert their.read(our.write_message(payload)) == payload
        else:
            assert our.read_message(their.write(payload)) == payload
