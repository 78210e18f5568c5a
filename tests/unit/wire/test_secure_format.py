"""The secure channel against a node that another hand wrote from docs/protocol.md §2, and against the vector."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
from noise.exceptions import NoiseInvalidMessage

from guts.identity import SigningKey
from guts.noise.keys import KeyPair
from guts.wire.secure import REKEY_INTERVAL, Direction, SecureChannel
from tests.support.channels import ALICE, BOB, dialler, listener
from tests.support.node_by_hand import NodeByHand
from tests.support.noise_references import REFERENCES

VECTOR: Final = Path(__file__).parents[2] / "vectors" / "handshake.json"


def we_dial(name: str) -> tuple[SecureChannel, NodeByHand]:
    """Return our dialling channel and the other node, handshake done."""
    ours = dialler(expected=BOB.peer_id)
    theirs = NodeByHand(initiator=False, seed=BOB.seed, make=REFERENCES[name])
    theirs.hear_hello(ours.take())
    assert ours.receive(theirs.introduce()) == []
    assert theirs.meet(ours.take()) == ALICE.public
    return ours, theirs


def they_dial(name: str) -> tuple[SecureChannel, NodeByHand]:
    """Return our listening channel and the other node, handshake done."""
    ours = listener()
    theirs = NodeByHand(initiator=True, seed=ALICE.seed, make=REFERENCES[name])
    assert ours.receive(theirs.hello()) == []
    assert theirs.meet(ours.take()) == BOB.public
    assert ours.receive(theirs.introduce()) == []
    return ours, theirs


@pytest.mark.parametrize("connect", [we_dial, they_dial])
@pytest.mark.parametrize("name", REFERENCES)
def test_channel_speaks_with_another_implementation(name: str, connect: Any) -> None:
    ours, theirs = connect(name)
    assert ours.established
    assert ours.handshake_hash == theirs.noise.handshake_hash
    for number in range(5):
        ours.send(b"there %d" % number)
        assert theirs.decrypt(ours.take()) == b"there %d" % number
        assert ours.receive(theirs.encrypt(bytes(number * 100))) == [bytes(number * 100)]


def test_channel_rekeys_before_message_65536_of_each_direction() -> None:
    ours, theirs = we_dial("noiseprotocol")
    for _ in range(REKEY_INTERVAL):
        ours.send(b"x")
        assert theirs.decrypt(ours.take()) == b"x"
        assert ours.receive(theirs.encrypt(b"y")) == [b"y"]
    # Messages 0..65,535 went under the first keys; the next one of each direction goes under the next.
    ours.send(b"under the next key")
    message = ours.take()
    with pytest.raises(NoiseInvalidMessage):
        theirs.decrypt(message)
    theirs.noise.rekey_receiving()
    assert theirs.decrypt(message) == b"under the next key"
    theirs.noise.rekey_sending()
    assert ours.receive(theirs.encrypt(b"under the next key")) == [b"under the next key"]
    assert REKEY_INTERVAL == 65_536


@pytest.fixture
def vector() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(VECTOR.read_text())
    return read


def channel(vector: dict[str, Any], side: str) -> SecureChannel:
    keys = {name: bytes.fromhex(value) for name, value in vector[side].items()}
    return SecureChannel(
        direction=Direction.OUTBOUND if side == "dialler" else Direction.INBOUND,
        network=vector["network"],
        key=SigningKey(keys["node_seed"]),
        static=KeyPair(keys["noise_static"]),
        ephemeral=lambda: KeyPair(keys["noise_ephemeral"]),
    )


def test_channel_makes_the_bytes_of_the_committed_vector(vector: dict[str, Any]) -> None:
    sides = [channel(vector, "dialler"), channel(vector, "listener")]
    for number, message in enumerate(vector["messages"]):
        sender, receiver = sides[number % 2], sides[1 - number % 2]
        data = bytes.fromhex(message["bytes"])
        if number >= 3:
            sender.send(bytes.fromhex(message["plaintext"]))
        assert sender.take() == data
        assert receiver.receive(data) == ([bytes.fromhex(message["plaintext"])] if number >= 3 else [])
    for side in sides:
        assert side.handshake_hash is not None
        assert side.handshake_hash.hex() == vector["handshake_hash"]


@pytest.mark.parametrize("name", REFERENCES)
def test_another_implementation_makes_the_bytes_of_the_committed_vector(vector: dict[str, Any], name: str) -> None:
    alice, bob = (
        NodeByHand(
            initiator=side == "dialler",
            seed=bytes.fromhex(vector[side]["node_seed"]),
            network=vector["network"],
            static=bytes.fromhex(vector[side]["noise_static"]),
            ephemeral=bytes.fromhex(vector[side]["noise_ephemeral"]),
            make=REFERENCES[name],
        )
        for side in ("dialler", "listener")
    )
    made = [alice.hello()]
    bob.hear_hello(made[0])
    made.append(bob.introduce())
    alice.meet(made[1])
    made.append(alice.introduce())
    bob.meet(made[2])
    for number, message in enumerate(vector["messages"][3:], start=3):
        made.append((alice, bob)[number % 2].encrypt(bytes.fromhex(message["plaintext"])))
    assert [data.hex() for data in made] == [message["bytes"] for message in vector["messages"]]
    assert alice.noise.handshake_hash.hex() == vector["handshake_hash"]
