"""Two writers restored from one backup, on real nodes: proof, the same refs everywhere, and how it ends."""

import copy
import time
from typing import cast

import pytest

from guts.identity import SigningKey
from guts.ids import ObjectId
from guts.node.identities import IdentityFrozen
from guts.node.publishing import HistorySplit
from guts.store import history
from guts.store import repositories as table
from guts.trust.chain import IdentityChain
from guts.trust.identity_document import AuthorPoint
from tests.support.nodes import SOON, Maintainer, RunningNode, World, eventually
from tests.support.repositories import git

MAIN = "refs/heads/main"


def twin(maintainer: Maintainer) -> Maintainer:
    """Return the same person, with the same key, at another machine that was restored from a backup."""
    other = copy.copy(maintainer)
    other.path = maintainer.path.with_name("restored.work")
    git(maintainer.path.parent, "clone", "-q", str(maintainer.path), str(other.path))
    git(other.path, "remote", "remove", "origin")
    return other


async def newest(node: RunningNode, ada: Maintainer) -> AuthorPoint:
    """Return Ada's record that counts on ``node``."""
    record = await node.node.repositories.database.read(table.load_signed_refs_of, ada.repository, ada.key.author_id)
    return AuthorPoint(ada.key.author_id, record.seq, record.hash)


async def all_show(nodes: list[RunningNode], ada: Maintainer, tip: ObjectId) -> None:
    for node in nodes:
        await eventually(lambda node=node: node.has(ada.repository, {MAIN: tip}))
        await node.shows_what_it_says(ada.repository)
    packed = {(node.bare(ada.repository) / "packed-refs").read_bytes() for node in nodes}
    assert len(packed) == 1


async def splits(node: RunningNode, ada: Maintainer) -> int:
    return len(await node.node.repositories.database.read(history.load_proofs, ada.repository))


class Split:
    """Ada's key on two machines: what was published at both, and after that at each without the other."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ada = world.maintainer()

    async def begin(self) -> None:
        """Return when three nodes know the proof."""
        self.one, self.two, self.third = [await self.world.node(name) for name in ("one", "two", "third")]
        ada = self.ada
        await ada.publish(self.one)
        for node in (self.two, self.third):
            await node.seed(ada.repository, self.one.hint)
        self.common = ada.commit("common")
        await ada.publish(self.one)
        self.nodes = [self.one, self.two, self.third]
        await all_show(self.nodes, ada, self.common)
        self.before = await newest(self.one, ada)
        self.restored = twin(ada)
        for node in (self.two, self.third):
            await node.stop()
        self.left = ada.commit("at the one")
        await ada.publish(self.one)
        self.at_one = await newest(self.one, ada)
        await self.one.stop()
        await self.two.start()
        self.right = self.restored.commit("at the other")
        await self.restored.publish(self.two)
        self.at_two = await newest(self.two, ada)
        await self.one.start()
        await self.third.start()
        await self.two.node.control.connect(self.one.hint, 20)
        await self.third.node.control.connect(self.one.hint, 20)

    async def reaffirm(self, point: AuthorPoint, node: RunningNode) -> None:
        """Let the maintainers, who are Ada, say from which record she goes on."""
        document = self.ada.chain.successor(
            created_ms=time.time_ns() // 1_000_000, nonce=bytes(16), reaffirmed=(point,)
        )
        await node.node.control.apply_identity(self.ada.repository, document.sign(self.ada.key))


@pytest.fixture
async def split(world: World) -> Split:
    made = Split(world)
    await made.begin()
    return made


async def test_neither_of_two_histories_counts_and_every_replica_says_the_same(split: Split, world: World) -> None:
    await all_show(split.nodes, split.ada, split.common)
    for node in split.nodes:
        await eventually(lambda node=node: _has(node, split.ada, 1))
        assert await newest(node, split.ada) == split.before
    # One that comes later has seen nothing of it, and comes to the same.
    late = await world.node("late")
    await late.seed(split.ada.repository, split.two.hint)
    await all_show([late], split.ada, split.common)
    await eventually(lambda: _has(late, split.ada, 1))
    # It costs nobody anything.
    for node in split.nodes:
        for other in split.nodes:
            assert await node.score(other.id) is None
    # The author is told, at either machine, and after a restart of the node, and where its database was lost.
    await split.one.stop()
    await split.one.start()
    await split.two.stop()
    for file in split.two.config.paths.data.glob("guts.db*"):
        file.unlink()
    await split.two.start()
    await all_show([split.two], split.ada, split.common)
    for author, node in ((split.ada, split.one), (split.restored, split.two)):
        with pytest.raises(HistorySplit, match="two histories") as caught:
            await author.publish(node)
        assert caught.value.hint is not None
        assert f"guts identity reaffirm {split.ada.key.author_id} {split.ada.repository}" in caught.value.hint


async def _has(node: RunningNode, ada: Maintainer, proofs: int) -> bool:
    return await splits(node, ada) == proofs


@pytest.mark.parametrize("which", ["before", "at_one", "at_two"])
async def test_maintainers_say_what_counts_and_the_author_goes_on(split: Split, world: World, which: str) -> None:
    ada = split.ada
    await all_show(split.nodes, ada, split.common)
    point = cast("AuthorPoint", getattr(split, which))
    tip = {"before": split.common, "at_one": split.left, "at_two": split.right}[which]
    await split.reaffirm(point, split.third)
    await all_show(split.nodes, ada, tip)
    for node in split.nodes:
        await eventually(lambda node=node: _has(node, ada, 0))
        assert await newest(node, ada) == point
    late = await world.node("late")
    await late.seed(ada.repository, split.two.hint)
    author = split.restored if which == "at_two" else ada
    author.commit("goes on")
    await author.publish(split.one)
    await all_show([*split.nodes, late], ada, author.tip())


@pytest.mark.parametrize("which", ["before", "at_one", "at_two"])
async def test_who_only_reads_is_told_what_the_replicas_say(split: Split, world: World, which: str) -> None:
    ada, reader = split.ada, await world.node("reader")
    hints = [node.hint for node in split.nodes]

    async def told() -> object:
        refs = (await reader.node.control.refs(ada.repository, hints, SOON))["refs"]
        assert isinstance(refs, list)
        return {ref["ref"]: ref["oid"] for ref in refs}

    await all_show(split.nodes, ada, split.common)
    assert await told() == {MAIN: str(split.common)}
    await split.reaffirm(cast("AuthorPoint", getattr(split, which)), split.third)
    tip = {"before": split.common, "at_one": split.left, "at_two": split.right}[which]
    await all_show(split.nodes, ada, tip)
    assert await told() == {MAIN: str(tip)}
    author = split.restored if which == "at_two" else ada
    author.commit("goes on")
    await author.publish(split.one)
    await all_show(split.nodes, ada, author.tip())
    assert await told() == {MAIN: str(author.tip())}


async def test_two_documents_of_one_epoch_freeze_the_identity_on_both_sides(world: World) -> None:
    ada = world.maintainer()
    one, two, third = [await world.node(name) for name in ("one", "two", "third")]
    await ada.publish(one)
    for node in (two, third):
        await node.seed(ada.repository, one.hint)

    def renamed(chain: IdentityChain, name: str) -> bytes:
        return chain.successor(created_ms=time.time_ns() // 1_000_000, nonce=bytes(16), name=name).sign(ada.key)

    await two.stop()
    await third.stop()
    await one.node.control.apply_identity(ada.repository, renamed(ada.chain, "left"))
    await one.stop()
    await two.start()
    await two.node.control.apply_identity(ada.repository, renamed(ada.chain, "right"))
    await one.start()
    await third.start()
    await two.node.control.connect(one.hint, 20)
    await third.node.control.connect(one.hint, 20)

    async def forked(node: RunningNode) -> bool:
        return (await node.node.control.inspect(ada.repository))["identity_fork"] is not None

    for node in (one, two):
        await eventually(lambda node=node: forked(node))
    await third.node.control.sync(ada.repository, 20)
    await eventually(lambda: forked(third))
    names = {node.home.name: (await node.node.control.inspect(ada.repository))["name"] for node in (one, two, third)}
    assert names == {"one": "left", "two": "right", "third": "left"}
    for node in (one, two, third):
        stored = await node.node.repositories.stored(ada.repository)
        assert stored is not None
        chain = IdentityChain.from_documents([document.encoded for document in stored.documents])
        with pytest.raises(IdentityFrozen, match="two documents of epoch 1"):
            await node.node.control.apply_identity(ada.repository, renamed(chain, "more"))
        for other in (one, two, third):
            assert await node.score(other.id) is None
    # It is known after a start, too.
    await one.stop()
    await one.start()
    assert await forked(one)


async def test_removed_maintainer_counts_up_to_the_record_that_was_named_everywhere(world: World) -> None:
    ada = world.maintainer()
    one, two = [await world.node(name) for name in ("one", "two")]
    await ada.publish(one)
    bo = twin(ada)
    bo.key = SigningKey.generate()
    maintainers = (ada.key.author_id, bo.key.author_id)

    def following(chain: IdentityChain, **changes: object) -> IdentityChain:
        now = time.time_ns() // 1_000_000
        document = chain.successor(created_ms=now, nonce=bytes(16), **changes)  # type: ignore[arg-type]
        return chain.extend(document.sign(ada.key, *([bo.key] if "removed" not in changes else [])))

    both = following(ada.chain, maintainers=maintainers, threshold=1)
    await one.node.control.apply_identity(ada.repository, both.documents[-1])
    counted = bo.commit("counts")
    await bo.publish(one)
    point = await newest(one, bo)
    past = bo.commit("does not")
    await bo.publish(one)
    # This one has never had the record that will be named: it gets it from the other.
    await two.seed(ada.repository, one.hint)
    await all_show([one, two], ada, past)

    alone = following(both, maintainers=maintainers[:1], removed=(point,))
    await two.node.control.apply_identity(ada.repository, alone.documents[-1])
    late = await world.node("late")
    await late.seed(ada.repository, one.hint)
    await all_show([one, two, late], ada, counted)
    for node in (one, two, late):
        assert await newest(node, bo) == point
