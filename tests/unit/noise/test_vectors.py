"""The published XX vectors, all four hashes through the one engine."""

import json
import os
from pathlib import Path
from typing import Any, Final

import pytest

from guts.noise.handshake import HandshakeState
from guts.noise.hashes import HashFunction
from guts.noise.keys import KeyPair

VARIABLE: Final = "GUTS_TEST_VECTORS"
FILE: Final = "noise-xx-cacophony.json"

pytestmark = [
    pytest.mark.vectors,
    pytest.mark.skipif(
        VARIABLE not in os.environ,
        reason=f"{VARIABLE} does not name a folder with the published Noise vectors ({FILE})",
    ),
]


@pytest.fixture(scope="module")
def vectors() -> dict[str, dict[str, Any]]:
    published = json.loads((Path(os.environ[VARIABLE]) / FILE).read_text())
    return {vector["protocol_name"]: vector for vector in published["vectors"]}


@pytest.mark.parametrize("function", list(HashFunction))
def test_engine_agrees_with_cacophony(vectors: dict[str, dict[str, Any]], function: HashFunction) -> None:
    vector = vectors[f"Noise_XX_25519_ChaChaPoly_{function.name}"]

    def side(name: str, *, initiator: bool) -> HandshakeState:
        ephemeral = KeyPair(bytes.fromhex(vector[f"{name}_ephemeral"]))
        return HandshakeState(
            initiator=initiator,
            prologue=bytes.fromhex(vector[f"{name}_prologue"]),
            static=KeyPair(bytes.fromhex(vector[f"{name}_static"])),
            ephemeral=lambda: ephemeral,
            hash_function=function,
        )

    sides = [side("init", initiator=True), side("resp", initiator=False)]
    messages = [
        (bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"])) for message in vector["messages"]
    ]
    assert len(messages) > 3, "no transport messages in this vector"
    for number, (payload, ciphertext) in enumerate(messages[:3]):
        writer, reader = sides[number % 2], sides[1 - number % 2]
        assert writer.write_message(payload) == ciphertext
        assert reader.read_message(ciphertext) == payload
    for state in sides:
        assert state.handshake_hash.hex() == vector["handshake_hash"]
    pairs = [state.split() for state in sides]
    # The sides go on taking turns after the handshake.
    for number, (payload, ciphertext) in enumerate(messages[3:], start=3):
        sending, receiving = pairs[number % 2][0], pairs[1 - number % 2][1]
        assert sending.encrypt_with_ad(b"", payload) == ciphertext
        assert receiving.decrypt_with_ad(b"", ciphertext) == payload
