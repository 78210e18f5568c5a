"""What is answered to GetRefs: always something that a message can hold, and that leads on."""

import dataclasses
import itertools

import pytest

from guts.ids import ObjectId
from guts.node.refs_reader import MAX_SERVED_DELTAS, RefsReader
from guts.store import repositories as table
from guts.store.accepted import AcceptedState, IdentityDocument, NewSignedRefs, SignedRefs
from guts.store.database import Database
from guts.store.history import Equivocation, Header
from guts.trust.deltas import make_delta
from guts.trust.signed_refs import SignedRefs as Record
from guts.wire.codec import encode
from guts.wire.limits import MAX_ENTRIES_BYTES
from guts.wire.messages import EncodedRefs, KnownHead, KnownSplit, RecordQuery, Refs, RefsAnswer, RefsQuery
from tests.unit.trust.world import ALICE, BOB, MAIN, by_hand, chain, oid, publish

CHAIN = chain(ALICE)
LARGEST = MAX_ENTRIES_BYTES


def history(count: int) -> list[Record]:
    made: list[Record] = []
    for seq in range(1, count + 1):
        made.append(by_hand(CHAIN, ALICE, {}, seq=seq, previous=made[-1].hash if made else b""))
    return made


def state(record: Record, bridge: list[Record], entries: bytes, splits: tuple[Equivocation, ...] = ()) -> AcceptedState:
    return AcceptedState(
        repository=CHAIN.repository,
        name="x",
        description="",
        documents=(IdentityDocument(0, CHAIN.hash, CHAIN.documents[0]),),
        signed_refs=(
            NewSignedRefs(
                record.author,
                SignedRefs(record.author, record.seq, record.hash, record.header_bytes, entries),
                None,
                None,
                tuple(Header(record.author, other.seq, other.hash, other.header_bytes) for other in bridge),
            ),
        ),
        equivocations=splits,
        canonical={MAIN: ObjectId(oid(1))},
        head=MAIN,
        seeding=True,
        size=0,
        now_ms=0,
    )


async def answer(database: Database, known: Record | None, splits: tuple[KnownSplit, ...] = ()) -> RefsAnswer:
    heads = () if known is None else (KnownHead(known.author, known.seq, known.hash),)
    query = RefsQuery(CHAIN.repository, 1, CHAIN.hash, heads, splits)
    answers, cursor = await RefsReader(database).read([query], b"")
    assert cursor == b""
    assert encode(Refs(1, answers))
    (found,) = answers
    return found


async def test_bridge_leads_from_what_is_known_and_shows_where_that_is_on_another_branch(database: Database) -> None:
    *older, newest = history(6)
    other = by_hand(CHAIN, ALICE, {}, seq=3, previous=older[0].hash)
    await database.write(table.commit, state(newest, [*older, other], b"entries"))
    headers = [record.header_bytes for record in older]
    assert (await answer(database, older[2])).headers == tuple(headers[3:])
    assert (await answer(database, older[4])).headers == ()
    assert (await answer(database, other)).headers == tuple(headers[2:]), "the one of that seq on this branch too"
    assert (await answer(database, None)).headers == ()
    twin = by_hand(CHAIN, ALICE, {}, seq=6, previous=other.hash)
    assert (await answer(database, twin)).records == (EncodedRefs(newest.header_bytes, b"entries"),)
    assert (await answer(database, newest)).records == ()
    later = by_hand(CHAIN, ALICE, {}, seq=7, previous=other.hash)
    assert (await answer(database, later)).records == ()


@pytest.mark.parametrize(("size", "bridged"), [(LARGEST // 2, True), (LARGEST, False)])
async def test_record_that_fills_an_answer_comes_without_its_bridge(
    database: Database,
    size: int,
    bridged: bool,
) -> None:
    *older, newest = history(150)
    await database.write(table.commit, state(newest, older, b"e" * size))
    found = await answer(database, older[0])
    assert len(found.records) == 1
    assert len(found.headers) == (148 if bridged else 0)


async def test_proof_is_told_to_who_knows_none_or_of_a_later_split(database: Database) -> None:
    (record,) = history(1)
    proof = Equivocation(record.author, 5, b"proof")
    await database.write(table.commit, state(record, [], b"entries", (proof,)))
    for seq, told in ((None, True), (4, False), (5, False), (6, True)):
        splits = () if seq is None else (KnownSplit(record.author, seq),)
        assert (await answer(database, record, splits)).proofs == ((b"proof",) if told else ())


async def test_older_record_is_answered_as_it_was_signed(database: Database) -> None:
    made: list[Record] = []
    for turn in range(MAX_SERVED_DELTAS + 2):
        refs = {f"refs/heads/{number}": oid(number) for number in range(turn, turn + 3)}
        made.append(publish(CHAIN, ALICE, made[-1] if made else None, refs, now=1_000 + turn))
    first = state(made[0], [], made[0].entries_bytes)
    await database.write(table.commit, first)
    for before, record in itertools.pairwise(made):
        whole = SignedRefs(record.author, record.seq, record.hash, record.header_bytes, record.entries_bytes)
        delta = make_delta(before.entries, record.entries)
        step = NewSignedRefs(record.author, whole, (before.seq, before.hash), delta)
        await database.write(table.commit, dataclasses.replace(first, documents=(), signed_refs=(step,)))
    queries = [RecordQuery(CHAIN.repository, ALICE.author_id, record.seq) for record in made]
    for query, record in list(zip(queries, made, strict=True))[1:]:
        ((found,), _) = await RefsReader(database).read([query], b"")
        assert found.records == (EncodedRefs(record.header_bytes, record.entries_bytes),)
    # The oldest is one step too far; and of several, each is a question of its own.
    ((found,), cursor) = await RefsReader(database).read(queries[:2], b"")
    assert found.records == ()
    ((found,), cursor) = await RefsReader(database).read(queries[:2], cursor)
    assert (len(found.records), cursor) == (1, b"")
    for author, seq in ((ALICE, 999), (ALICE, 1_000 + len(made)), (BOB, 1_000)):
        ((found,), _) = await RefsReader(database).read([RecordQuery(CHAIN.repository, author.author_id, seq)], b"")
        assert found.records == ()
