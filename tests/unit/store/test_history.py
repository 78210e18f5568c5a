"""Older records as deltas, and proofs: what is kept, what is forgotten, what comes back."""

import dataclasses

import pytest

from guts.store import history, repositories
from guts.store.accepted import NewSignedRefs
from guts.store.database import Database
from guts.store.history import Equivocation
from tests.unit.store.states import ALICE, BOB, REPOSITORY, first_state, header, new, record, state


async def kept(database: Database) -> list[tuple[int, bytes | None]]:
    """Return (seq, base) of what is kept of Alice."""
    rows = await database.read(history.load_kept, REPOSITORY, ALICE)
    return [(row.header.seq, row.base) for row in rows]


def back(seq: int, previous: int) -> NewSignedRefs:
    """Return the step of Alice from ``previous`` to the record ``seq``, which was kept until then."""
    return dataclasses.replace(new(ALICE, seq, previous), bridging=())


async def test_replaced_record_is_kept_as_a_delta_to_the_one_in_its_place(database: Database) -> None:
    await database.write(repositories.commit, first_state())
    await database.write(repositories.commit, state(new(ALICE, 14, 10, 12)))
    await database.write(repositories.commit, state(new(ALICE, 15, 14)))
    assert await kept(database) == [(10, record(ALICE, 14).hash), (12, None), (14, record(ALICE, 15).hash)]
    base, delta = record(ALICE, 15).hash, f"delta {ALICE.hex()} 14".encode()
    assert await database.read(history.load_delta, REPOSITORY, ALICE, record(ALICE, 14).hash) == (base, delta)
    for without in (record(ALICE, 12), record(ALICE, 15), record(ALICE, 99)):
        assert await database.read(history.load_delta, REPOSITORY, ALICE, without.hash) is None
    assert await database.read(history.load_header, REPOSITORY, ALICE, header(ALICE, 12).hash) == header(ALICE, 12)
    assert await database.read(history.load_header, REPOSITORY, BOB, header(ALICE, 12).hash) is None


async def test_record_that_counts_again_is_whole_and_its_successor_a_delta_to_it(database: Database) -> None:
    await database.write(repositories.commit, first_state())
    await database.write(repositories.commit, state(new(ALICE, 14, 10)))
    await database.write(repositories.commit, state(new(ALICE, 15, 14)))
    await database.write(repositories.commit, state(back(10, 15)))
    assert await kept(database) == [(14, record(ALICE, 15).hash), (15, record(ALICE, 10).hash)]
    assert (await database.read(repositories.load_signed_refs_of, REPOSITORY, ALICE)).seq == 10


async def test_record_that_none_takes_the_place_of_is_kept_whole(database: Database) -> None:
    await database.write(repositories.commit, first_state())
    gone = NewSignedRefs(ALICE, None, (10, record(ALICE, 10).hash), b"all of it")
    await database.write(repositories.commit, state(gone))
    assert (await database.read(repositories.load, REPOSITORY)).signed_refs == ()
    assert await kept(database) == [(10, b"")]
    await database.write(repositories.commit, state(new(ALICE, 9, None)))
    assert await kept(database) == [(10, b"")]


async def test_headers_that_bridge_do_not_take_entries_away(database: Database) -> None:
    await database.write(repositories.commit, first_state())
    await database.write(repositories.commit, state(new(ALICE, 14, 10)))
    await database.write(repositories.commit, state(new(ALICE, 15, 14, 10)))
    assert await kept(database) == [(10, record(ALICE, 14).hash), (14, record(ALICE, 15).hash)]


@pytest.mark.parametrize("over", [0, 1])
async def test_entries_past_the_limit_go_oldest_first(
    database: Database, over: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    delta = len(f"delta {ALICE.hex()} 10")
    monkeypatch.setattr(history, "KEPT_BYTES", 2 * delta - over)
    await database.write(repositories.commit, first_state())
    await database.write(repositories.commit, state(new(ALICE, 11, 10)))
    await database.write(repositories.commit, state(new(ALICE, 12, 11)))
    assert await kept(database) == [(10, None if over else record(ALICE, 11).hash), (11, record(ALICE, 12).hash)]


async def test_proofs_are_those_of_the_newest_commit(database: Database) -> None:
    proofs = (Equivocation(ALICE, 7, b"a proof"), Equivocation(BOB, 3, b"another"))
    await database.write(repositories.commit, first_state())
    await database.write(repositories.commit, state(equivocations=proofs))
    stored = await database.read(repositories.load, REPOSITORY)
    assert stored.equivocations == proofs
    assert stored.summary.splits == {ALICE: 7, BOB: 3}
    assert await database.read(repositories.load_summaries) == [stored.summary]
    await database.write(repositories.commit, state(equivocations=proofs[1:]))
    assert (await database.read(repositories.load, REPOSITORY)).equivocations == proofs[1:]
