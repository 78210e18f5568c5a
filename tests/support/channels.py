"""Pairs of secure channels with fixed keys, for tests of ``SecureChannel`` and of what is built on it."""

import itertools
from collections.abc import Callable
from typing import Final

from guts.identity import SigningKey
from guts.ids import PeerId
from guts.noise.keys import KeyPair
from guts.wire.secure import Direction, SecureChannel

NETWORK: Final = "test"
ALICE: Final = SigningKey(b"a" * 32)
BOB: Final = SigningKey(b"b" * 32)
EVE: Final = SigningKey(b"e" * 32)


def key_pairs(seed: int) -> Callable[[], KeyPair]:
    """Return a factory whose key pairs differ from call to call, and are the same in each run."""
    numbers = itertools.count(seed << 32)
    return lambda: KeyPair(next(numbers).to_bytes(32, "big"))


def dialler(
    *, key: SigningKey = ALICE, network: str = NETWORK, expected: PeerId | None = None, seed: int = 1
) -> SecureChannel:
    """Return Alice's side; each ``seed`` is another process with other Noise keys."""
    new = key_pairs(seed)
    return SecureChannel(
        direction=Direction.OUTBOUND, network=network, key=key, static=new(), ephemeral=new, expected=expected
    )


def listener(*, key: SigningKey = BOB, network: str = NETWORK, seed: int = 2) -> SecureChannel:
    """Return Bob's side; each ``seed`` is another process with other Noise keys."""
    new = key_pairs(seed)
    return SecureChannel(direction=Direction.INBOUND, network=network, key=key, static=new(), ephemeral=new)


def shake_hands(alice: SecureChannel, bob: SecureChannel) -> None:
    """Carry the three messages of the handshake."""
    assert bob.receive(alice.take()) == []
    assert alice.receive(bob.take()) == []
    assert bob.receive(alice.take()) == []
    assert alice.established
    assert bob.established


def connected() -> tuple[SecureChannel, SecureChannel]:
    """Return Alice's and Bob's ends of one established connection."""
    alice, bob = dialler(expected=BOB.peer_id), listener()
    shake_hands(alice, bob)
    return alice, bob
