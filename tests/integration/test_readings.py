"""What a node tells its user of a repository's refs: held here, or read from others; over real sockets."""

import base64

import pytest

from guts.addresses import BootstrapAddress
from guts.git.pkt_line import Mark, encode
from guts.ids import RepositoryId
from guts.node.reader import NoSuchRef
from guts.sync.goal import NoProviders, ProvidersUnreachable
from guts.trust.chain import IdentityChain
from tests.integration.test_maintainers import publish_apart
from tests.support.nodes import SOON, RunningNode, World
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
    await node.node.control.seeding.unseed(maintainer.repository)
    (note,) = _notes(await node.node.control.refs(maintainer.repository, (), 1.0))
    assert "seeds it no longer" in note


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
    assert told == {**held, "held": False, "followed": False, "sources": 2}
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


async def test_annotated_tags_are_peeled_though_nothing_is_held(world: World) -> None:
    publisher, reader, maintainer = await world.node("publisher"), await world.node("reader"), world.maintainer()
    tree = git(maintainer.path, "rev-parse", "HEAD^{tree}")
    for name, of in (("light", "HEAD"), ("v1", "HEAD"), ("v1-again", "v1"), ("tree", tree)):
        git(maintainer.path, "tag", *(() if name == "light" else ("-a", "-m", name)), name, of)
    await maintainer.publish(publisher)
    held = await publisher.node.control.refs(maintainer.repository, (), 1.0)
    assert {ref["ref"]: ref["peeled"] for ref in _refs(held)} == {
        "refs/heads/main": None,
        "refs/tags/light": None,
        "refs/tags/tree": tree,
        "refs/tags/v1": str(maintainer.tip()),
        "refs/tags/v1-again": str(maintainer.tip()),
    }

    told = await reader.node.control.refs(maintainer.repository, (publisher.hint,), SOON)
    assert told == {**held, "held": False, "followed": False, "sources": 1}
    scratches = reader.config.paths.data / "readings"
    assert len(list(scratches.iterdir())) == 1
    await reader.stop()
    assert not scratches.exists()


@pytest.mark.parametrize("contained", [True, False], ids=["one contains the other", "apart"])
async def test_refs_of_two_maintainers_are_joined_as_their_holders_do(world: World, contained: bool) -> None:
    adas, bos, reader = await world.node("adas"), await world.node("bos"), await world.node("reader")
    ada, bo = await publish_apart(world, adas, bos, contained=contained)
    told = await reader.node.control.refs(ada.repository, (adas.hint, bos.hint), SOON)

    conflict = f"refs/guts/conflict/{bo.key.author_id}/refs/heads/main"
    shown = {"refs/heads/main": bo.tip()} if contained else {"refs/heads/main": ada.tip(), conflict: bo.tip()}
    assert {ref["ref"]: ref["oid"] for ref in _refs(told)} == {name: str(oid) for name, oid in shown.items()}
    assert told["conflicts"] == [name for name in shown if name == conflict]
    assert told["sources"] == 2
    heads = told["heads"]
    assert isinstance(heads, list)
    assert {head["author"] for head in heads} == {str(ada.key.author_id), str(bo.key.author_id)}


@pytest.mark.parametrize("name", ["HEAD", "main", "refs/heads/main", "v1", "v1:folder"])
async def test_archive_of_what_is_not_held_is_made_from_one_commit(world: World, name: str) -> None:
    publisher, reader, maintainer = await world.node("publisher"), await world.node("reader"), world.maintainer()
    (maintainer.path / "folder").mkdir()
    maintainer.commit("folder/second")
    git(maintainer.path, "tag", "-a", "v1", "-m", "the first")
    await maintainer.publish(publisher)
    data = await _archived(reader, maintainer.repository, "--format=tar", "--prefix=x/", name, hint=publisher.hint)
    assert data == await _archived(publisher, maintainer.repository, "--format=tar", "--prefix=x/", name)
    assert b"x/second" in data if ":" in name else b"x/folder/second" in data
    assert not list((reader.config.paths.data / "readings").glob("copy-*"))


async def test_formats_of_archives_are_listed_without_a_ref(world: World) -> None:
    publisher, reader, maintainer = await world.node("publisher"), await world.node("reader"), world.maintainer()
    await maintainer.publish(publisher)
    listed = await _archived(reader, maintainer.repository, "--list", hint=publisher.hint)
    assert listed == await _archived(publisher, maintainer.repository, "--list")
    assert b"tar\n" in listed
    assert not list((reader.config.paths.data / "readings").glob("copy-*"))


async def test_archive_of_a_ref_that_nobody_signed(world: World) -> None:
    publisher, reader, maintainer = await world.node("publisher"), await world.node("reader"), world.maintainer()
    await maintainer.publish(publisher)
    with pytest.raises(NoSuchRef, match="'gone'"):
        await _archived(reader, maintainer.repository, "gone", hint=publisher.hint)
    with pytest.raises(NoSuchRef):
        await _archived(reader, maintainer.repository, str(maintainer.tip()), hint=publisher.hint)


async def test_node_that_knows_no_other_says_so(world: World) -> None:
    reader, maintainer = await world.node("reader"), world.maintainer()
    with pytest.raises(NoProviders, match="no node of the network is known here") as alone:
        await reader.node.control.refs(maintainer.repository, (), SOON)
    assert "--bootstrap HOST:PORT" in str(alone.value.hint)


async def test_nobody_holds_it(world: World) -> None:
    node, reader, maintainer = await world.node("node"), await world.node("reader"), world.maintainer()
    with pytest.raises(NoProviders):
        await reader.node.control.refs(maintainer.repository, (node.hint,), SOON)
    with pytest.raises(ProvidersUnreachable, match=r"127\.0\.0\.1:1: "):
        await reader.node.control.refs(maintainer.repository, (BootstrapAddress("127.0.0.1", 1),), SOON)


async def _archived(
    node: RunningNode, repository: RepositoryId, *arguments: str, hint: BootstrapAddress | None = None
) -> bytes:
    request = b"".join(encode(f"argument {argument}\n".encode()) for argument in arguments) + Mark.FLUSH.value
    hints = () if hint is None else (hint,)
    async with node.node.control.upload_archive(repository, request, hints, SOON) as answer:
        return b"".join([chunk async for chunk in answer.chunks])


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
