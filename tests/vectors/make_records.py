"""Writes ``records.json``: every signed record with its keys, values and bytes (docs/protocol.md §1 and §5).

``python -m tests.vectors.make_records``. Run it when the protocol changes, and say so in the CHANGELOG.
Ed25519 is deterministic, so the same keys and values always give the same bytes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from guts.addresses import Address
from guts.identity import SigningKey, domain
from guts.ids import ObjectId
from guts.records import CommitReceipt, PeerRecord, ProviderRecord, Signed
from guts.trust.authoring import prepare_refs
from guts.trust.canonical_refs import canonical_refs
from guts.trust.chain import IdentityChain
from guts.trust.equivocation import EquivocationProof
from guts.trust.identity_document import AuthorPoint, IdentityDocument, RefRule
from guts.trust.signed_refs import SignedRefs

PATH: Final = Path(__file__).with_name("records.json")

NOW: Final = 1_800_000_000_000
NODE, ALICE, BOB, CAROL = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3, 4))
KEYS: Final = {"node": NODE, "alice": ALICE, "bob": BOB, "carol": CAROL}
ADDRESSES: Final = (Address("192.0.2.1", 9000), Address("2001:db8::1", 9001))
MAIN, DEV, TAG, NOTES = "refs/heads/main", "refs/heads/dev", "refs/tags/v1.0", "refs/notes/commits"


def oid(number: int) -> ObjectId:
    """Return the object id of 20 times the byte ``number``."""
    return ObjectId(bytes([number]) * 20)


def signed(kind: str, data: bytes) -> dict[str, object]:
    """Return the parts of a signed record."""
    record = Signed.decode(data, 65_536)
    return {
        "kind": kind,
        "signers": [key.hex() for key, _ in record.signatures],
        "body": record.body.hex(),
        "hash": record.hash(kind).hex(),
        "signed": data.hex(),
    }


def publish(
    chain: IdentityChain,
    key: SigningKey,
    previous: SignedRefs | None,
    wanted: Mapping[str, ObjectId],
    now_ms: int,
    forced: frozenset[str],
    *others: SignedRefs,
) -> SignedRefs:
    """Return the next record of ``key``."""
    unsigned = prepare_refs(
        chain,
        key.author_id,
        previous,
        wanted,
        MAIN,
        now_ms,
        forced=forced,
        others={record.author: record for record in others},
    )
    assert unsigned is not None
    return unsigned.attach(key.author_id, key.sign(domain("refs"), unsigned.body))


def chains() -> tuple[IdentityChain, IdentityChain]:
    """Return the chain with Alice alone, and the one where Bob has joined."""
    genesis = IdentityDocument.genesis(
        name="example",
        description="An example.",
        default_branch="main",
        maintainers=(ALICE.author_id,),
        created_ms=NOW,
        nonce=bytes(range(16)),
        rules=(RefRule("refs/heads/main", 1), RefRule("refs/tags/*", 1)),
    )
    one = IdentityChain.from_documents([genesis.sign(ALICE)])
    joined = one.successor(
        created_ms=NOW + 1_000,
        nonce=bytes(range(1, 17)),
        maintainers=(ALICE.author_id, BOB.author_id),
        threshold=1,
    )
    return one, one.extend(joined.sign(ALICE, BOB))


def texts() -> list[dict[str, object]]:
    """Return all vectors."""
    _, two = chains()
    nothing: frozenset[str] = frozenset()
    first = publish(two, ALICE, None, {MAIN: oid(1), DEV: oid(2), TAG: oid(3)}, NOW + 2_000, nothing)
    bob = publish(
        two, BOB, None, {MAIN: oid(4), DEV: oid(2), TAG: oid(3), NOTES: oid(5)}, NOW + 3_000, frozenset({MAIN}), first
    )
    # Alice has seen Bob's: she deletes dev, moves the tag by force, takes the notes on, and drops main.
    wanted = {MAIN: oid(4), TAG: oid(6), NOTES: oid(7)}
    second = publish(two, ALICE, first, wanted, NOW + 4_000, frozenset({TAG}), bob)
    twin = publish(two, ALICE, first, {MAIN: oid(8)}, NOW + 4_000, nothing, bob)
    proof = EquivocationProof.of(second.signed_header, twin.signed_header, None)
    changed = two.successor(
        created_ms=NOW + 5_000,
        nonce=bytes(range(2, 18)),
        maintainers=(ALICE.author_id, CAROL.author_id),
        removed=(AuthorPoint(BOB.author_id, bob.seq, bob.hash),),
        reaffirmed=(AuthorPoint(ALICE.author_id, second.seq, second.hash),),
    )
    three = two.extend(changed.sign(BOB, CAROL))
    peer = PeerRecord.sign(NODE, ADDRESSES, ("seed",), NOW, NOW + 86_400_000)
    provider = ProviderRecord.sign(NODE, two.repository, ADDRESSES, NOW, NOW + 86_400_000)
    receipt = CommitReceipt.sign(NODE, two.repository, second.author, second.seq, second.hash, NOW + 4_500)
    canonical = canonical_refs(three, {second.author: second, bob.author: bob})
    vectors: list[dict[str, object]] = [
        {"name": "peer", **signed("peer", peer.encoded)},
        {"name": "provider", **signed("provider", provider.encoded)},
        {"name": "genesis: alice", **signed("identity", three.documents[0])},
        {"name": "epoch 1: bob joins", **signed("identity", three.documents[1])},
        {"name": "epoch 2: bob leaves, carol joins, alice's record stands", **signed("identity", three.documents[2])},
    ]
    named = {"alice's first": first, "bob's first": bob, "alice's second": second, "alice's second, again": twin}
    for name, record in named.items():
        vectors.append(
            {
                "name": f"refs: {name}",
                **signed("refs", record.header_bytes),
                "seq": record.seq,
                "entries": record.entries_bytes.hex(),
            }
        )
    vectors.append({"name": "receipt of alice's second", **signed("receipt", receipt.encoded)})
    vectors.append({"name": "proof: alice signed two", "kind": "proof", "encoded": proof.encode().hex()})
    vectors.append(
        {
            "name": "canonical refs of bob's first and alice's second at epoch 2",
            "kind": "canonical",
            "head": canonical.head,
            "refs": {ref: str(target) for ref, target in canonical.refs.items()},
        }
    )
    return vectors


def text() -> str:
    """Return the content of ``records.json``."""
    keys = {name: {"seed": key.seed.hex(), "public": key.public.hex()} for name, key in KEYS.items()}
    return json.dumps({"keys": keys, "now_ms": NOW, "vectors": texts()}, indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
