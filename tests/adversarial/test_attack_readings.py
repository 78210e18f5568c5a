"""Holders that lie to a node which only reads: what nobody signed is never told, and what is older never comes back."""

import asyncio
import dataclasses
from collections.abc import Callable

import pytest

from guts.ids import ObjectId
from guts.node.git_relay import NoSourceAnswered
from guts.node.reader import NothingCounts
from guts.node.readings import KEEP_SECONDS, MAX_KEPT, Readings
from guts.sync.goal import ProvidersUnreachable, SyncTimedOut
from guts.sync.readings import GRACE
from guts.trust.signed_refs import SignedRefs
from guts.wire.messages import GetRefs, Refs
from tests.adversarial.test_bad_holder import (
    by_a_stranger,
    forged,
    not_canonical,
    of_another_repository,
    spliced,
    under_another_identity,
)
from tests.adversarial.test_git_sources import Lie, LyingHolder, hangs_up, refuses
from tests.support.bad_peer import BadHolder, BadPeer, Offer, sign
from tests.support.nodes import SOON, Maintainer, RunningNode, World, files
from tests.support.peers import repository
from tests.support.repositories import git

MAIN = "refs/heads/main"
LIES = [forged, spliced, by_a_stranger, of_another_repository, under_another_identity, not_canonical]


async def read(node: RunningNode, maintainer: Maintainer, *holders: BadHolder | RunningNode) -> dict[str, object]:
    """Return what ``node`` tells of the repository, which it looks for at ``holders``."""
    return await node.node.control.refs(maintainer.repository, [holder.hint for holder in holders], SOON)


def main_of(told: dict[str, object]) -> str:
    refs = told["refs"]
    assert isinstance(refs, list)
    (oid,) = [ref["oid"] for ref in refs if ref["ref"] == MAIN]
    assert isinstance(oid, str)
    return oid


def note_of(told: dict[str, object]) -> str:
    notes = told["notes"]
    assert isinstance(notes, list)
    (note,) = notes
    assert isinstance(note, str)
    return note


def in_turn(maintainer: Maintainer) -> tuple[SignedRefs, SignedRefs, ObjectId]:
    """Return two records, of which the second follows on the first, and what main is in the first."""
    old, before = sign(maintainer, now=1_000), maintainer.tip()
    maintainer.commit("second")
    return old, sign(maintainer, old, now=2_000), before


@pytest.mark.parametrize("lie", LIES)
async def test_reader_believes_no_record_that_is(world: World, lie: Callable[[Maintainer, Offer], Offer]) -> None:
    maintainer = world.maintainer()
    reader = await world.node("reader")
    async with BadHolder(lie(maintainer, Offer.honest(maintainer))).listening() as liar:
        before = files(reader.config.paths.data)
        with pytest.raises(ProvidersUnreachable):
            await read(reader, maintainer, liar)
        (reason,) = await reader.reasons(liar.key.peer_id)
        print(lie.__name__, reason)
        score = await reader.score(liar.key.peer_id)
        assert score is not None
        assert score.barred_until is not None
        assert {name for name in files(reader.config.paths.data) if "guts.db" not in name} == {
            name for name in before if "guts.db" not in name
        }


@pytest.mark.parametrize("lie", LIES)
async def test_reader_goes_on_with_the_honest_holder_and_names_who_told_what_is(
    world: World, lie: Callable[[Maintainer, Offer], Offer]
) -> None:
    maintainer = world.maintainer()
    honest_offer = Offer.honest(maintainer)
    tip = maintainer.tip()
    reader = await world.node("reader")
    async with (
        BadHolder(honest_offer).listening() as honest,
        BadHolder(lie(maintainer, honest_offer)).listening() as liar,
    ):
        told = await read(reader, maintainer, liar, honest)
        assert main_of(told) == str(tip)
        # Who has been found lying is not among the sources.
        assert (told["sources"], liar.key.peer_id.short in note_of(told)) == (1, True)


async def test_f3_reader_shows_what_a_second_holder_has_and_the_first_keeps_back(world: World) -> None:
    maintainer = world.maintainer()
    old, new, _ = in_turn(maintainer)
    reader = await world.node("reader")
    async with (
        BadHolder(Offer.honest(maintainer, old)).listening() as stale,
        BadHolder(Offer.honest(maintainer, new)).listening() as fresh,
    ):
        told = await read(reader, maintainer, stale, fresh)
        assert (main_of(told), told["sources"]) == (str(maintainer.tip()), 2)
        assert stale.key.peer_id.short in note_of(told)
        assert fresh.key.peer_id.short not in note_of(told)
        # The one that has it is the first to be asked for its objects.
        sources = await reader.node.control._reader.sources(maintainer.repository, (), SOON)
        assert [source.name for source in sources] == [fresh.key.peer_id.short, stale.key.peer_id.short]
        assert await reader.reasons(stale.key.peer_id) == []


async def test_reader_goes_back_to_nothing_older_than_it_has_read(world: World) -> None:
    maintainer = world.maintainer()
    old, new, before = in_turn(maintainer)
    reader = await world.node("reader")
    async with BadHolder(Offer.honest(maintainer, old)).listening() as stale:
        async with BadHolder(Offer.honest(maintainer, new)).listening() as fresh:
            assert main_of(await read(reader, maintainer, fresh)) == str(maintainer.tip())
        told = await read(reader, maintainer, stale)
        assert main_of(told) == str(maintainer.tip()) != str(before)
        assert stale.key.peer_id.short in note_of(told)


async def test_reader_who_is_told_two_histories_believes_what_was_before(world: World) -> None:
    maintainer = world.maintainer()
    base, before = sign(maintainer, now=1_000), maintainer.tip()
    maintainer.commit("left")
    left, offer = sign(maintainer, base, now=2_000), Offer.honest(maintainer, base)
    git(maintainer.path, "reset", "-q", "--hard", str(before))
    maintainer.commit("right")
    right = sign(maintainer, base, now=2_001)
    reader = await world.node("reader")
    # The header before both, as whoever knows less is told it.
    led = dataclasses.replace(offer, answer=dataclasses.replace(offer.answer, headers=(base.header_bytes,)))
    async with (
        BadHolder(offer).listening() as older,
        BadHolder(led.with_record(left)).listening() as one,
        BadHolder(led.with_record(right)).listening() as other,
    ):
        # Who knows of the newer one alone can't see that there is another.
        await read(reader, maintainer, one)
        with pytest.raises(NothingCounts):
            await read(reader, maintainer, other)
        assert main_of(await read(reader, maintainer, older)) == str(before)
        for holder in (one, other):
            assert await reader.reasons(holder.key.peer_id) == []


class Mute(BadHolder):
    """Never answers a question."""

    async def answer_refs(self, peer: BadPeer, request: GetRefs) -> None:
        pass


async def test_silent_holder_costs_a_reader_the_grace_and_no_more(world: World) -> None:
    maintainer = world.maintainer()
    offer = Offer.honest(maintainer)
    reader = await world.node("reader")
    clock = asyncio.get_running_loop()
    async with Mute(offer).listening() as mute, BadHolder(offer).listening() as honest:
        begun = clock.time()
        told = await read(reader, maintainer, mute, honest)
        assert (main_of(told), told["sources"]) == (str(maintainer.tip()), 1)
        assert GRACE <= clock.time() - begun < GRACE + 5
        with pytest.raises(SyncTimedOut, match=f"{mute.key.peer_id}: has not answered"):
            await reader.node.control.refs(world.maintainer("other").repository, (mute.hint,), 0.3)


class Endless(BadHolder):
    """Says of every answer that there is more."""

    async def answer_refs(self, peer: BadPeer, request: GetRefs) -> None:
        answers = tuple(self.offer.answer for query in request.queries)
        peer.send(Refs(request.request, answers, b"more"))


async def test_holder_whose_answer_never_ends_keeps_no_reader_waiting(world: World) -> None:
    maintainer = world.maintainer()
    offer = Offer.honest(maintainer)
    reader = await world.node("reader")
    async with Endless(offer).listening() as endless:
        told = await read(reader, maintainer, endless)
        assert main_of(told) == str(maintainer.tip())
        assert len(endless.asked) < 10


@pytest.mark.parametrize("lie", [refuses, hangs_up])
async def test_tag_is_peeled_by_what_another_holder_gives(world: World, lie: Lie) -> None:
    publisher, reader, maintainer = await world.node("publisher"), await world.node("reader"), world.maintainer()
    git(maintainer.path, "tag", "-a", "v1", "-m", "one")
    await maintainer.publish(publisher)
    stored = await publisher.node.repositories.stored(maintainer.repository)
    assert stored is not None
    (row,) = stored.signed_refs
    offer = Offer.honest(maintainer, SignedRefs.decode(row.header, row.entries))
    async with LyingHolder(offer, maintainer, lie).listening() as liar:
        assert isinstance(liar, LyingHolder)
        with pytest.raises(NoSourceAnswered, match=liar.key.peer_id.short):
            await read(reader, maintainer, liar)
        told = await read(reader, maintainer, liar, publisher)
        assert [ref["peeled"] for ref in _refs(told)] == [None, str(maintainer.tip())]
        assert liar.served == 2


async def test_as_many_readings_are_kept_as_allowed_and_those_used_last(world: World) -> None:
    reader, maintainer = await world.node("reader"), world.maintainer()
    async with BadHolder(Offer.honest(maintainer)).listening() as holder:
        await read(reader, maintainer, holder)
    now = [reader.clock()]
    readings = reader.node.control._reader._readings
    held = readings._kept[maintainer.repository].held
    assert held is not None
    others = Readings(reader.node.repositories, lambda: now[0], world.root / "scratch", 1_000_000, reader.patience)
    names = [repository(number) for number in range(MAX_KEPT + 1)]
    for name in names[:MAX_KEPT]:
        with others.using(name) as reading:
            reading.held = held
    with others.using(names[0]):
        with others.using(names[MAX_KEPT]) as reading:
            reading.held = held
        # The oldest is in use.
        assert set(others._kept) == set(names)
    assert set(others._kept) == set(names) - {names[1]}
    now[0] = type(now[0])(now[0].mono + KEEP_SECONDS + 1, now[0].wall)
    with others.using(repository(99)):
        assert list(others._kept) == [repository(99)]
    assert others._kept == {}


def _refs(told: dict[str, object]) -> list[dict[str, object]]:
    refs = told["refs"]
    assert isinstance(refs, list)
    return refs
