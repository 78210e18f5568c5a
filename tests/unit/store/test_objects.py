"""Bulk object metadata, and what the DHT keeps."""

import random

import pytest

from guts.ids import ObjectId, PeerId
from guts.store import discovery, objects, repositories
from guts.store.accepted import NotHeld
from guts.store.database import Database
from guts.store.discovery import HeldContact, HeldRecord
from guts.store.objects import CHUNK, ObjectInfo, ObjectTotals, ObjectType
from tests.unit.store.states import OTHER, REPOSITORY, first_state, oid

SEED = 20_261_122


def test_chunks_hold_at_most_their_limit() -> None:
    many = [ObjectInfo(oid(str(number)), ObjectType.BLOB, number) for number in range(CHUNK + 1)]
    assert [len(chunk) for chunk in objects.chunks(many[:CHUNK])] == [CHUNK]
    assert [len(chunk) for chunk in objects.chunks(many)] == [CHUNK, 1]
    assert list(objects.chunks([])) == []


async def test_hundred_thousand_objects_are_stored_and_counted(database: Database) -> None:
    rng = random.Random(SEED)
    await database.write(repositories.commit, first_state())
    found = [ObjectInfo(ObjectId(rng.randbytes(20)), ObjectType(1 + number % 3), number) for number in range(100_000)]
    for chunk in objects.chunks(found):
        await database.write(objects.insert, REPOSITORY, chunk)
    assert await database.read(objects.totals, REPOSITORY) == {
        kind: ObjectTotals(sum(1 for o in found if o.type == kind), sum(o.size for o in found if o.type == kind))
        for kind in (ObjectType.COMMIT, ObjectType.TREE, ObjectType.BLOB)
    }
    one = rng.choice(found)
    assert await database.read(objects.find, REPOSITORY, one.id) == one
    assert await database.read(objects.find, REPOSITORY, oid("another")) is None


async def test_object_that_is_told_twice_is_counted_once_and_per_repository(database: Database) -> None:
    blob = ObjectInfo(oid("blob"), ObjectType.BLOB, 2**40)
    for repository in (REPOSITORY, OTHER):
        await database.write(repositories.commit, first_state(repository=repository))
        await database.write(objects.insert, repository, [blob])
    await database.write(objects.insert, REPOSITORY, [blob, ObjectInfo(oid("tag"), ObjectType.TAG, 7)])
    assert await database.read(objects.totals, REPOSITORY) == {
        ObjectType.BLOB: ObjectTotals(1, 2**40),
        ObjectType.TAG: ObjectTotals(1, 7),
    }
    await database.write(repositories.remove, REPOSITORY)
    assert await database.read(objects.totals, OTHER) == {ObjectType.BLOB: ObjectTotals(1, 2**40)}


async def test_pack_that_is_told_is_not_told_again(database: Database) -> None:
    for repository in (REPOSITORY, OTHER):
        await database.write(repositories.commit, first_state(repository=repository))
    for _ in range(2):
        await database.write(objects.mark_listed, REPOSITORY, "a")
    assert await database.read(objects.unlisted, REPOSITORY, ["a", "b"]) == ["b"]
    assert await database.read(objects.unlisted, OTHER, ["a", "b"]) == ["a", "b"]


async def test_objects_of_a_repository_that_is_gone_are_refused(database: Database) -> None:
    with pytest.raises(NotHeld):
        await database.write(objects.insert, REPOSITORY, [ObjectInfo(oid("x"), ObjectType.BLOB, 1)])


async def test_dht_records_are_replaced_and_the_expired_are_not_returned(database: Database) -> None:
    peer = PeerId(b"p" * 32)
    old = HeldRecord(b"k" * 20, peer, 1, 100, b"old", "")
    await database.write(discovery.replace_records, [old])
    records = [HeldRecord(bytes([n]) * 20, peer, n, 100 + n, b"signed", "192.0.2.1") for n in range(3)]
    await database.write(discovery.replace_records, records)
    assert await database.read(discovery.load_records, 99) == records
    assert await database.read(discovery.load_records, 100) == records[1:]
    await database.write(discovery.replace_records, [])
    assert await database.read(discovery.load_records, 0) == []


async def test_dht_contacts_are_replaced_and_come_most_recent_first(database: Database) -> None:
    contacts = [HeldContact(PeerId(bytes([n]) * 32), "192.0.2.1", 9000 + n, n) for n in range(3)]
    await database.write(discovery.replace_contacts, contacts[:1])
    await database.write(discovery.replace_contacts, contacts)
    assert await database.read(discovery.load_contacts) == contacts[::-1]
    await database.write(discovery.replace_contacts, [])
    assert await database.read(discovery.load_contacts) == []
