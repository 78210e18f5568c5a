"""What a node makes of an offer of several maintainers' records."""

import itertools
from pathlib import Path

import pytest

from guts.errors import PeerFault
from guts.node.acceptance import MAX_RECORDS_PER_AUTHOR, Held, MissingContext, NotYet, Verified, verify
from guts.node.history import settle
from guts.store.database import Database
from guts.store.history import IdentityFork
from guts.trust.acceptance import MAX_AHEAD_MS, WrongRepository
from guts.trust.canonical_refs import canonical_refs
from guts.trust.chain import IdentityChain
from guts.trust.equivocation import EquivocationProof
from guts.trust.identity_document import AuthorPoint, InvalidIdentity
from guts.trust.signed_refs import SignedRefs
from guts.wire.messages import EncodedRefs
from tests.unit.trust.world import ALICE, BOB, CAROL, DEV, EVE, MAIN, NOW, by_hand, chain, oid, publish, records

THREE = chain(ALICE, BOB, CAROL, threshold=2)


def offer(
    held: Held | None, *offered: SignedRefs, identity: IdentityChain = THREE, bridge: tuple[SignedRefs, ...] = ()
) -> Verified | None:
    encoded = tuple(EncodedRefs(record.header_bytes, record.entries_bytes) for record in offered)
    headers = tuple(record.header_bytes for record in bridge)
    return verify(identity.repository, held, identity.documents, headers, encoded, NOW)


def in_turn() -> tuple[SignedRefs, SignedRefs]:
    """Return the newest records of Alice and Bob, who pushed in turn: each has seen one of the other's."""
    first = publish(THREE, ALICE, None, {MAIN: oid(1)})
    bob = publish(THREE, BOB, None, {MAIN: oid(2)}, others=[first])
    alice = publish(THREE, ALICE, first, {MAIN: oid(3)}, others=[bob], forced={MAIN})
    again = publish(THREE, BOB, bob, {MAIN: oid(4)}, others=[alice], forced={MAIN})
    return alice, again


def test_new_replica_takes_records_of_maintainers_who_pushed_in_turn() -> None:
    alice, bob = in_turn()
    for order in itertools.permutations([alice, bob]):
        verified = offer(None, *order)
        assert verified is not None
        assert verified.records == records(alice, bob)
        assert dict(canonical_refs(THREE, verified.records).refs) == {MAIN: oid(4)}


def test_record_without_one_that_it_has_seen_waits() -> None:
    alice, bob = in_turn()
    for alone in (alice, bob):
        with pytest.raises(MissingContext):
            offer(Held(THREE, {}), alone)


def test_record_that_must_wait_keeps_no_other_out() -> None:
    _, bob = in_turn()
    carol = publish(THREE, CAROL, None, {DEV: oid(9)})
    ahead = publish(THREE, ALICE, None, {MAIN: oid(8)}, now=NOW + MAX_AHEAD_MS + 1)
    for other in (bob, ahead):
        verified = offer(Held(THREE, {}), other, carol)
        assert verified is not None
        assert verified.records == records(carol)
    with pytest.raises(NotYet):
        offer(Held(THREE, records(carol)), ahead, carol)


def split() -> tuple[SignedRefs, SignedRefs, SignedRefs]:
    """Return a record of Alice and the two that she signed after it, at two nodes restored from one backup."""
    common = publish(THREE, ALICE, None, {MAIN: oid(1)})
    one = publish(THREE, ALICE, common, {MAIN: oid(2)}, now=NOW + 1)
    two = publish(THREE, ALICE, common, {MAIN: oid(3)}, now=NOW + 2)
    return common, one, two


def test_headers_kept_here_lead_to_a_record_from_before_the_split() -> None:
    """Whoever holds the record may have got it when it knew nothing before it, and has no header to show."""
    first = publish(THREE, ALICE, None, {MAIN: oid(7)}, now=NOW - 9)
    between = publish(THREE, ALICE, first, {MAIN: oid(8)}, now=NOW - 8, forced={MAIN})
    last = publish(THREE, ALICE, between, {MAIN: oid(9)}, now=NOW - 7, forced={MAIN})
    one, two = (publish(THREE, ALICE, last, {MAIN: oid(n)}, now=NOW, forced={MAIN}) for n in (1, 2))
    proof = {ALICE.author_id: EquivocationProof.of(one.signed_header, two.signed_header, None)}
    with pytest.raises(MissingContext):
        offer(Held(THREE, records(first), proof), last)
    kept = {record.hash: record.signed_header for record in (first, between, last, one)}
    verified = offer(Held(THREE, records(first), proof, headers=kept), last)
    assert verified is not None
    assert verified.records == records(last)
    assert verified.new[0].bridge[-1] == between.signed_header


def test_two_writers_restored_from_one_backup_make_a_proof_and_keep_no_other_out() -> None:
    common, one, two = split()
    carol = publish(THREE, CAROL, None, {DEV: oid(9)})
    verified = offer(Held(THREE, records(one)), two, carol, bridge=(common,))
    assert verified is not None
    assert verified.new_proofs == {ALICE.author_id}
    proof = verified.proofs[ALICE.author_id]
    assert (proof.first, proof.second, proof.split_seq) == (one.signed_header, two.signed_header, one.seq)
    assert verified.records == records(one, carol)
    # Told of the proof, and no record, any other replica comes to the same; told again, to nothing.
    for held in (Held(THREE, records(one)), Held(THREE, records(two)), Held(THREE, {})):
        told = verify(THREE.repository, held, (), (), (), NOW, (proof.encode(),))
        assert told is not None
        assert dict(told.proofs) == {ALICE.author_id: proof}
        again = Held(THREE, held.records, told.proofs)
        assert verify(THREE.repository, again, (), (), (), NOW, (proof.encode(),)) is None


def test_maintainers_say_which_branch_counts_and_every_replica_follows() -> None:
    common, one, two = split()
    point = AuthorPoint(ALICE.author_id, two.seq, two.hash)
    after = THREE.extend(THREE.successor(created_ms=NOW, nonce=bytes(16), reaffirmed=(point,)).sign(BOB, CAROL))
    on = publish(after, ALICE, two, {MAIN: oid(4)}, now=NOW + 3)
    proof = EquivocationProof.of(one.signed_header, two.signed_header, common.signed_header)
    for met, newest, proofs in itertools.product((one, two, common), (two, on), ({}, {ALICE.author_id: proof})):
        verified = offer(
            Held(THREE, records(met), proofs), newest, identity=after, bridge=(common, two)[: 1 + (newest is on)]
        )
        assert verified is not None
        assert canonical_refs(after, verified.records).refs[MAIN] == newest.entries.refs[MAIN].oid
        assert all(change.allowed or met in (two, common) for new in verified.new for change in new.changes())
        assert not verified.proofs, "settled"


def test_earliest_split_is_what_is_kept() -> None:
    first = publish(THREE, ALICE, None, {MAIN: oid(1)})
    early, common = (publish(THREE, ALICE, first, {MAIN: oid(n)}, now=NOW + n) for n in (2, 3))
    one, two = (publish(THREE, ALICE, common, {MAIN: oid(n)}, now=NOW + n) for n in (4, 5))
    late = EquivocationProof.of(one.signed_header, two.signed_header, common.signed_header)
    earlier = EquivocationProof.of(early.signed_header, common.signed_header, first.signed_header)
    for order in itertools.permutations([late, earlier]):
        held = Held(THREE, records(one))
        for proof in order:
            told = verify(THREE.repository, held, (), (), (), NOW, (proof.encode(),))
            held = held if told is None else Held(THREE, told.records, told.proofs)
        assert dict(held.proofs) == {ALICE.author_id: earlier}


def test_nobody_waits_for_what_a_suspended_author_had_published() -> None:
    common, one, two = split()
    proof = EquivocationProof.of(one.signed_header, two.signed_header, common.signed_header)
    bob = publish(THREE, BOB, None, {DEV: oid(5)}, others=[one])
    with pytest.raises(MissingContext):
        offer(Held(THREE, records(common)), bob)
    verified = offer(Held(THREE, records(common), {ALICE.author_id: proof}), one, bob)
    assert verified is not None
    assert verified.records == records(common, bob)


def test_proof_that_proves_nothing_is_a_fault_and_one_about_a_stranger_is_passed_over() -> None:
    common, one, two = split()
    proof = EquivocationProof.of(one.signed_header, two.signed_header, common.signed_header)
    with pytest.raises(PeerFault):
        verify(THREE.repository, Held(THREE, {}), (), (), (), NOW, (proof.encode()[:-1],))
    other = chain(ALICE, BOB, name="other")
    with pytest.raises(WrongRepository):
        verify(other.repository, Held(other, {}), (), (), (), NOW, (proof.encode(),))
    stranger = [by_hand(THREE, EVE, {}, seq=seq) for seq in (1, 2)]
    about_eve = EquivocationProof.of(stranger[0].signed_header, stranger[1].signed_header, None)
    assert verify(THREE.repository, Held(THREE, {}), (), (), (), NOW, (about_eve.encode(),)) is None


def named(identity: IdentityChain, name: str) -> IdentityChain:
    """Return the chain with a document that gives the repository another name."""
    document = identity.successor(created_ms=NOW, nonce=bytes(16), name=name)
    return identity.extend(document.sign(ALICE, BOB))


def test_second_document_of_an_epoch_is_kept_and_ends_every_change() -> None:
    ours, theirs = named(THREE, "ours"), named(THREE, "theirs")
    fork = IdentityFork(1, theirs.documents[1])
    further = named(ours, "further")
    # It comes as a document of the other chain, or as proof; and is told once.
    for documents, proofs in (
        (named(theirs, "on").documents, ()),
        (theirs.documents[1:], ()),
        ((), (fork.encoded,)),
        (ours.documents, (fork.encoded,)),
    ):
        verified = verify(THREE.repository, Held(ours, {}), documents, (), (), NOW, proofs)
        assert verified is not None
        assert (verified.chain, verified.fork) == (ours, fork)
        held = Held(ours, {}, fork=fork)
        assert verify(THREE.repository, held, documents, (), (), NOW, proofs) is None
    assert verify(THREE.repository, Held(ours, {}, fork=fork), further.documents, (), (), NOW) is None
    # Refs go on, of those who follow the same document.
    record = publish(ours, ALICE, None, {MAIN: oid(1)})
    verified = offer(Held(ours, {}, fork=fork), record, identity=ours)
    assert verified is not None
    assert (verified.records, verified.fork) == (records(record), None)
    other = publish(theirs, ALICE, None, {MAIN: oid(2)})
    with pytest.raises(NotYet, match="another document"):
        offer(Held(ours, {}, fork=fork), other, identity=ours)


def test_new_replica_is_told_of_the_fork_with_the_documents() -> None:
    ours, theirs = named(THREE, "ours"), named(THREE, "theirs")
    verified = verify(THREE.repository, None, ours.documents, (), (), NOW, (theirs.documents[1],))
    assert verified is not None
    assert (verified.chain, verified.fork) == (ours, IdentityFork(1, theirs.documents[1]))
    with pytest.raises(PeerFault):
        verify(THREE.repository, None, ours.documents, (), (), NOW, (theirs.documents[1][:-1],))


def without(identity: IdentityChain, record: SignedRefs) -> IdentityChain:
    """Return the chain with a document that removes the author of ``record``, which is the last that counts."""
    left = tuple(author for author in identity.current.maintainers if author != record.author)
    point = AuthorPoint(record.author, record.seq, record.hash)
    document = identity.successor(created_ms=NOW, nonce=bytes(16), maintainers=left, removed=(point,))
    return identity.extend(document.sign(ALICE, BOB))


def test_replica_that_holds_more_of_a_removed_maintainer_goes_back_to_what_counts() -> None:
    last = publish(THREE, CAROL, None, {DEV: oid(1)})
    more = publish(THREE, CAROL, last, {DEV: oid(2)})
    after = without(THREE, last)
    verified = offer(Held(THREE, records(more)), last, identity=after)
    assert verified is not None
    assert verified.records == records(last)
    (new,) = verified.new
    assert (new.replaced, new.counted, new.changes()) == (more, None, ())


def test_maintainer_who_was_removed_goes_on_signing_and_nothing_changes() -> None:
    last = publish(THREE, CAROL, None, {DEV: oid(1)})
    after = without(THREE, last)
    held = Held(after, records(last))
    assert offer(held, publish(THREE, CAROL, last, {DEV: oid(2)}), identity=after) is None
    bob = publish(after, BOB, None, {MAIN: oid(3)}, others=[last])
    verified = offer(held, publish(THREE, CAROL, last, {DEV: oid(2)}), bob, identity=after)
    assert verified is not None
    assert verified.records == records(last, bob)


def test_nobody_waits_for_what_was_cut_off() -> None:
    last = publish(THREE, CAROL, None, {DEV: oid(1)})
    more = publish(THREE, CAROL, last, {DEV: oid(2)})
    bob = publish(THREE, BOB, None, {DEV: oid(3)}, others=[more], forced={DEV})
    after = without(THREE, last)
    verified = offer(Held(after, records(last)), bob, identity=after)
    assert verified is not None
    assert verified.records == records(last, bob)
    with pytest.raises(MissingContext):
        offer(Held(after, {}), bob, identity=after)


def test_key_added_without_its_consent_adds_nobody() -> None:
    maintainers = (*THREE.current.maintainers, EVE.author_id)
    document = THREE.successor(created_ms=NOW, nonce=bytes(16), maintainers=maintainers)
    with pytest.raises(InvalidIdentity, match="without its own signature"):
        verify(THREE.repository, Held(THREE, {}), (document.sign(ALICE, BOB, CAROL),), (), (), NOW)


def test_threshold_that_cannot_be_met_stops_documents_and_not_refs() -> None:
    """Two of three keys are lost: who maintains the repository can't change any more; its refs still can."""
    document = THREE.successor(created_ms=NOW, nonce=bytes(16), description="Alone.")
    with pytest.raises(InvalidIdentity, match="2 maintainers of epoch 0 must sign"):
        verify(THREE.repository, Held(THREE, {}), (document.sign(ALICE),), (), (), NOW)
    first = publish(THREE, ALICE, None, {MAIN: oid(1)})
    assert offer(Held(THREE, {}), first) is not None
    with pytest.raises(InvalidIdentity, match="threshold"):
        THREE.successor(created_ms=NOW, nonce=bytes(16), threshold=4)


def test_proof_about_what_its_author_did_not_sign_as_a_maintainer_is_nobodys_fault_and_counts_for_nothing() -> None:
    """Or a removed key could name an epoch that no document will ever reach, and nothing could settle the split."""
    alice = publish(THREE, ALICE, None, {MAIN: oid(1)})
    held = Held(THREE, records(alice))
    for epoch, identity_hash in ((2**62, THREE.hash), (0, bytes(32))):
        one, two = (
            by_hand(THREE, ALICE, {}, seq=1, head=head, epoch=epoch, identity_hash=identity_hash)
            for head in (MAIN, DEV)
        )
        proof = EquivocationProof.of(one.signed_header, two.signed_header, None)
        assert verify(THREE.repository, held, (), (), (), NOW, (proof.encode(),)) is None
    one, two = (by_hand(THREE, ALICE, {}, seq=1, head=head) for head in (MAIN, DEV))
    proof = EquivocationProof.of(one.signed_header, two.signed_header, None)
    verified = verify(THREE.repository, held, (), (), (), NOW, (proof.encode(),))
    assert verified is not None
    assert verified.new_proofs == {ALICE.author_id}


async def test_new_replica_shows_nothing_of_an_author_from_the_split_on(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "guts.db")
    one, two = (publish(THREE, ALICE, None, {MAIN: oid(number)}) for number in (1, 2))
    bob = publish(THREE, BOB, None, {DEV: oid(9)})
    verified = offer(None, one, two, bob)
    assert verified is not None
    settled = await settle(database, None, verified)
    assert settled.records == records(bob)
    assert [new.record for new in settled.new] == [bob]
    verified = offer(None, one, two)
    assert verified is not None
    with pytest.raises(MissingContext):
        await settle(database, None, verified)
    await database.close()


def test_headers_too_many_do_no_harm() -> None:
    """The author pushed between two pages of an answer: the first has headers that lead to an older record."""
    first = publish(THREE, ALICE, None, {MAIN: oid(1)}, now=NOW - 9)
    second = publish(THREE, ALICE, first, {MAIN: oid(2)}, now=NOW - 8, forced={MAIN})
    third = publish(THREE, ALICE, second, {MAIN: oid(3)}, now=NOW - 7, forced={MAIN})
    last = publish(THREE, ALICE, third, {MAIN: oid(4)}, now=NOW - 6, forced={MAIN})
    stray = publish(THREE, BOB, None, {MAIN: oid(5)})
    for bridge in ((second, third, stray), (stray, second), (second, second, first)):
        verified = offer(Held(THREE, records(first)), third, last, bridge=bridge)
        assert verified is not None
        assert verified.records == records(last)
        assert [header.header.seq for header in verified.new[-1].bridge][-1] == third.seq


@pytest.mark.parametrize("older", [MAX_RECORDS_PER_AUTHOR - 1, MAX_RECORDS_PER_AUTHOR])
def test_of_one_author_only_the_newest_records_are_looked_at(older: int) -> None:
    chain_of: list[SignedRefs] = []
    for number in range(older + 1):
        previous = chain_of[-1] if chain_of else None
        chain_of.append(publish(THREE, ALICE, previous, {MAIN: oid(number + 1)}, now=NOW - 99 + number, forced={MAIN}))
    spoilt = EncodedRefs(chain_of[0].header_bytes, b"\xff")
    whole = [EncodedRefs(record.header_bytes, record.entries_bytes) for record in chain_of[1:]]
    if older < MAX_RECORDS_PER_AUTHOR:
        with pytest.raises(PeerFault):
            verify(THREE.repository, None, THREE.documents, (), (spoilt, *whole), NOW)
    else:
        verified = verify(THREE.repository, None, THREE.documents, (), (spoilt, *whole), NOW)
        assert verified is not None
        assert verified.records == records(chain_of[-1])
