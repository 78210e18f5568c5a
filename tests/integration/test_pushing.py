"""A push on a real node, below the remote helper: prepared, judged, signed, overtaken, forgotten."""

import subprocess
from collections.abc import AsyncIterator, Mapping
from typing import cast

import pytest

from guts.git.source import SourceRepository
from guts.ids import ObjectId
from guts.node.drafts import BadPublication
from guts.node.limits import Patience
from guts.node.moves import Protected
from guts.node.publishing import NoSuchSession, Overtaken
from guts.trust.authoring import CannotPublish
from guts.trust.entries import MAX_REFS
from guts.trust.identity_document import RefRule
from tests.support.nodes import Maintainer, RunningNode, World, eventually, no_leftovers
from tests.support.repositories import git

MAIN, DEV = "refs/heads/main", "refs/heads/dev"

Commands = Mapping[str, tuple[ObjectId | None, ObjectId | None]]


async def prepare(
    node: RunningNode, maintainer: Maintainer, commands: Commands, *, head: str | None = None, **flags: bool
) -> dict[str, object]:
    """Take the first step, as the remote helper does: with the pack that git would send."""
    stored = await node.node.repositories.stored(maintainer.repository)
    assert stored is not None
    header: dict[str, object] = {
        "genesis": None,
        "repository": str(maintainer.repository),
        "author": str(maintainer.key.author_id),
        "updates": {ref: [oid and str(oid) for oid in command] for ref, command in commands.items()},
        "head": head,
        **flags,
    }
    news = {new for _, new in commands.values() if new is not None}
    source = await SourceRepository.open(maintainer.path)
    if not news:
        return await node.node.control.prepare(header, nothing())
    async with source.pack(news, list(stored.canonical.values())) as pack:
        return await node.node.control.prepare(header, pack)


async def nothing() -> AsyncIterator[bytes]:
    """Yield no pack."""
    for piece in tuple[bytes, ...]():
        yield piece


async def commit(node: RunningNode, maintainer: Maintainer, prepared: Mapping[str, object]) -> dict[str, object]:
    return await node.node.control.commit(cast(str, prepared["session"]), maintainer.sign(prepared))


async def push(
    node: RunningNode, maintainer: Maintainer, commands: Commands, *, atomic: bool = False
) -> dict[str, object]:
    """Push, and return what was refused."""
    prepared = await prepare(node, maintainer, commands, atomic=atomic)
    if not prepared["unchanged"]:
        await commit(node, maintainer, prepared)
    refused = prepared.get("refused", {})
    assert isinstance(refused, dict)
    return {ref: refusal["reason"] for ref, refusal in refused.items()}


def holds(node: RunningNode, maintainer: Maintainer, oid: ObjectId) -> bool:
    """Tell whether the object is in the node's repository, or in a quarantine of it."""
    bare = node.bare(maintainer.repository)
    here = subprocess.run(["git", "cat-file", "-e", str(oid)], cwd=bare, check=False, capture_output=True)
    return here.returncode == 0 or not no_leftovers(bare)


async def published(world: World) -> tuple[RunningNode, Maintainer]:
    node, maintainer = await world.node("node"), world.maintainer()
    await maintainer.publish(node)
    return node, maintainer


async def test_push_moves_what_it_names_and_nothing_else(world: World) -> None:
    node, replica = await world.node("node"), await world.node("replica")
    maintainer = world.maintainer()
    git(maintainer.path, "branch", "dev")
    git(maintainer.path, "tag", "v1")
    await maintainer.publish(node)
    first = maintainer.tip()
    git(maintainer.path, "branch", "-D", "dev")
    second = maintainer.commit("second")
    assert await push(node, maintainer, {MAIN: (first, second)}) == {}
    expected = {MAIN: second, DEV: first, "refs/tags/v1": first}
    assert await node.has(maintainer.repository, expected), "the copy lacks dev, and that says nothing"
    assert await push(node, maintainer, {"refs/tags/v1": (first, None), "refs/heads/x/y": (None, first)}) == {}
    await replica.seed(maintainer.repository, node.hint)
    assert await replica.has(maintainer.repository, {MAIN: second, DEV: first, "refs/heads/x/y": first})
    await replica.shows_what_it_says(maintainer.repository)
    await node.shows_what_it_says(maintainer.repository)


async def test_replicas_take_a_forced_push_and_a_deletion(world: World) -> None:
    node, replica = await world.node("node"), await world.node("replica")
    maintainer = world.maintainer()
    await maintainer.publish(node)
    await replica.seed(maintainer.repository, node.hint)
    first = maintainer.tip()
    git(maintainer.path, "commit", "-q", "--amend", "-m", "instead")
    assert await push(node, maintainer, {MAIN: (first, maintainer.tip()), DEV: (None, first)}) == {}
    await eventually(lambda: replica.has(maintainer.repository, {MAIN: maintainer.tip(), DEV: first}))
    assert await push(node, maintainer, {DEV: (first, None)}) == {}
    await eventually(lambda: replica.has(maintainer.repository, {MAIN: maintainer.tip()}))


async def test_objects_that_only_refused_refs_reach_are_left_behind(world: World) -> None:
    node, maintainer = await published(world)
    first, second = maintainer.tip(), maintainer.commit("public")
    git(maintainer.path, "switch", "-q", "-c", "secret", str(first))
    secret = maintainer.commit("secret")
    blob = ObjectId(bytes.fromhex(git(maintainer.path, "rev-parse", "secret:secret")))
    commands = {MAIN: (first, second), "refs/guts/x": (None, secret), DEV: (first, secret)}
    refused = await push(node, maintainer, commands)
    assert refused == {"refs/guts/x": "refs/guts/ belongs to the nodes", DEV: "fetch first"}
    assert await node.has(maintainer.repository, {MAIN: second})
    assert not holds(node, maintainer, secret)
    assert not holds(node, maintainer, blob)
    await node.shows_what_it_says(maintainer.repository)


async def test_push_that_is_refused_whole_leaves_nothing(world: World) -> None:
    node, maintainer = await published(world)
    first, second = maintainer.tip(), maintainer.commit("second")
    assert set(await push(node, maintainer, {"refs/guts/x": (None, second)})) == {"refs/guts/x"}
    atomic = {MAIN: (first, second), "refs/guts/x": (None, second)}
    assert set(await push(node, maintainer, atomic, atomic=True)) == set(atomic)
    assert await node.has(maintainer.repository, {MAIN: first})
    assert not holds(node, maintainer, second)


async def test_push_that_was_overtaken_is_prepared_again_without_its_objects(world: World) -> None:
    node, maintainer = await published(world)
    first, second = maintainer.tip(), maintainer.commit("second")
    prepared = await prepare(node, maintainer, {MAIN: (first, second)})
    assert await push(node, maintainer, {DEV: (None, first)}) == {}
    with pytest.raises(Overtaken):
        await commit(node, maintainer, prepared)
    again = await node.node.control.prepare_again(cast(str, prepared["session"]))
    assert "refused" not in again or not again["refused"]
    await commit(node, maintainer, again)
    assert await node.has(maintainer.repository, {MAIN: second, DEV: first})
    await node.shows_what_it_says(maintainer.repository)


async def test_push_whose_ref_was_moved_meanwhile_is_told_to_fetch(world: World) -> None:
    node, maintainer = await published(world)
    first, second = maintainer.tip(), maintainer.commit("second")
    git(maintainer.path, "reset", "-q", "--hard", "HEAD~1")
    third = maintainer.commit("third")
    late = await prepare(node, maintainer, {MAIN: (first, second), DEV: (None, first)})
    assert await push(node, maintainer, {MAIN: (first, third)}) == {}
    with pytest.raises(Overtaken):
        await commit(node, maintainer, late)
    again = await node.node.control.prepare_again(cast(str, late["session"]))
    refused = cast(dict[str, dict[str, str]], again["refused"])
    assert {ref: refusal["reason"] for ref, refusal in refused.items()} == {MAIN: "fetch first"}
    await commit(node, maintainer, again)
    assert await node.has(maintainer.repository, {MAIN: third, DEV: first})
    assert not holds(node, maintainer, second)


async def test_push_that_nobody_signs_is_forgotten_when_told_or_after_a_while(world: World) -> None:
    node = await world.node("node", patience=Patience(signing=0.2, sweep=0.05))
    maintainer = world.maintainer()
    await maintainer.publish(node)
    first, second = maintainer.tip(), maintainer.commit("second")
    prepared = await prepare(node, maintainer, {MAIN: (first, second)})
    await node.node.control.forget(cast(str, prepared["session"]))
    assert not holds(node, maintainer, second)
    with pytest.raises(NoSuchSession):
        await commit(node, maintainer, prepared)
    with pytest.raises(NoSuchSession):
        await node.node.control.prepare_again(cast(str, prepared["session"]))
    await prepare(node, maintainer, {MAIN: (first, second)})
    await eventually(lambda: not holds(node, maintainer, second))
    assert await node.has(maintainer.repository, {MAIN: first})


async def test_branch_that_is_no_commit_is_refused(world: World) -> None:
    node, maintainer = await published(world)
    blob = ObjectId(bytes.fromhex(git(maintainer.path, "hash-object", "-w", "--stdin", data=b"x")))
    git(maintainer.path, "tag", "-a", "-m", "t", "t")
    tag = maintainer.tip("refs/tags/t")
    commands = {DEV: (None, blob), "refs/heads/t": (None, tag), "refs/tags/b": (None, blob)}
    reasons = await push(node, maintainer, commands)
    assert reasons == dict.fromkeys([DEV, "refs/heads/t"], "a branch points at a commit")
    assert (await node.canonical(maintainer.repository))["refs/tags/b"] == blob


async def test_head_moves_where_it_is_asked_for_only(world: World) -> None:
    node, maintainer = await published(world)
    first = maintainer.tip()
    renamed = {"refs/heads/trunk": (None, first), MAIN: (first, None)}
    assert await push(node, maintainer, {MAIN: (first, None)}) == {MAIN: "deletion of the current branch prohibited"}
    prepared = await prepare(node, maintainer, renamed, head="refs/heads/trunk")
    await commit(node, maintainer, prepared)
    assert git(node.bare(maintainer.repository), "symbolic-ref", "HEAD") == "refs/heads/trunk"
    assert await node.has(maintainer.repository, {"refs/heads/trunk": first})


async def test_push_that_is_refused_whole_signs_nothing_and_leaves_head(world: World) -> None:
    node, maintainer = await published(world)
    first, second = maintainer.tip(), maintainer.commit("second")
    before = await node.node.repositories.stored(maintainer.repository)
    wrong: list[tuple[Commands, str]] = [
        ({DEV: (None, second)}, "refs/heads/nope"),
        ({MAIN: (first, None)}, MAIN),
        ({MAIN: (second, first)}, DEV),
        ({DEV: (None, second), "refs/guts/x": (None, second)}, DEV),
    ]
    for commands, head in wrong:
        prepared = await prepare(node, maintainer, commands, head=head, atomic=True)
        assert prepared["unchanged"] is True
        assert set(cast(dict[str, object], prepared["refused"])) == set(commands)
    after = await node.node.repositories.stored(maintainer.repository)
    assert before is not None
    assert after is not None
    assert after.signed_refs == before.signed_refs
    assert git(node.bare(maintainer.repository), "symbolic-ref", "HEAD") == MAIN
    assert not holds(node, maintainer, second)


async def test_missing_objects_refuse_the_push(world: World) -> None:
    node, maintainer = await published(world)
    header: dict[str, object] = {
        "genesis": None,
        "repository": str(maintainer.repository),
        "author": str(maintainer.key.author_id),
        "updates": {MAIN: [str(maintainer.tip()), "12" * 20]},
        "head": None,
    }
    with pytest.raises(BadPublication, match="objects are refused"):
        await node.node.control.prepare(header, nothing())


async def test_record_holds_so_many_refs(world: World) -> None:
    node, maintainer = await published(world)
    first = maintainer.tip()
    many: Commands = {f"refs/heads/b{number}": (None, first) for number in range(MAX_REFS - 1)}
    assert await push(node, maintainer, many) == {}
    with pytest.raises(CannotPublish, match=f"{MAX_REFS + 1} refs"):
        await push(node, maintainer, {DEV: (None, first)})


async def test_protected_ref_of_the_repository_only_moves_forward(world: World) -> None:
    node, maintainer = await published(world)
    document = maintainer.chain.successor(created_ms=1, nonce=bytes(16), rules=(RefRule("main", 1),))
    await node.node.control.apply_identity(maintainer.repository, document.sign(maintainer.key))
    first, second = maintainer.tip(), maintainer.commit("second")
    assert await push(node, maintainer, {MAIN: (first, second), DEV: (None, first)}) == {}
    assert await push(node, maintainer, {MAIN: (second, first)}) == {MAIN: "protected: it only moves forward"}
    # guts publish --force asks the same node.
    git(maintainer.path, "reset", "-q", "--hard", str(first))
    git(maintainer.path, "commit", "-q", "--amend", "-m", "instead")
    with pytest.raises(Protected, match="refs/heads/main is protected"):
        await maintainer.publish(node, MAIN)


async def test_header_that_describes_no_push(world: World) -> None:
    node, maintainer = await published(world)
    good: dict[str, object] = {
        "genesis": None,
        "repository": str(maintainer.repository),
        "author": str(maintainer.key.author_id),
        "updates": {MAIN: [str(maintainer.tip()), None]},
        "head": None,
    }
    for change in (
        {"updates": [MAIN]},
        {"updates": {MAIN: str(maintainer.tip())}},
        {"updates": {MAIN: [None]}},
        {"updates": {MAIN: [None, "zz"]}},
        {"updates": {MAIN: [None, "00" * 19]}},
        {"head": 3},
        {"author": 3},
    ):
        with pytest.raises(BadPublication):
            await node.node.control.prepare({**good, **change}, nothing())
