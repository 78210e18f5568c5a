"""The committed vectors of every record: made again, read by our code, and taken apart without it."""

import hashlib
import json
from typing import Any

import msgpack
import nacl.signing
import pytest

from guts.ids import AuthorId
from guts.records import CommitReceipt, PeerRecord, ProviderRecord
from guts.trust.acceptance import Known, New, accept, ref_changes
from guts.trust.canonical_refs import canonical_refs
from guts.trust.chain import IdentityChain
from guts.trust.equivocation import EquivocationProof
from guts.trust.signed_refs import SignedRefs
from tests.vectors import make_records
from tests.vectors.make_records import ALICE, BOB, CAROL, DEV, MAIN, NODE, NOTES, NOW, PATH, TAG, oid

FILE: Any = json.loads(PATH.read_text(encoding="utf-8"))
BY_NAME: dict[str, Any] = {vector["name"]: vector for vector in FILE["vectors"]}
SIGNED = [vector for vector in FILE["vectors"] if "signed" in vector]


def refs(name: str) -> SignedRefs:
    vector = BY_NAME[f"refs: {name}"]
    return SignedRefs.decode(bytes.fromhex(vector["signed"]), bytes.fromhex(vector["entries"]))


def chain() -> IdentityChain:
    return IdentityChain.from_documents(
        [bytes.fromhex(vector["signed"]) for vector in SIGNED if vector["kind"] == "identity"]
    )


def test_the_file_is_what_the_code_makes() -> None:
    assert make_records.text() == PATH.read_text(encoding="utf-8")


@pytest.mark.parametrize("vector", SIGNED, ids=lambda vector: vector["name"])
def test_vector_can_be_checked_without_our_code(vector: Any) -> None:
    body, pairs = msgpack.unpackb(bytes.fromhex(vector["signed"]))
    assert body.hex() == vector["body"]
    assert msgpack.packb([body, pairs]).hex() == vector["signed"]
    assert msgpack.packb(msgpack.unpackb(body)) == body
    signed = b"guts/" + vector["kind"].encode() + b"/1\0" + body
    assert hashlib.sha256(signed).hexdigest() == vector["hash"]
    assert [key.hex() for key, _ in pairs] == vector["signers"] == sorted(vector["signers"])
    for key, signature in pairs:
        nacl.signing.VerifyKey(key).verify(signed, signature)
    if vector["kind"] == "refs":
        fields = msgpack.unpackb(body)
        assert hashlib.sha256(bytes.fromhex(vector["entries"])).digest() == fields[9]
        assert fields[2].hex() == vector["signers"][0]
        assert fields[5] == vector["seq"]


def test_node_records_read_back() -> None:
    peer = PeerRecord.verify(bytes.fromhex(BY_NAME["peer"]["signed"]), NOW)
    provider = ProviderRecord.verify(bytes.fromhex(BY_NAME["provider"]["signed"]), NOW)
    assert peer.peer == provider.peer == NODE.peer_id
    assert peer.addresses == provider.addresses == make_records.ADDRESSES
    assert provider.repository == chain().repository
    receipt = CommitReceipt.verify(bytes.fromhex(BY_NAME["receipt of alice's second"]["signed"])).claim
    second = refs("alice's second")
    assert (receipt.peer, receipt.repository) == (NODE.peer_id, chain().repository)
    assert (receipt.author, receipt.seq, receipt.hash) == (second.author, second.seq, second.hash)


def test_identity_chain_reads_back() -> None:
    made = chain()
    assert made.epoch == 2
    assert made.repository.hex() == BY_NAME["genesis: alice"]["hash"]
    assert [document.maintainers for document in made.history] == [
        (ALICE.author_id,),
        (ALICE.author_id, BOB.author_id),
        (ALICE.author_id, CAROL.author_id),
    ]
    first, bob, second = refs("alice's first"), refs("bob's first"), refs("alice's second")
    assert [point.hash for point in made.current.removed] == [bob.hash]
    assert [point.hash for point in made.current.reaffirmed] == [second.hash]
    assert first.header.identity_hash == made.history[1].hash


def test_records_of_two_maintainers_are_accepted_and_say_what_was_seen() -> None:
    made = chain()
    first, bob, second = refs("alice's first"), refs("bob's first"), refs("alice's second")
    assert accept(made, None, first, [], NOW) == New()
    seqs: dict[AuthorId, int] = {first.author: first.seq, bob.author: bob.seq}
    assert accept(made, None, bob, [], NOW, others=seqs) == New()
    assert accept(made, Known(first.seq, first.hash), second, [], NOW, others=seqs) == New()
    assert list(bob.entries.refs) == [MAIN, NOTES]
    assert bob.entries.refs[MAIN].forced == bob.seq
    assert bob.entries.refs[MAIN].seen.get(first.author) == first.seq
    assert list(second.entries.refs) == [DEV, NOTES, TAG]
    assert second.entries.refs[DEV].oid is None
    assert second.entries.refs[TAG].forced == second.seq
    assert second.entries.seen.get(bob.author) == bob.seq
    assert [(change.ref, change.allowed) for change in ref_changes(first, second)] == [(DEV, True), (TAG, True)]


def test_proof_and_canonical_refs_read_back() -> None:
    proof = EquivocationProof.decode(bytes.fromhex(BY_NAME["proof: alice signed two"]["encoded"]))
    hashes = {refs("alice's second").hash, refs("alice's second, again").hash}
    assert {proof.first.header.hash, proof.second.header.hash} == hashes
    bob, second = refs("bob's first"), refs("alice's second")
    result = canonical_refs(chain(), {bob.author: bob, second.author: second})
    vector = BY_NAME["canonical refs of bob's first and alice's second at epoch 2"]
    assert {ref: str(target) for ref, target in result.refs.items()} == vector["refs"]
    assert dict(result.refs) == {MAIN: oid(4), NOTES: oid(7), TAG: oid(6)}
    assert result.head == vector["head"] == MAIN
