"""What the service wants kept: many changes in one transaction, and one that can't be kept takes no other with it."""

import asyncio
import functools
import ipaddress
import logging
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from guts.addresses import Address, subject_text
from guts.effects import BanKept, PeerMissed, SeedingStopped
from guts.errors import StorageFault
from guts.node import persistence
from guts.node.persistence import MAX_TOGETHER, Persistence
from guts.store import scores as score_table
from guts.store.database import Database
from guts.store.transactions import CommitUnknown
from tests.support.nodes import World, eventually


def ban(number: int) -> BanKept:
    return BanKept(ipaddress.ip_network(f"192.0.{number}.0/24"), None, 0, "")


@pytest.fixture
async def kept(world: World) -> Persistence:
    return (await world.node("node")).node.control._persistence


@pytest.fixture
def transactions(kept: Persistence, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many changes each transaction had."""
    counts: list[int] = []
    write = Database.write

    async def counted(self: Database, function: Callable[..., object], /, *args: Any) -> object:
        if function is persistence._apply_all:
            counts.append(len(args[0]))
        return await write(self, function, *args)

    monkeypatch.setattr(Database, "write", counted)
    return counts


async def stored(world: World) -> list[str]:
    return [row.subject for row in await world.nodes[0].node.repositories.database.read(score_table.load_bans)]


@pytest.mark.parametrize("more", [0, 1])
async def test_changes_that_come_together_are_one_transaction_of_so_many(
    world: World, kept: Persistence, transactions: list[int], more: int
) -> None:
    bans = [ban(number) for number in range(MAX_TOGETHER + more)]
    for each in bans:
        kept.keep(each)
    await kept.drain()
    assert transactions == [MAX_TOGETHER] + [1] * more
    assert await stored(world) == sorted(subject_text(each.subject) for each in bans)


async def test_as_many_as_one_transaction_takes_wait_for_no_more(
    world: World, kept: Persistence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persistence, "TOGETHER", 3600.0)
    for number in range(MAX_TOGETHER):
        kept.keep(ban(number))

    async def all_stored() -> bool:
        return len(await stored(world)) == MAX_TOGETHER

    await eventually(all_stored, 60)


async def test_what_stops_the_seeding_of_a_repository_waits_for_nothing(
    world: World, kept: Persistence, monkeypatch: pytest.MonkeyPatch
) -> None:
    maintainer = world.maintainer()
    await maintainer.publish(world.nodes[0])
    monkeypatch.setattr(persistence, "TOGETHER", 3600.0)
    kept.keep(ban(1))
    kept.keep(SeedingStopped(maintainer.repository))

    async def stopped() -> bool:
        row = await world.nodes[0].node.repositories.stored(maintainer.repository)
        assert row is not None
        return not row.summary.seeding

    await eventually(stopped, 60)
    assert await stored(world) == [subject_text(ban(1).subject)]


@pytest.mark.parametrize("room", [0, 1])
async def test_full_queue_forgets_what_will_be_told_again_and_not_what_the_operator_wants(
    world: World, kept: Persistence, transactions: list[int], monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(persistence, "QUEUE_LIMIT", 3)
    for number in range(3 - room):
        kept.keep(ban(number))
    kept.keep(PeerMissed(world.nodes[0].id, Address("192.0.2.1", 9), 0))
    kept.keep(ban(7))
    await kept.drain()
    assert sum(transactions) == 4
    assert len(await stored(world)) == 4 - room


async def test_who_drains_does_not_wait_for_more_to_come(
    world: World, kept: Persistence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persistence, "TOGETHER", 3600.0)
    for number in range(3):
        kept.keep(ban(number))
        await asyncio.wait_for(kept.drain(), 60)
        assert len(await stored(world)) == number + 1


async def test_change_that_can_not_be_kept_takes_no_other_with_it(
    world: World, kept: Persistence, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save: Callable[[Connection, score_table.StoredBan], None] = score_table.save_ban

    def broken(connection: Connection, row: score_table.StoredBan) -> None:
        save(connection, row)
        if row.subject == subject_text(ban(2).subject):
            raise StorageFault("the disk is full")

    monkeypatch.setattr(score_table, "save_ban", functools.wraps(save)(broken))
    for number in range(4):
        kept.keep(ban(number))
    with caplog.at_level(logging.WARNING, "guts.node.persistence"):
        await kept.drain()
    assert await stored(world) == [subject_text(ban(number).subject) for number in (0, 1, 3)]
    assert [record.getMessage() for record in caplog.records] == ["can't keep a BanKept: the disk is full"]


async def test_what_may_have_been_committed_is_not_written_twice(
    kept: Persistence, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = Database.write
    written: list[int] = []

    async def lost(self: Database, function: Callable[..., object], /, *args: Any) -> object:
        result = await write(self, function, *args)
        if function is persistence._apply_all:
            written.append(len(args[0]))
            raise CommitUnknown("the server went away in the middle of COMMIT")
        return result

    monkeypatch.setattr(Database, "write", lost)
    for number in range(3):
        kept.keep(ban(number))
    with caplog.at_level(logging.WARNING, "guts.node.persistence"):
        await kept.drain()
    assert written == [3]
    assert len(caplog.records) == 3
