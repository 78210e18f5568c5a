"""Receipts between real nodes: who stored a record says so at once, and it is remembered."""

import asyncio
import base64
import time

from guts.addresses import RepositoryUrl
from guts.events import Head
from guts.ids import PeerId
from guts.records import CommitReceipt
from tests.support.nodes import SOON, Maintainer, RunningNode, World, eventually
from tests.support.repositories import git

LONG = "1h"


async def published(world: World, replicas: int) -> tuple[RunningNode, Maintainer, list[RunningNode]]:
    """Return a node, a maintainer who has published on it, and replicas that follow; only news make them fetch more."""
    publisher = await world.node("publisher")
    maintainer = world.maintainer()
    await maintainer.publish(publisher)
    followers = [await world.node(f"replica {number}", seeding__sync_interval=LONG) for number in range(replicas)]
    for replica in followers:
        await replica.seed(maintainer.repository, publisher.hint)
    for replica in followers:
        await eventually(lambda replica=replica: follows(publisher, replica, maintainer))
    return publisher, maintainer, followers


def follows(publisher: RunningNode, replica: RunningNode, maintainer: Maintainer) -> bool:
    subscribers = publisher.node.control._service.peers.subscribers(maintainer.repository)
    return replica.id in {state.id for state in subscribers}


async def confirmed(
    publisher: RunningNode,
    maintainer: Maintainer,
    replicas: int,
    timeout: float = SOON,  # noqa: ASYNC109
) -> dict[PeerId, Head]:
    """Return who has confirmed which of the maintainer's records, all checked."""
    author = maintainer.key.author_id
    told = await publisher.node.control.receipts(maintainer.repository, author, None, replicas, timeout)
    assert isinstance(told["receipts"], list)
    found = {}
    for row in told["receipts"]:
        claim = CommitReceipt.verify(base64.b64decode(row["receipt"])).claim
        assert (str(claim.peer), str(claim.author), claim.seq) == (row["peer"], row["author"], row["seq"])
        assert (claim.hash.hex(), claim.time_ms) == (row["hash"], row["signed_ms"])
        assert claim.repository == maintainer.repository
        found[claim.peer] = Head(claim.seq, claim.hash)
    return found


async def newest(node: RunningNode, maintainer: Maintainer) -> Head:
    known = await node.node.repositories.known(maintainer.repository)
    head = known.head(maintainer.key.author_id)
    assert head is not None
    return head


async def test_replicas_confirm_a_publication_at_once(world: World) -> None:
    publisher, maintainer, replicas = await published(world, 3)
    assert set(await confirmed(publisher, maintainer, 3)) == {replica.id for replica in replicas}
    for number in range(2):
        maintainer.commit(f"file {number}")
        await maintainer.publish(publisher)
        head = await newest(publisher, maintainer)
        assert await confirmed(publisher, maintainer, 3) == {replica.id: head for replica in replicas}
        # It is no promise: it is there.
        assert [await newest(replica, maintainer) for replica in replicas] == [head] * 3


async def test_receipts_outlive_a_restart(world: World) -> None:
    publisher, maintainer, replicas = await published(world, 2)
    before = await confirmed(publisher, maintainer, 2)
    for node in (*replicas, publisher):
        await node.stop()
    await publisher.start()
    begun = time.monotonic()
    assert await confirmed(publisher, maintainer, 2) == before
    assert await confirmed(publisher, maintainer, 0) == before
    assert time.monotonic() - begun < SOON / 2


async def test_replica_that_is_gone_is_not_counted_and_confirms_when_it_is_back(world: World) -> None:
    publisher, maintainer, (one, two, gone) = await published(world, 3)
    await confirmed(publisher, maintainer, 3)
    await gone.stop()
    maintainer.commit("more")
    await maintainer.publish(publisher)
    assert set(await confirmed(publisher, maintainer, 3, 1.0)) == {one.id, two.id}
    # What it confirmed before is still told, of the record that it was.
    told = await publisher.node.control.receipts(maintainer.repository, None, None, 0, 1.0)
    assert isinstance(told["receipts"], list)
    assert {row["peer"] for row in told["receipts"]} == {str(one.id), str(two.id), str(gone.id)}
    assert told["known"] == 2

    waiting = asyncio.create_task(confirmed(publisher, maintainer, 3))
    await gone.start()
    await gone.node.control.connect(publisher.hint, 10)
    assert set(await waiting) == {one.id, two.id, gone.id}


async def test_replica_that_has_it_from_another_one_confirms_when_it_is_asked(world: World) -> None:
    publisher, maintainer, (one,) = await published(world, 1)
    two = await world.node("two", seeding__sync_interval=LONG)
    await two.seed(maintainer.repository, one.hint)
    assert set(await confirmed(one, maintainer, 1)) == {two.id}
    waiting = asyncio.create_task(confirmed(publisher, maintainer, 2))
    await two.node.control.connect(publisher.hint, 10)
    assert set(await waiting) == {one.id, two.id}


async def test_clone_that_keeps_nothing_confirms_nothing(world: World) -> None:
    publisher, maintainer, _ = await published(world, 0)
    url = RepositoryUrl(maintainer.repository, "example", publisher.hint)
    path = await world.clone(url, "clone")
    assert git(path, "rev-parse", "HEAD") == str(maintainer.tip())
    assert await confirmed(publisher, maintainer, 1, 0.3) == {}
