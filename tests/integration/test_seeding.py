"""What a node seeds, and why: followed authors, the topic, blocks, quotas, the disk floor, removal."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest
from sqlalchemy import Connection, update

from guts.api.server import control_server
from guts.cli.answer import Answer
from guts.errors import ExitStatus, GutsError
from guts.events import Reason
from guts.git.repository import BareRepository
from guts.ids import AuthorId, ObjectId, RepositoryId
from guts.node.repositories import REMOVED, Removed
from guts.node.seeding import HoldsNone, NotHere
from guts.store import repositories as repository_table
from guts.store import seeding as seeding_table
from guts.store.schema import repositories
from guts.sync.goal import NoProviders, ProvidersUnreachable
from guts.sync.policy import Blocked
from guts.sync.quotas import DiskLow, QuotaExceeded, Space
from tests.integration.test_maintainers import pair
from tests.support.nodes import Maintainer, RunningNode, World, eventually, files

GIB = 1 << 30


def holds(node: RunningNode, repository: RepositoryId) -> bool:
    return node.node.control._service.sync.holds(repository)


def reason(node: RunningNode, repository: RepositoryId) -> Reason:
    return node.node.control._service.sync.policy.reason(repository)


async def told(node: RunningNode, repository: RepositoryId) -> dict[str, object]:
    """Return what the node says of ``repository`` when it is asked why it is there."""
    listed = (await node.node.control.seeding.policy())["repositories"]
    assert isinstance(listed, list)
    return next(one for one in listed if one["id"] == str(repository))


async def rows_of(node: RunningNode, repository: RepositoryId) -> bool:
    """Tell whether the database of ``node`` knows ``repository``."""
    summaries = await node.node.repositories.database.read(repository_table.load_summaries)
    return repository in {summary.id for summary in summaries}


async def published(world: World) -> tuple[RunningNode, Maintainer]:
    publisher, maintainer = await world.node("publisher"), world.maintainer()
    await maintainer.publish(publisher)
    return publisher, maintainer


# --- followed authors and the topic -------------------------------------------------------------------------


async def test_repositories_of_a_followed_author_are_seeded_as_they_are_met(world: World) -> None:
    publisher, maintainer = await published(world)
    stranger = world.maintainer("stranger")
    await stranger.publish(publisher)
    replica = await world.node("replica")
    await replica.node.control.seeding.follow(maintainer.key.author_id)
    await replica.node.control.connect(publisher.hint, 10)
    await eventually(lambda: holds(replica, maintainer.repository))
    assert reason(replica, maintainer.repository) is Reason.OWNER
    assert (await told(replica, maintainer.repository))["owners"] == [str(maintainer.key.author_id)]

    later = world.maintainer("later", maintainer.key)
    await later.publish(publisher)
    await eventually(lambda: holds(replica, later.repository))
    goals = replica.node.control._service.sync.goals
    await eventually(lambda: not any(goal.prospect for goal in goals.values()))
    assert stranger.repository not in goals
    assert not replica.bare(stranger.repository).exists()

    await replica.stop()
    await replica.start()
    assert reason(replica, later.repository) is Reason.OWNER
    answer = await replica.node.control.seeding.unfollow(maintainer.key.author_id)
    stopped = answer["stopped"]
    assert isinstance(stopped, list)
    assert set(stopped) == {str(maintainer.repository), str(later.repository)}
    assert not holds(replica, later.repository)


async def test_author_who_is_followed_later_is_found_at_connected_peers(world: World) -> None:
    publisher, maintainer = await published(world)
    replica = await world.node("replica")
    await replica.node.control.connect(publisher.hint, 10)
    await eventually(lambda: bool(replica.node.control._service.peers.subscribers(maintainer.repository)))
    await replica.node.control.seeding.follow(maintainer.key.author_id)
    await eventually(lambda: holds(replica, maintainer.repository))


async def test_topic_takes_what_is_announced_as_far_as_there_is_place(world: World) -> None:
    publisher = await world.node("publisher")
    replica = await world.node("replica", seeding__repositories="true", seeding__max_repositories="1")
    await replica.node.control.connect(publisher.hint, 10)
    first, second = world.maintainer("first"), world.maintainer("second")
    await first.publish(publisher)
    await eventually(lambda: holds(replica, first.repository))
    assert (await told(replica, first.repository))["reason"] == "topic"
    await second.publish(publisher)
    policy = replica.node.control._service.sync.policy
    await eventually(lambda: policy.refused == 1)
    assert second.repository not in replica.node.control._service.sync.goals

    # What was asked for explicitly needs no place, and makes none.
    await replica.seed(second.repository, publisher.hint)
    assert policy.taken == 1
    await replica.seed(first.repository)
    assert (policy.taken, reason(replica, first.repository)) == (0, Reason.EXPLICIT)


async def test_what_is_not_taken_is_listed_with_why_and_what_helps(world: World) -> None:
    """Of followed authors: too large, maintained by who is blocked too; of the topic: no place; nothing of others."""
    publisher = await world.node("publisher")
    followed = world.maintainer("followed")
    large = world.maintainer("large", followed.key)
    large.commit("noise", os.urandom(300_000))
    stranger = world.maintainer("stranger")
    stranger.commit("noise", os.urandom(300_000))
    for maintainer in (followed, large, stranger):
        await maintainer.publish(publisher)
    replica = await world.node("replica", seeding__repo_max="200kB")
    seeding = replica.node.control.seeding
    await seeding.follow(followed.key.author_id)
    await replica.node.control.connect(publisher.hint, 10)
    await eventually(lambda: holds(replica, followed.repository))
    refusals = replica.node.control._service.sync.policy.refusals
    await eventually(lambda: bool(list(refusals)))
    assert [refusal.repository for refusal in refusals] == [large.repository]

    # Nothing newer of what is here is taken either.
    followed.commit("noise", os.urandom(300_000))
    await followed.publish(publisher)
    await eventually(lambda: len(list(refusals)) == 2)
    lines, answer = await _seeding(replica)
    told = answer["refusals"]
    assert isinstance(told, list)
    assert [(one["repository"], one["reason"], one["error"], one["owners"]) for one in told] == [
        (str(repository), "owner", "QUOTA", [str(followed.key.author_id)])
        for repository in (followed.repository, large.repository)
    ]
    shown = lines[lines.index("NOT TAKEN") + 1 :]
    assert [line.partition(" ")[0] for line in shown[::3]] == [str(followed.repository), str(large.repository)]
    assert "who is followed" in shown[3]
    assert "seeding.repo_max allows" in shown[4]
    assert shown[5].startswith('  hint: repo_max = "1MiB" or more under [seeding]')

    await seeding.unfollow(followed.key.author_id)
    assert (await _seeding(replica))[1]["refusals"] == []


async def test_repository_of_a_followed_author_and_of_one_who_is_blocked_is_listed(world: World) -> None:
    publisher = await world.node("publisher")
    first, second = await pair(publisher, world)
    replica = await world.node("replica")
    await replica.node.control.seeding.block(second.key.author_id, purge=False)
    await replica.node.control.seeding.follow(first.key.author_id)
    await replica.node.control.connect(publisher.hint, 10)
    refusals = replica.node.control._service.sync.policy.refusals
    await eventually(lambda: bool(list(refusals)))
    lines, _ = await _seeding(replica)
    assert lines[-1] == f"  hint: guts unblock {second.key.author_id}"
    assert "is blocked on this node" in lines[-2]


async def test_what_is_announced_where_there_is_no_place_is_listed_until_it_is_seeded(world: World) -> None:
    publisher = await world.node("publisher")
    replica = await world.node("replica", seeding__repositories="true", seeding__max_repositories="0")
    await replica.node.control.connect(publisher.hint, 10)
    maintainer = world.maintainer()
    await maintainer.publish(publisher)
    refusals = replica.node.control._service.sync.policy.refusals
    await eventually(lambda: bool(list(refusals)))
    lines, _ = await _seeding(replica)
    assert "announced by anybody" in lines[-3]
    assert lines[-2] == "  as many repositories are here by policy as seeding.max_repositories allows"
    assert lines[-1].startswith(f"  hint: guts seed {maintainer.repository}, ")
    await replica.seed(maintainer.repository, publisher.hint)
    assert (await _seeding(replica))[1]["refusals"] == []


async def test_what_the_disk_floor_keeps_out_is_listed(world: World) -> None:
    publisher, maintainer = await published(world)
    replica = await world.node("replica", space=lambda path: Space(GIB - 1, 100 * GIB), seeding__min_free="1GiB")
    await replica.node.control.seeding.follow(maintainer.key.author_id)
    await replica.node.control.connect(publisher.hint, 10)
    refusals = replica.node.control._service.sync.policy.refusals
    await eventually(lambda: bool(list(refusals)))
    (refusal,) = refusals
    assert (refusal.repository, refusal.error.code) == (maintainer.repository, "DISK_LOW")


async def _seeding(node: RunningNode) -> tuple[list[str], dict[str, object]]:
    """Return what ``guts seeding`` prints, and with ``--json``."""
    shown = []
    async with control_server(node.node.control, node.config.paths.control_socket):
        for flags in ([], ["--json"]):
            command = [sys.executable, "-m", "guts", "seeding", *flags]
            environ = {**os.environ, "GUTS_HOME": str(node.home)}
            ran = await asyncio.to_thread(
                subprocess.run, command, env=environ, capture_output=True, text=True, check=True
            )
            shown.append(ran.stdout)
    return shown[0].splitlines(), json.loads(shown[1])


async def test_what_was_unseeded_does_not_come_back_by_itself(world: World) -> None:
    publisher, maintainer = await published(world)
    replica = await world.node("replica")
    await replica.node.control.seeding.follow(maintainer.key.author_id)
    await replica.node.control.connect(publisher.hint, 10)
    await eventually(lambda: holds(replica, maintainer.repository))
    await replica.node.control.seeding.unseed(maintainer.repository, at_once=True)
    await replica.stop()
    await replica.start()
    await replica.node.control.seeding.follow(maintainer.key.author_id)
    await replica.node.control.connect(publisher.hint, 10)
    other = world.maintainer("other", maintainer.key)
    await other.publish(publisher)
    await eventually(lambda: holds(replica, other.repository))
    assert maintainer.repository not in replica.node.control._service.sync.goals
    await replica.seed(maintainer.repository, publisher.hint)
    assert reason(replica, maintainer.repository) is Reason.EXPLICIT


async def test_pack_is_kept_no_longer_than_its_repository(world: World) -> None:
    publisher, maintainer = await published(world)
    replica = await world.node("replica")
    await replica.seed(maintainer.repository, publisher.hint)
    packs = publisher.node.control.seeding._driver.transfers._packs
    assert packs.kept_bytes > 0
    await publisher.node.control.seeding.unseed(maintainer.repository, at_once=True)
    assert packs.kept_bytes == 0


async def test_what_was_unseeded_while_it_was_going_does_not_come_back(world: World) -> None:
    publisher, maintainer = await published(world)
    replica = await world.node("replica")
    seeding = replica.node.control.seeding
    await seeding.follow(maintainer.key.author_id)
    await replica.node.control.connect(publisher.hint, 10)
    await eventually(lambda: holds(replica, maintainer.repository))
    await seeding.unfollow(maintainer.key.author_id)
    assert not holds(replica, maintainer.repository)
    await seeding.unseed(maintainer.repository)
    await seeding.follow(maintainer.key.author_id)
    other = world.maintainer("other", maintainer.key)
    await other.publish(publisher)
    await eventually(lambda: holds(replica, other.repository))
    assert not holds(replica, maintainer.repository)
    assert (await seeding.policy())["declined"] == [str(maintainer.repository)]


async def test_repository_whose_folder_is_gone_is_told_as_lost_until_it_is_seeded_again(world: World) -> None:
    publisher, maintainer = await published(world)
    replica = await world.node("replica")
    await replica.seed(maintainer.repository, publisher.hint)
    folder = replica.node.repositories.path(maintainer.repository)
    await replica.stop()
    shutil.rmtree(folder)
    await replica.start()
    [listed] = await replica.node.control.repositories()
    assert listed["state"] == "lost"
    assert (await told(replica, maintainer.repository))["lost"] is True
    seeding = replica.node.control.seeding
    assert (await seeding.seed(maintainer.repository, [publisher.hint], 30.0))["copied"] is True
    [listed] = await replica.node.control.repositories()
    assert listed["state"] == "synced"
    assert (await told(replica, maintainer.repository))["lost"] is False


async def test_bootstrap_node_seeds_nothing(world: World) -> None:
    door = await world.node("door", network__role="bootstrap", seeding__repositories="true")
    publisher, maintainer = await world.node("publisher"), world.maintainer()
    await publisher.node.control.connect(door.hint, 10)
    await maintainer.publish(publisher)
    with pytest.raises(HoldsNone):
        await door.node.control.seeding.follow(maintainer.key.author_id)
    assert not door.node.control._service.sync.policy.takes_more
    assert door.node.control._service.sync.goals == {}


# --- removal ------------------------------------------------------------------------------------------------


async def test_unseeded_repository_goes_after_the_grace_time(world: World) -> None:
    publisher, maintainer = await published(world)
    replica = await world.node("replica", seeding__grace="100ms")
    await replica.seed(maintainer.repository, publisher.hint)
    assert replica.node.repositories.sizes[maintainer.repository] > 0
    await replica.node.control.seeding.unseed(maintainer.repository)
    await eventually(lambda: not replica.bare(maintainer.repository).exists())
    await eventually(lambda: maintainer.repository not in replica.node.repositories.sizes)
    assert not await rows_of(replica, maintainer.repository)
    await eventually(lambda: list(replica.repositories.iterdir()) == [])


async def test_what_is_gone_is_not_offered_again_to_who_wants_it_gone(world: World) -> None:
    node, maintainer = await published(world)
    await node.node.control.seeding.unseed(maintainer.repository, at_once=True)
    with pytest.raises(NotHere) as refused:
        await node.node.control.seeding.unseed(maintainer.repository, at_once=True)
    assert refused.value.hint is not None
    assert "guts seed" not in refused.value.hint


async def test_repository_that_is_seeded_again_in_time_is_kept(world: World) -> None:
    publisher, maintainer = await published(world)
    replica = await world.node("replica")
    await replica.seed(maintainer.repository, publisher.hint)
    answer = await replica.node.control.seeding.unseed(maintainer.repository)
    left = answer["removed_in_s"]
    assert isinstance(left, float)
    assert 86_390 < left <= 86_400
    await publisher.stop()
    await replica.stop()
    await replica.start()
    # Also after a restart, and without anybody to ask.
    assert (await told(replica, maintainer.repository))["removed_in_s"] is not None
    await replica.seed(maintainer.repository)
    assert (await told(replica, maintainer.repository))["removed_in_s"] is None
    rows = await replica.node.repositories.database.read(seeding_table.load)
    assert rows == []


async def test_grace_time_that_ends_while_the_node_is_stopped_is_over_at_the_start(world: World) -> None:
    publisher, maintainer = await published(world)
    replica = await world.node("replica", seeding__grace="300ms")
    await replica.seed(maintainer.repository, publisher.hint)
    await replica.node.control.seeding.unseed(maintainer.repository)
    await replica.stop()
    await asyncio.sleep(0.3)
    assert replica.bare(maintainer.repository).exists()
    await replica.start()
    await eventually(lambda: not replica.bare(maintainer.repository).exists())


async def test_removal_ends_the_fetch_that_runs(world: World) -> None:
    publisher, maintainer = await published(world)
    maintainer.commit("large", os.urandom(20_000_000))
    await maintainer.publish(publisher)
    replica = await world.node("replica")
    seeding = asyncio.create_task(replica.seed(maintainer.repository, publisher.hint))
    await eventually(lambda: bool(replica.node.repositories._scopes.get(maintainer.repository)))
    await replica.node.control.seeding.unseed(maintainer.repository, at_once=True)
    with pytest.raises(GutsError, match="no longer seeded"):
        await seeding
    await eventually(lambda: not replica.node.control._service.sync.fetches.running)
    assert list(replica.repositories.iterdir()) == []
    assert await replica.reasons(publisher.id) == []


async def test_removal_ends_what_holds_the_repository(world: World) -> None:
    publisher, maintainer = await published(world)
    entered = asyncio.Event()

    async def serve() -> None:
        async with publisher.node.repositories.holding(maintainer.repository):
            entered.set()
            await asyncio.sleep(60)

    serving = asyncio.create_task(serve())
    await entered.wait()
    answer = await publisher.node.control.seeding.unseed(maintainer.repository, at_once=True)
    assert answer["removed"] is True
    with pytest.raises(Removed):
        await serving


# --- E4 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["repository", "author"])
async def test_e4_blocked_repository_is_gone_from_disk_database_and_dht_and_stays_away(world: World, by: str) -> None:
    door = await world.node("door", network__role="bootstrap")
    publisher, maintainer = await world.node("publisher", doors=(door.hint,)), world.maintainer()
    await maintainer.publish(publisher)
    replica = await world.node("replica", doors=(door.hint,), seeding__repositories="true")
    await replica.seed(maintainer.repository, publisher.hint)

    async def provided() -> bool:
        answer = await door.node.control.find_providers(maintainer.repository, 5)
        assert isinstance(answer["providers"], list)
        return str(replica.id) in {provider["peer"] for provider in answer["providers"]}

    async def withdrawn() -> bool:
        return not await provided()

    await eventually(provided)
    blocked = maintainer.repository if by == "repository" else maintainer.key.author_id
    begun = asyncio.get_running_loop().time()
    answer = await replica.node.control.seeding.block(blocked, purge=True)
    assert answer["repositories"] == [{"repository": str(maintainer.repository), "removed": True, "removed_in_s": None}]
    assert list(replica.repositories.iterdir()) == []
    assert not await rows_of(replica, maintainer.repository)
    await eventually(withdrawn, timeout=60)
    assert asyncio.get_running_loop().time() - begun < 60

    # Not asked for by name, not on the topic, not from the holder, not after a restart.
    with pytest.raises(Blocked):
        await replica.seed(maintainer.repository, publisher.hint)
    await replica.stop()
    await replica.start()
    await replica.node.control.connect(publisher.hint, 10)
    with pytest.raises(Blocked):
        await replica.seed(maintainer.repository, publisher.hint)
    maintainer.commit("more")
    await maintainer.publish(publisher)
    other = world.maintainer("other")
    await other.publish(publisher)
    await eventually(lambda: holds(replica, other.repository))
    assert not replica.bare(maintainer.repository).exists()

    await replica.node.control.seeding.unblock(blocked)
    await replica.seed(maintainer.repository, publisher.hint)
    assert await replica.has(maintainer.repository, maintainer.refs())


class Dripping:
    """Holds back the packs of every node of this process after their first bytes, until it is told to let them go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        whole = BareRepository.pack

        async def slowly(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            async for chunk in chunks:
                yield chunk[:16]
                self.begun.set()
                await self.go_on.wait()
                yield chunk[16:]

        @contextlib.asynccontextmanager
        async def pack(
            bare: BareRepository, wants: Collection[ObjectId], haves: Collection[ObjectId] = ()
        ) -> AsyncIterator[AsyncIterator[bytes]]:
            async with whole(bare, wants, haves) as chunks:
                yield slowly(chunks)

        monkeypatch.setattr(BareRepository, "pack", pack)


async def _dripped_prospect(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> tuple[RunningNode, RepositoryId, AuthorId, Dripping]:
    """Return a node that follows an author and is receiving a repository of his, which does not go on."""
    publisher, maintainer = await published(world)
    dripping = Dripping(monkeypatch)
    replica = await world.node("replica")
    await replica.node.control.seeding.follow(maintainer.key.author_id)
    await replica.node.control.connect(publisher.hint, 10)
    await dripping.begun.wait()
    return replica, maintainer.repository, maintainer.key.author_id, dripping


@pytest.mark.parametrize("by", ["block", "unfollow"])
async def test_e4_block_or_unfollow_of_an_author_ends_transfers_that_run(
    world: World, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    replica, repository, author, _ = await _dripped_prospect(world, monkeypatch)
    if by == "block":
        await replica.node.control.seeding.block(author, purge=False)
    else:
        await replica.node.control.seeding.unfollow(author)
    # The pack has not gone on, and does not.
    await eventually(lambda: not replica.node.control._service.sync.fetches.running, timeout=5)
    assert repository not in replica.node.control._service.sync.goals
    assert list(replica.repositories.iterdir()) == []
    assert not await rows_of(replica, repository)


async def test_e4_what_is_blocked_when_all_of_it_has_come_is_not_committed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica, repository, author, dripping = await _dripped_prospect(world, monkeypatch)
    service = replica.node.control._service
    # As after the transfer had left the part that can be broken off.
    service.sync.policy.block(author)
    dripping.go_on.set()
    await eventually(lambda: not service.sync.fetches.running)
    assert repository not in service.sync.goals
    assert list(replica.repositories.iterdir()) == []
    assert not await rows_of(replica, repository)


async def test_e4_blocked_repository_is_not_served_while_its_files_are_still_here(world: World) -> None:
    publisher, maintainer = await published(world)
    replica = await world.node("replica")
    await replica.seed(maintainer.repository, publisher.hint)
    await replica.node.control.seeding.block(maintainer.repository, purge=False)
    assert replica.bare(maintainer.repository).exists()
    asker = await world.node("asker")
    with pytest.raises((NoProviders, ProvidersUnreachable)):
        await asker.seed(maintainer.repository, replica.hint)


@pytest.mark.parametrize("by", ["repository", "author"])
@pytest.mark.parametrize("known", [False, True])
async def test_blocked_repository_is_not_published_and_leaves_nothing(world: World, by: str, known: bool) -> None:
    node, maintainer = await world.node("node"), world.maintainer()
    if known:
        await maintainer.publish(node)
    who = maintainer.repository if by == "repository" else maintainer.key.author_id
    await node.node.control.seeding.block(who, purge=False)
    maintainer.commit("more")
    before = files(node.repositories)
    with pytest.raises(Blocked) as refused:
        await maintainer.prepare(node)
    assert refused.value.exit_status == ExitStatus.REFUSED
    assert files(node.repositories) == before


async def test_what_is_blocked_before_its_signature_comes_is_not_committed(world: World) -> None:
    node, maintainer = await world.node("node"), world.maintainer()
    prepared = await maintainer.prepare(node)
    await node.node.control.seeding.block(maintainer.key.author_id, purge=False)
    with pytest.raises(Blocked):
        await node.node.control.commit(str(prepared["session"]), maintainer.sign(prepared))
    assert await node.node.repositories.stored(maintainer.repository) is None


@pytest.mark.parametrize("why", [Reason.EXPLICIT, Reason.OWNER])
@pytest.mark.parametrize("by", ["repository", "author"])
async def test_what_is_unblocked_in_time_is_seeded_as_before(world: World, why: Reason, by: str) -> None:
    publisher, maintainer = await published(world)
    replica = await world.node("replica")
    seeding = replica.node.control.seeding
    if why is Reason.OWNER:
        await seeding.follow(maintainer.key.author_id)
        await replica.node.control.connect(publisher.hint, 10)
        await eventually(lambda: holds(replica, maintainer.repository))
    else:
        await replica.seed(maintainer.repository, publisher.hint)
    # Nobody else has it: what is here is taken back, and not fetched again.
    await publisher.stop()
    who = maintainer.repository if by == "repository" else maintainer.key.author_id
    await seeding.block(who, purge=False)
    assert (await told(replica, maintainer.repository))["removed_in_s"] is not None
    await replica.stop()
    await replica.start()
    seeding = replica.node.control.seeding
    assert (await seeding.unblock(who))["repositories"] == [str(maintainer.repository)]
    await eventually(lambda: holds(replica, maintainer.repository))
    assert reason(replica, maintainer.repository) is why
    assert (await told(replica, maintainer.repository))["removed_in_s"] is None
    assert seeding._removals.due(maintainer.repository) is None


async def test_what_was_unseeded_does_not_come_back_by_the_end_of_a_block(world: World) -> None:
    node, maintainer = await published(world)
    seeding = node.node.control.seeding
    await seeding.unseed(maintainer.repository)
    await seeding.block(maintainer.repository, purge=False)
    assert (await seeding.unblock(maintainer.repository))["repositories"] == []
    assert not holds(node, maintainer.repository)


# --- E3 -----------------------------------------------------------------------------------------------------


async def test_e3_quota_refuses_what_is_too_much_and_nothing_else(world: World) -> None:
    publisher = await world.node("publisher")
    small, large = world.maintainer("small"), world.maintainer("large")
    large.commit("noise", os.urandom(3_000_000))
    await small.publish(publisher)
    await large.publish(publisher)
    replica = await world.node("replica", seeding__disk="2MB")
    await replica.seed(small.repository, publisher.hint)
    with pytest.raises(QuotaExceeded) as refused:
        await replica.seed(large.repository, publisher.hint)
    assert (refused.value.limit, refused.value.value, refused.value.claimed) == ("seeding.disk", 2_000_000, True)
    assert refused.value.hint is not None
    assert 'MiB" or more under [seeding] in config.toml' in refused.value.hint
    assert not replica.bare(large.repository).exists()
    assert await replica.reasons(publisher.id) == []

    small.commit("more")
    await small.publish(publisher)
    await eventually(lambda: replica.has(small.repository, small.refs()))


@pytest.mark.parametrize("limit", ["repo_max", "disk"])
async def test_e3_holder_that_claims_too_little_is_cut_off_where_the_limit_is(world: World, limit: str) -> None:
    publisher, maintainer = await world.node("publisher"), world.maintainer()
    maintainer.commit("noise", os.urandom(3_000_000))
    await maintainer.publish(publisher)
    await publisher.node.repositories.database.write(_claim, maintainer.repository, 1)
    low = {"repo_max": "2GiB", "disk": "50GiB", limit: "1MB"}
    replica = await world.node("replica", seeding__repo_max=low["repo_max"], seeding__disk=low["disk"])
    with pytest.raises(QuotaExceeded) as refused:
        await replica.seed(maintainer.repository, publisher.hint)
    assert (refused.value.limit, refused.value.claimed) == (f"seeding.{limit}", False)
    assert list(replica.repositories.iterdir()) == []
    assert replica.node.control.seeding.disk()["used_bytes"] == 0
    assert await replica.reasons(publisher.id) == []


def _claim(connection: Connection, repository: RepositoryId, size: int) -> None:
    connection.execute(update(repositories).where(repositories.c.id == repository).values(size=size))


async def test_dry_run_tells_the_size_and_what_would_be_left_and_fetches_nothing(world: World) -> None:
    publisher, maintainer = await published(world)
    size = publisher.node.repositories.sizes[maintainer.repository]
    replica = await world.node("replica", space=lambda path: Space(10 * GIB, 100 * GIB), seeding__min_free="1GiB")
    answer = await replica.node.control.seeding.dry_run(maintainer.repository, [publisher.hint], 10)
    assert answer == {
        "repository": str(maintainer.repository),
        "here": False,
        "size_bytes": size,
        "claimed": True,
        "sources": 1,
        "free_bytes": 10 * GIB,
        "free_after_bytes": 10 * GIB - size,
        "used_bytes": 0,
        "used_after_bytes": size,
        "disk_bytes": 50 * GIB,
        "allowed": True,
        "refusal": None,
        "hint": None,
    }
    assert list(replica.repositories.iterdir()) == []
    await replica.seed(maintainer.repository, publisher.hint)
    here = await replica.node.control.seeding.dry_run(maintainer.repository, [], 10)
    assert (here["here"], here["claimed"], here["free_after_bytes"]) == (True, False, 10 * GIB)

    # No quota is in the way of what is here, and ``seed`` says so too: nothing has to be fetched.
    answer = await publisher.node.control.seeding.seed(maintainer.repository, [], 10)
    assert answer["copied"] is False
    full = await world.node("full", seeding__disk="0")
    own = world.maintainer("own")
    await own.publish(full)
    assert (await full.node.control.seeding.dry_run(own.repository, [], 10))["allowed"] is True
    assert (await full.node.control.seeding.seed(own.repository, [], 10))["copied"] is False

    strict = await world.node("strict", seeding__repo_max=str(size - 1))
    answer = await strict.node.control.seeding.dry_run(maintainer.repository, [publisher.hint], 10)
    assert answer["allowed"] is False
    assert "seeding.repo_max" in str(answer["refusal"])


async def test_dry_run_of_what_lets_go_tells_what_would_go_and_changes_nothing(world: World) -> None:
    node = await world.node("node", space=lambda path: Space(10 * GIB, 100 * GIB))
    maintainer, other = world.maintainer("one"), world.maintainer("other")
    for each in (maintainer, other):
        await each.publish(node)
    control, sizes = node.node.control.seeding, dict(node.node.repositories.sizes)
    size = sizes[maintainer.repository]
    left = {
        "free_bytes": 10 * GIB,
        "free_after_bytes": 10 * GIB + size,
        "used_bytes": sum(sizes.values()),
        "used_after_bytes": sizes[other.repository],
        "disk_bytes": 50 * GIB,
    }
    grace = node.config.seeding.grace
    before = await control.policy()
    for at_once in (False, True):
        going = {
            "repository": str(maintainer.repository),
            "size_bytes": size,
            "removed_in_s": 0.0 if at_once else grace,
        }
        gone = {"repositories": [going], **left}
        assert await control.unseed(maintainer.repository, at_once=at_once, dry_run=True) == gone
        for who in (maintainer.repository, maintainer.key.author_id):
            answer = await control.block(who, purge=at_once, dry_run=True)
            assert answer == {"blocked": str(who), "new": True, **gone}
    same = {"free_after_bytes": 10 * GIB, "used_after_bytes": sum(sizes.values())}
    followed = await control.follow(other.key.author_id, dry_run=True)
    assert followed == {"author": str(other.key.author_id), "new": True, **left, **same}
    with pytest.raises(NotHere):
        await control.unseed(RepositoryId(bytes(32)), dry_run=True)
    assert await control.policy() == before

    await control.block(maintainer.key.author_id, purge=False)
    answer = await control.unblock(maintainer.key.author_id, dry_run=True)
    assert (answer["was_blocked"], answer["repositories"]) == (True, [str(maintainer.repository)])
    assert Answer.of(await control.policy()).objects("blocked")[0].text("id") == str(maintainer.key.author_id)
    # What goes already goes no later.
    answer = await control.unseed(maintainer.repository, dry_run=True)
    assert Answer.of(answer).objects("repositories")[0].seconds("removed_in_s") <= grace
    assert node.node.repositories.sizes == sizes


async def test_dry_run_of_several_judges_them_together_and_adds_up(world: World) -> None:
    """As ``guts seed`` would take them: what is allowed counts for the next, and what is not takes nothing."""
    publisher = await world.node("publisher")
    maintainers = [world.maintainer(name) for name in ("one", "large", "two", "three")]
    for maintainer, noise in zip(maintainers, (400_000, 900_000, 300_000, 400_000), strict=True):
        maintainer.commit("noise", os.urandom(noise))
        await maintainer.publish(publisher)
    sizes = [publisher.node.repositories.sizes[maintainer.repository] for maintainer in maintainers]
    one, large, two, three = sizes
    disk = one + two + three - 1
    space = Space(10 * GIB, 100 * GIB)
    replica = await world.node("replica", space=lambda path: space, seeding__min_free="1GiB", seeding__disk=str(disk))
    async with control_server(replica.node.control, replica.config.paths.control_socket):
        ids = [str(maintainer.repository) for maintainer in maintainers]
        shown = {}
        for flag in ("--json", "--"):
            # The first is named twice, and counts once.
            command = [sys.executable, "-m", "guts", "seed", "--dry-run", "--from", str(publisher.hint), flag]
            environ = {**os.environ, "GUTS_HOME": str(replica.home)}
            ran = await asyncio.to_thread(
                subprocess.run, [*command, ids[0], *ids], env=environ, capture_output=True, text=True, check=False
            )
            assert ran.returncode == ExitStatus.QUOTA, ran.stderr
            shown[flag] = ran.stdout
    answer = json.loads(shown["--json"])
    assert [told["allowed"] for told in answer["seeded"]] == [True, False, True, False]
    assert [told["used_after_bytes"] for told in answer["seeded"]] == [one, one + large, one + two, one + two + three]
    assert answer["seeded"][3]["refusal"].startswith("with 6")
    assert answer["total"] == {
        "asked": 4,
        "allowed": 2,
        "size_bytes": one + two,
        "untold": 0,
        "free_after_bytes": 10 * GIB - one - two,
        "used_after_bytes": one + two,
    }
    assert "together      2 of 4 allowed, " in shown["--"]
    assert list(replica.repositories.iterdir()) == []
    # And so it is: the third one that fits by itself does not fit with the others.
    await replica.seed(maintainers[0].repository, publisher.hint)
    await replica.seed(maintainers[2].repository, publisher.hint)
    with pytest.raises(QuotaExceeded):
        await replica.seed(maintainers[3].repository, publisher.hint)


# --- the disk floor -----------------------------------------------------------------------------------------


async def test_node_below_its_disk_floor_fetches_nothing_serves_on_and_recovers(world: World) -> None:
    free = [10 * GIB]

    def space(path: Path) -> Space:
        return Space(free[0], 100 * GIB)

    publisher, maintainer = await published(world)
    replica = await world.node("replica", space=space, seeding__min_free="1GiB")
    await replica.seed(maintainer.repository, publisher.hint)
    free[0] = GIB - 1
    assert replica.node.control.seeding.disk()["low"] is True
    other = world.maintainer("other")
    await other.publish(publisher)
    with pytest.raises(DiskLow, match="are to stay free"):
        await replica.seed(other.repository, publisher.hint)
    assert await replica.reasons(publisher.id) == []
    assert replica.connected_to(publisher.id)
    asker = await world.node("asker")
    await asker.seed(maintainer.repository, replica.hint)

    free[0] = GIB + publisher.node.repositories.sizes[other.repository]
    await replica.seed(other.repository, publisher.hint)
    assert replica.node.control.seeding.disk()["low"] is False


async def test_nothing_is_published_below_the_disk_floor(world: World) -> None:
    free = [GIB - 1]
    node = await world.node("node", space=lambda path: Space(free[0], 100 * GIB), seeding__min_free="1GiB")
    maintainer = world.maintainer()
    with pytest.raises(DiskLow) as refused:
        await maintainer.publish(node)
    assert refused.value.exit_status == ExitStatus.QUOTA
    assert list(node.repositories.iterdir()) == []
    free[0] = GIB
    await maintainer.publish(node)
    assert holds(node, maintainer.repository)


async def test_fetch_that_would_go_below_the_floor_is_broken_off(world: World) -> None:
    publisher, maintainer = await world.node("publisher"), world.maintainer()
    maintainer.commit("noise", os.urandom(12_000_000))
    await maintainer.publish(publisher)
    looks = []

    def space(path: Path) -> Space:
        looks.append(path)
        return Space(GIB if len(looks) == 1 else GIB - 1, 100 * GIB)

    await publisher.node.repositories.database.write(_claim, maintainer.repository, 0)
    replica = await world.node("replica", space=space, seeding__min_free="1GiB")
    looks.clear()
    with pytest.raises(DiskLow):
        await replica.seed(maintainer.repository, publisher.hint)
    assert len(looks) == 2
    assert list(replica.repositories.iterdir()) == []


def test_names_of_folders_that_are_going_are_no_names_of_repositories() -> None:
    assert not REMOVED.endswith(".git")
