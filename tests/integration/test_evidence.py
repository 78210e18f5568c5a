"""What a node tells who judges for himself: records and proofs, held or read, and which older record had a ref."""

from collections.abc import Mapping

import pytest

from guts.cli.answer import Answer
from guts.cli.known_repositories import RolledBack, known_one, remember
from guts.cli.verifying import Signature, Signed, compare, earlier_signature
from guts.config import Paths
from guts.ids import ObjectId
from guts.node import evidence as module
from guts.trust.identity_document import AuthorPoint
from tests.integration.test_maintainers import publish_apart
from tests.integration.test_publishing import newest
from tests.integration.test_split_histories import Split, all_show, split
from tests.support.nodes import Maintainer, RunningNode, World, eventually
from tests.support.repositories import git

__all__ = ["split"]

MAIN, SIDE = "refs/heads/main", "refs/heads/side"


async def earlier(node: RunningNode, maintainer: Maintainer, refs: Mapping[str, ObjectId]) -> dict[str, Signature]:
    answer = Answer.of(await node.node.control.past(maintainer.repository, refs, (), 10))
    return {found.text("ref"): earlier_signature(maintainer.repository, found) for found in answer.objects("refs")}


async def test_evidence_is_the_same_from_who_holds_and_who_reads(world: World) -> None:
    node, reader = await world.node("node"), await world.node("reader")
    maintainer = world.maintainer()
    await maintainer.publish(node)
    held = Signed.from_answer(
        maintainer.repository, Answer.of(await node.node.control.evidence(maintainer.repository, (), 10))
    )
    read = Signed.from_answer(
        maintainer.repository, Answer.of(await reader.node.control.evidence(maintainer.repository, (node.hint,), 10))
    )
    assert held.records == read.records
    assert held.canonical.refs == maintainer.refs()
    assert (held.sources, read.sources) == (0, 1)


async def test_what_is_part_of_what_is_signed_is_told_by_who_holds_and_who_reads(world: World) -> None:
    node, reader = await world.node("node"), await world.node("reader")
    maintainer = world.maintainer()
    first = maintainer.tip()
    maintainer.commit("second")
    git(maintainer.path, "branch", "side")
    git(maintainer.path, "tag", "-a", "-m", "one", "v1")
    await maintainer.publish(node)
    left = maintainer.commit("never published")
    asked = {MAIN: first, SIDE: first, "refs/tags/v1": left, "refs/heads/none": first}
    for asker in (node, reader):
        told = await asker.node.control.past(maintainer.repository, asked, (node.hint,), 10)
        assert told == {"refs": [], "contained": [MAIN, SIDE]}


async def test_older_record_that_had_a_ref_is_found(world: World) -> None:
    node = await world.node("node")
    maintainer = world.maintainer()
    git(maintainer.path, "branch", "side")
    first = maintainer.tip()
    await maintainer.publish(node)
    records = [await newest(node, maintainer)]
    second = maintainer.commit("second")
    await maintainer.publish(node)
    records.append(await newest(node, maintainer))
    maintainer.commit("third")
    git(maintainer.path, "branch", "-D", "side")
    await maintainer.publish(node, prune=True)

    found = await earlier(node, maintainer, {MAIN: second, SIDE: first, "refs/heads/none": first})
    signed = {MAIN: (records[1], second), SIDE: (records[1], first)}  # the newest that had it
    assert found == {
        ref: Signature(record.author, oid, record.seq, record.header.time_ms) for ref, (record, oid) in signed.items()
    }
    assert (await earlier(node, maintainer, {MAIN: first}))[MAIN].seq == records[0].seq
    assert await earlier(node, maintainer, {MAIN: maintainer.tip()}) == {}  # that is no older one


@pytest.mark.parametrize("contained", [True, False], ids=["one contains the other", "apart"])
async def test_what_two_maintainers_signed_is_joined_by_who_judges_for_himself(world: World, contained: bool) -> None:
    adas, bos, reader = await world.node("adas"), await world.node("bos"), await world.node("reader")
    ada, bo = await publish_apart(world, adas, bos, contained=contained)
    await adas.node.control.connect(bos.hint, 20)
    conflict = f"refs/guts/conflict/{bo.key.author_id}/{MAIN}"
    shown = {MAIN: bo.tip()} if contained else {MAIN: ada.tip(), conflict: bo.tip()}
    await eventually(lambda: adas.has(ada.repository, shown))
    for asker in (adas, reader):
        told = Answer.of(await asker.node.control.evidence(ada.repository, (adas.hint, bos.hint), 10))
        state = Signed.from_answer(ada.repository, told)
        assert state.canonical.refs == shown
        assert state.ancestors == ({(ada.tip(), bo.tip())} if contained else set())
        found = {one.ref: str(one.verdict) for one in compare(state, state.canonical, {MAIN: ada.tip()}, bool)}
        assert found == {MAIN: "stale" if contained else "ok"}


@pytest.mark.parametrize(("most", "found"), [(2, True), (1, False)])
async def test_so_many_older_records_are_looked_through_and_not_more(
    world: World, monkeypatch: pytest.MonkeyPatch, most: int, found: bool
) -> None:
    node = await world.node("node")
    maintainer = world.maintainer()
    first = maintainer.tip()
    await maintainer.publish(node)
    for name in ("second", "third"):
        maintainer.commit(name)
        await maintainer.publish(node)
    monkeypatch.setattr(module, "MAX_EARLIER", most)
    assert bool(await earlier(node, maintainer, {MAIN: first})) == found


@pytest.mark.parametrize("held", [True, False])
async def test_proof_of_two_histories_lets_a_record_go_back_without_alarm(
    split: Split, world: World, held: bool
) -> None:
    paths = Paths.from_environ({"GUTS_HOME": str(split.ada.path.parent / "client")})
    ada = split.ada
    await all_show(split.nodes, ada, split.common)
    node = split.one if held else await world.node("reader")

    async def refs() -> Answer:
        return Answer.of(await node.node.control.refs(ada.repository, (split.two.hint,), 10))

    shown = await refs()
    seen = dict(shown.json)
    seen["heads"] = [{"author": str(ada.key.author_id), "seq": split.at_one.seq, "hash": split.at_one.hash.hex()}]
    remember(paths, Answer(seen))  # as it was before the proof came
    with pytest.raises(RolledBack):
        remember(paths, Answer({**shown.json, "proofs": []}))
    (line,) = remember(paths, shown)
    assert "signed two histories" in line
    assert _head(paths, ada) == split.before

    remember(paths, Answer(seen))
    await split.reaffirm(split.before, split.third)

    async def told() -> bool:
        return (await refs()).number("epoch") == 1

    await eventually(told)
    assert remember(paths, await refs()) == []
    assert _head(paths, ada) == split.before
    assert known_one(paths, ada.repository).epoch == 1


def _head(paths: Paths, ada: Maintainer) -> AuthorPoint:
    seq, digest = known_one(paths, ada.repository).heads[str(ada.key.author_id)]
    return AuthorPoint(ada.key.author_id, seq, bytes.fromhex(digest))
