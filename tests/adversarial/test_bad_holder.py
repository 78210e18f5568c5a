"""What a node does with a holder that lies: refuse by name, change nothing, live on."""

import asyncio
import dataclasses
from collections.abc import Callable

import pytest

from guts.ids import ObjectId
from guts.node.limits import Patience
from guts.sync.goal import ProvidersUnreachable, SyncTimedOut
from guts.sync.quotas import QuotaExceeded
from guts.trust.chain import IdentityChain
from guts.wire.messages import (
    EncodedRefs,
    GetObjects,
    GetRefs,
    Objects,
    ObjectsStatus,
    Refs,
    RefsAnswer,
    RefsStatus,
    ResetCode,
)
from tests.support import packs
from tests.support.bad_peer import BadHolder, BadPeer, Offer, intruder, now_ms, pack_of, pack_of_objects, sign
from tests.support.nodes import SOON, Maintainer, RunningNode, World, eventually, files
from tests.support.repositories import git

MAIN = "refs/heads/main"


async def is_refused(world: World, maintainer: Maintainer, holder: BadHolder, *codes: str) -> RunningNode:
    """Let a new replica seed from ``holder``; assert that it refuses, for ``codes``, and can still sync honestly."""
    replica = await world.node("replica", patience=Patience(first_byte=0.5, stall=0.5))
    before = files(replica.repositories)
    async with holder.listening():
        # Trouble that is nobody's fault is tried again until the command's time is over.
        with pytest.raises((ProvidersUnreachable, SyncTimedOut)):
            await replica.seed(maintainer.repository, holder.hint, timeout=SOON if codes else 1.0)
        sync = replica.node.control._service.sync
        await eventually(lambda: not sync.fetches.running)
        assert await replica.reasons(holder.key.peer_id) == list(codes)
        score = await replica.score(holder.key.peer_id)
        assert (score is not None and score.barred_until is not None) == bool(codes)
    assert files(replica.repositories) == before
    assert await replica.canonical(maintainer.repository) == {}
    publisher = await world.node("publisher")
    await maintainer.publish(publisher)
    await replica.seed(maintainer.repository, publisher.hint)
    await replica.shows_what_it_says(maintainer.repository)
    return replica


# --- packs --------------------------------------------------------------------------------------------------


def flipped(maintainer: Maintainer, pack: bytes) -> bytes:
    middle = len(pack) // 2
    return pack[:middle] + bytes([pack[middle] ^ 1]) + pack[middle + 1 :]


def truncated(maintainer: Maintainer, pack: bytes) -> bytes:
    return pack[:-25]


def cut_in_the_header(maintainer: Maintainer, pack: bytes) -> bytes:
    return pack[:7]


def nothing(maintainer: Maintainer, pack: bytes) -> bytes:
    return b""


def no_pack(maintainer: Maintainer, pack: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n\r\n" * 100


def followed_by_bytes(maintainer: Maintainer, pack: bytes) -> bytes:
    return pack + b"x" * 1000


def without_a_blob(maintainer: Maintainer, pack: bytes) -> bytes:
    return pack_of_objects(maintainer.path, "HEAD", "HEAD^{tree}")


def with_a_stranger(maintainer: Maintainer, pack: bytes) -> bytes:
    stranger = git(maintainer.path, "hash-object", "-w", "--stdin", data=b"stranger\n")
    return pack_of_objects(maintainer.path, "HEAD", "HEAD^{tree}", "HEAD:first", stranger)


def of_other_objects(maintainer: Maintainer, pack: bytes) -> bytes:
    return packs.pack([(packs.BLOB, b"something else")])


def of_a_billion_objects(maintainer: Maintainer, pack: bytes) -> bytes:
    return packs.sealed([packs.entry(packs.BLOB, b"x")], count=10**9)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (flipped, "CORRUPT_PACK"),
        (truncated, "CORRUPT_PACK"),
        (cut_in_the_header, "CORRUPT_PACK"),
        (nothing, "CORRUPT_PACK"),
        (no_pack, "CORRUPT_PACK"),
        (followed_by_bytes, "CORRUPT_PACK"),
        (without_a_blob, "MISSING_OBJECTS"),
        (with_a_stranger, "EXTRA_OBJECTS"),
        (of_other_objects, "MISSING_OBJECTS"),
        # A repository may have grown to more than is taken at once: nobody is to blame for saying so.
        (of_a_billion_objects, None),
    ],
)
async def test_node_refuses_a_pack_that(
    world: World, spoil: Callable[[Maintainer, bytes], bytes], code: str | None
) -> None:
    maintainer = world.maintainer()
    honest = Offer.honest(maintainer)
    offer = dataclasses.replace(honest, pack=spoil(maintainer, honest.pack))
    await is_refused(world, maintainer, BadHolder(offer), *([code] if code is not None else []))


@pytest.mark.parametrize(
    ("name", "mode", "content", "codes"),
    [
        # What git's fsck refuses may be an honest replica's whose git is older: its author is to blame.
        (b".git", "40000", b"", ()),
        (b"..", "40000", b"", ()),
        (b"link", "120000", b".git/hooks/post-checkout", ("UNSAFE_TREE",)),
        (b"link", "120777", b".git/hooks/post-checkout", ("UNSAFE_TREE",)),
    ],
)
async def test_node_refuses_a_tree_that_harms_who_checks_it_out(
    world: World, name: bytes, mode: str, content: bytes, codes: tuple[str, ...]
) -> None:
    maintainer = world.maintainer()
    inner = packs.tree() if mode == "40000" else content
    kind = packs.TREE if mode == "40000" else packs.BLOB
    tree = packs.tree((mode, name, packs.object_id(kind, inner)))
    commit = packs.commit(packs.object_id(packs.TREE, tree))
    objects = [(packs.COMMIT, commit), (packs.TREE, tree), (kind, inner)]
    record = sign(maintainer, refs={MAIN: packs.object_id(packs.COMMIT, commit)})
    offer = Offer.honest(maintainer).with_record(record)
    await is_refused(world, maintainer, BadHolder(dataclasses.replace(offer, pack=packs.pack(objects))), *codes)


@pytest.mark.parametrize("too_much", [0, 1])
async def test_node_takes_packs_up_to_repo_max(world: World, too_much: int) -> None:
    maintainer = world.maintainer()
    maintainer.commit("noise", bytes(i * i % 251 for i in range(50_000)))
    offer = Offer.honest(maintainer)
    replica = await world.node("replica", seeding__repo_max=str(len(offer.pack) - too_much))
    holder = BadHolder(offer)
    async with holder.listening():
        if too_much:
            with pytest.raises(QuotaExceeded) as refused:
                await replica.seed(maintainer.repository, holder.hint)
            assert (refused.value.limit, refused.value.claimed) == ("seeding.repo_max", False)
            assert await replica.reasons(holder.key.peer_id) == []
            assert list(replica.repositories.iterdir()) == []
        else:
            await replica.seed(maintainer.repository, holder.hint)
            await replica.shows_what_it_says(maintainer.repository)


# --- records ------------------------------------------------------------------------------------------------


def forged(maintainer: Maintainer, honest: Offer) -> Offer:
    encoded = honest.answer.records[0]
    header = encoded.header[:-1] + bytes([encoded.header[-1] ^ 1])
    return dataclasses.replace(
        honest, answer=dataclasses.replace(honest.answer, records=(EncodedRefs(header, encoded.entries),))
    )


def with_a_ref_moved(maintainer: Maintainer, honest: Offer) -> Offer:
    encoded = honest.answer.records[0]
    tip, moved = bytes(maintainer.tip()), bytes(maintainer.commit("moved"))
    assert encoded.entries.count(tip) == 1
    records = (EncodedRefs(encoded.header, encoded.entries.replace(tip, moved)),)
    return dataclasses.replace(honest, answer=dataclasses.replace(honest.answer, records=records))


def spliced(maintainer: Maintainer, honest: Offer) -> Offer:
    maintainer.commit("second")
    other = sign(maintainer)
    mixed = EncodedRefs(honest.answer.records[0].header, other.entries_bytes)
    return dataclasses.replace(honest, answer=dataclasses.replace(honest.answer, records=(mixed,)))


def by_a_stranger(maintainer: Maintainer, honest: Offer) -> Offer:
    key, maintainer.key = maintainer.key, type(maintainer.key).generate()
    author, honest_chain = maintainer.key, maintainer.chain
    document = honest_chain.current
    # The stranger's own repository of the same name has the stranger as maintainer.
    own = dataclasses.replace(document, maintainers=(author.author_id,)).sign(author)
    maintainer.chain = IdentityChain.from_documents([own])
    record = sign(maintainer)
    maintainer.key, maintainer.chain = key, honest_chain
    return honest.with_record(record)


def of_another_repository(maintainer: Maintainer, honest: Offer) -> Offer:
    document = dataclasses.replace(maintainer.chain.current, name="other").sign(maintainer.key)
    honest_chain, maintainer.chain = maintainer.chain, IdentityChain.from_documents([document])
    record = sign(maintainer)
    maintainer.chain = honest_chain
    return honest.with_record(record)


def under_another_identity(maintainer: Maintainer, honest: Offer) -> Offer:
    document = dataclasses.replace(maintainer.chain.current, name="other").sign(maintainer.key)
    return dataclasses.replace(honest, answer=dataclasses.replace(honest.answer, documents=(document,)))


def not_canonical(maintainer: Maintainer, honest: Offer) -> Offer:
    encoded = honest.answer.records[0]
    records = (EncodedRefs(encoded.header, b"\xdc\x00\x00"),)
    return dataclasses.replace(honest, answer=dataclasses.replace(honest.answer, records=records))


async def believes_nothing(world: World, lie: Callable[[Maintainer, Offer], Offer]) -> None:
    """Assert that a new replica takes nothing from a holder that tells ``lie``, asks it for no object, and bans it."""
    maintainer = world.maintainer()
    holder = BadHolder(lie(maintainer, Offer.honest(maintainer)))
    replica = await world.node("replica")
    async with holder.listening():
        with pytest.raises(ProvidersUnreachable):
            await replica.seed(maintainer.repository, holder.hint)
    (reason,) = await replica.reasons(holder.key.peer_id)
    print(lie.__name__, reason)
    score = await replica.score(holder.key.peer_id)
    assert score is not None
    assert score.barred_until is not None
    assert holder.wanted == []
    assert list(replica.repositories.iterdir()) == []


@pytest.mark.parametrize("lie", [forged, with_a_ref_moved, by_a_stranger, under_another_identity, not_canonical])
async def test_f1_node_refuses_a_record_that_is(world: World, lie: Callable[[Maintainer, Offer], Offer]) -> None:
    await believes_nothing(world, lie)


async def test_f4_node_refuses_the_header_of_one_record_with_the_refs_of_another(world: World) -> None:
    await believes_nothing(world, spliced)


async def test_f5_node_refuses_a_record_of_another_repository_of_the_same_maintainer(world: World) -> None:
    await believes_nothing(world, of_another_repository)


async def follower(world: World) -> tuple[RunningNode, Maintainer, BadHolder, dict[str, ObjectId]]:
    """Return a replica that holds the second of two records, and a holder who offers the first."""
    maintainer = world.maintainer()
    old = sign(maintainer, now=1_000)
    holder = BadHolder(Offer.honest(maintainer, old))
    first = maintainer.tip()
    maintainer.commit("second")
    new = sign(maintainer, old, now=2_000)
    replica = await world.node("replica")
    honest = BadHolder(Offer.honest(maintainer, new))
    async with honest.listening():
        await replica.seed(maintainer.repository, honest.hint)
    await replica.shows_what_it_says(maintainer.repository)
    holder.previous = new
    return replica, maintainer, holder, {"first": first, "second": maintainer.tip()}


async def test_f2_node_keeps_its_record_when_it_is_offered_an_older_one(world: World) -> None:
    replica, maintainer, holder, _ = await follower(world)
    await _nothing_changes(replica, maintainer, holder)
    assert await replica.reasons(holder.key.peer_id) == []


async def test_node_passes_over_the_record_that_it_has(world: World) -> None:
    replica, maintainer, holder, _ = await follower(world)
    assert holder.previous is not None
    holder.offer = holder.offer.with_record(holder.previous)
    await _nothing_changes(replica, maintainer, holder)
    assert await replica.reasons(holder.key.peer_id) == []
    assert holder.wanted == []


@pytest.mark.parametrize("forced", [False, True])
async def test_node_takes_a_branch_back_only_where_the_record_says_that_it_is_meant(world: World, forced: bool) -> None:
    replica, maintainer, holder, tips = await follower(world)
    back = sign(
        maintainer,
        holder.previous,
        {MAIN: tips["first"]},
        forced=frozenset([MAIN]) if forced else frozenset(),
        now=3_000,
    )
    holder.offer = holder.offer.with_record(back)
    if forced:
        async with holder.visiting(replica):
            await eventually(lambda: replica.has(maintainer.repository, {MAIN: tips["first"]}))
        await replica.shows_what_it_says(maintainer.repository)
    else:
        await _nothing_changes(replica, maintainer, holder)
        # Who passed it on may not know: only its author is to blame.
        assert await replica.score(holder.key.peer_id) is None


async def _nothing_changes(replica: RunningNode, maintainer: Maintainer, holder: BadHolder) -> None:
    before, refs = files(replica.repositories), await replica.canonical(maintainer.repository)
    fetches = replica.node.control._service.sync.fetches._last
    async with holder.visiting(replica):
        sync = replica.node.control._service.sync
        await eventually(lambda: sync.fetches._last > fetches and not sync.fetches.running)
    assert files(replica.repositories) == before
    assert await replica.canonical(maintainer.repository) == refs


# --- behaviour ----------------------------------------------------------------------------------------------


class Stalls(BadHolder):
    """Sends half a pack, and then nothing."""

    async def answer_objects(self, peer: BadPeer, request: GetObjects) -> None:
        stream = peer.connection.stream(request.stream)
        peer.send(Objects(request.request, ObjectsStatus.PACK_FOLLOWS, 0))
        await stream.write(self.offer.pack[: len(self.offer.pack) // 2])


class Mute(BadHolder):
    """Never begins a pack."""

    async def answer_objects(self, peer: BadPeer, request: GetObjects) -> None:
        peer.send(Objects(request.request, ObjectsStatus.PACK_FOLLOWS, 0))


class Resets(BadHolder):
    """Says that it holds everything, and gives nothing."""

    async def answer_objects(self, peer: BadPeer, request: GetObjects) -> None:
        peer.connection.stream(request.stream).reset(ResetCode.REFUSED)


class Busy(BadHolder):
    """Is always busy."""

    async def answer_objects(self, peer: BadPeer, request: GetObjects) -> None:
        peer.send(Objects(request.request, ObjectsStatus.BUSY, 5))
        peer.connection.stream(request.stream).reset(ResetCode.LIMIT)


class HangsUp(BadHolder):
    """Hangs up in the middle of a pack."""

    async def answer_objects(self, peer: BadPeer, request: GetObjects) -> None:
        stream = peer.connection.stream(request.stream)
        await stream.write(self.offer.pack[: len(self.offer.pack) // 2])
        await peer.connection.close()


class HoldsNothing(BadHolder):
    """Says that it does not hold what it was found for."""

    async def answer_refs(self, peer: BadPeer, request: GetRefs) -> None:
        answers = [RefsAnswer(query.repository, RefsStatus.NOT_HELD) for query in request.queries]
        peer.send(Refs(request.request, tuple(answers)))


FAILURES = [Stalls, Mute, Resets, Busy, HangsUp]


@pytest.mark.parametrize("kind", FAILURES)
async def test_node_gives_up_without_blame_on_a_holder_that(world: World, kind: type[BadHolder]) -> None:
    maintainer = world.maintainer()
    await is_refused(world, maintainer, kind(Offer.honest(maintainer)))


@pytest.mark.parametrize("kind", [*FAILURES, HoldsNothing])
async def test_another_holder_is_tried_after_one_that(world: World, kind: type[BadHolder]) -> None:
    maintainer = world.maintainer()
    bad, honest = kind(Offer.honest(maintainer)), BadHolder(Offer.honest(maintainer))
    replica = await world.node("replica", patience=Patience(first_byte=0.5, stall=0.5))
    async with bad.listening(), honest.listening():
        await replica.node.control.connect(bad.hint, 10)
        seeding = asyncio.create_task(replica.seed(maintainer.repository, bad.hint, honest.hint))
        await seeding
    await replica.shows_what_it_says(maintainer.repository)
    assert bad.asked
    assert await replica.reasons(bad.key.peer_id) == []


class SaysThereIsMore(BadHolder):
    """Answers with nothing but the promise of more."""

    async def answer_refs(self, peer: BadPeer, request: GetRefs) -> None:
        peer.send(Refs(request.request, (), b"more"))


@pytest.mark.parametrize("kind", ["more", "gap"])
async def test_node_does_not_ask_for_ever_at_the_speed_of_the_wire(world: World, kind: str) -> None:
    if kind == "more":
        maintainer = world.maintainer()
        holder: BadHolder = SaysThereIsMore(Offer.honest(maintainer))
        replica = await world.node("replica")
        async with holder.listening():
            with pytest.raises(ProvidersUnreachable):
                await replica.seed(maintainer.repository, holder.hint)
    else:
        replica, maintainer, holder, _ = await follower(world)
        third = sign(maintainer, holder.previous, now=3_000, refs={MAIN: maintainer.commit("third")})
        fourth = sign(maintainer, third, now=4_000, refs={MAIN: maintainer.commit("fourth")})
        holder.offer = Offer.honest(maintainer, fourth)
        await _nothing_changes(replica, maintainer, holder)
        assert await replica.reasons(holder.key.peer_id) == []
    assert len(holder.asked) < 5


async def test_node_survives_a_peer_that_is_replaced_while_it_is_asked(world: World) -> None:
    """The second connection comes with another start nonce: the first is closed with its questions open."""

    class Silent(BadHolder):
        async def answer_refs(self, peer: BadPeer, request: GetRefs) -> None:
            pass

    replica, maintainer, holder, _ = await follower(world)
    silent = Silent(holder.offer, holder.key)
    async with silent.visiting(replica) as first:
        await eventually(lambda: len(silent.asked) == 1)
        async with intruder(replica, holder.key):
            await first.is_dropped()
    await eventually(lambda: not replica.connected_to(holder.key.peer_id))
    third = maintainer.commit("third")
    honest = BadHolder(Offer.honest(maintainer, sign(maintainer, holder.previous, now=3_000)), holder.key)
    async with honest.visiting(replica):
        await eventually(lambda: replica.has(maintainer.repository, {MAIN: third}))


async def test_record_of_tomorrow_waits_and_nobody_is_blamed(world: World) -> None:
    maintainer = world.maintainer()
    holder = BadHolder(Offer.honest(maintainer, sign(maintainer, now=now_ms() + 3_600_000)))
    replica = await world.node("replica")
    async with holder.listening():
        with pytest.raises((ProvidersUnreachable, SyncTimedOut), match="ahead of this node's clock"):
            await replica.seed(maintainer.repository, holder.hint, timeout=1.0)
    assert await replica.reasons(holder.key.peer_id) == []
    assert holder.wanted == []
    assert list(replica.repositories.iterdir()) == []


async def test_second_history_of_an_author_does_not_replace_the_first(world: World) -> None:
    replica, maintainer, holder, _ = await follower(world)
    holder.offer = holder.offer.with_record(sign(maintainer, now=9_000))

    async def has_proof() -> bool:
        stored = await replica.node.repositories.stored(maintainer.repository)
        return stored is not None and [proof.split for proof in stored.equivocations] == [2_000]

    async with holder.visiting(replica):
        await eventually(has_proof)
    # Neither counts, and the one from before the two histories part was never here.
    assert await replica.canonical(maintainer.repository) == {}
    await replica.shows_what_it_says(maintainer.repository)
    assert await replica.reasons(holder.key.peer_id) == []


class Drips(BadHolder):
    """Sends a byte now and then, for ever: never a stall, never an end."""

    async def answer_objects(self, peer: BadPeer, request: GetObjects) -> None:
        stream = peer.connection.stream(request.stream)
        peer.send(Objects(request.request, ObjectsStatus.PACK_FOLLOWS, 0))
        for byte in self.offer.pack:
            await stream.write(bytes([byte]))
            await asyncio.sleep(0.1)


async def test_node_ends_a_transfer_that_would_take_for_ever(world: World) -> None:
    maintainer = world.maintainer()
    holder = Drips(Offer.honest(maintainer))
    replica = await world.node("replica", patience=Patience(transfer=1.0))
    async with holder.listening():
        with pytest.raises((ProvidersUnreachable, SyncTimedOut), match="took longer"):
            await replica.seed(maintainer.repository, holder.hint, timeout=3.0)
        sync = replica.node.control._service.sync
        await eventually(lambda: not sync.fetches.running)
    assert await replica.reasons(holder.key.peer_id) == []
    assert list(replica.repositories.iterdir()) == []


async def test_pack_that_arrives_one_byte_at_a_time(world: World) -> None:
    class Drips(BadHolder):
        async def answer_objects(self, peer: BadPeer, request: GetObjects) -> None:
            stream = peer.connection.stream(request.stream)
            peer.send(Objects(request.request, ObjectsStatus.PACK_FOLLOWS, 0))
            for byte in self.offer.pack:
                await stream.write(bytes([byte]))
            await stream.end()

    maintainer = world.maintainer()
    holder = Drips(Offer.honest(maintainer))
    replica = await world.node("replica")
    async with holder.listening():
        await replica.seed(maintainer.repository, holder.hint)
    await replica.shows_what_it_says(maintainer.repository)


async def test_slow_holder_is_asked_only_for_what_is_missing(world: World) -> None:
    """A thin pack is enough where the replica has the rest."""
    replica, maintainer, holder, tips = await follower(world)
    third = maintainer.commit("third")
    holder.offer = dataclasses.replace(
        Offer.honest(maintainer, sign(maintainer, holder.previous, now=3_000)),
        pack=pack_of(maintainer.path, third, without=(tips["second"],)),
    )
    async with holder.visiting(replica):
        await eventually(lambda: replica.has(maintainer.repository, {MAIN: third}))
    await replica.shows_what_it_says(maintainer.repository)
    (wanted,) = holder.wanted
    assert (wanted.wants, wanted.haves) == (1, 1)
