"""The commit point: compare and swap, generations, kept headers, and what is read back."""

import dataclasses

import pytest
from sqlalchemy import Connection, func, select

from guts.ids import RepositoryId
from guts.store import history, objects, repositories, schema
from guts.store.accepted import Conflict, NewSignedRefs, NotHeld, RepositorySummary, StoredRepository
from guts.store.database import Database
from guts.store.history import KEPT_RECORDS
from guts.store.objects import ObjectInfo, ObjectType
from tests.unit.store.states import (
    ALICE,
    BOB,
    MAIN,
    OTHER,
    REPOSITORY,
    document,
    first_state,
    header,
    new,
    oid,
    record,
    state,
)


async def test_first_commit_is_read_back_whole(database: Database) -> None:
    assert await database.write(repositories.commit, first_state()) == 1
    assert await database.read(repositories.load, REPOSITORY) == StoredRepository(
        RepositorySummary(
            id=REPOSITORY,
            name="guts",
            description="a test",
            epoch=0,
            identity_hash=document(0).hash,
            head=MAIN,
            seeding=True,
            generation=1,
            projected=False,
            created=1_000,
            updated=1_000,
            size=4_096,
            authors={ALICE: (10, record(ALICE, 10).hash)},
            splits={},
            fork=0,
        ),
        (document(0),),
        (record(ALICE, 10),),
        (),
        {MAIN: oid("tip")},
    )


async def test_next_commit_replaces_record_refs_and_time_but_not_creation(database: Database) -> None:
    await database.write(repositories.commit, first_state())
    following = state(
        new(ALICE, 11, 10),
        new(BOB, 7, None),
        documents=(document(1), document(2)),
        canonical={"refs/tags/v1": oid("tag"), "refs/heads/main": oid("next")},
        now_ms=2_000,
    )
    assert await database.write(repositories.commit, following) == 2

    stored = await database.read(repositories.load, REPOSITORY)
    assert stored.documents == (document(0), document(1), document(2))
    assert stored.signed_refs == (record(ALICE, 11), record(BOB, 7))
    assert list(stored.canonical.items()) == [(MAIN, oid("next")), ("refs/tags/v1", oid("tag"))]
    assert (stored.summary.epoch, stored.summary.identity_hash) == (2, document(2).hash)
    assert (stored.summary.created, stored.summary.updated) == (1_000, 2_000)


async def test_generation_counts_the_commits_of_what_is_held(database: Database) -> None:
    assert await database.read(repositories.load_generation, REPOSITORY) is None
    await database.write(repositories.commit, first_state())
    assert await database.read(repositories.load_generation, REPOSITORY) == 1
    await database.write(repositories.commit, state(new(ALICE, 11, 10)))
    assert await database.read(repositories.load_generation, REPOSITORY) == 2


async def test_canonical_refs_come_in_byte_order(database: Database) -> None:
    names = ["refs/heads/ä", "refs/heads/z", "refs/heads/a-b", "refs/heads/a/b", "refs/heads/B"]
    wanted = sorted(names, key=str.encode)
    await database.write(
        repositories.commit,
        dataclasses.replace(first_state(), canonical={name: oid(name) for name in names}),
    )
    assert list(await database.read(repositories.load_canonical, REPOSITORY)) == wanted


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (new(ALICE, 12, None), "the author is thought to have no record"),
        (new(ALICE, 12, 9), "an older record is thought to be the newest"),
        (new(ALICE, 12, 11), "a record that never came is thought to be the newest"),
        (dataclasses.replace(new(ALICE, 12, 10), previous=(10, b"x" * 32)), "same seq, other hash"),
        (new(BOB, 12, 10), "another author has no record yet"),
    ],
)
async def test_commit_on_a_record_that_is_not_the_newest_changes_nothing(
    database: Database, step: NewSignedRefs, why: str
) -> None:
    await database.write(repositories.commit, first_state())
    before = await database.read(repositories.load, REPOSITORY)
    with pytest.raises(Conflict):
        await database.write(repositories.commit, state(step, documents=(document(1),), canonical={}, now_ms=9_999))
    assert await database.read(repositories.load, REPOSITORY) == before, why


@pytest.mark.parametrize("epochs", [(0,), (2,), (1, 3), (1, 1)])
async def test_commit_on_another_identity_chain_changes_nothing(database: Database, epochs: tuple[int, ...]) -> None:
    await database.write(repositories.commit, first_state())
    before = await database.read(repositories.load, REPOSITORY)
    with pytest.raises(Conflict):
        await database.write(repositories.commit, state(documents=tuple(document(epoch) for epoch in epochs)))
    assert await database.read(repositories.load, REPOSITORY) == before


async def test_commit_on_another_generation_changes_nothing(database: Database) -> None:
    first = dataclasses.replace(first_state(), generation=1)
    with pytest.raises(Conflict):
        await database.write(repositories.committed, first)
    summary = await database.write(repositories.committed, dataclasses.replace(first, generation=0))
    assert summary == await database.read(repositories.load_summary, REPOSITORY)
    before = await database.read(repositories.load, REPOSITORY)
    for generation in (0, 2):
        with pytest.raises(Conflict):
            await database.write(
                repositories.commit, dataclasses.replace(state(new(ALICE, 11, 10)), generation=generation)
            )
        assert await database.read(repositories.load, REPOSITORY) == before
    assert await database.write(repositories.commit, dataclasses.replace(state(new(ALICE, 11, 10)), generation=1)) == 2


async def test_commit_to_a_repository_that_was_removed_meanwhile_is_a_conflict(database: Database) -> None:
    await database.write(repositories.commit, first_state())
    assert await database.write(repositories.remove, REPOSITORY)
    with pytest.raises(Conflict):
        await database.write(repositories.commit, state(new(ALICE, 11, 10)))
    assert await database.read(repositories.load_summaries) == []


async def test_replaced_and_bridging_headers_are_kept_in_order(database: Database) -> None:
    await database.write(repositories.commit, first_state())
    await database.write(repositories.commit, state(new(ALICE, 14, 10, 11, 12, 13)))
    kept = await database.read(history.load_headers, REPOSITORY, ALICE)
    assert kept == tuple(header(ALICE, seq) for seq in (10, 11, 12, 13))
    above = await database.read(history.load_headers, REPOSITORY, ALICE, above_seq=11)
    assert above == tuple(header(ALICE, seq) for seq in (12, 13))
    assert await database.read(history.load_headers, REPOSITORY, BOB) == ()


async def test_headers_past_the_limit_go_oldest_first(database: Database) -> None:
    last = 10 + KEPT_RECORDS
    bridging = range(11, last)
    await database.write(repositories.commit, first_state())
    await database.write(repositories.commit, state(new(BOB, 1, None), new(ALICE, last, 10, *bridging)))
    kept = await database.read(history.load_headers, REPOSITORY, ALICE)
    assert [h.seq for h in kept] == list(range(10, last)), "as many as may be kept"

    await database.write(repositories.commit, state(new(ALICE, last + 1, last)))
    kept = await database.read(history.load_headers, REPOSITORY, ALICE)
    assert [h.seq for h in kept] == list(range(11, last + 1)), "one more, and the oldest goes"


async def projected(database: Database) -> bool:
    return (await database.read(repositories.load_summary, REPOSITORY)).projected


async def test_projection_that_was_overtaken_is_not_taken_for_the_newest(database: Database) -> None:
    first = await database.write(repositories.commit, first_state())
    second = await database.write(repositories.commit, state(new(ALICE, 11, 10)))
    assert not await database.write(repositories.mark_projected, REPOSITORY, first)
    assert not await projected(database)
    assert await database.write(repositories.mark_projected, REPOSITORY, second)
    assert await projected(database)
    await database.write(repositories.commit, state(new(ALICE, 12, 11)))
    assert not await projected(database)


async def test_summaries_hold_every_repository_with_its_authors(database: Database) -> None:
    await database.write(repositories.commit, first_state())
    await database.write(repositories.commit, state(new(BOB, 3, None)))
    await database.write(repositories.commit, first_state(repository=OTHER))
    summaries = await database.read(repositories.load_summaries)
    assert {s.id: set(s.authors) for s in summaries} == {REPOSITORY: {ALICE, BOB}, OTHER: {ALICE}}
    assert [s.id for s in summaries] == sorted([REPOSITORY, OTHER])
    assert await database.read(repositories.load_summary, REPOSITORY) in summaries


async def test_seeding_choice_is_changed_alone(database: Database) -> None:
    await database.write(repositories.commit, first_state())
    before = await database.read(repositories.load_summary, REPOSITORY)
    await database.write(repositories.set_seeding, REPOSITORY, seeding=False)
    after = await database.read(repositories.load_summary, REPOSITORY)
    assert after == dataclasses.replace(before, seeding=False)


async def test_removal_leaves_no_row_of_it_and_all_of_the_others(database: Database) -> None:
    for repository in (REPOSITORY, OTHER):
        await database.write(repositories.commit, first_state(repository=repository))
        await database.write(repositories.commit, state(new(ALICE, 11, 10), repository=repository))
        await database.write(objects.insert, repository, [ObjectInfo(oid("tip"), ObjectType.COMMIT, 1)])

    def rows(connection: Connection) -> dict[str, int]:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in schema.metadata.sorted_tables
        }

    both = await database.read(rows)
    kept = await database.read(repositories.load, OTHER)
    assert await database.write(repositories.remove, REPOSITORY)
    assert await database.read(rows) == {name: number // 2 for name, number in both.items()}
    assert await database.read(repositories.load, OTHER) == kept
    assert not await database.write(repositories.remove, REPOSITORY)


async def test_repository_that_is_not_held_is_named(database: Database) -> None:
    nobody = RepositoryId(b"N" * 32)
    with pytest.raises(NotHeld, match=nobody.short):
        await database.read(repositories.load, nobody)
    with pytest.raises(NotHeld, match=nobody.short):
        await database.write(repositories.set_seeding, nobody, seeding=True)
