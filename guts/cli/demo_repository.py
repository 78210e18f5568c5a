"""The repository that the demo publishes: a scratch clone, or one made on the spot."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guts.git.command import GitFailed
from guts.git.source import OwnGit, SourceRefs, SourceRepository, clone_from

MADE_COMMITS: Final = 300
"""Commits of the repository that is made where there is no checkout to clone: enough to be more than a toy."""

_AUTHOR: Final = ("user.name=Guts demo", "user.email=demo@localhost", "commit.gpgsign=false")


@dataclass(frozen=True, slots=True)
class Contents:
    """What two copies of a repository are compared by.

    Attributes:
        refs: branches and tags.
        objects: the hex ids of all that they reach.
    """

    refs: dict[str, str]
    objects: frozenset[str]


def prepare(origin: Path | None, target: Path) -> str:
    """Make the repository to publish in ``target`` and return a word on where it came from.

    Args:
        origin: clone this one; ``None``: the checkout that the current directory is in, with ``main`` at HEAD,
            or a made repository where that is none, or is shallow.

    Raises: what ``SourceRepository.open`` raises, for a given ``origin``.
    """
    return asyncio.run(_prepare(origin, target))


def commit(repository: Path, name: str, text: str) -> str:
    """Commit a file and return the commit's id."""
    (repository / name).write_text(text)
    _git(repository, "add", "--", name)
    _git(repository, "commit", "--quiet", "--message", f"Add {name}", config=_AUTHOR)
    return head_of(repository)


def head_of(repository: Path) -> str:
    """Return the id of the commit that is checked out."""
    return _git(repository, "rev-parse", "HEAD").strip()


def contents(repository: Path) -> Contents:
    """Return what is published of the repository in ``repository``: its own branches, and its tags."""
    return _contents(repository, "refs/heads/")


def cloned_contents(repository: Path) -> Contents:
    """Return what a clone got: its remote's branches under their names there, and its tags."""
    return _contents(repository, "refs/remotes/origin/")


def _contents(repository: Path, branches: str) -> Contents:
    listed = _git(repository, "for-each-ref", "--format=%(objectname) %(refname)", branches, "refs/tags/")
    refs = {}
    for line in listed.splitlines():
        oid, _, name = line.partition(" ")
        if name != f"{branches}HEAD":
            refs[name.replace(branches, "refs/heads/", 1)] = oid
    tips = "".join(f"{oid}\n" for oid in sorted(set(refs.values())))
    objects = _git(repository, "rev-list", "--objects", "--no-object-names", "--stdin", data=tips.encode())
    return Contents(refs, frozenset(objects.split()))


async def _prepare(origin: Path | None, target: Path) -> str:
    if origin is not None:
        refs = await (await SourceRepository.open(origin)).refs()
        await _clone(origin, target, refs)
        return f"a clone of {origin}"
    git = OwnGit()
    question = ["rev-parse", "--is-shallow-repository", "--show-toplevel", "--verify", "HEAD"]
    try:
        shallow, top, head = (await git.run(question, cwd=Path.cwd())).decode().splitlines()
    except GitFailed:
        return await _made(target)
    if shallow != "false":
        return await _made(target)
    await clone_from(Path(top), target, top)
    await git.run(["switch", "--quiet", "--force-create", "main", head], cwd=target)
    return "a clone of this checkout, main at HEAD"


async def _clone(origin: Path, target: Path, refs: SourceRefs) -> None:
    """Clone with every branch of ``origin`` as a branch of our own, since that is what is published."""
    git = OwnGit()
    await clone_from(origin, target, str(origin), refs.head.removeprefix("refs/heads/"))
    commands = "".join(f"update {name} {oid}\n" for name, oid in refs.refs.items() if name.startswith("refs/heads/"))
    await git.run(["update-ref", "--stdin"], data=commands.encode(), cwd=target)


async def _made(target: Path) -> str:
    """Make a repository with git fast-import: no clock, no randomness, the same ids everywhere."""
    git = OwnGit()
    await git.run(["init", "--quiet", "--initial-branch=main", str(target)])
    await git.run(["fast-import", "--quiet"], data=_stream(), cwd=target)
    await git.run(["reset", "--quiet", "--hard", "main"], cwd=target)
    return f"made on the spot, {MADE_COMMITS} commits"


def _stream() -> bytes:
    parts = []
    for number in range(MADE_COMMITS):
        text = "".join(f"line {line} of file {number % 40}, edition {number}\n" for line in range(40))
        message = f"Edition {number}"
        parts.append(
            f"commit refs/heads/main\n"
            f"committer Guts demo <demo@localhost> {1_700_000_000 + number * 60} +0000\n"
            f"data {len(message)}\n{message}\n"
            f"M 644 inline chapter-{number % 40:02}/page.txt\ndata {len(text)}\n{text}\n"
        )
    return "".join(parts).encode()


def _git(repository: Path, *arguments: str, config: Sequence[str] = (), data: bytes = b"") -> str:
    output = asyncio.run(OwnGit().run(arguments, config=config, data=data, cwd=repository))
    return output.decode(errors="surrogateescape")
