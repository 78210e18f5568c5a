"""What a node tells its user of a repository's refs: held here, or read from others; over real sockets."""

import base64

import pytest

from guts.addresses import BootstrapAddress
from guts.sync.goal import NoProviders, ProvidersUnreachable
from guts.trust.chain import IdentityChain
from tests.support.nodes import SOON, World
from tests.support.repositories import git


async def test_held_refs_come_from_the_database_with_what_vouches_for_them(world: World) -> None:
    node, maintainer = await world.node("node"), world.maintainer()
    git(maintainer.path, "tag", "-a", "v1", "-m", "the first")
    git(maintainer.path, "branch", "topic")
    await maintainer.publish(node)

    told = await node.node.control.refs(maintainer.repository, (), 1.0)
    tip, tag = str(maintainer.tip()), str(maintainer.tip("refs/tags/v1"))
    assert told["refs"] == [
        {"ref": "refs/heads/main", "oid": tip, "peeled": None},
        {"ref": "refs/heads/topic", "oid": tip, "peeled": None},
        {"ref": "refs/tags/v1", "oid": tag, "peeled": tip},
    ]
    assert told["repository"] == str(maintainer.repository)
    assert (told["name"], told["held"], told["head"]) == ("example", True, "refs/heads/main")
    assert (told["conflicts"], told["sources"], told["notes"]) == ([], 0, [])
    assert _chain(told).hash.hex() == told["identity_hash"] == maintainer.chain.hash.hex()
    stored = await node.node.repositories.stored(maintainer.repository)
    assert stored is not None
    (record,) = stored.signed_refs
    (head,) = told["heads"] if isinstance(told["heads"], list) else []
    assert head["author"] == str(maintainer.key.author_id)
    assert (head["seq"], head["hash"]) == (record.seq, record.hash.hex())
    assert head["signed_ms"] <= record.seq


async def test_refs_of_what_is_no_longer_followed_say_so(world: World) -> None:
    node, maintainer = await world.node("node"), world.maintainer()
    await maintainer.publish(node)
    await node.node.control.unseed(maintainer.repository)
    (note,) = _notes(await node.node.control.refs(maintainer.repository, (), 1.0))
    assert "follows it no longer" in note


async def test_tag_is_peeled_before_its_commit_is_projected(world: World) -> None:
    node, maintainer = await world.node("node"), world.maintainer()
    git(maintainer.path, "tag", "-a", "v1", "-m", "the first")
    await maintainer.publish(node)
    # As between the transaction and the renaming of packed-refs.
    (node.bare(maintainer.repository) / "packed-refs").unlink()
    told = await node.node.control.refs(maintainer.repository, (), 1.0)
    assert [ref["peeled"] for ref in _refs(told)] == [None, str(maintainer.tip())]


async def test_refs_of_what_is_not_held_are_read_from_two_holders_and_nothing_is_kept(world: World) -> None:
    door = await world.node("door")
    publisher, replica = (
        await world.node("publisher", doors=(door.hint,)),
        await world.node("replica", doors=(door.hint,)),
    )
    reader = await world.node("reader", doors=(door.hint,))
    maintainer = world.maintainer()
    await maintainer.publish(publisher)
    await replica.seed(maintainer.repository, publisher.hint)
    held = await publisher.node.control.refs(maintainer.repository, (), 1.0)

    told = await reader.node.control.refs(maintainer.repository, (publisher.hint,), SOON)
    assert told == {**held, "held": False, "sources": 2}
    assert await reader.node.control.repositories() == []
    assert not reader.bare(maintainer.repository).exists()
    assert reader.node.control._service.sync.goals == {}
    assert reader.node.control._service.sync.readings.goals == {}
    subscribers = publisher.node.control._service.peers.subscribers(maintainer.repository)
    assert reader.id not in [state.id for state in subscribers]


async def test_only_holder_is_enough(world: World) -> None:
    publisher, reader, maintainer = await world.node("publisher"), await world.node("reader"), world.maintainer()
    await maintainer.publish(publisher)
    told = await reader.node.control.refs(maintainer.repository, (publisher.hint,), SOON)
    assert (told["held"], told["sources"], told["notes"]) == (False, 1, [])


async def test_nobody_holds_it(world: World) -> None:
    node, reader, maintainer = await world.node("node"), await world.node("reader"), world.maintainer()
    with pytest.raises(NoProviders):
        await reader.node.control.refs(maintainer.repository, (node.hint,), SOON)
    with pytest.raises(ProvidersUnreachable, match=r"127\.0\.0\.1:1: "):
        await reader.node.control.refs(maintainer.repository, (BootstrapAddress("127.0.0.1", 1),), SOON)


def _chain(told: dict[str, object]) -> IdentityChain:
    documents = told["documents"]
    assert isinstance(documents, list)
    return IdentityChain.from_documents([base64.b64decode(document) for document in documents])


def _refs(told: dict[str, object]) -> list[dict[str, object]]:
    refs = told["refs"]
    assert isinstance(refs, list)
    return refs


def _notes(told: dict[str, object]) -> list[str]:
    notes = told["notes"]
    assert isinstance(notes, list)
    return notes
