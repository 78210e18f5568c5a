"""One key at two homes, as after a restore from a backup: by the commands alone, in processes of their own."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from guts.cli.local_cluster import LocalCluster
from guts.errors import ExitStatus
from tests.e2e.conftest import Guts, commit
from tests.e2e.test_maintainers import MAIN, Node, author, refs_at, settle


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30.0
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def splits(node: Guts, repository: str) -> list[dict[str, object]]:
    value = node("inspect", repository, "--json").json["splits"]
    assert isinstance(value, list)
    return value


def test_two_writers_restored_from_one_backup(node: Node, cluster: LocalCluster, work: Path, tmp_path: Path) -> None:
    ada, restored, third = node(2), node(3), node(4)
    repository = str(ada("publish", work, "--json").json["repository"])
    for other in (restored, third):
        assert other("seed", repository).status == 0
    before = refs_at(ada, repository)[MAIN]
    copy = tmp_path / "copy"
    for backup in cluster.member(2).home.rglob("author.key"):
        target = cluster.member(3).home / backup.relative_to(cluster.member(2).home)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(backup, target)
    assert author(restored) == author(ada)
    shutil.copytree(work, copy)

    cluster.kill(3)
    cluster.kill(4)
    commit(work, "at home")
    assert ada("publish", work).status == 0
    cluster.kill(2)
    cluster.start(3)
    right = commit(copy, "on the road")
    assert restored("publish", copy).status == 0
    cluster.start(2, 4)

    # Neither counts, on any of the three; and whoever asks is told why, and what helps.
    settle(node, repository, lambda refs: refs[MAIN] == before)
    eventually(lambda: all(splits(home, repository) for home in (ada, restored, third)))
    settle(node, repository, lambda refs: refs[MAIN] == before)
    key = author(ada)
    helps = f"guts identity reaffirm {key} {repository} FILE"
    for home, path in ((ada, work), (restored, copy)):
        refused = home("publish", path, "--json")
        assert (refused.status, refused.error["code"]) == (ExitStatus.REFUSED, "HISTORY_SPLIT")
        assert helps in str(refused.error["hint"])
    shown = third("inspect", repository).out
    assert "signed two histories" in shown
    assert helps in shown
    listed = third("maintainers", "ls", repository)
    assert "SUSPENDED: two histories" in listed.out
    assert helps in listed.err

    # The one on the road counts: who looked at both says so by its hash.
    (split,) = splits(third, repository)
    records = split["records"]
    assert isinstance(records, list)
    newest = max(records, key=lambda record: int(record["seq"]))
    file = tmp_path / "reaffirm"
    unknown = ada("identity", "reaffirm", "--record", "0000000000", key, repository, file, "--json")
    assert unknown.error["code"] == "BAD_PROPOSAL"
    proposed = ada("identity", "reaffirm", "--record", newest["hash"][:12], key, repository, file)
    goes_on = f"reaffirms {key}, who goes on from its record {newest['hash'][:12]}…"
    assert goes_on in proposed.out, proposed.err
    assert goes_on in restored("identity", "show", file).out
    assert ada("identity", "sign", file).status == 0
    assert ada("identity", "apply", file).status == 0
    settle(node, repository, lambda refs: refs[MAIN] == right)
    assert not splits(third, repository)

    tip = commit(copy, "goes on")
    published = restored("publish", copy)
    assert published.status == 0, published.err
    settle(node, repository, lambda refs: refs[MAIN] == tip)
