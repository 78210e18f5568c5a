"""What stock git writes: every way to push, with the author's node running and with none."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import commit
from tests.interop.conftest import BIG_BYTES, Home, Network, Published, fsck, refs_of, tracked
from tests.support.repositories import git

pytestmark = pytest.mark.interop

MAIN = "refs/heads/main"


@pytest.fixture
def clone(mine: Published, tmp_path: Path) -> Path:
    """A clone of what was published, at the author's home, with a remote ``origin``."""
    mine.author.ok(tmp_path, "clone", "-q", mine.url, "clone")
    return tmp_path / "clone"


def remote_refs(mine: Published) -> dict[str, str]:
    """Return the refs that git sees there."""
    shown = mine.author.ok(mine.work, "ls-remote", "--refs", mine.url).out.splitlines()
    return {name: oid for oid, name in (line.split("\t") for line in shown)}


def test_push_of_a_commit_reaches_every_replica(mine: Published) -> None:
    before = git(mine.work, "rev-parse", "--short=7", "main")
    tip = commit(mine.work, "four")
    told = mine.author.ok(mine.work, "push", "guts", "main").err
    assert f"To {mine.url}" in told
    assert f"   {before}..{tip[:7]}  main -> main" in told
    assert re.search(rf"remote: success: ([1-3])/\1 replicas hold {tip[:7]} \(node1", told), told
    assert mine.settle()[MAIN] == tip
    assert remote_refs(mine) == refs_of(mine.work)


def test_push_sends_deltas_of_what_changed(mine: Published) -> None:
    text = "".join(f"line {number}\n" for number in range(20_000))
    (mine.work / "long").write_text(text)
    git(mine.work, "add", "long")
    git(mine.work, "commit", "-q", "-m", "long")
    mine.author.ok(mine.work, "push", "-q", "guts", "main")
    (mine.work / "long").write_text(f"{text}one more\n")
    git(mine.work, "commit", "-q", "-a", "-m", "longer")
    told = mine.author.ok(mine.work, "push", "--progress", "guts", "main").err
    assert "Writing objects: 100% (3/3)" in told
    written = [line for line in told.replace("\r", "\n").splitlines() if "Writing objects: 100%" in line][-1]
    assert " bytes | " in written, written  # less than a KiB, of a file of 228
    mine.settle()


def test_new_branches_tags_and_notes_are_pushed(mine: Published, clone: Path) -> None:
    commit(clone, "branch")
    git(clone, "switch", "-q", "-c", "feature/x")
    git(clone, "tag", "-a", "-m", "two", "v2")
    git(clone, "tag", "light2")
    git(clone, "notes", "add", "-m", "noted")
    mine.author.ok(clone, "push", "-q", "--all")
    mine.author.ok(clone, "push", "-q", "--tags")
    mine.author.ok(clone, "push", "-q", "-f", "origin", "refs/notes/*:refs/notes/*")
    expected = refs_of(mine.work) | refs_of(clone)
    mine.settle(expected)
    assert remote_refs(mine) == expected
    fsck(clone)


@pytest.fixture
def ssh_key(tmp_path: Path) -> Path:
    assert shutil.which("ssh-keygen"), "ssh-keygen signs tags: install openssh-client"
    key = tmp_path / "signer"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    return key


def test_signed_tag_verifies_in_a_clone(network: Network, mine: Published, ssh_key: Path, tmp_path: Path) -> None:
    signing = ("-c", "gpg.format=ssh", "-c", f"user.signingKey={ssh_key}.pub")
    mine.author.ok(mine.work, *signing, "tag", "-s", "-m", "signed", "v3")
    mine.author.ok(mine.work, "push", "-q", "guts", "v3")
    mine.settle()
    reader = network.lone_home()
    reader.ok(tmp_path, "clone", "-q", mine.url, "copy")
    allowed = tmp_path / "allowed"
    allowed.write_text(f"a@example.org {Path(f'{ssh_key}.pub').read_text()}")
    shown = reader.ok(tmp_path / "copy", "-c", f"gpg.ssh.allowedSignersFile={allowed}", "verify-tag", "v3").err
    assert 'Good "git" signature for a@example.org' in shown


def test_force_is_needed_to_lose_commits_and_then_works(mine: Published, clone: Path) -> None:
    git(clone, "reset", "-q", "--hard", "HEAD~1")
    tip = commit(clone, "other")
    refused = mine.author.git(clone, "push", "origin", "main")
    assert refused.status == 1
    assert "! [rejected]        main -> main (non-fast-forward)" in refused.err
    assert remote_refs(mine) == refs_of(mine.work)
    forced = mine.author.ok(clone, "push", "--force", "origin", "main").err
    assert "main -> main (forced update)" in forced
    mine.settle({**refs_of(mine.work), MAIN: tip})


def test_force_with_lease_is_refused_when_the_branch_has_moved(mine: Published, clone: Path) -> None:
    tip = commit(mine.work, "meanwhile")
    mine.author.ok(mine.work, "push", "-q", "guts", "main")
    git(clone, "commit", "-q", "--amend", "-m", "amended")
    refused = mine.author.git(clone, "push", "--force-with-lease", "origin", "main")
    assert refused.status == 1
    assert "! [rejected]        main -> main (stale info)" in refused.err
    mine.settle({**refs_of(mine.work), MAIN: tip})
    mine.author.ok(clone, "fetch", "-q")
    mine.author.ok(clone, "push", "-q", "--force-with-lease", "origin", "main")
    mine.settle({**refs_of(mine.work), MAIN: git(clone, "rev-parse", "main")})


def test_a_push_behind_the_remote_is_told_to_fetch_first(mine: Published, clone: Path) -> None:
    commit(mine.work, "meanwhile")
    mine.author.ok(mine.work, "push", "-q", "guts", "main")
    commit(clone, "mine")
    refused = mine.author.git(clone, "push", "origin", "main")
    assert refused.status == 1
    assert "(fetch first)" in refused.err
    mine.settle()


def test_deletion_is_explicit(mine: Published, clone: Path) -> None:
    git(clone, "branch", "-D", "-r", "origin/topic/side")
    mine.author.ok(clone, "push", "-q", "origin", "main")
    assert "refs/heads/topic/side" in remote_refs(mine)
    told = mine.author.ok(clone, "push", "origin", "--delete", "topic/side", "v1").err
    assert " - [deleted]         topic/side" in told
    expected = {
        name: oid for name, oid in refs_of(mine.work).items() if name not in ("refs/heads/topic/side", "refs/tags/v1")
    }
    mine.settle(expected)
    missing = mine.author.git(clone, "push", "origin", "--delete", "topic/side")
    assert "remote ref does not exist" in missing.err


def test_dry_run_changes_nothing(mine: Published) -> None:
    before = refs_of(mine.work)
    commit(mine.work, "unsent")
    told = mine.author.ok(mine.work, "push", "--dry-run", "guts", "main").err
    assert "main -> main" in told
    mine.settle(before)
    assert remote_refs(mine) == before


def test_atomic_push_with_one_refused_ref_moves_none(mine: Published, clone: Path) -> None:
    commit(clone, "new")
    refused = mine.author.git(clone, "push", "--atomic", "origin", "main", "HEAD:refs/guts/mine")
    assert refused.status == 1
    assert "main -> main (atomic" in refused.err
    mine.settle(refs_of(mine.work))
    partly = mine.author.git(clone, "push", "origin", "main", "HEAD:refs/guts/mine")
    assert partly.status == 1
    assert "! [remote rejected] HEAD -> refs/guts/mine" in partly.err
    mine.settle({**refs_of(mine.work), MAIN: git(clone, "rev-parse", "main")})


def test_push_options_say_how_long_to_wait(mine: Published) -> None:
    tip = commit(mine.work, "one more")
    told = mine.author.ok(mine.work, "push", "-o", "guts.replicas=1", "guts", "main").err
    assert f"replicas hold {tip[:7]}" in told
    commit(mine.work, "and one")
    unasked = mine.author.ok(mine.work, "push", "-o", "guts.no-sync", "guts", "main").err
    assert "replicas hold" not in unasked
    unknown = commit(mine.work, "and another")
    refused = mine.author.git(mine.work, "push", "-o", "guts.replica=1", "guts", "main")
    assert refused.status != 0
    assert "guts.replicas" in refused.err
    assert remote_refs(mine)[MAIN] != unknown
    # What nobody waited for arrives once the author's node runs.
    runs = mine.author.guts("node", "status").status == 0
    assert mine.author.guts("node", "start").status == 0
    git(mine.work, "reset", "-q", "--hard", "HEAD~1")
    mine.settle()
    if not runs:
        assert mine.author.guts("node", "stop").status == 0


def test_default_branch_is_renamed(mine: Published, clone: Path, tmp_path: Path) -> None:
    git(clone, "branch", "-m", "main", "trunk")
    mine.author.ok(clone, "push", "-q", "-o", "guts.head=trunk", "origin", "trunk")
    mine.author.ok(clone, "push", "-q", "origin", "--delete", "main")
    expected = refs_of(mine.work)
    expected["refs/heads/trunk"] = expected.pop(MAIN)
    mine.settle(expected)
    mine.author.ok(tmp_path, "clone", "-q", mine.url, "fresh")
    assert git(tmp_path / "fresh", "symbolic-ref", "HEAD") == "refs/heads/trunk"


def test_mirror_push_makes_the_remote_like_the_copy(mine: Published, tmp_path: Path) -> None:
    mine.author.ok(tmp_path, "clone", "-q", "--mirror", mine.url, "mirror")
    mirror = tmp_path / "mirror"
    git(mirror, "update-ref", "-d", "refs/tags/light")
    git(mirror, "branch", "more", "main~1")
    mine.author.ok(mirror, "push", "-q", "--mirror", mine.url)
    mine.settle(refs_of(mirror))


def test_five_thousand_refs_are_pushed_at_once(mine: Published) -> None:
    tip = git(mine.work, "rev-parse", "main")
    have = len(refs_of(mine.work))
    lines = "".join(f"create refs/heads/b/{number:04} {tip}\n" for number in range(5000 - have))
    git(mine.work, "update-ref", "--stdin", data=lines.encode())
    mine.author.ok(mine.work, "push", "-q", "guts", "--all")
    assert len(mine.settle()) == 5000
    git(mine.work, "branch", "one-too-many")
    refused = mine.author.git(mine.work, "push", "guts", "one-too-many")
    assert refused.status == 1
    assert "5000" in refused.err


def test_blob_of_a_hundred_mebibytes_is_pushed(mine: Published) -> None:
    with (mine.work / "blob").open("wb") as file:
        file.write(os.urandom(BIG_BYTES))
    git(mine.work, "add", "blob")
    git(mine.work, "commit", "-q", "-m", "big")
    mine.author.ok(mine.work, "push", "-q", "-o", "guts.timeout=120s", "guts", "main")
    mine.settle()


def test_who_is_no_maintainer_is_told_so(network: Network, mine: Published, tmp_path: Path) -> None:
    stranger = network.lone_home()
    stranger.ok(tmp_path, "clone", "-q", mine.url, "copy")
    assert stranger.guts("id", "new").status == 0
    commit(tmp_path / "copy", "theirs")
    refused = stranger.git(tmp_path / "copy", "push", "origin", "main")
    assert refused.status != 0
    assert "NOT a maintainer" in refused.err
    assert "guts identity propose --add" in refused.err
    assert tracked(tmp_path / "copy")[MAIN] == refs_of(mine.work)[MAIN]
    mine.settle()


def test_nothing_of_a_refused_push_can_be_fetched(
    mine: Published, clone: Path, tmp_path: Path, network: Network
) -> None:
    tip = commit(clone, "secret")
    refused = mine.author.git(clone, "push", "origin", "HEAD:refs/guts/mine")
    assert refused.status == 1
    for folder in mine.replicas():
        with pytest.raises(subprocess.CalledProcessError):
            git(folder, "cat-file", "-e", tip)
    with pytest.raises(subprocess.CalledProcessError):
        git(mine.author.path / "data" / "repos" / f"{mine.repository}.git", "cat-file", "-e", tip)
    lone: Home = network.lone_home()
    git(tmp_path, "init", "-q", "empty")
    assert lone.git(tmp_path / "empty", "fetch", mine.url, tip).status != 0
