"""Two maintainers at home on two nodes, three replicas: by the commands alone, in processes of their own."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from guts.cli.local_cluster import LocalCluster
from guts.errors import ExitStatus
from tests.e2e.conftest import Guts, commit
from tests.support.proposals import author_of, sign_elsewhere
from tests.support.repositories import git

ARRIVAL_TIMEOUT = 30.0
MAIN = "refs/heads/main"
REPLICAS = (2, 3, 4)

Node = Callable[[int], Guts]


def author(node: Guts) -> str:
    """Return the author key of a home, made where there is none."""
    shown = node("id", "show", "--json").json["author"]
    value = shown["id"] if isinstance(shown, dict) else node("id", "new", "--json").json["id"]
    assert isinstance(value, str)
    return value


def refs_at(node: Guts, repository: str) -> dict[str, str]:
    refs = node("inspect", repository, "--json").json["canonical_refs"]
    assert isinstance(refs, dict)
    return refs


def bare(node: Guts, repository: str) -> Path:
    return Path(str(node("inspect", repository, "--json").json["path"]))


def settle(node: Node, repository: str, holds: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    """Wait until ``holds`` is true of the refs, and git's files of them are the same bytes on every replica."""
    deadline = time.monotonic() + ARRIVAL_TIMEOUT
    folders = [bare(node(index), repository) for index in REPLICAS]
    while True:
        refs = [refs_at(node(index), repository) for index in REPLICAS]
        files = {((folder / "packed-refs").read_bytes(), (folder / "HEAD").read_bytes()) for folder in folders}
        if all(holds(shown) for shown in refs) and len(files) == 1:
            shown = git(folders[0], "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
            assert dict(line.split(" ") for line in shown) == refs[0]
            return refs[0]
        assert time.monotonic() < deadline, refs
        for index in REPLICAS:
            node(index)("sync", repository, "--timeout", "5")


def fetch(copy: Path, node: Guts, repository: str) -> None:
    """Fetch every ref of a node's replica, conflicts too, as remote branches."""
    git(copy, "fetch", "-q", str(bare(node, repository)), "+refs/heads/*:refs/remotes/guts/*")
    git(copy, "fetch", "-q", str(bare(node, repository)), "+refs/guts/*:refs/guts/*")


@pytest.fixture
def shared(node: Node, work: Path, tmp_path: Path) -> tuple[str, Path, Path]:
    """A repository of two maintainers, with the copy of each; at home on nodes 2 and 3, and on node 4 too."""
    ada, bo = node(2), node(3)
    repository = str(ada("publish", work, "--json").json["repository"])
    for index in (3, 4):
        assert node(index)("seed", repository).status == 0
    copy = tmp_path / "copy"
    assert bo("clone", f"guts://{repository}/tool", copy).status == 0

    refused = bo("publish", copy, "--json")
    assert (refused.status, refused.error["code"]) == (ExitStatus.REFUSED, "NOT_A_MAINTAINER")
    assert "NOT a maintainer" in str(refused.error["message"])
    assert author(bo) in str(refused.error["hint"])

    proposal = tmp_path / "add-bo.json"
    proposed = ada("identity", "propose", "--add", author(bo), repository, proposal, "--json").json
    assert (proposed["missing_consent"], proposed["missing_votes"]) == ([author(bo)], 1)
    assert ada("identity", "sign", proposal).status == 0
    unconsented = ada("identity", "apply", proposal, "--json")
    assert unconsented.error["code"] == "BAD_PROPOSAL"
    assert author(bo) in str(unconsented.error["message"])
    assert bo("identity", "sign", proposal, "--json").json["complete"]
    assert ada("identity", "apply", proposal, "--json").json["epoch"] == 1
    assert ada("identity", "apply", proposal).out.startswith("unchanged")
    deadline = time.monotonic() + ARRIVAL_TIMEOUT
    for index in (3, 4):
        while node(index)("inspect", repository, "--json").json["epoch"] != 1:
            assert time.monotonic() < deadline, "the identity document did not arrive"
    return repository, work, copy


def test_two_maintainers_publish_by_turns_and_at_the_same_time(
    node: Node, cluster: LocalCluster, shared: tuple[str, Path, Path]
) -> None:
    repository, work, copy = shared
    ada, bo = node(2), node(3)
    listed = bo("maintainers", "ls", repository, "--json").json["maintainers"]
    assert isinstance(listed, list)
    assert [(entry["author"], entry["own"]) for entry in listed] == [(author(ada), False), (author(bo), True)]
    assert author(bo) in ada("identity", "show", repository).out

    # By turns: what the other has published first is not lost, and not deleted.
    git(work, "branch", "only-adas")
    assert ada("publish", work).status == 0
    settle(node, repository, lambda refs: "refs/heads/only-adas" in refs)
    tip = commit(copy, "by bo")
    published = bo("publish", copy)
    assert published.status == 0, published.err
    refs = settle(node, repository, lambda refs: refs[MAIN] == tip)
    assert set(refs) == {MAIN, "refs/heads/only-adas", "refs/tags/v1"}
    commit(work, "by ada, behind")
    assert ada("publish", work, "--json").error["code"] == "NON_FAST_FORWARD"
    fetch(work, ada, repository)
    git(work, "merge", "-q", "-m", "merge", "guts/main")
    assert ada("publish", work).status == 0
    tip = git(work, "rev-parse", "HEAD")
    settle(node, repository, lambda refs: refs[MAIN] == tip)
    fetch(copy, bo, repository)
    git(copy, "merge", "-q", "--ff-only", "guts/main")

    # At the same time: neither node hears of the other before both have published.
    cluster.kill(2)
    bos = commit(copy, "bo, apart")
    assert bo("publish", copy).status == 0
    cluster.kill(3)
    cluster.kill(4)
    cluster.start(2)
    adas = commit(work, "ada, apart")
    assert ada("publish", work).status == 0
    cluster.start(3, 4)
    conflict = f"refs/guts/conflict/{author(bo)}/{MAIN}"
    refs = settle(node, repository, lambda refs: conflict in refs)
    assert (refs[MAIN], refs[conflict]) == (adas, bos)
    assert "1 in conflict" in ada("ls").out
    assert f"git fetch guts://{repository} {conflict} && git merge FETCH_HEAD" in ada("inspect", repository).out

    # Who goes on without the other's commit is refused; a merge ends it, on every replica.
    commit(work, "ada goes on")
    assert ada("publish", work, "--json").error["code"] == "NON_FAST_FORWARD"
    fetch(copy, bo, repository)
    git(copy, "merge", "-q", "-m", "both", "guts/main")
    merged = bo("publish", copy)
    assert merged.status == 0, merged.err
    tip = git(copy, "rev-parse", "HEAD")
    refs = settle(node, repository, lambda refs: refs[MAIN] == tip)
    assert set(refs) == {MAIN, "refs/heads/only-adas", "refs/tags/v1"}
    fetch(work, ada, repository)
    git(work, "merge", "-q", "-m", "both", "guts/main")

    # In the same moment, with all connected: whether one hears of the other first or not, nothing is lost.
    tips = {ada: commit(work, "ada, at once"), bo: commit(copy, "bo, at once")}
    with ThreadPoolExecutor(2) as pool:
        runs = dict(
            zip((ada, bo), pool.map(lambda run: run[0]("publish", run[1]), ((ada, work), (bo, copy))), strict=True)
        )
    done = {tips[node] for node, ran in runs.items() if ran.status == 0}
    assert done
    assert all(ran.status in (ExitStatus.OK, ExitStatus.REFUSED) for ran in runs.values()), runs
    refs = settle(node, repository, lambda refs: done <= set(refs.values()))
    assert set(refs) - {MAIN, "refs/heads/only-adas", "refs/tags/v1", conflict} == set()

    # Records that have seen each other are taken in again together where the database is lost.
    assert ada("node", "stop").status == 0
    database = cluster.member(2).home / "data" / "guts.db"
    for file in database.parent.glob("guts.db*"):
        file.unlink()
    cluster.start(2)
    assert refs_at(ada, repository) == refs


def test_second_document_of_an_epoch_and_a_removed_maintainer_are_refused(
    node: Node, shared: tuple[str, Path, Path], tmp_path: Path
) -> None:
    repository, _, copy = shared
    ada, bo = node(2), node(3)
    tip = commit(copy, "by bo")
    assert bo("publish", copy).status == 0
    settle(node, repository, lambda refs: refs[MAIN] == tip)

    remove, other = tmp_path / "remove.json", tmp_path / "other.json"
    assert ada("identity", "propose", "--remove", author(bo), repository, remove).status == 0
    assert ada("identity", "propose", "--name", "another", repository, other).status == 0
    again = ada("identity", "propose", "--name", "third", repository, other, "--json")
    assert again.error["code"] == "BAD_PROPOSAL"
    stranger = node(4)("identity", "sign", other, "--json")
    assert stranger.error["code"] == "BAD_PROPOSAL"
    for maintainer in (ada, bo):
        assert maintainer("identity", "sign", remove).status == 0
        twice = maintainer("identity", "sign", other, "--json")
        assert (twice.status, twice.error["code"]) == (ExitStatus.REFUSED, "ALREADY_SIGNED")
    # Copies of their keys, elsewhere, know nothing of that.
    sign_elsewhere(other, author_of(ada.home), author_of(bo.home))

    late = commit(copy, "by bo, while it is asked to leave")
    assert bo("publish", copy).status == 0
    settle(node, repository, lambda refs: refs[MAIN] == late)
    since = ada("identity", "apply", remove, "--json")
    assert (since.status, since.error["code"]) == (ExitStatus.REFUSED, "PUBLISHED_SINCE")
    assert ada("identity", "apply", "--anyway", remove).status == 0
    settle(node, repository, lambda refs: refs[MAIN] == tip)
    assert "(removed at epoch 2)" in ada("maintainers", "ls", repository).out
    forked = ada("identity", "apply", other, "--json")
    assert (forked.status, forked.error["code"]) == (ExitStatus.REFUSED, "IDENTITY_MOVED")

    deadline = time.monotonic() + ARRIVAL_TIMEOUT
    while bo("inspect", repository, "--json").json["epoch"] != 2:
        assert time.monotonic() < deadline
    commit(copy, "by bo, who has left")
    assert bo("publish", copy, "--json").error["code"] == "NOT_A_MAINTAINER"
    assert settle(node, repository, lambda refs: True)[MAIN] == tip
