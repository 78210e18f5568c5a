"""Twenty real nodes, 50 ms from each other: how fast a push is everywhere, and what a partition leaves behind.

Nothing here fails because the machine is slow: times are printed (docs/benchmarks.md has them), but for the minute that
a healed network has.
"""

import shutil
import time
from pathlib import Path

import pytest

from guts.cli.answer import answers
from tests.benchmarks import network as benchmarks
from tests.benchmarks.arrival import new_tip, prepared
from tests.benchmarks.figure import Figure, show
from tests.support.repositories import git, make_repository
from tests.wan.conftest import DELAY
from tests.wan.network import DOOR, WanNetwork, eventually, has

pytestmark = pytest.mark.wan

PUBLISHER = 1
PUSHES = 10
OBJECTS = 300
HEAL_SECONDS = 60.0
MAIN = "refs/heads/main"


@pytest.mark.parametrize("followers", [18, 4])
def test_push_reaches_every_replica(network: WanNetwork, tmp_path: Path, followers: int) -> None:
    """With four replicas the machine has processors enough; with eighteen they wait for those, not for the network."""
    source = make_repository(tmp_path / "source.git", OBJECTS, seed=followers)
    repository = network.guts(PUBLISHER, "publish", str(source)).text("repository")
    others = [number for number in network.replicas if number != PUBLISHER][:followers]
    network.seed(repository, others)
    assert network.agree(repository, [PUBLISHER, *others])
    network.wait_quiet()

    times: list[float] = []
    last: list[float] = []
    work: list[float] = []
    sent: list[float] = []
    for push in range(PUSHES):
        tip = new_tip(source, push)
        commit, body = prepared(network.members[PUBLISHER], source, repository)
        used, before = network.wait_quiet(), network.wan.counts()["bytes"]
        start = time.time()
        benchmarks.control(network.members[PUBLISHER]).send("POST", commit, body)
        network.await_line(repository, others, f"{tip} {MAIN}")
        arrivals = [1000 * (network.shown_at(number, repository) - start) for number in others]
        times += arrivals
        last.append(max(arrivals))
        work.append(network.wait_quiet() - used)
        sent.append((network.wan.counts()["bytes"] - before) / 2**10)
    show(
        [
            Figure(f"push to {followers} replicas", "ms", times, 1000 * (3 * DELAY + 0.15), "at most", 0),
            Figure("the same, the last of them", "ms", last, 1000, "at most", 0),
            Figure("processor time of all nodes per push", "s", work, 2, "at most", 2),
            Figure("bytes on the WAN per push", "KiB", sent, 100, "at most", 0),
        ]
    )
    assert network.agree(repository, [PUBLISHER, *others])


def test_partition_heals_within_a_minute(network: WanNetwork, tmp_path: Path) -> None:
    """Two maintainers push on either side: afterwards all show the same, with the conflict, and nothing is lost."""
    ada, bo = 2, 11
    left, right = range(10), range(10, len(network.members))
    source = make_repository(tmp_path / "ada.git", OBJECTS, seed=4)
    repository = network.guts(ada, "publish", str(source)).text("repository")
    network.seed(repository, [number for number in network.replicas if number != ada])
    _share(network, repository, ada, bo, tmp_path / "proposal.json")
    copy = _copy(source, tmp_path / "bo.git")
    network.wait_quiet()

    network.wan.partition(left, right)
    mine = [_push(network, ada, source, number, "left") for number in range(5)]
    theirs = [_push(network, bo, copy, number, "right") for number in range(5, 10)]
    for side, tips in ((left, mine), (right, theirs)):
        network.await_line(repository, [number for number in side if number != DOOR], f"{tips[-1]} {MAIN}")
    # Every connection across is given up before it heals, so that what follows has to dial.
    eventually(lambda: _crossing(network, left, right) == 0, "connections across the partition stay open")

    network.wan.heal()
    seconds = eventually(lambda: _healed(network, repository, mine[-1], theirs[-1]), "the two sides do not agree")
    show([Figure("partition healed: the same refs everywhere", "s", [seconds], HEAL_SECONDS, "at most", 1)])
    for number in network.replicas:
        bare = network.bare(number, repository)
        refs = network.refs(number, repository)
        assert f"{mine[-1]} {MAIN}\n" in refs  # who is listed first
        assert f"{theirs[-1]} refs/guts/conflict/" in refs
        assert all(has(bare, tip) for tip in [*mine, *theirs])
        for branch in ("left", "right"):
            assert f" refs/heads/{branch}\n" in refs
    assert seconds < HEAL_SECONDS


def _healed(network: WanNetwork, repository: str, mine: str, theirs: str) -> bool:
    shown = network.refs(PUBLISHER, repository)
    return mine in shown and theirs in shown and network.agree(repository, network.replicas)


def _crossing(network: WanNetwork, left: range, right: range) -> int:
    """Return how many connections the nodes of one side have to the other."""
    others = {network.members[number].node_id for number in right}
    found = [answers(benchmarks.control(network.members[number]).get("/v1/peers")) for number in left]
    return sum(peer.text("peer") in others for peers in found for peer in peers)


def _share(network: WanNetwork, repository: str, ada: int, bo: int, proposal: Path) -> None:
    """Make the person at ``bo`` a maintainer too, and wait until every replica knows."""
    author = network.guts(bo, "id", "new").text("id")
    network.guts(ada, "identity", "propose", "--add", author, repository, str(proposal))
    for number in (ada, bo):
        network.guts(number, "identity", "sign", str(proposal))
    network.guts(ada, "identity", "apply", str(proposal))
    eventually(
        lambda: all(network.epoch(number, repository) == 1 for number in network.replicas),
        "not every node hears of the second maintainer",
    )


def _copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def _push(network: WanNetwork, number: int, source: Path, count: int, branch: str) -> str:
    """Commit, and publish the default branch and another one; return the commit."""
    tip = new_tip(source, count)
    git(source, "update-ref", f"refs/heads/{branch}", tip)
    network.guts(number, "publish", str(source))
    return tip
