"""Several maintainers on real nodes: who may publish, whose commits are never lost, how an identity changes."""

import asyncio
import base64
import copy
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from typing import cast

import pytest

from guts.identity import SigningKey
from guts.node import refs_reader
from guts.node.identities import BadIdentity, IdentityMoved
from guts.node.moves import NonFastForward
from guts.node.publishing import Overtaken
from guts.service.commands import NotFollowed
from guts.trust.authoring import CannotPublish
from guts.trust.chain import IdentityChain
from guts.trust.identity_document import IdentityDocument
from tests.support.nodes import Maintainer, RunningNode, World, eventually
from tests.support.repositories import git

MAIN = "refs/heads/main"
TOPIC = "refs/heads/topic"


def colleague(maintainer: Maintainer, name: str) -> Maintainer:
    """Return another person with a clone of the repository, and a key of their own."""
    other = copy.copy(maintainer)
    other.key = SigningKey.generate()
    other.path = maintainer.path.with_name(f"{name}.work")
    git(maintainer.path.parent, "clone", "-q", str(maintainer.path), str(other.path))
    git(other.path, "remote", "remove", "origin")
    return other


def adding(chain: IdentityChain, *keys: SigningKey, name: str | None = None) -> IdentityDocument:
    """Return the next document, with new maintainers."""
    maintainers = (*chain.current.maintainers, *(key.author_id for key in keys))
    return chain.successor(created_ms=time.time_ns() // 1_000_000, nonce=bytes(16), maintainers=maintainers, name=name)


async def pair(node: RunningNode, world: World) -> tuple[Maintainer, Maintainer]:
    """Return the two maintainers of a repository that the first has published on ``node``."""
    ada = world.maintainer()
    bo = colleague(ada, "bo")
    await ada.publish(node)
    await node.node.control.apply_identity(ada.repository, adding(ada.chain, bo.key).sign(ada.key, bo.key))
    return ada, bo


async def publish_apart(
    world: World, adas: RunningNode, bos: RunningNode, *, contained: bool
) -> tuple[Maintainer, Maintainer]:
    """Have two maintainers publish at nodes that have not heard of each other's records; leave both running.

    Args:
        contained: what the second one publishes has the first one's commit in it, passed on by other ways.
    """
    ada, bo = await pair(adas, world)
    await bos.seed(ada.repository, adas.hint)
    await bos.stop()
    ada.commit("hers")
    await ada.publish(adas)
    await adas.stop()
    if contained:
        git(bo.path, "pull", "-q", str(ada.path), "main")
    bo.commit("his")
    await bos.start()
    await bo.publish(bos)
    await adas.start()
    return ada, bo


async def refs(node: RunningNode, maintainer: Maintainer) -> dict[str, str]:
    return {ref: str(oid) for ref, oid in (await node.canonical(maintainer.repository)).items()}


async def test_key_that_is_not_added_is_refused_before_its_pack_is_read(world: World) -> None:
    node = await world.node("node")
    ada = world.maintainer()
    stranger = colleague(ada, "stranger")
    await ada.publish(node)

    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("the pack was read")
        yield b""

    header: dict[str, object] = {
        "genesis": None,
        "repository": str(ada.repository),
        "author": str(stranger.key.author_id),
        "refs": {MAIN: str(ada.tip())},
        "head": MAIN,
        "force": [],
    }
    with pytest.raises(CannotPublish, match="not a maintainer"):
        await node.node.control.prepare(header, unread())


async def test_what_others_published_stays_until_it_is_pruned(world: World) -> None:
    node = await world.node("node")
    ada, bo = await pair(node, world)
    git(ada.path, "branch", "topic")
    await ada.publish(node)
    bo.commit("by bo")
    await bo.publish(node)
    assert await refs(node, ada) == {MAIN: str(bo.tip()), TOPIC: str(ada.tip())}
    git(ada.path, "fetch", "-q", str(bo.path), "main")
    git(ada.path, "merge", "-q", "--ff-only", "FETCH_HEAD")
    git(ada.path, "branch", "-D", "topic")
    git(bo.path, "branch", "bos")
    await bo.publish(node)
    before = await refs(node, ada)
    assert before == {MAIN: str(bo.tip()), TOPIC: str(ada.tip("HEAD^")), "refs/heads/bos": str(bo.tip())}
    await ada.publish(node)
    assert await refs(node, ada) == before
    await ada.publish(node, prune=True)
    assert await refs(node, ada) == {MAIN: str(bo.tip())}
    await node.shows_what_it_says(ada.repository)


async def test_publication_that_another_maintainers_came_before_is_made_anew(world: World) -> None:
    """Or the refs shown would be those of a state without the other's record, and replicas would differ."""
    node = await world.node("node")
    ada, bo = await pair(node, world)
    await ada.publish(node)
    git(ada.path, "branch", "adas")
    git(bo.path, "branch", "bos")
    prepared = await ada.prepare(node)
    await bo.publish(node)
    with pytest.raises(Overtaken):
        await node.node.control.commit(str(prepared["session"]), ada.sign(prepared))
    await node.shows_what_it_says(ada.repository)
    await ada.publish(node)
    shown = {MAIN: str(ada.tip()), "refs/heads/adas": str(ada.tip()), "refs/heads/bos": str(ada.tip())}
    assert await refs(node, ada) == shown
    await node.shows_what_it_says(ada.repository)


async def test_what_a_replica_fetches_while_another_record_is_committed_counts_with_it(world: World) -> None:
    node, other = await world.node("node"), await world.node("other")
    ada, bo = await pair(node, world)
    await other.seed(ada.repository, node.hint)
    git(ada.path, "branch", "adas")
    git(bo.path, "branch", "bos")
    await asyncio.gather(ada.publish(node), bo.publish(other))
    shown = {ref: ada.tip() for ref in (MAIN, "refs/heads/adas", "refs/heads/bos")}
    for replica in (node, other):
        await eventually(lambda replica=replica: replica.has(ada.repository, shown))
        await replica.shows_what_it_says(ada.repository)


async def test_branch_that_is_only_behind_keeps_nobody_from_publishing_another(world: World) -> None:
    node = await world.node("node")
    ada, bo = await pair(node, world)
    ada.commit("goes on")
    await ada.publish(node)
    git(bo.path, "switch", "-q", "-c", "topic")
    bo.commit("on a topic")
    await bo.publish(node)
    assert await refs(node, ada) == {MAIN: str(ada.tip()), TOPIC: str(bo.tip())}
    await bo.publish(node, MAIN)
    assert await refs(node, ada) == {MAIN: str(bo.tip("main")), TOPIC: str(bo.tip())}


async def test_commits_in_conflict_are_lost_by_force_alone(world: World) -> None:
    adas, bos = await world.node("adas"), await world.node("bos")
    ada, bo = await pair(adas, world)
    await bos.seed(ada.repository, adas.hint)
    before = str(ada.tip())
    await adas.stop()
    bo.commit("apart")
    await bo.publish(bos)
    await bos.stop()
    await adas.start()
    ada.commit("apart as well")
    await ada.publish(adas)
    await bos.start()
    await bos.node.control.connect(adas.hint, 20)
    conflict = f"refs/guts/conflict/{bo.key.author_id}/{MAIN}"
    both = {MAIN: ada.tip(), conflict: bo.tip()}
    for node in (adas, bos):
        await eventually(lambda node=node: node.has(ada.repository, both))
        await node.shows_what_it_says(ada.repository)
    packed = [(node.bare(ada.repository) / "packed-refs").read_bytes() for node in (adas, bos)]
    assert packed[0] == packed[1]
    assert before not in packed[0].decode()

    # Neither of the two goes on without the other's commit.
    ada.commit("further")
    with pytest.raises(NonFastForward, match="main"):
        await ada.publish(adas)
    bo.commit("further, too")
    with pytest.raises(NonFastForward, match="main") as refused:
        await bo.publish(bos)
    # The command in the hint brings what is missing.
    assert refused.value.hint is not None
    fetch = refused.value.hint.partition(" && ")[0].replace(f"guts://{ada.repository}", str(bos.bare(ada.repository)))
    subprocess.run(fetch.split(), cwd=bo.path, capture_output=True, check=True)
    assert bo.tip("FETCH_HEAD") in both.values()
    await bo.publish(bos, MAIN)
    for node in (adas, bos):
        await eventually(lambda node=node: node.has(ada.repository, {MAIN: bo.tip()}))


async def test_fresh_replica_gets_what_saw_each_other_however_its_answers_are_cut(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with records so large that one fills an answer: here nothing but one thing ever fits into one."""
    node = await world.node("node")
    ada, bo = await pair(node, world)
    for _ in range(2):
        for maintainer, other in ((bo, ada), (ada, bo)):
            git(maintainer.path, "pull", "-q", "--no-rebase", str(other.path), "main")
            maintainer.commit(f"by {maintainer.key.author_id.short} {maintainer.tip()}")
            await maintainer.publish(node)
    monkeypatch.setattr(refs_reader, "ANSWER_BUDGET", 1)
    fresh = await world.node("fresh")
    await fresh.seed(ada.repository, node.hint)
    assert await fresh.canonical(ada.repository) == {MAIN: ada.tip()}
    await fresh.shows_what_it_says(ada.repository)


async def test_document_that_does_not_follow_is_refused(world: World) -> None:
    node, other = await world.node("node"), await world.node("other")
    ada = world.maintainer()
    bo, carol = SigningKey.generate(), SigningKey.generate()
    await ada.publish(node)
    await other.seed(ada.repository, node.hint)

    async def apply(document: bytes) -> Mapping[str, object]:
        return await node.node.control.apply_identity(ada.repository, document)

    first = adding(ada.chain, bo)
    for signed in (first.sign(ada.key), first.sign(bo), first.sign(ada.key, bo, carol), first.sign(ada.key, bo)[:-1]):
        with pytest.raises(BadIdentity):
            await apply(signed)
    chain = ada.chain.extend(first.sign(ada.key, bo))
    second = adding(chain, carol)
    with pytest.raises(IdentityMoved, match="missing"):
        await apply(second.sign(ada.key, bo, carol))
    unknown = world.maintainer("unknown")
    with pytest.raises(NotFollowed):
        await node.node.control.apply_identity(unknown.repository, first.sign(ada.key, bo))

    assert (await apply(first.sign(ada.key, bo)))["unchanged"] is False
    assert (await apply(first.sign(ada.key, bo)))["unchanged"] is True
    with pytest.raises(IdentityMoved, match="another document"):
        await apply(adding(ada.chain, carol).sign(ada.key, carol))
    with pytest.raises(BadIdentity):
        await apply(second.sign(ada.key, carol))
    await apply(second.sign(ada.key, bo, carol))

    async def arrived() -> bool:
        return (await other.node.control.inspect(ada.repository))["epoch"] == 2

    await eventually(arrived)
    await node.stop()
    await node.start()
    told = await node.node.control.publication(ada.repository)
    documents = [base64.b64decode(text) for text in cast("list[str]", told["documents"])]
    assert IdentityChain.from_documents(documents).current.hash == second.hash
