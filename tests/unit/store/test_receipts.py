"""Receipts: of each node and author the newest, so many of an author, none of what is gone."""

import dataclasses

from guts.ids import AuthorId, PeerId, RepositoryId
from guts.store import receipts, repositories
from guts.store.database import Database
from guts.store.receipts import KEPT_RECEIPTS, StoredReceipt
from tests.unit.store.states import ALICE, BOB, OTHER, REPOSITORY, first_state, header, new, record, state


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def receipt(
    number: int, seq: int = 10, author: AuthorId = ALICE, repository: RepositoryId = REPOSITORY
) -> StoredReceipt:
    """Return what node ``number`` said, in an order of time that is not that of the numbers."""
    digest = record(author, seq).hash
    return StoredReceipt(repository, author, peer(number), seq, digest, 1_000 - number, f"{number} {seq}".encode())


async def kept(database: Database, repository: RepositoryId = REPOSITORY) -> list[StoredReceipt]:
    return await database.read(receipts.load, repository)


async def test_receipts_are_given_back_by_author_the_newest_record_first(database: Database) -> None:
    await database.write(repositories.commit, first_state())
    for given in (receipt(1), receipt(2), receipt(3, 11), receipt(1, 7, BOB)):
        assert await database.write(receipts.keep, given)
    assert await kept(database) == [receipt(3, 11), receipt(2), receipt(1), receipt(1, 7, BOB)]
    assert await kept(database, OTHER) == []


async def test_newer_receipt_of_a_peer_takes_the_place_of_its_older_one(database: Database) -> None:
    await database.write(repositories.commit, first_state())
    assert await database.write(receipts.keep, receipt(1))
    assert await database.write(receipts.keep, receipt(1, 11))
    for late in (receipt(1), receipt(1, 11), dataclasses.replace(receipt(1, 11), encoded=b"again")):
        assert not await database.write(receipts.keep, late)
    assert await kept(database) == [receipt(1, 11)]


async def test_64_receipts_of_an_author_are_kept_and_those_for_older_records_go_first(database: Database) -> None:
    await database.write(repositories.commit, first_state())
    for number in range(KEPT_RECEIPTS):
        assert await database.write(receipts.keep, receipt(number, 9 if number == 40 else 10))
    assert len(await kept(database)) == KEPT_RECEIPTS
    assert await database.write(receipts.keep, receipt(100, 10))
    left = {row.peer for row in await kept(database)}
    assert left == {peer(number) for number in (*range(KEPT_RECEIPTS), 100) if number != 40}
    # Whoever makes more keys pushes nobody out.
    assert not await database.write(receipts.keep, receipt(101, 10))
    assert {row.peer for row in await kept(database)} == left
    # One of those who are there may go on, and another author has places of its own.
    assert await database.write(receipts.keep, receipt(5, 11))
    assert await database.write(receipts.keep, receipt(101, 10, BOB))
    assert len(await kept(database)) == KEPT_RECEIPTS + 1


async def test_receipts_go_with_their_repository(database: Database) -> None:
    assert not await database.write(receipts.keep, receipt(1))
    await database.write(repositories.commit, first_state())
    await database.write(repositories.commit, first_state(repository=OTHER))
    await database.write(receipts.keep, receipt(1))
    await database.write(receipts.keep, receipt(1, repository=OTHER))
    await database.write(repositories.remove, REPOSITORY)
    assert await kept(database) == []
    assert await kept(database, OTHER) == [receipt(1, repository=OTHER)]


async def test_headers_to_compare_with_are_those_of_the_newest_records(database: Database) -> None:
    await database.write(repositories.commit, first_state())
    await database.write(repositories.commit, state(new(ALICE, 14, 10), new(BOB, 12, None)))
    assert await database.read(receipts.load_headers, REPOSITORY) == [header(ALICE, 14), header(BOB, 12)]
    assert await database.read(receipts.load_headers, OTHER) == []
