"""A repository travels: published on one node, found, replicated, cloned, followed; by the commands alone."""

import time
from collections.abc import Callable
from pathlib import Path

from guts.cli.local_cluster import LocalCluster
from guts.errors import ExitStatus
from guts.ids import RepositoryId
from tests.e2e.conftest import Guts, commit
from tests.support.repositories import git

ARRIVAL_TIMEOUT = 20.0
NOBODYS = RepositoryId(bytes(32))

Node = Callable[[int], Guts]


def published(node: Guts, work: Path) -> str:
    repository = node("publish", work, "--json").json["repository"]
    assert isinstance(repository, str)
    return repository


def tip_at(node: Guts, repository: str) -> object:
    refs = node("inspect", repository, "--json").json["canonical_refs"]
    assert isinstance(refs, dict)
    return refs["refs/heads/main"]


def wait_for(node: Guts, repository: str, tip: str) -> None:
    deadline = time.monotonic() + ARRIVAL_TIMEOUT
    while tip_at(node, repository) != tip:
        assert time.monotonic() < deadline, f"{tip} did not arrive"
        time.sleep(0.05)


def test_replica_finds_copies_follows_and_forgets(node: Node, work: Path) -> None:
    publisher, replica = node(2), node(3)
    repository = published(publisher, work)
    assert replica("dht", "find-repo", repository).status == 0
    seeded = replica("seed", repository)
    assert seeded.status == 0, seeded.err
    assert tip_at(replica, repository) == git(work, "rev-parse", "HEAD")

    tip = commit(work, "three")
    assert publisher("publish", work, "--json").json["repository"] == repository
    wait_for(replica, repository, tip)
    assert publisher("publish", work).out.startswith("unchanged")

    listed = replica("ls")
    assert "tool" in listed.out
    assert replica("sync").status == 0
    assert replica("peer", "ls").out.count("\n") >= 2
    # It stays for a while, in case that was a slip; again is no error, and now is now.
    assert replica("unseed", repository).status == 0
    assert replica("unseed", repository, "--json").status == 0
    assert replica("unseed", repository, "--now").status == 0
    assert replica("unseed", repository, "--json").error["code"] == "NOT_SEEDED"


def test_seed_by_address_needs_no_dht(node: Node, cluster: LocalCluster, work: Path) -> None:
    repository = published(node(2), work)
    url = f"guts://127.0.0.1:{cluster.member(2).port}/{repository}/tool"
    assert node(3)("seed", url).status == 0
    assert tip_at(node(3), repository) == git(work, "rev-parse", "HEAD")


def test_clone_is_verified_and_needs_no_node(node: Node, cluster: LocalCluster, work: Path, tmp_path: Path) -> None:
    repository = published(node(2), work)
    stranger = Guts(tmp_path / "stranger", GUTS_NETWORK__NETWORK_NAME=network_of(cluster))
    url = f"guts://127.0.0.1:{cluster.member(2).port}/{repository}/copy"
    ran = stranger("clone", url, "--json", cwd=tmp_path)

    assert ran.status == 0, ran.err
    copy = tmp_path / "copy"
    assert git(copy, "rev-parse", "HEAD", "v1") == git(work, "rev-parse", "HEAD", "v1")
    assert git(copy, "status", "--porcelain") == ""
    assert git(copy, "remote", "get-url", "origin") == url
    again = stranger("clone", url, cwd=tmp_path)
    assert again.status == ExitStatus.USAGE


def test_clone_through_the_dht_needs_only_a_door(node: Node, cluster: LocalCluster, work: Path, tmp_path: Path) -> None:
    repository = published(node(2), work)
    stranger = Guts(
        tmp_path / "stranger",
        GUTS_NETWORK__NETWORK_NAME=network_of(cluster),
        GUTS_NETWORK__BOOTSTRAP_NODES=cluster.member(1).address,
    )
    ran = stranger("clone", f"guts://{repository}", tmp_path / "copy", "--json")
    assert ran.status == 0, ran.err
    assert git(tmp_path / "copy", "rev-parse", "HEAD") == git(work, "rev-parse", "HEAD")


def test_clone_finds_its_way_by_the_running_node(node: Node, cluster: LocalCluster, work: Path, tmp_path: Path) -> None:
    repository = published(node(2), work)
    stranger = Guts(tmp_path / "stranger")
    flags = ("--listen", "127.0.0.1:0", "--bootstrap", cluster.member(1).address, "--network-name", network_of(cluster))
    assert stranger("node", "start", *flags).status == 0
    try:
        ran = stranger("clone", f"guts://{repository}", tmp_path / "copy", "--json")
    finally:
        assert stranger("node", "stop").status == 0
    assert ran.status == 0, ran.err
    assert git(tmp_path / "copy", "rev-parse", "HEAD") == git(work, "rev-parse", "HEAD")


def test_repository_that_nobody_has_is_named(node: Node) -> None:
    ran = node(3)("seed", NOBODYS, "--timeout", "20", "--json")

    assert (ran.status, ran.error["code"]) == (ExitStatus.NOT_FOUND, "NO_PROVIDERS")
    assert str(NOBODYS) in str(ran.error["message"])
    assert str(NOBODYS) not in node(3)("ls", "--json").out
    assert node(3)("dht", "find-repo", NOBODYS).status == ExitStatus.NOT_FOUND


def test_door_holds_no_repository(node: Node, work: Path) -> None:
    for command in ("publish", work), ("seed", NOBODYS):
        ran = node(1)(*command, "--json")
        assert (ran.status, ran.error["code"]) == (ExitStatus.REFUSED, "HOLDS_NONE")
    assert node(1)("ls", "--json").out.strip() == "[]"
    assert git(work, "remote") == ""


def test_providers_that_are_gone_are_named(node: Node, cluster: LocalCluster, work: Path) -> None:
    repository = published(node(2), work)
    assert node(4)("dht", "find-repo", repository).status == 0
    cluster.kill(2)
    try:
        ran = node(3)("seed", repository, "--timeout", "30", "--json")
    finally:
        cluster.start(2)

    assert ran.error["code"] == "PROVIDERS_UNREACHABLE"
    assert node(3)("node", "status").status == 0


def test_peer_connect_names_what_went_wrong(node: Node, cluster: LocalCluster) -> None:
    address = cluster.member(3).address
    wrong = f"{cluster.member(4).node_id}@127.0.0.1:{cluster.member(3).port}"

    assert node(2)("peer", "connect", address, "--json").json["peer"] == cluster.member(3).node_id
    assert node(4)("peer", "connect", wrong).status != 0
    nobody = node(2)("peer", "connect", "127.0.0.1:1", "--json")
    assert "127.0.0.1:1" in str(nobody.error["message"])
    for index in (2, 3, 4):
        assert node(index)("node", "status").status == 0


def test_rewritten_history_needs_force(node: Node, work: Path) -> None:
    repository = published(node(2), work)
    git(work, "commit", "-q", "--amend", "-m", "other words")
    refused = node(2)("publish", work, "--json")

    assert (refused.status, refused.error["code"]) == (ExitStatus.REFUSED, "NON_FAST_FORWARD")
    assert node(2)("publish", work, "--force").status == 0
    assert tip_at(node(2), repository) == git(work, "rev-parse", "HEAD")


def test_new_branch_at_an_old_commit_needs_no_objects(node: Node, work: Path) -> None:
    repository = published(node(2), work)
    git(work, "branch", "old", "HEAD~1")
    ran = node(2)("publish", work, "--json")

    assert ran.status == 0, ran.err
    refs = node(2)("inspect", repository, "--json").json["canonical_refs"]
    assert isinstance(refs, dict)
    assert refs["refs/heads/old"] == git(work, "rev-parse", "HEAD~1")


def test_head_is_moved_by_name_alone(node: Node, work: Path) -> None:
    assert node(2)("publish", work).status == 0
    git(work, "switch", "-q", "-c", "topic")
    commit(work, "on a topic")
    published = node(2)("publish", work, "--json").json
    assert node(2)("inspect", published["repository"], "--json").json["head"] == "refs/heads/main"
    missing = node(2)("publish", work, "--head", "tpoic")
    assert missing.status == ExitStatus.USAGE
    assert "no branch 'tpoic'" in missing.err
    assert node(2)("publish", work, "--head", "topic").status == 0
    assert node(2)("inspect", published["repository"], "--json").json["head"] == "refs/heads/topic"


def test_branch_that_is_not_here_goes_away_where_that_was_asked_for(node: Node, work: Path) -> None:
    git(work, "branch", "gone")
    repository = published(node(2), work)
    git(work, "branch", "-q", "-D", "gone")
    rest = {"refs/heads/main", "refs/tags/v1"}
    for options, expected in (((), {*rest, "refs/heads/gone"}), (("--prune",), rest)):
        assert node(2)("publish", work, *options).status == 0
        refs = node(2)("inspect", repository, "--json").json["canonical_refs"]
        assert isinstance(refs, dict)
        assert set(refs) == expected


def network_of(cluster: LocalCluster) -> str:
    text = (cluster.member(1).home / "config.toml").read_text()
    return text.partition('network_name = "')[2].partition('"')[0]
