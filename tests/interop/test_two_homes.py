"""Two maintainers at two homes, who push the same branch without having heard of each other."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guts.cli.local_cluster import LocalCluster
from tests.e2e.conftest import commit
from tests.interop.conftest import (
    BYSTANDER,
    REPLICAS,
    SETTLE_TIMEOUT,
    USER,
    Home,
    Network,
    Published,
    fsck,
    make_work,
    publish,
)
from tests.support.repositories import git

pytestmark = pytest.mark.interop

MAIN = "refs/heads/main"
HOLDERS = (*REPLICAS, USER, BYSTANDER)


@pytest.fixture
def together(network: Network) -> Iterator[LocalCluster]:
    """The network, of which every node runs again at the end."""
    yield network.cluster
    network.cluster.start()


@pytest.fixture
def shared(network: Network, tmp_path: Path, together: LocalCluster) -> tuple[Published, Home, Path]:
    """A repository of two maintainers, at home on two nodes; with the second one and their clone."""
    ada = publish(network, make_work(tmp_path / "tool"))
    bo = network.home(BYSTANDER)
    made = bo.guts("id", "show", "--json").json["author"] or bo.guts("id", "new", "--json").json
    assert isinstance(made, dict)
    proposal = tmp_path / "add-bo.json"
    assert ada.author.guts("identity", "propose", "--add", made["id"], ada.repository, proposal).status == 0
    assert ada.author.guts("identity", "sign", proposal).status == 0
    assert bo.guts("identity", "sign", proposal).status == 0
    assert ada.author.guts("identity", "apply", proposal).status == 0
    bo.ok(tmp_path, "clone", "-q", ada.url, "bos")
    # A maintainer's first push has the node hold the repository.
    commit(tmp_path / "bos", "by bo")
    bo.ok(tmp_path / "bos", "push", "-q", "origin", "main")
    ada.author.ok(ada.work, "pull", "-q", "--ff-only", "guts", "main")
    return ada, bo, tmp_path / "bos"


def shown(network: Network, index: int, repository: str) -> dict[str, str]:
    listed = git(network.folder(index, repository), "for-each-ref", "--format=%(refname) %(objectname)")
    return dict(line.split(" ") for line in listed.splitlines())


def agreed(network: Network, repository: str, conflicts: int) -> dict[str, str]:
    """Wait until all four holders show the same refs, with so many conflicts."""
    deadline = time.monotonic() + SETTLE_TIMEOUT
    while True:
        states = [shown(network, index, repository) for index in HOLDERS]
        found = sum(ref.startswith("refs/guts/conflict/") for ref in states[0])
        if all(state == states[0] for state in states) and found == conflicts:
            return states[0]
        assert time.monotonic() < deadline, states
        for index in HOLDERS:
            network.home(index).guts("sync", repository, "--timeout", "5")


def test_both_pushes_succeed_and_a_merge_ends_the_conflict(
    network: Network, together: LocalCluster, shared: tuple[Published, Home, Path]
) -> None:
    ada, bo, bos = shared
    for index in (*REPLICAS, BYSTANDER):
        together.kill(index)
    adas_tip = commit(ada.work, "ada, apart")
    told = ada.author.ok(ada.work, "push", "-o", "guts.timeout=1s", "guts", "main").err
    assert "main -> main" in told
    assert "remote: warning: " in told, told
    together.kill(USER)
    together.start(BYSTANDER)
    bos_tip = commit(bos, "bo, apart")
    assert "main -> main" in bo.ok(bos, "push", "-o", "guts.timeout=1s", "origin", "main").err
    together.start()

    refs = agreed(network, ada.repository, conflicts=1)
    # Ada is listed first in the identity.
    (conflict,) = (ref for ref in refs if ref.startswith("refs/guts/conflict/"))
    assert (refs[MAIN], refs[conflict]) == (adas_tip, bos_tip)
    assert conflict.endswith(f"/{MAIN}")

    # Who fetches is told, with the command that brings the other side; it works as it stands there.
    note = next(line for line in ada.author.ok(ada.work, "fetch", "guts").err.splitlines() if "in conflict" in line)
    command = f"git fetch guts {conflict} && git merge FETCH_HEAD"
    assert note == f"guts: in conflict: {MAIN}; {command} puts both together"
    ada.author.ok(ada.work, "fetch", "-q", "guts", conflict)
    assert git(ada.work, "rev-parse", "FETCH_HEAD") == bos_tip
    # A push that leaves the other side out would hide it.
    commit(ada.work, "ada, alone")
    refused = ada.author.git(ada.work, "push", "guts", "main")
    assert refused.status == 1
    assert "! [remote rejected] main -> main (in conflict: merge first" in refused.err, refused.err
    ada.author.ok(ada.work, "fetch", "-q", "guts", conflict)
    ada.author.ok(ada.work, "merge", "-q", "-m", "together", "FETCH_HEAD")
    ada.author.ok(ada.work, "push", "-q", "guts", "main")
    refs = agreed(network, ada.repository, conflicts=0)
    assert refs[MAIN] == git(ada.work, "rev-parse", "main")
    bo.ok(bos, "pull", "-q", "--ff-only")
    assert git(bos, "rev-parse", "main") == refs[MAIN]
    for index in HOLDERS:
        fsck(network.folder(index, ada.repository))
    for copy in (ada.work, bos):
        fsck(copy)
