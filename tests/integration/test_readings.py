"""What a node tells its user of a repository's refs: held here, or read from others; over real sockets."""

import base64

from guts.trust.chain import IdentityChain
from tests.support.nodes import World
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
