"""The repository of the person who publishes, and the clone that somebody asked for.

Here git runs as the person's own: with their configuration and environment, in their directory. Only hooks are
kept from running, and messages are asked for in English because this module reads some.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Self

from guts.addresses import RepositoryUrl
from guts.errors import UsageError
from guts.git.command import Git, GitFailed
from guts.git.limits import GitLimits
from guts.git.objects import BATCH_CHECK, id_lines, parse_infos
from guts.git.repository import start_pack
from guts.ids import ObjectId

REMOTE: Final = "guts"
REPOSITORY_KEY: Final = "guts.repository"
GENESIS_KEY: Final = "guts.genesis"

_PUBLISHED: Final = ("refs/heads", "refs/tags", "refs/notes")

# The person's own data, on the person's machine: only the wall limit stays.
_OWN_LIMITS: Final = GitLimits(
    alloc_bytes=0, memory_bytes=2**62, cpu_seconds=2**31, file_bytes=2**62, wall_seconds=24 * 3600
)


class NotAGitDirectory(UsageError):
    """There is no git repository at the path."""

    code: ClassVar[str] = "NOT_A_GIT_DIRECTORY"


class UnbornBranch(UsageError):
    """HEAD is on a branch that has no commit yet, where others have some."""

    code: ClassVar[str] = "UNBORN_BRANCH"


class AmbiguousRepository(UsageError):
    """The remotes of a clone name more than one repository of the network."""

    code: ClassVar[str] = "AMBIGUOUS_REPOSITORY"


class ShallowRepository(UsageError):
    """The repository's history was cut off when it was cloned."""

    code: ClassVar[str] = "SHALLOW_REPOSITORY"


class PartialClone(UsageError):
    """The repository lacks objects that its remote promised to hand over on demand."""

    code: ClassVar[str] = "PARTIAL_CLONE"


class UnsupportedObjectFormat(UsageError):
    """The repository's objects are named by another hash than SHA-1."""

    code: ClassVar[str] = "SHA256_REPOSITORY"


class DetachedHead(UsageError):
    """HEAD is at a commit, not on a branch."""

    code: ClassVar[str] = "DETACHED_HEAD"


class CloneFailed(UsageError):
    """The clone can't be made at the place that was asked for."""

    code: ClassVar[str] = "CLONE_FAILED"


@dataclass(frozen=True, slots=True)
class SourceRefs:
    """What a repository offers to publish.

    Attributes:
        refs: branches, tags and notes.
        head: the name of the branch that HEAD is on; it is one of ``refs``, unless there are none at all.
    """

    refs: Mapping[str, ObjectId]
    head: str


class OwnGit(Git):
    """Git as the person runs it."""

    def __init__(self, executable: str = "git") -> None:
        super().__init__(_OWN_LIMITS, executable)

    def environment(self) -> dict[str, str]:
        """Return the person's environment."""
        return dict(os.environ) | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}


class SourceRepository:
    """A repository that can be published. Obtained from ``open``."""

    def __init__(self, path: Path, git: Git) -> None:
        self.path = path.absolute()
        self._git = git

    @classmethod
    async def open(cls, directory: Path, git: Git | None = None) -> Self:
        """Return the repository that ``directory`` belongs to.

        Raises:
            NotAGitDirectory, UnbornBranch, ShallowRepository, PartialClone, UnsupportedObjectFormat,
            DetachedHead: it can't be published; the hint is the git command that helps.
            GitMissing: no git here, or one that is too old.
        """
        git = git or OwnGit()
        await git.check_version()
        source = cls(directory, git)
        await source._check_whole()
        await source.refs()
        return source

    async def refs(self) -> SourceRefs:
        """Return the refs as they are now.

        Raises:
            UnbornBranch, DetachedHead: they can't be published (any more).
        """
        output = await self._run("for-each-ref", "--format=%(objectname) %(refname)", *_PUBLISHED)
        refs = {}
        for line in output.splitlines():
            hex_id, _, name = line.partition(" ")
            refs[name] = ObjectId(bytes.fromhex(hex_id))
        head = (await self._run("symbolic-ref", "--quiet", "HEAD", accept=(0, 1))).strip()
        if not head:
            raise DetachedHead("HEAD is at a commit, not on a branch", hint="git switch <branch>")
        if head not in refs and refs:
            branch = head.removeprefix("refs/heads/")
            raise UnbornBranch(f"HEAD is on {branch!r}, which has no commits yet", hint="git switch <branch>")
        return SourceRefs(refs, head)

    @contextlib.asynccontextmanager
    async def pack(
        self, wants: Collection[ObjectId], haves: Collection[ObjectId] = ()
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Enter with an iterator over the bytes of a pack: what ``wants`` reach and ``haves`` don't.

        Args:
            wants: objects of this repository.
            haves: what the other side holds; those that are unknown here are passed over.

        Raises:
            GitFailed: git failed (from the iterator).
        """
        answer = await self._git.run(BATCH_CHECK, data=id_lines(haves), cwd=self.path) if haves else b""
        known = [info.id for info in parse_infos(answer)]
        async with start_pack(self._git, wants, known, {}, cwd=self.path) as chunks:
            yield chunks

    async def repository(self) -> str | None:
        """Return which repository of the network this one is: by ``guts.repository``, or by its ``guts://`` remotes.

        Raises: ``AmbiguousRepository``: they name several.
        """
        known = (await self._run("config", "--local", "--get", REPOSITORY_KEY, accept=(0, 1))).strip()
        if known:
            return known
        named = {str(url.repository) for url in (await self._remotes()).values()}
        if len(named) > 1:
            raise AmbiguousRepository(
                f"the remotes of {self.path} name {len(named)} repositories: {', '.join(sorted(named))}",
                hint=f"git config {REPOSITORY_KEY} REPOSITORY says which one is meant",
            )
        return next(iter(named), None)

    async def _remotes(self) -> dict[str, RepositoryUrl]:
        """Return the remotes that are repositories of the network, by name."""
        listed = await self._run("config", "--local", "--get-regexp", r"^remote\..*\.url$", accept=(0, 1))
        remotes = {}
        for line in listed.splitlines():
            key, _, url = line.partition(" ")
            if url.startswith("guts:"):
                with contextlib.suppress(UsageError):
                    remotes[key.removeprefix("remote.").removesuffix(".url")] = RepositoryUrl.parse(url)
        return remotes

    async def remote(self) -> str | None:
        """Return the ``guts://`` URL of the remotes; ``None``: there is none, or several differ."""
        found = await self._run("config", "--get-regexp", r"^remote\..*\.url$", accept=(0, 1))
        urls = {line.partition(" ")[2] for line in found.splitlines()}
        of_guts = sorted(url for url in urls if url.startswith("guts://"))
        return of_guts[0] if len(of_guts) == 1 else None

    async def set_repository(self, repository: str) -> None:
        """Remember which repository of the network this one is; it was published."""
        await self._run("config", "--local", REPOSITORY_KEY, repository)
        # 5: there is none.
        await self._run("config", "--local", "--unset-all", GENESIS_KEY, accept=(0, 5))

    async def genesis(self) -> str | None:
        """Return the identity document of a first publication that never got to its end."""
        return (await self._run("config", "--local", "--get", GENESIS_KEY, accept=(0, 1))).strip() or None

    async def set_genesis(self, document: str) -> None:
        """Remember what is about to be published for the first time, so that trying again makes no second one."""
        await self._run("config", "--local", GENESIS_KEY, document)

    async def add_remote(self, url: str) -> None:
        """Make ``url`` the remote ``guts``, also where there is one of that name; not where another one is the same."""
        wanted = RepositoryUrl.parse(url).repository
        if any(known.repository == wanted for name, known in (await self._remotes()).items() if name != REMOTE):
            return
        known = (await self._run("remote")).split()
        await self._run("remote", "set-url" if REMOTE in known else "add", REMOTE, url)

    async def _check_whole(self) -> None:
        if not self.path.is_dir():
            raise NotAGitDirectory(f"there is no directory {self.path}")
        try:
            output = await self._run("rev-parse", "--is-shallow-repository", "--show-object-format")
        except GitFailed as error:
            if "dubious ownership" in error.stderr:
                hint = f"git config --global --add safe.directory {self.path}"
                raise NotAGitDirectory(f"{self.path} belongs to somebody else", hint=hint) from None
            raise NotAGitDirectory(f"{self.path} is not in a git repository", hint="cd to one, or git init") from None
        shallow, object_format = output.split()
        if object_format != "sha1":
            raise UnsupportedObjectFormat(
                f"{self.path} uses {object_format} objects; only SHA-1 repositories can be published",
                hint="git init --object-format=sha1",
            )
        if shallow == "true":
            raise ShallowRepository("the history of this clone is cut off", hint="git fetch --unshallow")
        partial = await self._run(
            "config", "--get-regexp", r"^(remote\..*\.promisor|extensions\.partialclone)$", accept=(0, 1)
        )
        if partial:
            remote = await self._promisor(partial)
            raise PartialClone(
                "this clone lacks objects (it was made with --filter)",
                hint=f"git config --unset-all remote.{remote}.partialclonefilter && git fetch --refetch {remote} && "
                f"git config --unset-all remote.{remote}.promisor",
            )

    async def _promisor(self, settings: str) -> str:
        for line in settings.splitlines():
            key, _, value = line.partition(" ")
            if key.startswith("remote."):
                return key.removeprefix("remote.").removesuffix(".promisor")
            return value
        return "origin"

    async def _run(self, *arguments: str, accept: tuple[int, ...] = (0,)) -> str:
        output = await self._git.run(arguments, accept=accept, cwd=self.path)
        return output.decode(errors="surrogateescape")


async def git_directory(directory: Path, git: Git | None = None) -> Path:
    """Return the git directory that the repository around ``directory`` shares between its work trees.

    Raises:
        NotAGitDirectory: there is none.
        GitMissing: no git here, or one that is too old.
    """
    git = git or OwnGit()
    await git.check_version()
    source = SourceRepository(directory, git)
    if not source.path.is_dir():
        raise NotAGitDirectory(f"there is no directory {source.path}")
    try:
        found = await git.run(["rev-parse", "--git-common-dir"], cwd=source.path)
    except GitFailed:
        raise NotAGitDirectory(f"{source.path} is not in a git repository", hint="cd to one, or git init") from None
    return source.path / os.fsdecode(found.removesuffix(b"\n"))


async def published_as(directory: Path, git: Git | None = None) -> str | None:
    """Return what the repository around ``directory`` is in the network: its id, or the ``guts://`` URL of a remote.

    ``None`` where neither is known, or several are.
    """
    source = SourceRepository(directory, git or OwnGit())
    if (known := await source.repository()) is not None:
        return known
    return await source.remote()


async def clone_from(
    bare: Path,
    target: Path,
    url: str,
    branch: str | None = None,
    git: Git | None = None,
) -> None:
    """Make a working clone of a bare repository on this machine, whose origin is then ``url``.

    Args:
        bare: the repository.
        target: a new or empty directory.
        url: what ``origin`` is to be.
        branch: the branch to check out; ``None``: the one that HEAD names.

    Raises:
        CloneFailed: ``target`` is in use, or there is no such branch.
    """
    git = git or OwnGit()
    choice = [f"--branch={branch}"] if branch is not None else []
    try:
        await git.run(["clone", "--quiet", "--no-hardlinks", *choice, "--", str(bare), str(target)])
    except GitFailed as error:
        raise CloneFailed(error.stderr.strip().removeprefix("fatal: ")) from None
    await git.run(["remote", "set-url", "origin", url], cwd=target)
