"""The two steps of publishing, on a real node: what is prepared, signed, refused, forced, forgotten."""

import asyncio
import base64
import subprocess
from typing import cast

import pytest

from guts.git.source import SourceRepository
from guts.identity import SigningKey
from guts.node.drafts import BadPublication
from guts.node.limits import Patience
from guts.node.moves import NonFastForward
from guts.node.publishing import MAX_SESSIONS, NoRoom, NoSuchSession, Overtaken
from guts.trust.authoring import CannotPublish
from guts.trust.signed_refs import SignedRefs
from tests.support.nodes import Maintainer, RunningNode, World, eventually, files, no_leftovers
from tests.support.repositories import git

MAIN = "refs/heads/main"


async def newest(node: RunningNode, maintainer: Maintainer) -> SignedRefs:
    """Return the record that ``node`` holds."""
    stored = await node.node.repositories.stored(maintainer.repository)
    assert stored is not None
    (row,) = stored.signed_refs
    return SignedRefs.decode(row.header, row.entries)


async def test_branches_and_annotated_tags_are_published(world: World) -> None:
    node, replica = await world.node("node"), await world.node("replica")
    maintainer = world.maintainer()
    git(maintainer.path, "branch", "topic")
    git(maintainer.path, "tag", "-a", "-m", "one", "v1")
    git(maintainer.path, "tag", "light")
    result = await maintainer.publish(node)
    assert result["refs"] == 4
    await node.shows_what_it_says(maintainer.repository)
    await replica.seed(maintainer.repository, node.hint)
    assert await replica.canonical(maintainer.repository) == maintainer.refs()
    await replica.shows_what_it_says(maintainer.repository)
    bare = replica.bare(maintainer.repository)
    assert git(bare, "cat-file", "-t", "refs/tags/v1") == "tag"
    assert git(bare, "rev-parse", "refs/tags/v1^{}") == str(maintainer.tip())


async def test_second_publish_without_news_changes_nothing(world: World) -> None:
    node = await world.node("node")
    maintainer = world.maintainer()
    await maintainer.publish(node)
    before = files(node.repositories)
    assert await maintainer.publish(node) == {"unchanged": True, "seq": 0}
    assert files(node.repositories) == before


async def test_publication_from_a_clone_with_one_branch_deletes_none_of_the_others(world: World) -> None:
    """Its author published them from another copy."""
    node = await world.node("node")
    maintainer = world.maintainer()
    git(maintainer.path, "branch", "topic")
    git(maintainer.path, "tag", "v1")
    await maintainer.publish(node)
    before = maintainer.refs()
    git(maintainer.path, "branch", "-D", "topic")
    git(maintainer.path, "tag", "-d", "v1")
    tip = maintainer.commit("second")
    await maintainer.publish(node)
    assert await node.canonical(maintainer.repository) == before | {MAIN: tip}
    await node.shows_what_it_says(maintainer.repository)


async def test_deleted_branch_is_a_tombstone_that_travels(world: World) -> None:
    node, replica = await world.node("node"), await world.node("replica")
    maintainer = world.maintainer()
    git(maintainer.path, "branch", "topic")
    await maintainer.publish(node)
    await replica.seed(maintainer.repository, node.hint)
    assert "refs/heads/topic" in await replica.canonical(maintainer.repository)
    git(maintainer.path, "branch", "-D", "topic")
    await maintainer.publish(node, prune=True)
    await eventually(lambda: replica.has(maintainer.repository, maintainer.refs()))
    await replica.shows_what_it_says(maintainer.repository)


async def test_lost_commits_need_force_and_are_marked(world: World) -> None:
    node, replica = await world.node("node"), await world.node("replica")
    maintainer = world.maintainer()
    maintainer.commit("second")
    await maintainer.publish(node)
    await replica.seed(maintainer.repository, node.hint)
    git(maintainer.path, "reset", "-q", "--hard", "HEAD~1")
    maintainer.commit("another second")
    before = files(node.repositories)
    with pytest.raises(NonFastForward, match="main"):
        await maintainer.publish(node)
    assert files(node.repositories) == before
    assert (await newest(node, maintainer)).entries.refs[MAIN].forced == 0

    await maintainer.publish(node, MAIN)
    record = await newest(node, maintainer)
    assert record.entries.refs[MAIN].forced == record.seq
    await eventually(lambda: replica.has(maintainer.repository, maintainer.refs()))
    await replica.shows_what_it_says(maintainer.repository)


async def test_tag_that_is_published_moves_by_force_alone(world: World) -> None:
    node, replica = await world.node("node"), await world.node("replica")
    maintainer = world.maintainer()
    git(maintainer.path, "tag", "v1")
    await maintainer.publish(node)
    await replica.seed(maintainer.repository, node.hint)
    maintainer.commit("second")
    git(maintainer.path, "tag", "-f", "v1")
    with pytest.raises(NonFastForward, match="refs/tags/v1: published already") as refused:
        await maintainer.publish(node)
    assert refused.value.hint is not None
    url, folder = f"guts://{maintainer.repository}", str(node.bare(maintainer.repository))
    fetch = refused.value.hint.partition(",")[0].replace(url, folder)
    await maintainer.publish(node, "refs/tags/v1")
    await eventually(lambda: replica.has(maintainer.repository, maintainer.refs()))
    git(maintainer.path, "tag", "-f", "v1", "HEAD~1")
    assert subprocess.run(fetch.split(), cwd=maintainer.path, capture_output=True, check=True)
    assert maintainer.tip("v1") == maintainer.tip()


async def test_head_stays_on_its_branch_until_that_is_gone_or_another_is_asked_for(world: World) -> None:
    node = await world.node("node")
    maintainer = world.maintainer()

    async def head() -> str | None:
        await maintainer.publish(node)
        await node.shows_what_it_says(maintainer.repository)
        stored = await node.node.repositories.stored(maintainer.repository)
        assert stored is not None
        return stored.summary.head

    assert await head() == MAIN
    git(maintainer.path, "switch", "-q", "-c", "topic")
    maintainer.commit("on a topic")
    assert await head() == MAIN
    prepared = await maintainer.prepare(node, move_head=True)
    await node.node.control.commit(str(prepared["session"]), maintainer.sign(prepared))
    assert await head() == "refs/heads/topic"
    git(maintainer.path, "switch", "-q", "main")
    assert await head() == "refs/heads/topic"
    git(maintainer.path, "branch", "-q", "-D", "topic")
    assert await head() == "refs/heads/topic"
    await maintainer.publish(node, prune=True)
    assert await head() == MAIN


async def test_many_refs_travel_though_their_record_is_too_large_for_gossip(world: World) -> None:
    node = await world.node("node")
    replica = await world.node("replica", seeding__sync_interval="1h")
    maintainer = world.maintainer()
    for number in range(400):
        git(maintainer.path, "update-ref", f"refs/heads/branch-{number}", "HEAD")
    await maintainer.publish(node)
    await replica.seed(maintainer.repository, node.hint)
    assert await replica.canonical(maintainer.repository) == maintainer.refs()
    maintainer.commit("second")
    await maintainer.publish(node)
    await eventually(lambda: replica.has(maintainer.repository, maintainer.refs()))


async def test_signature_of_somebody_else_is_refused(world: World) -> None:
    node = await world.node("node")
    maintainer = world.maintainer()
    before = files(node.repositories)
    prepared = await maintainer.prepare(node)
    session = cast(str, prepared["session"])
    maintainer.key, key = SigningKey.generate(), maintainer.key
    with pytest.raises(BadPublication):
        await node.node.control.commit(session, maintainer.sign(prepared))
    maintainer.key = key
    with pytest.raises(NoSuchSession):
        await node.node.control.commit(session, maintainer.sign(prepared))
    assert files(node.repositories) == before
    await maintainer.publish(node)


async def test_author_who_is_no_maintainer_is_refused(world: World) -> None:
    node = await world.node("node")
    maintainer = world.maintainer()
    await maintainer.publish(node)
    maintainer.commit("second")
    maintainer.key = SigningKey.generate()
    before = files(node.repositories)
    with pytest.raises(CannotPublish):
        await maintainer.publish(node)
    assert files(node.repositories) == before


async def test_session_that_nobody_signs_is_forgotten(world: World) -> None:
    node = await world.node("node", patience=Patience(signing=0.3, sweep=0.1))
    maintainer = world.maintainer()
    before = files(node.repositories)
    prepared = await maintainer.prepare(node)
    assert files(node.repositories) != before
    await eventually(lambda: files(node.repositories) == before)
    with pytest.raises(NoSuchSession):
        await node.node.control.commit(cast(str, prepared["session"]), maintainer.sign(prepared))
    await maintainer.publish(node)
    await node.shows_what_it_says(maintainer.repository)


async def test_as_many_sessions_as_allowed_and_no_more(world: World) -> None:
    node = await world.node("node")
    maintainer = world.maintainer()
    await maintainer.publish(node)
    maintainer.commit("second")
    outcomes = await asyncio.wait_for(_all(maintainer, node, MAX_SESSIONS + 1), 60)
    refused = [outcome for outcome in outcomes if isinstance(outcome, NoRoom)]
    assert len(refused) == 1
    assert len(node.node.control._publishing._sessions) == MAX_SESSIONS

    sessions = [outcome for outcome in outcomes if isinstance(outcome, dict)]
    first, second = sessions[:2]
    await node.node.control.commit(first["session"], maintainer.sign(first))
    # What was prepared beside it is too late, and says so; nothing of it is left.
    with pytest.raises(Overtaken):
        await node.node.control.commit(second["session"], maintainer.sign(second))
    await node.stop()
    assert no_leftovers(node.repositories)


async def _all(maintainer: Maintainer, node: RunningNode, count: int) -> list[object]:
    async def one() -> object:
        try:
            return await maintainer.prepare(node)
        except NoRoom as error:
            return error

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(one()) for _ in range(count)]
    return [task.result() for task in running]


@pytest.mark.parametrize("too_much", [0, 1])
async def test_own_publication_past_repo_max_is_taken_and_told(world: World, too_much: int) -> None:
    maintainer, other = world.maintainer(), await world.node("other")
    await maintainer.publish(other)
    size = other.node.repositories.sizes[maintainer.repository]
    node = await world.node("node", seeding__repo_max=str(size - too_much))
    warnings = (await maintainer.publish(node))["warnings"]
    assert isinstance(warnings, list)
    assert [warning["limit"] for warning in warnings] == ["seeding.repo_max"] * too_much


async def test_restart_forgets_what_was_not_signed(world: World) -> None:
    node = await world.node("node")
    maintainer = world.maintainer()
    prepared = await maintainer.prepare(node)
    await node.stop()
    assert list(node.repositories.iterdir()) == []
    await node.start()
    with pytest.raises(NoSuchSession):
        await node.node.control.commit(cast(str, prepared["session"]), maintainer.sign(prepared))
    await maintainer.publish(node)


async def test_header_that_describes_no_publication(world: World) -> None:
    node = await world.node("node")
    maintainer = world.maintainer()

    async def nothing() -> None:
        source = await SourceRepository.open(maintainer.path)
        async with source.pack(set(maintainer.refs().values())) as pack:
            await node.node.control.prepare(header, pack)

    good: dict[str, object] = {
        "genesis": base64.b64encode(maintainer.genesis).decode(),
        "repository": str(maintainer.repository),
        "author": str(maintainer.key.author_id),
        "refs": {MAIN: str(maintainer.tip())},
        "head": MAIN,
        "force": [],
    }
    changes: list[dict[str, object]] = [
        {"genesis": None},
        {"genesis": "%%%"},
        {"genesis": base64.b64encode(b"x").decode()},
        {"genesis": base64.b64encode(world.maintainer("other").genesis).decode()},
        {"refs": {MAIN: "zz"}},
        {"refs": {MAIN: "00" * 20}},
        {"refs": {"refs/pull/1": str(maintainer.tip())}},
        {"refs": []},
    ]
    for change in changes:
        header = {**good, **change}
        print(change)
        with pytest.raises((BadPublication, CannotPublish)):
            await nothing()
        assert list(node.repositories.iterdir()) == [], change
