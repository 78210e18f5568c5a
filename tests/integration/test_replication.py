"""A repository travels between real nodes: by address, through the DHT, by gossip, across restarts."""

import asyncio
from pathlib import Path

import pytest

from guts.addresses import RepositoryUrl
from guts.ids import RepositoryId
from guts.service.commands import NotFollowed
from guts.store import discovery as dht_table
from guts.store import peers as peer_table
from guts.sync.goal import NoProviders, ProvidersUnreachable
from tests.support.nodes import Maintainer, NotCloned, RunningNode, World, eventually
from tests.support.repositories import git


async def published(world: World) -> tuple[RunningNode, Maintainer]:
    """Return a node and a maintainer who has published on it."""
    node = await world.node("publisher")
    maintainer = world.maintainer()
    await maintainer.publish(node)
    return node, maintainer


async def test_replica_fetches_from_an_address_that_it_was_given(world: World) -> None:
    publisher, maintainer = await published(world)
    replica = await world.node("replica")
    result = await replica.seed(maintainer.repository, publisher.hint)
    assert result["repository"] == str(maintainer.repository)
    assert await replica.canonical(maintainer.repository) == maintainer.refs()
    await replica.shows_what_it_says(maintainer.repository)
    await publisher.shows_what_it_says(maintainer.repository)


async def test_node_that_was_given_nothing_but_an_address_joins_the_dht_through_it(world: World) -> None:
    publisher, maintainer = await published(world)
    replica = await world.node("replica")
    await replica.seed(maintainer.repository, publisher.hint)
    discovery = replica.node.control._presence.discovery
    await eventually(lambda: publisher.id in [contact.peer for contact in discovery.contacts()])
    third = await world.node("third", doors=(publisher.hint,))
    another = world.maintainer("another")
    await another.publish(third)
    await replica.seed(another.repository)
    assert await replica.canonical(another.repository) == another.refs()


async def test_replica_finds_the_publisher_through_the_dht_alone(world: World) -> None:
    door = await world.node("door", network__role="bootstrap")
    publisher = await world.node("publisher", doors=(door.hint,))
    maintainer = world.maintainer()
    await maintainer.publish(publisher)
    replica = await world.node("replica", doors=(door.hint,))
    await replica.seed(maintainer.repository)
    assert await replica.canonical(maintainer.repository) == maintainer.refs()
    assert door.node.control._service.sync.goals == {}
    assert list(door.repositories.iterdir()) == []


async def test_new_commit_reaches_a_connected_replica_by_gossip(world: World) -> None:
    publisher, maintainer = await published(world)
    replica = await world.node("replica", seeding__sync_interval="1h")
    await replica.seed(maintainer.repository, publisher.hint)
    for number in range(3):
        maintainer.commit(f"file {number}")
        await maintainer.publish(publisher)
        await eventually(lambda: replica.has(maintainer.repository, maintainer.refs()), 5)
    await replica.shows_what_it_says(maintainer.repository)


async def test_third_node_fetches_from_a_replica_when_the_publisher_is_gone(world: World) -> None:
    door = await world.node("door", network__role="bootstrap")
    publisher = await world.node("publisher", doors=(door.hint,))
    maintainer = world.maintainer()
    await maintainer.publish(publisher)
    replica = await world.node("replica", doors=(door.hint,))
    await replica.seed(maintainer.repository)
    await eventually(lambda: _provided(door, maintainer, 2))
    await publisher.stop()
    late = await world.node("late", doors=(door.hint,))
    await late.seed(maintainer.repository)
    assert await late.canonical(maintainer.repository) == maintainer.refs()


async def _provided(node: RunningNode, maintainer: Maintainer, count: int) -> bool:
    found = await node.node.control.find_providers(maintainer.repository, 5)
    providers = found["providers"]
    assert isinstance(providers, list)
    return len(providers) >= count


async def test_replica_that_was_away_catches_up_when_it_comes_back(world: World) -> None:
    publisher, maintainer = await published(world)
    replica = await world.node("replica")
    await replica.seed(maintainer.repository, publisher.hint)
    await replica.stop()
    for number in range(3):
        maintainer.commit(f"file {number}")
        await maintainer.publish(publisher)
    await replica.start()
    await eventually(lambda: replica.has(maintainer.repository, maintainer.refs()))
    await replica.shows_what_it_says(maintainer.repository)


async def test_restart_keeps_repositories_peers_and_contacts(world: World) -> None:
    door = await world.node("door", network__role="bootstrap")
    publisher = await world.node("publisher", doors=(door.hint,))
    maintainer = world.maintainer()
    await maintainer.publish(publisher)
    replica = await world.node("replica", doors=(door.hint,))
    await replica.seed(maintainer.repository)
    before = await replica.canonical(maintainer.repository)
    identity = replica.id
    await replica.stop()
    await publisher.stop()
    await door.stop()

    await replica.start()
    assert replica.id == identity
    assert await replica.canonical(maintainer.repository) == before == maintainer.refs()
    await replica.shows_what_it_says(maintainer.repository)
    database = replica.node.repositories.database
    stored = {peer.id: peer.addresses for peer in await database.read(peer_table.load_peers)}
    assert publisher.hint.peer in stored
    assert publisher.address in stored[publisher.id]
    assert {row.peer for row in await database.read(dht_table.load_contacts)} == {door.id, publisher.id}


async def test_unseed_stops_following_and_seed_again_follows(world: World) -> None:
    publisher, maintainer = await published(world)
    replica = await world.node("replica", seeding__sync_interval="1h")
    await replica.seed(maintainer.repository, publisher.hint)
    await replica.node.control.seeding.unseed(maintainer.repository)
    before = await replica.canonical(maintainer.repository)
    again = await replica.node.control.seeding.unseed(maintainer.repository)
    assert again["removed"] is False
    with pytest.raises(NotFollowed):
        await replica.node.control.seeding.unseed(RepositoryId(bytes(32)))

    await replica.stop()
    await replica.start()
    await replica.node.control.connect(publisher.hint, 10)
    maintainer.commit("more")
    await maintainer.publish(publisher)
    bystander = await world.node("bystander")
    with pytest.raises((ProvidersUnreachable, NoProviders)):
        await bystander.seed(maintainer.repository, replica.hint)
    assert await replica.canonical(maintainer.repository) == before

    await replica.seed(maintainer.repository, publisher.hint)
    await eventually(lambda: replica.has(maintainer.repository, maintainer.refs()))
    await bystander.seed(maintainer.repository, replica.hint)
    assert await bystander.canonical(maintainer.repository) == maintainer.refs()


async def test_unseed_during_the_fetch_stays_unseeded(world: World) -> None:
    publisher, maintainer = await published(world)
    maintainer.commit("large", bytes(range(256)) * 40_000)
    await maintainer.publish(publisher)
    replica = await world.node("replica")
    seeding = asyncio.create_task(replica.seed(maintainer.repository, publisher.hint))
    goals = replica.node.control._service.sync.goals
    await eventually(lambda: maintainer.repository in goals and goals[maintainer.repository].fetch is not None)
    await replica.node.control.seeding.unseed(maintainer.repository)
    with pytest.raises(Exception, match="no longer seeded"):
        await seeding
    await eventually(lambda: not replica.node.control._service.sync.fetches.running)
    await replica.node.control._persistence.drain()
    await replica.stop()
    await replica.start()
    assert not replica.node.control._service.sync.holds(maintainer.repository)


async def test_nobody_holds_the_repository(world: World) -> None:
    door = await world.node("door", network__role="bootstrap")
    node = await world.node("node", doors=(door.hint,))
    wanted = world.maintainer().repository
    with pytest.raises(NoProviders):
        await node.seed(wanted)
    assert list(node.repositories.iterdir()) == []
    assert wanted not in node.node.control._service.sync.goals


async def test_address_where_nobody_is(world: World) -> None:
    publisher, maintainer = await published(world)
    hint = publisher.hint
    await publisher.stop()
    node = await world.node("node")
    with pytest.raises(ProvidersUnreachable, match="can't be reached: Connection refused"):
        await node.seed(maintainer.repository, hint)


@pytest.mark.parametrize("way", ["hint", "dht"])
async def test_client_clones_without_a_node(world: World, way: str) -> None:
    door = await world.node("door", network__role="bootstrap")
    publisher = await world.node("publisher", doors=(door.hint,))
    maintainer = world.maintainer()
    git(maintainer.path, "tag", "-a", "-m", "one", "v1")
    await maintainer.publish(publisher)
    if way == "hint":
        url = RepositoryUrl(maintainer.repository, "example", publisher.hint)
        path = await world.clone(url, "clone")
    else:
        url = maintainer.url
        await eventually(lambda: _provided(door, maintainer, 1))
        path = await world.clone(url, "clone", (door.hint,))
    assert git(path, "rev-parse", "HEAD") == str(maintainer.tip())
    assert git(path, "rev-parse", "v1") == str(maintainer.tip("v1"))
    assert git(path, "status", "--porcelain") == ""
    assert git(path, "config", "remote.origin.url") == str(url)
    assert _hidden(world.root) == []


async def test_clone_of_what_nobody_holds_leaves_nothing(world: World) -> None:
    door = await world.node("door", network__role="bootstrap")
    maintainer = world.maintainer()
    with pytest.raises(NotCloned, match='"NO_PROVIDERS"'):
        await world.clone(maintainer.url, "clone", (door.hint,))
    assert not (world.root / "clone").exists()
    assert _hidden(world.root) == []


def _hidden(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if path.name.startswith(".")]


async def test_link_that_brings_what_came_already_carries_no_more_records(world: World) -> None:
    publisher, maintainer = await published(world)
    one = await world.node("one", seeding__sync_interval="1h")
    other = await world.node("other", seeding__sync_interval="1h")
    for replica in (one, other):
        await replica.seed(maintainer.repository, publisher.hint)
    await one.node.control.connect(other.hint, 10)
    tree = maintainer.repository, maintainer.key.author_id

    def pruned(node: RunningNode, peer: RunningNode) -> bool:
        service = node.node.control._service
        connection = service.peers.connection_to(peer.id)
        return connection is not None and service.gossip.trees.is_lazy(tree, connection.id)

    async def both_have_the_newest() -> bool:
        return all([await replica.has(maintainer.repository, maintainer.refs()) for replica in (one, other)])

    for number in range(3):
        maintainer.commit(f"file {number}")
        await maintainer.publish(publisher)
        await eventually(both_have_the_newest, 5)
    # Both hear from the publisher first, and each would tell the other.
    await eventually(lambda: pruned(one, other) and pruned(other, one))
    assert not pruned(one, publisher)
    assert not pruned(other, publisher)
