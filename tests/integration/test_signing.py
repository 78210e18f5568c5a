"""Whether a node is fit to prepare what an author signs: its clock, and what it has missed."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from guts.clock import Now
from guts.node.node import read_clock
from guts.node.signing import MAX_CLOCK_OFFSET_MS, WrongClock
from guts.trust.signed_refs import SignedRefs
from guts.wire.messages import GetRefs
from tests.support.bad_peer import BadHolder, BadPeer, Offer
from tests.support.nodes import Maintainer, RunningNode, World, eventually

MAIN = "refs/heads/main"
DAY = 24 * 3600 * 1000
SECOND = 1_000


def ahead(milliseconds: int) -> Callable[[], Now]:
    """Return a clock that is set wrong."""

    def read() -> Now:
        now = read_clock()
        return dataclasses.replace(now, wall=now.wall + milliseconds)

    return read


async def record(node: RunningNode, maintainer: Maintainer) -> SignedRefs:
    stored = await node.node.repositories.stored(maintainer.repository)
    assert stored is not None
    (row,) = stored.signed_refs
    return SignedRefs.decode(row.header, row.entries)


@pytest.mark.parametrize(
    "offset", [DAY, -DAY, MAX_CLOCK_OFFSET_MS + 10 * SECOND, -MAX_CLOCK_OFFSET_MS - 10 * SECOND], ids=str
)
async def test_signer_whose_clock_is_wrong_signs_nothing_until_it_is_right(world: World, offset: int) -> None:
    node, replica = await world.node("node"), await world.node("replica")
    maintainer = world.maintainer()
    await maintainer.publish(node)
    await replica.seed(maintainer.repository, node.hint)
    before = await record(replica, maintainer)

    await node.stop()
    node.clock = ahead(offset)
    await node.start()
    await node.node.control.connect(replica.hint, 20)
    maintainer.commit("by a wrong clock")
    with pytest.raises(WrongClock, match="behind" if offset < 0 else "ahead of") as refused:
        await maintainer.publish(node)
    assert refused.value.hint is not None
    assert await record(node, maintainer) == before

    await node.stop()
    node.clock = read_clock
    await node.start()
    await node.node.control.connect(replica.hint, 20)
    await maintainer.publish(node)
    await eventually(lambda: replica.has(maintainer.repository, {MAIN: maintainer.tip()}))


@pytest.mark.parametrize("offset", [MAX_CLOCK_OFFSET_MS - 10 * SECOND, 10 * SECOND - MAX_CLOCK_OFFSET_MS], ids=str)
async def test_signer_whose_clock_is_nearly_right_goes_on(world: World, offset: int) -> None:
    replica = await world.node("replica")
    node = await world.node("node")
    await node.stop()
    node.clock = ahead(offset)
    await node.start()
    await node.node.control.connect(replica.hint, 20)
    maintainer = world.maintainer()
    await maintainer.publish(node)
    await replica.seed(maintainer.repository, node.hint)
    assert await replica.has(maintainer.repository, {MAIN: maintainer.tip()})


async def test_one_liar_among_the_peers_does_not_keep_a_signer_from_publishing(world: World) -> None:
    node = await world.node("node")
    for name, offset in (("honest", 0), ("liar", DAY), ("another", 0)):
        peer = await world.node(name)
        await peer.stop()
        peer.clock = ahead(offset)
        await peer.start()
        await node.node.control.connect(peer.hint, 20)
    maintainer = world.maintainer()
    await maintainer.publish(node)


def copied(source: Path, target: Path) -> None:
    """Put ``target`` back to what it was when ``source`` was copied."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)


async def test_node_back_from_a_backup_learns_what_its_author_signed_since_before_it_prepares_more(
    world: World, tmp_path: Path
) -> None:
    node, replica = await world.node("node"), await world.node("replica")
    maintainer = world.maintainer()
    await maintainer.publish(node)
    await replica.seed(maintainer.repository, node.hint)
    await node.stop()
    copied(node.home, tmp_path / "backup")
    await node.start()
    await node.node.control.connect(replica.hint, 20)
    maintainer.commit("after the backup")
    await maintainer.publish(node)
    await eventually(lambda: replica.has(maintainer.repository, {MAIN: maintainer.tip()}))
    newest = await record(replica, maintainer)

    await node.stop()
    copied(tmp_path / "backup", node.home)
    await node.start()
    maintainer.commit("after the restore")
    await maintainer.publish(node)
    signed = await record(node, maintainer)
    assert signed.header.previous == newest.hash
    await eventually(lambda: replica.has(maintainer.repository, {MAIN: maintainer.tip()}))


class Stranger(BadHolder):
    """Says that it has nothing new."""

    async def answer_refs(self, peer: BadPeer, request: GetRefs) -> None:
        self.offer = dataclasses.replace(
            self.offer, answer=dataclasses.replace(self.offer.answer, documents=(), records=())
        )
        await super().answer_refs(peer, request)


class SlowHolder(BadHolder):
    """Is honest, and answers after ``stranger`` has been asked ``waits_for`` times."""

    def __init__(self, offer: Offer, stranger: Stranger) -> None:
        super().__init__(offer)
        self._stranger = stranger
        self.waits_for = 1_000

    async def answer_refs(self, peer: BadPeer, request: GetRefs) -> None:
        await eventually(lambda: len(self._stranger.asked) >= self.waits_for)
        await super().answer_refs(peer, request)


async def test_stranger_who_knows_of_nothing_new_does_not_make_a_node_sign_a_second_history(
    world: World, tmp_path: Path
) -> None:
    node = await world.node("node")
    maintainer = world.maintainer()
    await maintainer.publish(node)
    await node.stop()
    copied(node.home, tmp_path / "backup")
    await node.start()
    maintainer.commit("after the backup")
    await maintainer.publish(node)
    newest = await record(node, maintainer)

    await node.stop()
    copied(tmp_path / "backup", node.home)
    await node.start()
    stranger = Stranger(Offer.honest(maintainer, newest))
    holder = SlowHolder(Offer.honest(maintainer, newest), stranger)
    maintainer.commit("after the restore")
    async with stranger.visiting(node), holder.visiting(node):
        await eventually(lambda: bool(stranger.asked and holder.asked))
        await node.node.control.sync(maintainer.repository, 20)
        holder.waits_for = len(stranger.asked) + 1
        await maintainer.publish(node)
        assert (await record(node, maintainer)).header.previous == newest.hash
