"""The rules of a node's life: one per directory, one per port, its start after damage, its end."""

import asyncio
import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guts.addresses import BootstrapAddress
from guts.effects import Dial, PeerSeen
from guts.errors import ExitStatus
from guts.identity import SigningKey
from guts.ids import RepositoryId
from guts.net.listener import PortBusy
from guts.node.lock import AlreadyRunning
from guts.node.repositories import Repositories
from guts.store.accepted import StoredRepository
from guts.store.migration import SchemaNewer
from guts.wire.messages import GetObjects, Objects, ObjectsStatus
from tests.integration.test_maintainers import adding
from tests.support.bad_peer import BadHolder, BadPeer, Offer, intruder
from tests.support.nodes import NETWORK, Maintainer, RunningNode, World, config_of, eventually, files
from tests.support.repositories import git


async def test_second_node_on_one_directory_is_refused(world: World) -> None:
    node = await world.node("node")
    with pytest.raises(AlreadyRunning, match=str(os.getpid())) as caught:
        await world.node("node")
    assert caught.value.exit_status is ExitStatus.USAGE
    assert node.alive
    await node.stop()
    await node.start()


async def test_port_in_use_is_refused_and_nothing_stays_locked(world: World) -> None:
    node = await world.node("node")
    address = str(node.address)
    with pytest.raises(PortBusy):
        await world.node("other", network__listen_addr=address)
    await node.stop()
    other = await world.node("other", network__listen_addr=address)
    assert str(other.address) == address


async def test_database_of_a_newer_version_is_refused_and_kept(world: World) -> None:
    node = await world.node("node")
    await node.stop()
    database = node.config.paths.database
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = database.read_bytes()
    with pytest.raises(SchemaNewer):
        await node.start()
    assert database.read_bytes() == before


@pytest.mark.parametrize("damage", ["gone", "no HEAD", "no objects"])
async def test_damaged_repository_is_left_out_and_fetched_again(
    world: World, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    publisher, replica = await world.node("publisher"), await world.node("replica")
    lost, whole = world.maintainer("lost"), world.maintainer("whole")
    for maintainer in (lost, whole):
        await maintainer.publish(publisher)
        await replica.seed(maintainer.repository, publisher.hint)
    seq = (await _stored(replica, lost)).signed_refs[0].seq
    await replica.stop()
    bare = replica.bare(lost.repository)
    match damage:
        case "gone":
            shutil.rmtree(bare)
        case "no HEAD":
            (bare / "HEAD").unlink()
        case _:
            shutil.rmtree(bare / "objects")
    await replica.start()
    assert f"guts seed {lost.repository}" in caplog.text
    other = await world.node("other")
    await other.seed(whole.repository, replica.hint)

    await replica.seed(lost.repository, publisher.hint)
    await replica.shows_what_it_says(lost.repository)
    assert (await _stored(replica, lost)).signed_refs[0].seq == seq
    assert list((bare / "guts" / "identity").iterdir())
    assert list((bare / "guts" / "refs").iterdir())
    node = replica.node.repositories
    is_whole = node.is_whole(await node.open(lost.repository), lost.repository)
    assert is_whole == (damage == "gone"), "what is left of a damaged folder is not taken to be complete"
    await replica.stop()
    await replica.start()
    await other.seed(lost.repository, replica.hint)


async def _stored(node: RunningNode, maintainer: Maintainer) -> StoredRepository:
    stored = await node.node.repositories.stored(maintainer.repository)
    assert stored is not None
    return stored


async def test_bug_in_a_worker_ends_the_node_and_does_not_hang_it(world: World) -> None:
    publisher = await world.node("publisher")
    maintainer = world.maintainer()
    await maintainer.publish(publisher)
    replica = await world.node("replica")

    async def bug() -> None:
        raise ZeroDivisionError

    # Writing is under way when it happens, and will not go on.
    for _ in range(100):
        replica.node.control._persistence.keep(PeerSeen(publisher.id, None, b"", (), 0))
    replica.node.control._driver._spawn(bug())
    await eventually(lambda: not replica.alive, 10)
    with pytest.raises(ZeroDivisionError):
        await replica.ended()
    assert git_children() == []
    await replica.start()
    await replica.seed(maintainer.repository, publisher.hint)


def git_children() -> list[str]:
    """Return the git processes that this process has started and that still run."""
    found = subprocess.run(
        ["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False
    )
    return [line for line in found.stdout.splitlines() if line.startswith("git") or "/git" in line]


class Stalls(BadHolder):
    """Sends half a pack, and then nothing."""

    async def answer_objects(self, peer: BadPeer, request: GetObjects) -> None:
        stream = peer.connection.stream(request.stream)
        peer.send(Objects(request.request, ObjectsStatus.PACK_FOLLOWS, 0))
        await stream.write(self.offer.pack[: len(self.offer.pack) // 2])


async def test_stop_in_the_middle_of_a_fetch_is_quick_and_leaves_nothing(world: World) -> None:
    maintainer = world.maintainer()
    maintainer.commit("noise", os.urandom(500_000))
    replica = await world.node("replica")
    holder = Stalls(Offer.honest(maintainer))
    async with holder.listening():
        seeding = asyncio.create_task(replica.seed(maintainer.repository, holder.hint))
        await eventually(lambda: list(replica.repositories.rglob("incoming-*")) != [])
        assert await replica.stop() < 5
        assert list(replica.repositories.iterdir()) == []
        assert git_children() == []
        seeding.cancel()


async def test_stop_in_the_middle_of_a_serve_is_quick_and_leaves_nothing(world: World) -> None:
    node = await world.node("node")
    maintainer = world.maintainer()
    maintainer.commit("noise", os.urandom(6_000_000))
    await maintainer.publish(node)
    before = files(node.repositories)
    async with intruder(node) as peer:
        stream = peer.connection.open_stream()
        peer.send(GetObjects(1, maintainer.repository, stream.id, b"\xff" * 8, "", 1, 0))
        await stream.write(maintainer.tip())
        await stream.end()
        await peer.expect(Objects)
        assert await node.stop() < 5
    assert git_children() == []
    assert files(node.repositories) == before


async def test_dial_that_succeeds_in_the_moment_of_the_stop_is_closed(world: World) -> None:
    node, other = await world.node("node"), await world.node("other")
    driver = node.node.control._driver
    await driver.stop()
    async with asyncio.TaskGroup() as over:
        pass  # no task can be begun in it any more
    driver._tasks, running = over, driver._tasks
    await driver._dial_target(Dial(other.hint))
    driver._tasks = running
    assert not driver._connections
    await eventually(lambda: not other.connected_to(node.id))


async def test_what_a_commit_left_for_later_is_done_at_a_stop_and_nobody_is_waited_for(world: World) -> None:
    node = await world.node("node", seeding__grace="0s")
    maintainer = world.maintainer()
    await maintainer.publish(node)
    maintainer.commit("more")
    await maintainer.prepare(node)
    # It waits for the author, who may take minutes; and all others for it.
    unseeding = asyncio.create_task(node.node.control.seeding.unseed(maintainer.repository))
    await eventually(lambda: len(node.node.repositories.locks(maintainer.repository)._waiting) > 0)
    database = node.config.paths.database
    assert await node.stop() < 5
    assert _projected(database) == [1]
    unseeding.cancel()


async def test_what_is_committed_while_objects_are_listed_is_settled_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing, listed = asyncio.Event(), asyncio.Event()

    async def list_objects(repositories: Repositories, repository: RepositoryId) -> None:
        listing.set()
        await listed.wait()

    monkeypatch.setattr("guts.node.driver.SETTLE_DELAY", 0.0)
    monkeypatch.setattr("guts.node.driver.list_objects", list_objects)
    node = await world.node("node")
    maintainer = world.maintainer()
    await maintainer.publish(node)
    await listing.wait()
    maintainer.commit("more")
    await maintainer.publish(node)
    assert not (await _stored(node, maintainer)).summary.projected
    listed.set()
    await eventually(lambda: node.node.repositories.is_settled(maintainer.repository))
    assert (await _stored(node, maintainer)).summary.projected


async def test_new_maintainers_are_settled_too(world: World) -> None:
    node = await world.node("node")
    maintainer = world.maintainer()
    await maintainer.publish(node)
    await eventually(lambda: node.node.repositories.is_settled(maintainer.repository))
    bo = SigningKey.generate()
    document = adding(maintainer.chain, bo).sign(maintainer.key, bo)
    await node.node.control.apply_identity(maintainer.repository, document)
    assert not (await _stored(node, maintainer)).summary.projected
    await eventually(lambda: node.node.repositories.is_settled(maintainer.repository))
    assert (await _stored(node, maintainer)).summary.projected


def _projected(database: Path) -> list[int]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return [projected for (projected,) in connection.execute("SELECT projected FROM repositories")]


# --- nodes as processes -----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Process:
    """A node that ``guts node run`` runs."""

    home: Path
    process: "subprocess.Popen[bytes]"
    hint: BootstrapAddress

    def guts(self, *arguments: str, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
        """Run a command against it."""
        return guts(self.home, *arguments, timeout=timeout)

    def rss(self, peak: bool = False) -> int:
        """Return the memory that it takes, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        field = "VmHWM:" if peak else "VmRSS:"
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith(field))) * 1024


def environment(home: Path) -> dict[str, str]:
    """Return the environment of the user at ``home``."""
    return {
        "PATH": os.environ["PATH"],
        "GUTS_HOME": str(home),
        "HOME": str(home),
        "GUTS_NETWORK__NETWORK_NAME": NETWORK,
        "GUTS_NETWORK__LISTEN_ADDR": "127.0.0.1:0",
    }


def guts(home: Path, *arguments: str, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
    """Run a command for the user at ``home``."""
    return subprocess.run(
        [sys.executable, "-m", "guts", *arguments],
        check=False,
        env=environment(home),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def launch(home: Path) -> Process:
    """Start a node at ``home`` and return when it listens."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "guts", "node", "run"],
            env=environment(home),
            cwd=Path(__file__).parents[2],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        answer = guts(home, "node", "status", "--json")
        if answer.returncode == 0:
            status = json.loads(answer.stdout)
            return Process(home, process, BootstrapAddress.parse(f"{status['id']}@{status['listen'][0]}"))
    process.kill()
    raise AssertionError((home / "log").read_text())


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """Processes that are killed when the test ends."""
    running: list[Process] = []
    yield running
    for process in running:
        process.process.kill()
        process.process.wait()


async def _killed_while_seeding(
    home: Path, maintainer: Maintainer, hint: BootstrapAddress, after: float | None
) -> None:
    """Start a node at ``home``, have it seed, and kill it ``after`` so many seconds, or once a pack has begun."""
    victim = await asyncio.to_thread(launch, home)
    url = f"guts://{hint.host}:{hint.port}/{maintainer.repository}"
    seeding = asyncio.create_task(asyncio.to_thread(victim.guts, "seed", url))
    if after is None:
        await eventually(lambda: list(home.rglob("incoming-*/pack")) != [])
    else:
        await asyncio.sleep(after)
    victim.process.send_signal(signal.SIGKILL)
    victim.process.wait()
    await seeding


async def test_killed_in_the_middle_of_a_fetch_starts_clean_and_syncs_slow(world: World, tmp_path: Path) -> None:
    publisher = await world.node("publisher")
    maintainer = world.maintainer()
    maintainer.commit("noise", os.urandom(3_000_000))
    home = tmp_path / "replica"
    async with Stalls(Offer.honest(maintainer)).listening() as stalling:
        await _killed_while_seeding(home, maintainer, stalling.hint, None)
    assert list(home.rglob("incoming-*")) != []
    replica = RunningNode(home, config_of(home))
    world.nodes.append(replica)
    await replica.start()
    assert list(replica.repositories.iterdir()) == []
    await replica.stop()
    await maintainer.publish(publisher)
    seed = random.randrange(2**32)
    print("seed", seed)
    # A command takes about a third of a second to begin.
    await _killed_while_seeding(home, maintainer, publisher.hint, random.Random(seed).uniform(0.2, 0.8))
    await replica.start()
    assert list(home.rglob("incoming-*")) == []
    await replica.seed(maintainer.repository, publisher.hint)
    await replica.shows_what_it_says(maintainer.repository)


async def test_second_process_on_one_directory_exits_with_usage(processes: list[Process], tmp_path: Path) -> None:
    node = await asyncio.to_thread(launch, tmp_path / "node")
    processes.append(node)
    again = await asyncio.to_thread(node.guts, "node", "run")
    assert again.returncode == int(ExitStatus.USAGE)
    assert "another node" in again.stderr
    node.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(node.process.wait, 10) == 0


async def test_replication_of_50_mb_keeps_both_nodes_small_slow(processes: list[Process], tmp_path: Path) -> None:
    work = tmp_path / "large"
    work.mkdir()
    git(work, "init", "-q", "-b", "main")
    for number in range(50):
        (work / f"noise {number}").write_bytes(os.urandom(1_000_000))
    git(work, "add", "--all")
    git(work, "commit", "-q", "-m", "50 MB")
    nodes = [await asyncio.to_thread(launch, tmp_path / name) for name in ("publisher", "replica")]
    processes += nodes
    publisher, replica = nodes
    idle = [node.rss() for node in nodes]
    published = await asyncio.to_thread(publisher.guts, "publish", str(work), "--json", timeout=120)
    assert published.returncode == 0, published.stderr
    repository = json.loads(published.stdout)["repository"]
    hint = publisher.hint
    seeded = await asyncio.to_thread(replica.guts, "seed", f"guts://{hint.host}:{hint.port}/{repository}", timeout=120)
    assert seeded.returncode == 0, seeded.stderr
    for name, node, before in zip(("publisher", "replica"), nodes, idle, strict=True):
        grown = node.rss(peak=True) - before
        print(f"{name}: idle {before / 2**20:.0f} MiB, at most {grown / 2**20:.0f} MiB above")
        assert grown < 60 * 2**20
