"""The door for git children."""

import asyncio
import os
import resource
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from guts.git.command import Git, GitFailed, GitMissing, GitTimedOut, parse_version
from guts.git.faults import CorruptPack, TooLarge
from guts.git.limits import DEFAULT_LIMITS
from guts.git.repository import BareRepository
from tests.support.packs import chunks
from tests.unit.git.conftest import Made


def script(path: Path, text: str) -> str:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


async def test_hides_the_caller_s_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'core.pager'='evil'")
    monkeypatch.setenv("HOME", "/elsewhere")
    monkeypatch.setenv("SECRET", "x")
    printed = (await Git(executable=script(tmp_path / "git", "env")).run(["x"])).decode()
    names = {line.partition("=")[0] for line in printed.splitlines()}
    assert not names & {"GIT_DIR", "GIT_CONFIG_PARAMETERS", "HOME", "SECRET"}
    assert {"GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_GLOBAL", "GIT_ALLOC_LIMIT", "PATH"} <= names
    assert "GIT_ALLOW_PROTOCOL=none" in printed


async def test_limits_the_child_before_it_reads(repository: BareRepository) -> None:
    async with Git().start(["cat-file", "--batch"], environment=repository.environment) as child:
        seen = {kind: resource.prlimit(child.pid, kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU)}
        child.close_stdin()
    assert seen == {
        resource.RLIMIT_AS: DEFAULT_LIMITS.memory_bytes,
        resource.RLIMIT_CPU: DEFAULT_LIMITS.cpu_seconds,
    }


async def test_kills_a_child_past_its_time(tmp_path: Path) -> None:
    git = Git(replace(DEFAULT_LIMITS, wall_seconds=0.2), script(tmp_path / "git", "sleep 600 & exec sleep 600"))
    with pytest.raises(GitTimedOut):
        await git.run(["x"])


async def test_bounds_what_a_child_says(tmp_path: Path) -> None:
    git = Git(replace(DEFAULT_LIMITS, stderr_bytes=100), script(tmp_path / "git", "yes | head -c 3000000 >&2; exit 7"))
    with pytest.raises(GitFailed) as caught:
        await git.run(["x"])
    assert (caught.value.status, len(caught.value.stderr)) == (7, 100)


async def test_tells_a_foreign_signal_from_a_limit(repository: BareRepository, made: Made, tmp_path: Path) -> None:
    for signal_name, fault in (("KILL", GitFailed), ("XCPU", TooLarge), ("XFSZ", TooLarge)):
        git = Git(executable=script(tmp_path / "git", f"kill -{signal_name} $$"))
        with pytest.raises(fault):
            async with BareRepository(repository.path, git).quarantine() as quarantine:
                await quarantine.index(chunks(made.pack))
    git = Git(replace(DEFAULT_LIMITS, file_bytes=len(made.pack) - 1))
    with pytest.raises(TooLarge):
        async with BareRepository(repository.path, git).quarantine() as quarantine:
            await quarantine.index(chunks(made.pack))
    async with BareRepository(
        repository.path, Git(replace(DEFAULT_LIMITS, file_bytes=len(made.pack)))
    ).quarantine() as quarantine:
        await quarantine.index(chunks(made.pack))


async def test_puts_nothing_of_a_peer_into_arguments(repository: BareRepository, made: Made, tmp_path: Path) -> None:
    log = tmp_path / "log"
    git = Git(executable=script(tmp_path / "git", f'printf "%s\\n" "$@" >> {log}; exec git "$@"'))
    recorded = BareRepository(repository.path, git)
    async with recorded.quarantine() as quarantine:
        await quarantine.index(chunks(made.pack))
        await quarantine.check(made.tips)
        await quarantine.migrate()
    await recorded.project(made.refs, "refs/heads/main")
    async with recorded.pack(made.tips, made.tips) as pack:
        assert [chunk async for chunk in pack]
    main, topic = made.refs["refs/heads/main"], made.refs["refs/tags/v1"]
    await recorded.are_ancestors([(main, topic), (topic, main)])
    await recorded.fsck()
    with pytest.raises(CorruptPack):
        async with recorded.quarantine() as quarantine:
            await quarantine.index(chunks(b"PACK\0\0\0\2\0\0\0\1--upload-pack=evil"))
    arguments = log.read_text()
    assert "index-pack" in arguments
    assert "rev-list" in arguments
    for peer_data in (*map(str, made.tips), *made.refs, "evil"):
        assert peer_data not in arguments


def test_names_the_version_it_needs() -> None:
    assert parse_version(b"git version 2.34.1\n") == (2, 34)
    assert parse_version(b"git version 3.0.0.rc1 (Apple)\n") == (3, 0)
    for old in (b"git version 2.33.9\n", b"git version 1.99\n", b"hello"):
        with pytest.raises(GitMissing, match=r"2\.34"):
            parse_version(old)


async def test_reads_the_version_of_the_git_here(tmp_path: Path) -> None:
    assert await Git().check_version() >= (2, 34)
    with pytest.raises(GitMissing):
        await Git(executable=str(tmp_path / "absent")).check_version()


async def test_cancelled_pack_ends_its_child(repository: BareRepository, made: Made) -> None:
    async with repository.quarantine() as quarantine:
        await quarantine.index(chunks(made.pack))
        await quarantine.check(made.tips)
        await quarantine.migrate()
    entered = asyncio.Event()

    async def serve() -> None:
        async with repository.pack(made.tips):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    listing = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "comm="], capture_output=True, check=False)
    assert b"git" not in listing.stdout
