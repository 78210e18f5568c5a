"""Identity documents and their chain: who may change who may sign."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guts import canonical
from guts.canonical import Bounds, NotCanonical, Value
from guts.errors import PeerFault, Severity
from guts.identity import SigningKey, domain
from guts.records import InvalidRecord, Signed
from guts.trust.chain import MAX_DOCUMENTS, IdentityChain, IdentityForked, MissingIdentity
from guts.trust.identity_document import (
    MAX_DESCRIPTION_BYTES,
    MAX_DOCUMENT_BYTES,
    MAX_MAINTAINERS,
    MAX_RULES,
    AuthorPoint,
    IdentityDocument,
    InvalidIdentity,
    RefRule,
    default_threshold,
)
from tests.unit.trust.world import ALICE, BOB, CAROL, EVE, NOW, chain, genesis, key

NONCE = bytes(16)
HASH = bytes(range(32))


def extend(before: IdentityChain, document: IdentityDocument, *keys: SigningKey) -> IdentityChain:
    return before.extend(document.sign(*keys))


def test_genesis_hash_is_the_repository_id() -> None:
    document = genesis(ALICE)
    made = IdentityChain.from_documents([document.sign(ALICE)])
    assert made.repository == document.hash
    assert (made.epoch, made.hash, made.current) == (0, document.hash, document)
    assert IdentityDocument.decode_body(document.body) == document


def test_default_threshold_is_a_majority() -> None:
    assert [default_threshold(n) for n in (1, 2, 3, 4, 32)] == [1, 2, 2, 3, 17]
    assert genesis(ALICE, BOB, CAROL).threshold == 2


def test_genesis_needs_every_maintainer_and_nobody_else() -> None:
    document = genesis(ALICE, BOB)
    for signers in ((ALICE,), (ALICE, EVE), (ALICE, BOB, EVE)):
        with pytest.raises(InvalidIdentity):
            IdentityChain.from_documents([document.sign(*signers)])
    assert IdentityChain.from_documents([document.sign(BOB, ALICE)]).repository == document.hash


def test_genesis_with_a_forged_signature_is_refused() -> None:
    document = genesis(ALICE)
    forged = Signed(document.body, ((ALICE.public, EVE.sign(domain("identity"), document.body)),))
    with pytest.raises(InvalidRecord):
        IdentityChain.from_documents([forged.encode()])


def test_signature_made_for_refs_is_no_signature_of_identity() -> None:
    document = genesis(ALICE)
    with pytest.raises(InvalidRecord):
        IdentityChain.from_documents([Signed.sign("refs", document.body, ALICE).encode()])


def test_signatures_made_elsewhere_are_checked_when_attached() -> None:
    document = genesis(ALICE)
    good = ALICE.sign(domain("identity"), document.body)
    assert document.attach({ALICE.author_id: good}) == document.sign(ALICE)
    with pytest.raises(InvalidRecord):
        document.attach({BOB.author_id: good})


def test_threshold_of_the_epoch_before_decides() -> None:
    before = chain(ALICE, BOB, CAROL)
    document = before.successor(created_ms=NOW, nonce=NONCE, description="Another.", threshold=1)
    with pytest.raises(InvalidIdentity, match="2 maintainers"):
        extend(before, document, ALICE)
    assert extend(before, document, ALICE, CAROL).epoch == 1


def test_added_key_must_consent_and_does_not_count_for_the_threshold() -> None:
    before = chain(ALICE)
    both = (ALICE.author_id, BOB.author_id)
    document = before.successor(created_ms=NOW, nonce=NONCE, maintainers=both)
    with pytest.raises(InvalidIdentity, match="without its own signature"):
        extend(before, document, ALICE)
    with pytest.raises(InvalidIdentity, match="must sign"):
        extend(before, document, BOB)
    after = extend(before, document, ALICE, BOB)
    assert after.current.maintainers == both
    assert after.current.threshold == 2


def test_signature_of_a_stranger_is_refused() -> None:
    before = chain(ALICE)
    document = before.successor(created_ms=NOW, nonce=NONCE, description="x")
    with pytest.raises(InvalidIdentity, match="no say"):
        extend(before, document, ALICE, EVE)


def test_forged_signature_on_a_later_document_is_refused() -> None:
    before = chain(ALICE)
    document = before.successor(created_ms=NOW, nonce=NONCE, description="x")
    forged = Signed(document.body, ((ALICE.public, bytes(64)),))
    with pytest.raises(InvalidRecord):
        before.extend(forged.encode())


def test_removed_maintainer_is_named_with_the_last_record() -> None:
    before = chain(ALICE, BOB, threshold=1)
    only = (ALICE.author_id,)
    with pytest.raises(InvalidIdentity, match="exactly those"):
        before.successor(created_ms=NOW, nonce=NONCE, maintainers=only)
    point = AuthorPoint(BOB.author_id, 7, HASH)
    after = extend(before, before.successor(created_ms=NOW, nonce=NONCE, maintainers=only, removed=(point,)), ALICE)
    assert after.limit(BOB.author_id, 0) == point
    assert after.limit(BOB.author_id, 1) is None
    assert after.limit(ALICE.author_id, 0) is None
    assert after.former() == (point,)


def test_document_that_names_others_as_removed_is_refused() -> None:
    before = chain(ALICE, BOB, threshold=1)
    document = dataclasses.replace(
        before.successor(created_ms=NOW, nonce=NONCE), removed=(AuthorPoint(EVE.author_id, 0, b""),)
    )
    with pytest.raises(InvalidIdentity, match="exactly those"):
        extend(before, document, ALICE)


def test_maintainer_who_returns_is_former_no_more() -> None:
    one = chain(ALICE, BOB, threshold=1)
    out = AuthorPoint(BOB.author_id, 0, b"")
    two = extend(
        one,
        one.successor(created_ms=NOW, nonce=NONCE, maintainers=(ALICE.author_id,), removed=(out,)),
        ALICE,
    )
    back = two.successor(created_ms=NOW, nonce=NONCE, maintainers=(ALICE.author_id, BOB.author_id), threshold=1)
    three = extend(two, back, ALICE, BOB)
    assert three.former() == ()
    again = AuthorPoint(BOB.author_id, 9, HASH)
    four = extend(
        three,
        three.successor(created_ms=NOW, nonce=NONCE, maintainers=(ALICE.author_id,), removed=(again,)),
        BOB,
    )
    assert four.former() == (again,)
    assert four.limit(BOB.author_id, 0) == out
    assert four.limit(BOB.author_id, 2) == again


def test_reaffirmed_record_is_the_limit_of_earlier_epochs() -> None:
    before = chain(ALICE, BOB, threshold=1)
    point = AuthorPoint(BOB.author_id, 7, HASH)
    after = extend(before, before.successor(created_ms=NOW, nonce=NONCE, reaffirmed=(point,)), ALICE)
    assert after.limit(BOB.author_id, 0) == point
    assert after.limit(BOB.author_id, 1) is None


def test_wrong_epoch_and_wrong_predecessor_are_refused() -> None:
    before = chain(ALICE)
    document = before.successor(created_ms=NOW, nonce=NONCE, description="x")
    with pytest.raises(MissingIdentity) as missing:
        extend(before, dataclasses.replace(document, epoch=2), ALICE)
    assert missing.value.severity is Severity.NETWORK
    with pytest.raises(InvalidIdentity, match="does not follow"):
        extend(before, dataclasses.replace(document, previous=HASH), ALICE)


def test_second_genesis_and_documents_of_another_repository_are_refused() -> None:
    ours, theirs = chain(ALICE), chain(ALICE, name="other")
    with pytest.raises(InvalidIdentity, match="genesis of another"):
        ours.extend(theirs.documents[0])
    with pytest.raises(InvalidIdentity, match="another repository"):
        ours.extend(theirs.successor(created_ms=NOW, nonce=NONCE).sign(ALICE))
    with pytest.raises(InvalidIdentity, match="not a genesis"):
        IdentityChain.from_documents([ours.successor(created_ms=NOW, nonce=NONCE).sign(ALICE)])


def test_known_documents_change_nothing() -> None:
    before = chain(ALICE)
    after = extend(before, before.successor(created_ms=NOW, nonce=NONCE), ALICE)
    for document in after.documents:
        assert after.extend(document) is after
    assert IdentityChain.from_documents(list(after.documents)) == after


def test_second_valid_document_of_an_epoch_is_a_fork_and_an_invalid_one_is_not() -> None:
    before = chain(ALICE)
    after = extend(before, before.successor(created_ms=NOW, nonce=NONCE), ALICE)
    other = before.successor(created_ms=NOW, nonce=NONCE, description="other").sign(ALICE)
    with pytest.raises(IdentityForked) as forked:
        after.extend(other)
    assert (forked.value.epoch, forked.value.document) == (1, other)
    assert forked.value.severity is Severity.NETWORK
    with pytest.raises(InvalidIdentity, match="must sign"):
        after.extend(before.successor(created_ms=NOW, nonce=NONCE, description="other").sign(EVE))


def test_chain_has_at_most_1000_documents() -> None:
    made = chain(ALICE)
    documents = list(made.documents)
    while len(documents) < MAX_DOCUMENTS:
        documents.append(made.successor(created_ms=NOW, nonce=NONCE).sign(ALICE))
        made = made.extend(documents[-1])
    assert made.epoch == MAX_DOCUMENTS - 1
    more = made.successor(created_ms=NOW, nonce=NONCE).sign(ALICE)
    with pytest.raises(InvalidIdentity, match=r"1\.\.1000"):
        made.extend(more)
    for wrong in ([], [*documents, more]):
        with pytest.raises(InvalidIdentity, match=r"1\.\.1000"):
            IdentityChain.from_documents(wrong)


def test_document_has_at_most_64_kib() -> None:
    # A document inside its other limits never gets there, so the size is tested with what is no document.
    for size, message in ((MAX_DOCUMENT_BYTES, "inside the bounds"), (MAX_DOCUMENT_BYTES + 1, "bytes where")):
        with pytest.raises(NotCanonical, match=message):
            chain(ALICE).extend(b"\xc1" * size)


def test_biggest_document_fits() -> None:
    keys = [key(f"m{n}") for n in range(MAX_MAINTAINERS)]
    rules = tuple(RefRule(f"{n:02}" + "é" * 126 + "x", 32) for n in range(MAX_RULES))
    document = dataclasses.replace(genesis(*keys), rules=rules, description="x" * MAX_DESCRIPTION_BYTES)
    made = IdentityChain.from_documents([document.sign(*keys)])
    everybody_new = [key(f"n{n}") for n in range(MAX_MAINTAINERS)]
    after = made.successor(
        created_ms=NOW,
        nonce=NONCE,
        maintainers=tuple(k.author_id for k in everybody_new),
        removed=tuple(AuthorPoint(k.author_id, 2**62, HASH) for k in keys),
    ).sign(*keys, *everybody_new)
    assert len(after) < MAX_DOCUMENT_BYTES
    assert made.extend(after).epoch == 1


POINT = AuthorPoint(BOB.author_id, 1, HASH)


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": -1},
        {"epoch": 2**63},
        {"created_ms": -1},
        {"created_ms": 2**63},
        {"repository": chain(ALICE).repository},
        {"epoch": 1},
        {"epoch": 1, "repository": chain(ALICE).repository},
        {"previous": HASH},
        {"removed": (POINT,)},
        {"reaffirmed": (AuthorPoint(ALICE.author_id, 1, HASH),)},
        {"nonce": bytes(15)},
        {"nonce": bytes(17)},
        {"name": ""},
        {"name": "a/b"},
        {"name": ".."},
        {"name": "n" * 101},
        {"name": "né"},
        {"description": "x" * (MAX_DESCRIPTION_BYTES + 1)},
        {"description": "a\nb"},
        {"description": "\udcff"},
        {"default_branch": ""},
        {"default_branch": "refs/heads/main"},
        {"default_branch": "a..b"},
        {"maintainers": ()},
        {"maintainers": (ALICE.author_id, ALICE.author_id)},
        {"maintainers": tuple(key(f"m{n}").author_id for n in range(MAX_MAINTAINERS + 1))},
        {"threshold": 0},
        {"threshold": 2},
        {"rules": (RefRule("b", 1), RefRule("a", 1))},
        {"rules": (RefRule("a", 1), RefRule("a", 2))},
        {"rules": tuple(RefRule(f"{n:02}", 1) for n in range(MAX_RULES + 1))},
    ],
)
def test_document_with_a_bad_field_cannot_be_made(change: dict[str, object]) -> None:
    with pytest.raises(InvalidIdentity):
        dataclasses.replace(genesis(ALICE), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"removed": (AuthorPoint(ALICE.author_id, 0, b""),)},
        {"reaffirmed": (POINT,)},
        {"reaffirmed": (AuthorPoint(ALICE.author_id, 0, b""),)},
        {"removed": tuple(sorted(AuthorPoint(key(f"m{n}").author_id, 0, b"") for n in range(33)))},
        {"removed": tuple(sorted((POINT, AuthorPoint(EVE.author_id, 0, b"")), reverse=True))},
    ],
)
def test_later_document_with_bad_points_cannot_be_made(change: dict[str, object]) -> None:
    with pytest.raises(InvalidIdentity):
        dataclasses.replace(chain(ALICE).successor(created_ms=NOW, nonce=NONCE), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(("seq", "digest"), [(0, HASH), (1, b""), (-1, HASH), (2**63, HASH), (1, bytes(31))])
def test_point_has_both_seq_and_hash(seq: int, digest: bytes) -> None:
    with pytest.raises(InvalidIdentity):
        AuthorPoint(ALICE.author_id, seq, digest)


@pytest.mark.parametrize(("pattern", "endorsements"), [("", 1), ("x" * 256, 1), ("a\x00", 1), ("a", 0), ("a", 33)])
def test_rule_is_bounded(pattern: str, endorsements: int) -> None:
    with pytest.raises(InvalidIdentity):
        RefRule(pattern, endorsements)


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, 2),
        (0, True),
        (1, bytes(31)),
        (2, False),
        (4, b"example"),
        (7, [bytes(31)]),
        (7, ["x"]),
        (8, None),
        (9, [["a"]]),
        (9, ["a"]),
        (9, [["a", True]]),
        (10, [[bytes(32), 1]]),
        (10, [[bytes(32), 1, "x"]]),
        (11, [b""]),
        (12, "now"),
        (13, 0),
    ],
)
def test_body_with_a_value_of_another_type_is_refused(index: int, value: Value) -> None:
    fields = canonical.decode(genesis(ALICE).body, Bounds(10_000))
    assert isinstance(fields, list)
    fields[index] = value
    with pytest.raises(InvalidIdentity):
        IdentityDocument.decode_body(canonical.encode(fields))


@given(st.binary(max_size=300))
def test_garbage_is_a_fault_of_the_peer(data: bytes) -> None:
    before = chain(ALICE)
    with pytest.raises(PeerFault):
        before.extend(data)
    with pytest.raises(PeerFault):
        IdentityDocument.decode_body(data)


@given(st.data())
def test_document_with_a_changed_byte_is_refused(data: st.DataObject) -> None:
    signed = bytearray(genesis(ALICE, BOB).sign(ALICE, BOB))
    position = data.draw(st.integers(0, len(signed) - 1))
    signed[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PeerFault):
        IdentityChain.from_documents([bytes(signed)])
