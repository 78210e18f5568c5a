"""Stock git pushes to real nodes: what it prints, how it ends, and what is left then."""

import asyncio
import contextlib
import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from guts.clock import Now
from guts.errors import DiskFull
from guts.git.inspection import Inspection
from guts.git.quarantine import Quarantine
from guts.identity import SigningKey
from guts.ids import ObjectId, RepositoryId
from guts.keystore import KdfCost, KeyFile, KeyKind
from guts.node.acceptance import Held
from guts.node.drafts import Draft
from guts.node.node import read_clock
from guts.node.repositories import Repositories
from guts.sync.quotas import Space
from guts.trust.equivocation import EquivocationProof
from guts.trust.signed_refs import SignedRefs
from tests.integration.test_maintainers import adding, colleague
from tests.support.desks import Desk, a_desk
from tests.support.nodes import World, eventually, no_leftovers
from tests.support.repositories import git
from tests.unit.trust.world import by_hand

MAIN, DEV = "refs/heads/main", "refs/heads/dev"
REJECTED = 1
"""git's exit status when refs were not pushed."""

FATAL = 128
"""git's exit status when the helper stopped before anything was asked for."""

CHEAP = KdfCost(1, 8192)


@pytest.fixture
async def desk(world: World) -> AsyncIterator[Desk]:
    async with a_desk(world) as desk:
        yield desk


def has(bare: Path, oid: ObjectId) -> bool:
    """Tell whether git finds the object."""
    done = subprocess.run(["git", "cat-file", "-e", str(oid)], cwd=bare, check=False, capture_output=True)
    return done.returncode == 0


async def refused(desk: Desk, before: dict[str, ObjectId], *oids: ObjectId) -> None:
    """Assert that nothing of a push is there: no ref moved, no object came, nothing is left."""
    assert await desk.node.canonical(desk.maintainer.repository) == before
    await desk.node.shows_what_it_says(desk.maintainer.repository)
    assert not any(has(desk.bare, oid) for oid in oids)
    empty = desk.path.with_name("empty")
    git(desk.path, "init", "-q", "--bare", str(empty))
    for oid in oids:
        asked = await desk.git("-C", str(empty), "fetch", str(desk.bare), str(oid))
        assert asked.status != 0, "not over upload-pack either"


async def test_commit_is_pushed_and_nobody_else_has_it(desk: Desk) -> None:
    first, second = desk.maintainer.tip(), desk.maintainer.commit("second")
    done = await desk.push("main")
    assert done.status == 0, done.err
    lines = [line.rstrip() for line in done.err.splitlines()]
    assert lines[-2:] == [
        f"To {desk.maintainer.url}",
        f"   {str(first)[:7]}..{str(second)[:7]}  main -> main",
    ]
    alone = f"warning: no other node holds {str(second)[:7]} yet; the node keeps trying: guts sync "
    assert done.remote == [f"{alone}{desk.maintainer.repository}"]
    assert await desk.node.has(desk.maintainer.repository, {MAIN: second})
    await desk.node.shows_what_it_says(desk.maintainer.repository)
    again = await desk.push("main")
    assert (again.status, again.err) == (0, "guts: through your running node\nEverything up-to-date\n")


async def test_first_push_into_an_empty_repository_says_what_a_clone_checks_out(world: World) -> None:
    node, maintainer = await world.node("desk"), world.maintainer()
    desk = Desk(node, maintainer)
    desk.sit_down()
    git(maintainer.path, "branch", "-m", "main", "trunk")
    tip = git(maintainer.path, "rev-parse", "trunk")
    git(maintainer.path, "switch", "-q", "--orphan", "main")
    git(maintainer.path, "branch", "-D", "trunk")
    await maintainer.publish(node)
    assert await node.has(maintainer.repository, {})
    async with desk.answering():
        done = await desk.push(f"{tip}:refs/heads/trunk")
    assert done.status == 0, done.err
    assert git(desk.bare, "symbolic-ref", "HEAD") == "refs/heads/trunk"


async def test_branches_tags_notes_and_deletions(desk: Desk) -> None:
    first, second = desk.maintainer.tip(), desk.maintainer.commit("second")
    git(desk.path, "tag", "-a", "-m", "v1", "v1")
    git(desk.path, "notes", "add", "-m", "note")
    git(desk.path, "branch", "a/b", str(first))
    assert (await desk.push("--follow-tags", "main")).status == 0
    assert (await desk.push("--all")).status == 0
    assert (await desk.push("refs/notes/*:refs/notes/*")).status == 0
    expected = desk.maintainer.refs() | {MAIN: second}
    assert await desk.node.has(
        desk.maintainer.repository, {ref: oid for ref, oid in expected.items() if "remotes" not in ref}
    )
    done = await desk.push("--delete", "a/b", "v1", "refs/notes/commits")
    assert done.status == 0, done.err
    assert " - [deleted]         a/b" in done.err
    assert await desk.node.has(desk.maintainer.repository, {MAIN: second})


async def test_prune_and_mirror_make_the_remote_like_the_copy(desk: Desk) -> None:
    git(desk.path, "branch", "one")
    git(desk.path, "branch", "two")
    assert (await desk.push("--all")).status == 0
    git(desk.path, "branch", "-D", "one")
    pruned = await desk.push("--prune", "refs/heads/*:refs/heads/*")
    assert pruned.status == 0, pruned.err
    assert set(await desk.node.canonical(desk.maintainer.repository)) == {MAIN, "refs/heads/two"}
    git(desk.path, "branch", "-D", "two")
    git(desk.path, "tag", "t")
    git(desk.path, "update-ref", "-d", "refs/remotes/guts/main")
    mirrored = await desk.push("--mirror")
    # Its tracking branches are none of the repository's.
    assert set(mirrored.rejected) <= {"guts/main", "guts/two", "refs/remotes/guts/main", "refs/remotes/guts/two"}
    assert set(await desk.node.canonical(desk.maintainer.repository)) == {MAIN, "refs/tags/t"}


async def test_dry_run_and_lease_are_the_clients(desk: Desk) -> None:
    first, second = desk.maintainer.tip(), desk.maintainer.commit("second")
    assert (await desk.push("--dry-run", "main")).status == 0
    await refused(desk, {MAIN: first}, second)
    stale = await desk.push(f"--force-with-lease=main:{second}", "main")
    assert stale.rejected == {"main": "stale info"}
    held = await desk.push(f"--force-with-lease=main:{first}", "main")
    assert held.status == 0


async def test_refused_refs_are_told_each_and_leave_nothing(desk: Desk) -> None:
    first = desk.maintainer.tip()
    secret = desk.maintainer.commit("secret")
    git(desk.path, "branch", "public", str(first))
    done = await desk.push("main:refs/guts/x", "public")
    assert done.status == REJECTED
    assert done.rejected == {"refs/guts/x": "refs/guts/ belongs to the nodes"}
    assert "hint: push it as a branch: refs/heads/…" in done.remote
    assert " * [new branch]      public -> public" in done.err
    await refused(desk, {MAIN: first, "refs/heads/public": first}, secret)
    atomic = await desk.push("--atomic", "main:refs/guts/x", "main:dev")
    assert atomic.status == REJECTED
    assert atomic.rejected == {
        "refs/guts/x": "refs/guts/ belongs to the nodes",
        "dev": "atomic push failure",
    }
    await refused(desk, {MAIN: first, "refs/heads/public": first}, secret)


async def test_branch_that_a_clone_checks_out_is_renamed_in_one_push(desk: Desk) -> None:
    tip = desk.maintainer.tip()
    git(desk.path, "branch", "-m", "main", "trunk")
    gone = await desk.push(":main")
    assert gone.rejected == {"main": "deletion of the current branch prohibited"}
    assert any(line.startswith("hint: ") and "guts.head" in line for line in gone.remote)
    nowhere = await desk.push("-oguts.head=other", "trunk", ":main")
    assert nowhere.rejected == dict.fromkeys(["trunk", "main"], "guts.head: there is no branch 'other'")
    assert nowhere.remote == [], "nothing was committed, so there is no success"
    assert await desk.node.has(desk.maintainer.repository, {MAIN: tip})
    assert git(desk.bare, "symbolic-ref", "HEAD") == MAIN
    done = await desk.push("-oguts.head=trunk", "trunk", ":main")
    assert done.status == 0, done.err
    assert await desk.node.has(desk.maintainer.repository, {"refs/heads/trunk": tip})
    assert git(desk.bare, "symbolic-ref", "HEAD") == "refs/heads/trunk"


async def test_clone_that_was_cut_off_pushes_on_top_of_what_is_there(desk: Desk) -> None:
    for number in range(3):
        desk.maintainer.commit(str(number))
    assert (await desk.push("main")).status == 0
    shallow = desk.path.with_name("shallow")
    git(desk.path, "clone", "-q", "--depth=1", f"file://{desk.path}", str(shallow))
    (shallow / "more").write_text("more")
    git(shallow, "add", "more")
    git(shallow, "commit", "-q", "-m", "more")
    done = await desk.git("-C", str(shallow), "push", str(desk.maintainer.url), "main")
    assert done.status == 0, done.err
    assert str((await desk.node.canonical(desk.maintainer.repository))[MAIN]) == git(shallow, "rev-parse", "main")
    await desk.node.shows_what_it_says(desk.maintainer.repository)


async def test_misspelt_option_stops_a_push_and_another_servers_does_not(desk: Desk) -> None:
    first, second = desk.maintainer.tip(), desk.maintainer.commit("second")
    done = await desk.push("-oguts.replica=1", "main")
    assert (done.status, done.rejected) == (REJECTED, {"main": "bad push option"})
    assert done.remote[0] == "error: there is no push option 'guts.replica'; did you mean 'guts.replicas'?"
    await refused(desk, {MAIN: first}, second)
    passed = await desk.push("-oci.skip", "-oguts.no-sync", "main")
    assert (passed.status, passed.remote) == (0, ["warning: push option 'ci.skip' means nothing here"])


async def test_strict_push_that_nobody_confirms_stands_and_fails(desk: Desk) -> None:
    second = desk.maintainer.commit("second")
    done = await desk.push("-oguts.strict", "main")
    assert done.status == REJECTED
    assert done.rejected == {}
    assert done.remote[0].startswith("error: no other node holds ")
    assert done.remote[0].endswith("The push itself stands")
    assert await desk.node.has(desk.maintainer.repository, {MAIN: second})
    assert git(desk.path, "rev-parse", "refs/remotes/guts/main") == str(second), "git knows that it is there"


async def test_replicas_that_hold_it_are_named(world: World) -> None:
    async with a_desk(world) as desk:
        replicas = [await world.node("one"), await world.node("two")]
        for replica in replicas:
            await replica.seed(desk.maintainer.repository, desk.node.hint)
        await eventually(
            lambda: len(desk.node.node.control._service.peers.subscribers(desk.maintainer.repository)) == 2
        )
        second = desk.maintainer.commit("second")
        done = await desk.push("main")
        assert done.status == 0, done.err
        (line,) = done.remote
        told = re.fullmatch(r"success: 2/2 replicas hold (\w{7}) \((\w{12})…, (\w{12})…\) in \d+\.\d s", line)
        assert told is not None, line
        assert told[1] == str(second)[:7]
        assert {told[2], told[3]} == {str(replica.id)[:12] for replica in replicas}
        for replica in replicas:
            assert await replica.has(desk.maintainer.repository, {MAIN: second}), "when they say so"

        git(desk.path, "tag", "v1")
        git(desk.path, "branch", "dev")
        several = await desk.push("main", "v1", "dev")
        assert f"2/2 replicas hold {str(second)[:7]} and 1 more ref (" in several.remote[0]
        deleted = await desk.push("-oguts.replicas=1", ":dev")
        assert re.match(r"success: (1/1|2/2) replicas have deleted dev \(", deleted.remote[0])

        git(desk.path, "branch", "x")
        too_few = await desk.push("-oguts.replicas=3", "-oguts.timeout=300ms", "x")
        assert too_few.status == 0
        assert re.match(
            r"warning: 2/3 replicas hold .* after \d s; the node keeps trying: guts sync", too_few.remote[0]
        )
        git(desk.path, "branch", "y")
        strict = await desk.push("-oguts.replicas=3", "-oguts.timeout=300ms", "-oguts.strict", "y")
        assert (strict.status, strict.rejected) == (REJECTED, {})
        assert strict.remote[0].startswith("error: 2/3 replicas hold ")
        assert strict.remote[1] == f"hint: guts sync {desk.maintainer.repository}"
        git(desk.path, "branch", "z")
        alone = await desk.push("-oguts.no-sync", "z")
        assert (alone.status, alone.remote) == (0, [])


async def test_names_that_are_no_text_are_refused(desk: Desk) -> None:
    process = await asyncio.create_subprocess_exec(
        b"git", b"push", b"guts", b"main:refs/heads/\xff", cwd=desk.path, env=desk.environ, stderr=subprocess.PIPE
    )
    _, err = await process.communicate()
    assert process.returncode == REJECTED
    assert b"(funny refname)" in err


async def test_who_is_no_maintainer_sends_nothing(world: World) -> None:
    node, maintainer = await world.node("desk"), world.maintainer()
    await maintainer.publish(node)
    first, second = maintainer.tip(), maintainer.commit("second")
    desk = Desk(node, maintainer)
    desk.sit_down(key=False)
    async with desk.answering():
        nobody = await desk.push("main")
        path = node.config.paths.author_key
        made = KeyFile.parse(path.read_text(), "").public
        assert f"made your author key {made}" in nobody.err
        assert (nobody.status, nobody.rejected) == (REJECTED, {"main": "not a maintainer"})
        assert f"guts identity propose --add {made} " in nobody.remote[1]
        key = SigningKey.generate()
        # Its passphrase is never asked for.
        path.write_text(KeyFile.of(KeyKind.AUTHOR, key, "secret", CHEAP).format())
        path.chmod(0o600)
        done = await desk.push("main")
    assert (done.status, done.rejected) == (REJECTED, {"main": "not a maintainer"})
    assert done.remote == [
        f"error: {key.author_id} is NOT a maintainer of {maintainer.repository}; nothing was sent",
        f"hint: a maintainer adds the key: guts identity propose --add {key.author_id} {maintainer.repository} FILE",
    ]
    await refused(desk, {MAIN: first}, second)


def lock(desk: Desk, passphrase: str) -> None:
    path = desk.node.config.paths.author_key
    path.write_text(KeyFile.of(KeyKind.AUTHOR, desk.maintainer.key, passphrase, CHEAP).format())


async def test_locked_key_is_opened_by_a_file_or_not_at_all(desk: Desk, tmp_path: Path) -> None:
    lock(desk, "correct horse")
    first, second = desk.maintainer.tip(), desk.maintainer.commit("second")
    done = await desk.push("main")
    assert (done.status, done.rejected) == (REJECTED, {"main": "key locked"})
    assert "is locked and GIT_TERMINAL_PROMPT is 0" in done.remote[0]
    assert "GUTS_PASSPHRASE_FILE" in done.remote[1]
    no_terminal = await desk.push("main", GIT_TERMINAL_PROMPT="1")
    assert "is locked and there is no terminal" in no_terminal.remote[0]
    file = tmp_path / "passphrase"
    file.write_text("wrong\n")
    wrong = await desk.push("main", GUTS_PASSPHRASE_FILE=str(file))
    assert (wrong.status, wrong.rejected) == (REJECTED, {"main": "wrong passphrase"})
    await refused(desk, {MAIN: first}, second)
    file.write_text("correct horse\n")
    assert (await desk.push("main", GUTS_PASSPHRASE_FILE=str(file))).status == 0


async def test_passphrase_is_asked_for_on_the_terminal(desk: Desk) -> None:
    lock(desk, "correct horse")
    second = desk.maintainer.commit("second")
    environ = {**desk.environ, "GIT_TERMINAL_PROMPT": "1"}

    def at_a_terminal() -> tuple[int, str]:
        pid, terminal = os.forkpty()
        if not pid:
            os.chdir(desk.path)
            os.execvpe("git", ["git", "push", "guts", "main"], environ)
        shown = b""
        with contextlib.suppress(OSError):  # that is how a terminal ends
            while piece := os.read(terminal, 4096):
                shown += piece
                if shown.endswith(b"lsh: ") or b"Passphrase for author key" in piece:
                    os.write(terminal, b"correct horse\n")
        os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()

    status, shown = await asyncio.to_thread(at_a_terminal)
    assert status == 0, shown
    assert f"Passphrase for author key {desk.maintainer.key.author_id}: " in shown
    assert "correct horse" not in shown
    assert await desk.node.has(desk.maintainer.repository, {MAIN: second})


async def test_objects_that_no_replica_would_take_are_refused(desk: Desk) -> None:
    first = desk.maintainer.tip()
    blob = git(desk.path, "hash-object", "-w", "--stdin", data=b"x")
    tree = git(desk.path, "mktree", data=f"100644 blob {blob}\t.git\n".encode())
    bad = ObjectId(bytes.fromhex(git(desk.path, "commit-tree", "-m", "bad", "-p", "main", tree)))
    done = await desk.push(f"{bad}:main")
    assert (done.status, done.rejected) == (REJECTED, {"main": "objects refused"})
    assert done.remote[0].startswith("error: the repository's objects are refused: ")
    await refused(desk, {MAIN: first}, bad)


async def test_object_that_is_too_large_is_named_with_what_finds_its_file(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, big = desk.maintainer.tip(), desk.maintainer.commit("big", random.Random(3).randbytes(3 << 20))
    blob = next(
        line.split()[0]
        for line in git(desk.path, "rev-list", "--objects", str(big)).splitlines()
        if git(desk.path, "cat-file", "-s", line.split()[0]) == str(3 << 20)
    )
    inspection = Quarantine.inspection

    def strict(self: Quarantine) -> Inspection:
        made = inspection(self)
        made._limits = dataclasses.replace(made._limits, object_bytes=2 << 20)
        return made

    monkeypatch.setattr(Quarantine, "inspection", strict)
    done = await desk.push("main")
    assert (done.status, done.rejected) == (REJECTED, {"main": "objects refused"})
    assert done.remote == [
        f"error: the repository's objects are refused: object {blob} has 3.0 MiB; an object may have 2.0 MiB",
        f"hint: git rev-list --objects --all | grep {blob} says which file it is; no replica takes it",
    ]
    await refused(desk, {MAIN: first}, big)


async def test_own_work_past_a_quota_is_pushed_and_published_and_told(world: World) -> None:
    """The quotas are for what others have: ``git push`` and ``guts publish`` say which is passed, and what helps."""
    node = await world.node("desk", seeding__repo_max="100kB", seeding__disk="150kB")
    maintainer = world.maintainer()
    desk = Desk(node, maintainer)
    desk.sit_down()
    await maintainer.publish(node)
    async with desk.answering():
        maintainer.commit("small")
        assert "seeding." not in (await desk.push("main")).err
        big = maintainer.commit("big", random.Random(1).randbytes(1 << 20))
        done = await desk.push("main")
        assert done.status == 0
        _published_past_both(done.remote[:4])
        assert await node.has(maintainer.repository, {MAIN: big})

        maintainer.commit("more")
        git(desk.path, "config", "guts.repository", str(maintainer.repository))
        command = [sys.executable, "-m", "guts", "publish", str(desk.path), "--json"]
        ran = await asyncio.to_thread(
            subprocess.run, command, env=desk.environ, capture_output=True, text=True, check=True
        )
        _published_past_both(ran.stderr.splitlines())
        limits = [warning["limit"] for warning in json.loads(ran.stdout)["warnings"]]
        assert limits == ["seeding.repo_max", "seeding.disk"]


def _published_past_both(told: list[str]) -> None:
    assert len(told) == 4
    assert re.fullmatch(r"warning: it takes 1\.\d+ ?MiB on this node, where seeding\.repo_max allows .*", told[0])
    assert told[1].startswith('hint: repo_max = "2MiB" or more under [seeding] in config.toml, then guts node stop')
    assert told[2].startswith("warning: all repositories together take 1.")
    assert told[3].startswith('hint: disk = "2MiB" or more under [seeding]')


async def test_push_that_leads_below_the_disk_floor_is_told(world: World) -> None:
    free = [1 << 30]
    node = await world.node("desk", space=lambda path: Space(free[0], 100 << 30), seeding__min_free="1GiB")
    maintainer = world.maintainer()
    desk = Desk(node, maintainer)
    desk.sit_down()
    await maintainer.publish(node)
    tip = maintainer.commit("the last that fits")
    async with desk.answering():
        checked = node.node.control._publishing.prepare

        async def filled(*arguments: Any) -> object:
            prepared = await checked(*arguments)
            free[0] -= 1
            return prepared

        node.node.control._publishing.prepare = filled  # type: ignore[method-assign, assignment]
        done = await desk.push("main")
    assert done.status == 0
    assert await node.has(maintainer.repository, {MAIN: tip})
    told = done.remote
    assert told[0].endswith("nothing is fetched or published until there is more")
    assert told[1].startswith("hint: guts unseed REPOSITORY --now")


async def test_clock_that_is_wrong_by_a_day(world: World) -> None:
    def tomorrow() -> Now:
        now = read_clock()
        return dataclasses.replace(now, wall=now.wall + 24 * 3600 * 1000)

    async with a_desk(world) as desk:
        first, second = desk.maintainer.tip(), desk.maintainer.commit("second")
        desk.node.node.control._publishing._clock = tomorrow
        done = await desk.push("main")
        assert (done.status, done.rejected) == (REJECTED, {"main": "not what was asked for"})
        assert "more than 5 minutes away" in done.remote[0]
        assert "timedatectl" in done.remote[1]
        await refused(desk, {MAIN: first}, second)


def hold_pushes(desk: Desk) -> tuple[Path, Path]:
    """Let git wait after it has seen the refs: until the second file is there; it makes the first."""
    waits, goes = desk.path / "waits", desk.path / "goes"
    hook = desk.path / ".git" / "hooks" / "pre-push"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {waits}\nwhile ! test -e {goes}; do sleep 0.01; done\n")
    hook.chmod(0o755)
    return waits, goes


async def test_branch_that_moves_after_git_has_seen_it_is_refused_and_the_others_go_on(desk: Desk) -> None:
    first = desk.maintainer.tip()
    theirs = desk.maintainer.commit("theirs")
    git(desk.path, "reset", "-q", "--hard", str(first))
    mine = desk.maintainer.commit("mine")
    git(desk.path, "branch", "dev", str(first))
    waits, goes = hold_pushes(desk)
    process = await desk.begin("push", "guts", "main", "dev")
    await eventually(waits.exists)
    git(desk.path, "branch", "theirs", str(theirs))
    assert (await desk.push("--no-verify", "theirs:main")).status == 0
    goes.touch()
    done = await desk.end(process)
    assert (done.status, done.rejected) == (REJECTED, {"main": "fetch first"})
    assert "hint: git pull, then push again" in done.remote
    assert " * [new branch]      dev -> dev" in done.err
    await refused(desk, {MAIN: theirs, DEV: first}, mine)


async def test_push_that_is_overtaken_by_another_ref_succeeds_without_a_second_upload(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = desk.maintainer.tip(), desk.maintainer.commit("second")
    publishing = desk.node.node.control._publishing
    commit, prepare = publishing.commit, publishing.prepare
    overtaking, uploads = [True, True], []

    async def overtaken(name: str, signature: bytes) -> object:
        if overtaking:
            overtaking.pop()
            git(desk.path, "branch", f"other{len(overtaking)}", str(first))
            monkeypatch.setattr(publishing, "commit", commit)
            other = await desk.push("--no-verify", f"other{len(overtaking)}")
            monkeypatch.setattr(publishing, "commit", overtaken)
            assert other.status == 0, other.err
        return await commit(name, signature)

    async def counted(draft: Draft, pack: AsyncIterator[bytes]) -> object:
        uploads.append(draft)
        return await prepare(draft, pack)

    monkeypatch.setattr(publishing, "commit", overtaken)
    monkeypatch.setattr(publishing, "prepare", counted)
    done = await desk.push("main")
    assert done.status == 0, done.err
    expected = {MAIN: second, "refs/heads/other0": first, "refs/heads/other1": first}
    assert await desk.node.has(desk.maintainer.repository, expected)
    assert len(uploads) == 3, "one for each push"
    await desk.node.shows_what_it_says(desk.maintainer.repository)


async def test_push_whose_author_has_published_since_it_was_prepared_is_prepared_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = desk.maintainer.tip(), desk.maintainer.commit("second")
    publishing = desk.node.node.control._publishing
    prepare = publishing.prepare

    async def late(draft: Draft, pack: AsyncIterator[bytes]) -> object:
        prepared = await prepare(draft, pack)
        monkeypatch.setattr(publishing, "prepare", prepare)
        git(desk.path, "branch", "other", str(first))
        other = await desk.push("--no-verify", "other")
        assert other.status == 0, other.err
        return prepared

    monkeypatch.setattr(publishing, "prepare", late)
    done = await desk.push("main")
    assert done.status == 0, done.err
    assert await desk.node.has(desk.maintainer.repository, {MAIN: second, "refs/heads/other": first})


async def test_whose_history_is_split_is_told_who_can_help(desk: Desk) -> None:
    first = desk.maintainer.tip()
    stored = await desk.node.node.repositories.stored(desk.maintainer.repository)
    assert stored is not None
    (row,) = stored.signed_refs
    held = SignedRefs.decode(row.header, row.entries)
    twin = by_hand(desk.maintainer.chain, desk.maintainer.key, held.entries.refs, seq=held.seq, time_ms=held.seq - 1)
    proof = EquivocationProof.of(held.signed_header, twin.signed_header, None)
    second = desk.maintainer.commit("second")
    before = Repositories.held

    async def split(repositories: Repositories, repository: RepositoryId) -> Held | None:
        held = await before(repositories, repository)
        assert held is not None
        return dataclasses.replace(held, proofs={desk.maintainer.key.author_id: proof})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Repositories, "held", split)
        done = await desk.push("main")
    assert (done.status, done.rejected) == (REJECTED, {"main": "history split"})
    assert "two histories" in done.remote[0]
    assert "guts identity reaffirm" in done.remote[1]
    await refused(desk, {MAIN: first}, second)


async def test_repository_that_went_back_is_not_pushed_to(desk: Desk) -> None:
    desk.maintainer.commit("second")
    assert (await desk.push("main")).status == 0
    (note,) = (desk.node.home / "data" / "known").iterdir()
    value = json.loads(note.read_text())
    value["heads"][0]["seq"] += 1_000
    note.write_text(json.dumps(value))
    third = desk.maintainer.commit("third")
    done = await desk.push("main")
    assert done.status == FATAL
    assert f"had signed seq {value['heads'][0]['seq']}" in done.err
    await refused(desk, await desk.node.canonical(desk.maintainer.repository), third)


async def test_disk_that_is_full_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = desk.maintainer.tip(), desk.maintainer.commit("second")

    async def full(*_: object) -> None:
        raise DiskFull("No space left on device: pack")

    monkeypatch.setattr(Quarantine, "migrate", full)
    done = await desk.push("main")
    assert (done.status, done.rejected) == (REJECTED, {"main": "disk full"})
    assert done.remote == [
        "error: No space left on device: pack",
        "hint: free some space, then try again: df -h shows where it is missing",
    ]
    await refused(desk, {MAIN: first}, second)


async def colleagues(world: World) -> tuple[Desk, Desk]:
    """Return the desks of two maintainers of one repository, which both nodes follow."""
    ada, bo = await world.node("ada"), await world.node("bo")
    one = world.maintainer()
    await one.publish(ada)
    await bo.seed(one.repository, ada.hint)
    two = colleague(one, "bo")
    await ada.node.control.apply_identity(one.repository, adding(one.chain, two.key).sign(one.key, two.key))
    desks = Desk(ada, one), Desk(bo, two)
    for desk in desks:
        desk.sit_down()

    async def both_know() -> bool:
        stored = await bo.node.repositories.stored(one.repository)
        return stored is not None and stored.summary.epoch == 1

    await eventually(both_know)
    return desks


async def test_two_push_the_same_branch_from_two_homes_and_a_merge_clears_it(world: World) -> None:
    ada, bo = await colleagues(world)
    repository = ada.maintainer.repository
    # Neither knows of the other's push: each pushes while the other's node is away.
    await bo.node.stop()
    adas = ada.maintainer.commit("adas")
    async with ada.answering():
        done = await ada.push("main")
    assert done.status == 0, done.err
    await ada.node.stop()
    await bo.node.start()
    bos = bo.maintainer.commit("bos")
    async with bo.answering():
        done = await bo.push("main")
        assert done.status == 0, done.err
        await ada.node.start()
        beside = f"refs/guts/conflict/{bo.maintainer.key.author_id}/{MAIN}"
        await bo.node.node.control.connect(ada.node.hint, 10)
        for desk in (ada, bo):
            await eventually(lambda desk=desk: desk.node.has(repository, {MAIN: adas, beside: bos}))
            await desk.node.shows_what_it_says(repository)
        # What is beside the branch is not lost by a push that has not seen it.
        git(bo.path, "fetch", "-q", str(bo.bare), f"{MAIN}:refs/heads/theirs")
        passed_over = await bo.push("theirs:dev", "theirs~1:main")
        assert passed_over.status == REJECTED
        more = git(bo.path, "commit-tree", "-m", "more", "-p", "theirs", "theirs^{tree}")
        unmerged = await bo.push(f"{more}:main")
        assert unmerged.rejected == {"main": "in conflict: merge first"}
        assert f"hint: git fetch guts {beside} && git merge FETCH_HEAD" in unmerged.remote[0]
        forced = await bo.push("--force", "main")
        assert (forced.status, forced.rejected) == (REJECTED, {"main": "in conflict: merge first"})
        assert "-o guts.force" in forced.remote[0]
        assert await bo.node.has(repository, {MAIN: adas, beside: bos, DEV: adas})
        git(bo.path, "merge", "-q", "-m", "merge", "theirs")
        merged = await bo.push("main")
        assert merged.status == 0, merged.err
    for desk in (ada, bo):
        await eventually(lambda desk=desk: desk.node.has(repository, {MAIN: bo.maintainer.tip(), DEV: adas}))
        await desk.node.shows_what_it_says(repository)


async def test_two_whose_pushes_cross_are_both_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ada, bo = await colleagues(world)
    repository = ada.maintainer.repository
    adas, bos = ada.maintainer.commit("adas"), bo.maintainer.commit("bos")
    beside = f"refs/guts/conflict/{bo.maintainer.key.author_id}/{MAIN}"
    arrived: list[object] = []
    for desk in (ada, bo):
        control = desk.node.node.control

        # Neither is committed before both have been signed; the receipts come when both nodes have heard of both.
        async def commit(name: str, signature: bytes, commit=control.commit) -> object:  # type: ignore[no-untyped-def]
            arrived.append(name)
            await eventually(lambda: len(arrived) >= 2)
            return await commit(name, signature)

        async def receipts(*asked: object, desk: Desk = desk, receipts=control.receipts) -> object:  # type: ignore[no-untyped-def]
            await eventually(lambda: desk.node.has(repository, {MAIN: adas, beside: bos}))
            return await receipts(*asked)

        monkeypatch.setattr(control, "commit", commit)
        monkeypatch.setattr(control, "receipts", receipts)
    async with ada.answering(), bo.answering():
        first, second = await asyncio.gather(ada.push("-oguts.strict", "main"), bo.push("-oguts.strict", "main"))
    assert (first.status, second.status) == (0, 0), (first.err, second.err)
    ways = {
        f"{bo.maintainer.key.author_id}"[:12]: beside,
        f"{ada.maintainer.key.author_id}"[:12]: MAIN,
    }
    for ended, (other, source) in zip((first, second), ways.items(), strict=True):
        warning, success = ended.remote
        assert warning == (
            f"warning: {MAIN} is in conflict with what {other}… pushed: "
            f"git fetch guts {source} && git merge FETCH_HEAD, then push again"
        )
        assert success.startswith("success: 1/1 replicas hold ")


async def test_two_push_at_once_to_one_node_and_the_second_fetches_first(desk: Desk) -> None:
    first = desk.maintainer.tip()
    one = desk.maintainer.commit("one")
    git(desk.path, "reset", "-q", "--hard", str(first))
    two = desk.maintainer.commit("two")
    waits, goes = hold_pushes(desk)
    processes = [await desk.begin("push", "guts", f"{oid}:refs/heads/main") for oid in (one, two)]
    await eventually(waits.exists)
    goes.touch()
    ended = [await desk.end(process) for process in processes]
    assert sorted(done.status for done in ended) == [0, REJECTED], [done.err for done in ended]
    loser = next(done for done in ended if done.status)
    assert loser.rejected["main"] in ("fetch first", "non-fast-forward")


async def test_maintainer_with_a_fresh_node_gets_the_repository_first(world: World) -> None:
    ada, bo = await world.node("ada"), await world.node("bo")
    maintainer = world.maintainer()
    await maintainer.publish(ada)
    desk = Desk(bo, maintainer)
    desk.sit_down()
    await bo.node.control.connect(ada.hint, 10)
    async with desk.answering():
        assert (await desk.push("main")).status == 0, "it is there already"
        second = maintainer.commit("second")
        assert (await desk.push("--dry-run", "main")).status == 0
        assert not list(bo.repositories.iterdir()), "nothing is asked for yet"
        done = await desk.push("main")
    assert done.status == 0, done.err
    assert "guts: your node gets the repository first, and seeds it from now on" in done.err
    for node in (ada, bo):
        await eventually(lambda node=node: node.has(maintainer.repository, {MAIN: second}))


async def test_strangers_node_does_not_get_the_repository_to_be_told_no(world: World) -> None:
    holder, mine = await world.node("holder"), await world.node("mine")
    maintainer = world.maintainer()
    await maintainer.publish(holder)
    await mine.node.control.connect(holder.hint, 10)
    desk = Desk(mine, maintainer)
    desk.sit_down(key=False)
    maintainer.commit("second")
    async with desk.answering():
        done = await desk.push("main")
    assert (done.status, done.rejected) == (REJECTED, {"main": "not a maintainer"}), done.err
    assert not list(mine.repositories.iterdir())


async def test_push_with_no_node_running_begins_from_what_others_pushed_since(world: World) -> None:
    ada, bo = await colleagues(world)
    repository = ada.maintainer.repository
    await bo.node.stop()
    bo.configure(ada.node.hint)
    adas = ada.maintainer.commit("adas")
    async with ada.answering():
        assert (await ada.push("main")).status == 0
    bos = bo.maintainer.commit("bos")
    behind = await bo.push("main")
    assert "guts: no node is running: the node runs for this push" in behind.err
    assert (behind.status, behind.rejected) == (REJECTED, {"main": "fetch first"}), behind.err
    done = await bo.push("main:dev")
    assert done.status == 0, done.err
    await bo.node.start()
    expected = {MAIN: adas, DEV: bos}
    assert await bo.node.has(repository, expected)
    await bo.node.shows_what_it_says(repository)


async def test_dry_run_with_no_node_running_gets_nothing_and_the_push_does(world: World) -> None:
    ada, bo = await world.node("ada"), await world.node("bo")
    maintainer = world.maintainer()
    await maintainer.publish(ada)
    desk = Desk(bo, maintainer)
    desk.sit_down()
    desk.configure(ada.hint)
    await bo.stop()
    second = maintainer.commit("second")
    dry = await desk.push("--dry-run", "main")
    assert dry.status == 0, dry.err
    assert "main -> main" in dry.err
    assert not list(bo.repositories.iterdir())
    done = await desk.push("main")
    assert done.status == 0, done.err
    assert "guts: your node gets the repository first, and seeds it from now on" in done.err
    assert await ada.has(maintainer.repository, {MAIN: second})
    await bo.start()
    assert await bo.has(maintainer.repository, {MAIN: second})


async def test_push_with_no_node_and_nobody_to_ask_says_what_is_left_undone(world: World) -> None:
    async with a_desk(world) as desk:
        pass
    await desk.node.stop()
    second = desk.maintainer.commit("second")
    done = await desk.push("main")
    assert done.status == 0, done.err
    assert "warning: no replica could be asked for news: " in done.err
    assert done.remote == [
        f"warning: no other node holds {str(second)[:7]} yet; your node is not running: once it is, others can get it: "
        "guts node start"
    ]
    await desk.node.start()
    assert await desk.node.has(desk.maintainer.repository, {MAIN: second})


async def test_two_pushes_with_no_node_wait_for_each_other(world: World) -> None:
    async with a_desk(world) as desk:
        pass
    await desk.node.stop()
    git(desk.path, "branch", "one")
    git(desk.path, "branch", "two")
    processes = [await desk.begin("push", "guts", name) for name in ("one", "two")]
    ended = [await desk.end(process) for process in processes]
    assert [done.status for done in ended] == [0, 0], [done.err for done in ended]
    await desk.node.start()
    assert set(await desk.node.canonical(desk.maintainer.repository)) == {MAIN, "refs/heads/one", "refs/heads/two"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
async def test_interrupted_push_with_no_node_gives_the_data_back(
    world: World, tmp_path: Path, number: signal.Signals
) -> None:
    async with a_desk(world) as desk:
        pass
    await desk.node.stop()
    first, big = desk.maintainer.tip(), big_commit(desk)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = await desk.begin("push", "guts", "main", TMPDIR=str(scratch))
    await arriving(desk, process)
    os.killpg(process.pid, number)
    ended = await desk.end(process)
    assert ended.status != 0
    assert "Traceback" not in ended.err
    await eventually(lambda: not processes_of(process.pid))
    assert not list(scratch.iterdir())
    await desk.node.start()
    await refused(desk, {MAIN: first}, big)


def big_commit(desk: Desk) -> ObjectId:
    git(desk.path, "config", "core.compression", "0")
    return desk.maintainer.commit("big", random.Random(2).randbytes(48 << 20))


async def arriving(desk: Desk, process: asyncio.subprocess.Process) -> None:
    """Return when a part of the pack is in the node's quarantine."""

    def some() -> bool:
        assert process.returncode is None, "it has ended already"
        return any(file.stat().st_size > 1 << 20 for file in desk.bare.glob("objects/incoming-*/pack/tmp_pack_*"))

    await eventually(some)


def processes_of(group: int) -> list[int]:
    """Return the processes of a group that still run."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z" and int(fields[2]) == group:
                found.append(int(folder.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
async def test_interrupted_push_is_forgotten_at_once(desk: Desk, number: signal.Signals) -> None:
    first, big = desk.maintainer.tip(), big_commit(desk)
    process = await desk.begin("push", "guts", "main")
    await arriving(desk, process)
    os.killpg(process.pid, number)
    ended = await desk.end(process)
    assert ended.status != 0
    assert "Traceback" not in ended.err
    await eventually(lambda: not processes_of(process.pid))
    await eventually(lambda: no_leftovers(desk.bare))
    await refused(desk, {MAIN: first}, big)
    assert (await desk.push("main")).status == 0


async def test_git_alone_that_is_killed_takes_its_push_along(desk: Desk) -> None:
    first, big = desk.maintainer.tip(), big_commit(desk)
    process = await desk.begin("push", "guts", "main")
    await arriving(desk, process)
    process.kill()
    await process.wait()
    await eventually(lambda: not processes_of(process.pid))
    await eventually(lambda: no_leftovers(desk.bare))
    await refused(desk, {MAIN: first}, big)


async def test_node_that_stops_in_the_middle_is_told(world: World) -> None:
    node, maintainer = await world.node("desk"), world.maintainer()
    desk = Desk(node, maintainer)
    desk.sit_down()
    await maintainer.publish(node)
    first, big = maintainer.tip(), big_commit(desk)
    async with desk.answering():
        process = await desk.begin("push", "guts", "main")
        await arriving(desk, process)
    await node.stop()
    done = await desk.end(process)
    assert (done.status, done.rejected) == (REJECTED, {"main": "the node is gone"})
    assert done.remote[0].startswith("error: no node answers on ")
    await node.start()
    await refused(desk, {MAIN: first}, big)
    async with desk.answering():
        assert (await desk.push("main")).status == 0


async def test_home_that_can_not_be_made(desk: Desk) -> None:
    desk.maintainer.commit("second")
    done = await desk.push("main", GUTS_HOME="/proc/guts")
    assert done.status == FATAL
    assert "fatal: can't write /proc/guts/" in done.err
    assert "Traceback" not in done.err
