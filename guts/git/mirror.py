"""The refs of a clone, or of a stranger's mirror, as git shows them: what ``guts verify`` compares with signed ones.

Git runs as the person's own. A clone is only read; a mirror is asked by ``git ls-remote``, over the protocols that git
itself takes for safe, and for no more than a repository may have.
"""

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Self, TypeVar

from guts.errors import Unavailable, UsageError
from guts.git.ancestry import contained
from guts.git.command import Git, GitFailed
from guts.git.source import REPOSITORY_KEY, NotAGitDirectory, OwnGit, UnsupportedObjectFormat
from guts.ids import ObjectId

PROTOCOLS: Final = "file:git:http:https:ssh"
"""Of a mirror: none that runs a program of its choice (gitremote-helpers(7), ``ext``)."""

MAX_LISTING_BYTES: Final = 32 << 20
"""Of a mirror's refs: 5,000 with names of 255 bytes, and as many conflicts, are 3 MB; a forge adds thousands."""

_Value = TypeVar("_Value")
_OBJECT: Final = re.compile(rb"[0-9a-f]{40}")
_MAKING: Final = ("commit", "cherry-pick", "revert", "am", "rebase (pick", "rebase (continue")
"""How entries of a reflog begin that come with a new commit; ``clone``, ``checkout``, ``pull`` may need not."""

_REMOTE_HEAD: Final = re.compile(r"refs/remotes/.+/HEAD")
_SETTINGS: Final = r"^(remote\..*\.(url|fetch|tagopt)|guts\.repository)$"
_BARE: Final = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
_AS_SIGNED: Final = {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_GRAFT_FILE": os.devnull}
"""Objects are what their ids say: nothing stands in for another, and no commit has other parents."""

_OFFLINE: Final = {**_AS_SIGNED, "GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none"}
"""Of a clone made with ``--filter`` nothing is fetched on demand: what is missing is missing."""

REPLACING: Final = "refs/replace/"
GRAFTS: Final = "info/grafts"


class NoSuchRemote(UsageError):
    """The clone has no remote of that name, or several and none that is meant by itself."""

    code: ClassVar[str] = "NO_SUCH_REMOTE"


class MirrorFailed(Unavailable):
    """A mirror does not tell its refs."""

    code: ClassVar[str] = "MIRROR_FAILED"


@dataclass(frozen=True, slots=True)
class Refs:
    """Refs as git shows them.

    Attributes:
        oids: by name, also of those that point at others; without HEAD.
        symbolic: where those point that point at others, HEAD too, by name.
        grafted: a file beside them gives commits other parents (gitglossary(7), ``grafts``).
        head: where HEAD is, on a branch or not.
        made_here: the commit there was made here, by HEAD's reflog, not fetched.
    """

    oids: Mapping[str, ObjectId]
    symbolic: Mapping[str, str]
    grafted: bool = False
    head: ObjectId | None = None
    made_here: bool = False

    @property
    def disguises(self) -> dict[str, ObjectId | None]:
        """What makes git show other objects, or another history, than ids say, by name."""
        found: dict[str, ObjectId | None] = {name: oid for name, oid in self.oids.items() if name.startswith(REPLACING)}
        return found | ({GRAFTS: None} if self.grafted else {})


@dataclass(frozen=True, slots=True)
class Remote:
    """Where a clone came from.

    Attributes:
        fetch: what was fetched.
        all_tags: a clone from it has all tags, not only those of what it asked for.
    """

    name: str
    url: str
    fetch: "tuple[Refspec, ...]"
    all_tags: bool

    def name_of(self, ref: str) -> str | None:
        """Return the remote's name of what is ``ref`` here; ``None``: it came from elsewhere."""
        names = (refspec.fetched_from(ref) for refspec in self.fetch if not refspec.negative)
        return next((name for name in names if name is not None), None)

    def expects(self, ref: str) -> bool:
        """Tell whether a clone from it has the remote's ``ref``."""
        if any(refspec.covers(ref) for refspec in self.fetch if refspec.negative):
            return False
        if any(refspec.covers(ref) for refspec in self.fetch):
            return True
        return self.all_tags and ref.startswith("refs/tags/")


@dataclass(frozen=True, slots=True)
class View:
    """What a clone has of its remote's refs, or what a mirror shows.

    Attributes:
        there: by the remote's names for them.
        head: the branch that the remote's HEAD was on, where that is known.
        head_oid: where the remote's HEAD is, where that is known; without ``head``: on no branch.
        own: branches and notes of the clone itself.
        elsewhere: how many refs more, that no record can speak of.
        disguises: what makes git show something else than these, by name.
        detached: where the HEAD of the clone itself is, if it is on no branch.
        made_here: that commit was made here, not fetched.
    """

    there: Mapping[str, ObjectId]
    head: str | None
    own: Mapping[str, ObjectId] = field(default_factory=dict)
    elsewhere: int = 0
    disguises: Mapping[str, ObjectId | None] = field(default_factory=dict)
    head_oid: ObjectId | None = None
    detached: ObjectId | None = None
    made_here: bool = False


@dataclass(frozen=True, slots=True)
class Refspec:
    """Which refs of a remote are fetched to where (gitglossary(7)); each side has at most one ``*``."""

    source: str
    target: str
    negative: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what a ``remote.<name>.fetch`` says."""
        if text.startswith("^"):
            return cls(text[1:], "", negative=True)
        source, _, target = text.removeprefix("+").partition(":")
        return cls(source, target)

    def covers(self, ref: str) -> bool:
        """Tell whether the remote's ``ref`` is meant."""
        return _moved(ref, self.source, self.source) is not None

    def fetched_from(self, ref: str) -> str | None:
        """Return the remote's name of what is ``ref`` here; ``None``: it came from elsewhere."""
        return _moved(ref, self.target, self.source) if self.target else None


def _moved(name: str, pattern: str, into: str) -> str | None:
    before, star, after = pattern.partition("*")
    if not star:
        return into if name == pattern else None
    if not (name.startswith(before) and name.endswith(after) and len(name) >= len(before) + len(after)):
        return None
    return into.replace("*", name[len(before) : len(name) - len(after)], 1)


def view_of_clone(refs: Refs, remote: Remote, signed: tuple[str, ...]) -> View:
    """Return what a clone with ``refs`` has of ``remote``.

    Args:
        signed: beginnings of the names that records can speak of.
    """
    there: dict[str, ObjectId] = {}
    own: dict[str, ObjectId] = {}
    disguises = refs.disguises
    elsewhere = 0
    for name, oid in refs.oids.items():
        theirs = remote.name_of(name)
        if name in disguises:
            continue
        if theirs is not None and theirs.startswith(signed):
            there[theirs] = oid
        elif theirs is not None:
            elsewhere += 1
        elif name.startswith("refs/tags/"):
            there[name] = oid
        elif name.startswith(("refs/heads/", "refs/notes/")):
            own[name] = oid
    if remote.name_of("refs/heads/x") == "refs/heads/x":
        branch = refs.symbolic.get("HEAD")
        head = None if branch is None else remote.name_of(branch)
        return View(there, head, own, elsewhere, disguises, head_oid=refs.head)
    branch = refs.symbolic.get(f"refs/remotes/{remote.name}/HEAD")
    head = None if branch is None else remote.name_of(branch)
    detached = None if refs.symbolic.get("HEAD", "").startswith("refs/heads/") else refs.head
    return View(there, head, own, elsewhere, disguises, detached=detached, made_here=refs.made_here)


def view_of_mirror(refs: Refs, signed: tuple[str, ...]) -> View:
    """Return what a mirror shows; ``signed`` as in ``view_of_clone``."""
    there = {name: oid for name, oid in refs.oids.items() if name.startswith(signed)}
    disguises = refs.disguises
    elsewhere = len(refs.oids.keys() - there.keys() - disguises.keys())
    head = refs.symbolic.get("HEAD")
    return View(there, head, elsewhere=elsewhere, disguises=disguises, head_oid=refs.head)


class Clone:
    """A clone, of any kind: bare, mirror, shallow, partial. Obtained from ``open``."""

    def __init__(self, path: Path, git: Git, *, bare: bool, settings: Mapping[str, Sequence[str]]) -> None:
        self.path = path
        self.bare = bare
        self._git = git
        self._settings = settings

    @classmethod
    async def open(cls, directory: Path, git: Git | None = None) -> Self:
        """Return the clone that ``directory`` belongs to.

        Raises:
            NotAGitDirectory, UnsupportedObjectFormat: it can't be one.
            GitMissing: no git here, or one that is too old.
        """
        git = git or OwnGit()
        await git.check_version()
        try:
            output = await git.run(["rev-parse", "--is-bare-repository", "--show-object-format"], cwd=directory)
        except GitFailed as error:
            if "dubious ownership" in error.stderr:
                hint = f"git config --global --add safe.directory {directory}"
                raise NotAGitDirectory(f"{directory} belongs to somebody else", hint=hint) from None
            raise NotAGitDirectory(f"{directory} is not in a git repository", hint="cd to a clone") from None
        bare, object_format = output.decode().split()
        if object_format != "sha1":
            raise UnsupportedObjectFormat(f"{directory} uses {object_format} objects; what Guts signs are SHA-1")
        listing = await git.run(
            ["config", "--local", "--null", "--get-regexp", _SETTINGS], accept=(0, 1), cwd=directory
        )
        settings: dict[str, list[str]] = {}
        for line in listing.decode(errors="surrogateescape").split("\0")[:-1]:
            key, _, value = line.partition("\n")
            settings.setdefault(key, []).append(value)
        return cls(directory, git, bare=bare == "true", settings=settings)

    @property
    def repository(self) -> str | None:
        """What ``guts.repository`` is set to."""
        return next(iter(self._settings.get(REPOSITORY_KEY, [])), None)

    def remotes(self) -> list[str]:
        """Return the names of the remotes that have a URL."""
        return [key[len("remote.") : -len(".url")] for key in self._settings if key.endswith(".url")]

    def urls(self) -> list[str]:
        """Return the URLs of all remotes."""
        return [url for name in self.remotes() for url in self._settings[f"remote.{name}.url"]]

    def remote(self, name: str | None = None) -> Remote | None:
        """Return the remote ``name``; else ``origin``, or the only one; ``None``: there is none.

        Raises: ``NoSuchRemote``: there is none of that name, or several are.
        """
        names = self.remotes()
        if name is None and "origin" in names:
            name = "origin"
        if name is None and len(names) > 1:
            raise NoSuchRemote(f"which remote? {', '.join(names)}", hint=f"--remote {names[0]}")
        if name is None and not names:
            return None
        name = name or names[0]
        if name not in names:
            raise NoSuchRemote(f"there is no remote {name!r} here", hint="git remote")
        # A bare clone has branches and tags as its own, and no refspec.
        texts = self._settings.get(f"remote.{name}.fetch", _BARE if self.bare else ())
        fetch = tuple(map(Refspec.parse, texts))
        no_tags = "--no-tags" in self._settings.get(f"remote.{name}.tagopt", ())
        every_branch = any("*" in refspec.source for refspec in fetch)
        return Remote(name, self._settings[f"remote.{name}.url"][0], fetch, every_branch and not no_tags)

    async def refs(self) -> Refs:
        """Return all refs. Raises: ``GitFailed``."""
        output = await self._git.run(["for-each-ref", "--format=%(objectname) %(refname) %(symref)"], cwd=self.path)
        oids: dict[str, ObjectId] = {}
        symbolic: dict[str, str] = {}
        for line in output.decode(errors="surrogateescape").splitlines():
            oid, name, target = line.split(" ")
            if target:
                symbolic[name] = target
            if not (target and _REMOTE_HEAD.fullmatch(name)):  # others are refs to whoever fetches, as any
                oids[name] = ObjectId(bytes.fromhex(oid))
        head = await self._git.run(["symbolic-ref", "--quiet", "HEAD"], accept=(0, 1), cwd=self.path)
        if head:
            symbolic["HEAD"] = head.decode(errors="surrogateescape").strip()
        at = (await self._git.run(["rev-parse", "--verify", "--quiet", "HEAD"], accept=(0, 1), cwd=self.path)).decode()
        head_oid = ObjectId(bytes.fromhex(at.strip())) if at else None
        return Refs(oids, symbolic, await self._grafted(), head_oid, await self._made_here(head_oid))

    async def _made_here(self, head: ObjectId | None) -> bool:
        arguments = ["log", "--walk-reflogs", "--max-count=1", "--format=%H %gs", "HEAD", "--"]
        output = await self._git.run(arguments, environment=_OFFLINE, accept=(0, 128), cwd=self.path)
        oid, _, done = output.decode(errors="replace").partition(" ")
        return head is not None and oid == str(head) and done.startswith(_MAKING)

    async def _grafted(self) -> bool:
        output = await self._git.run(["rev-parse", "--git-path", GRAFTS], cwd=self.path)
        file = self.path / os.fsdecode(output.removesuffix(b"\n"))
        return file.exists() and (not file.is_file() or file.stat().st_size > 0)


async def ancestors(
    path: Path, pairs: Sequence[tuple[ObjectId, ObjectId]], git: Git | None = None
) -> set[tuple[ObjectId, ObjectId]]:
    """Return those of ``pairs`` (old, new) of which ``new`` is known to contain ``old`` in the repository at ``path``.

    What is not there, or is cut off, is not known.
    """
    git = git or OwnGit()
    try:
        return await contained(git, {**_OFFLINE, "GIT_DIR": await _git_dir(git, path)}, pairs)
    except GitFailed:  # a history that is cut off
        return set()


async def list_mirror(url: str, timeout: float, git: Git | None = None) -> Refs:  # noqa: ASYNC109 (told to a person)
    """Return the refs that ``url`` tells; a name that is repeated, or peeled, counts once.

    Raises:
        MirrorFailed: it does not, not in time, not as git does, or a name is at two places.
    """
    git = git or OwnGit()
    environment = {**_AS_SIGNED, "GIT_ALLOW_PROTOCOL": PROTOCOLS}
    hint = f"git ls-remote {url}"
    try:
        async with (
            asyncio.timeout(timeout),
            git.start(["ls-remote", "--symref", "--quiet", "--", url], environment=environment) as child,
        ):
            child.close_stdin()
            output = b""
            while chunk := await child.stdout.read(1 << 20):
                output += chunk
                if len(output) > MAX_LISTING_BYTES:
                    raise MirrorFailed(f"{url} lists more than {MAX_LISTING_BYTES} bytes of refs", hint=hint)
            await child.finish()
    except TimeoutError:
        raise MirrorFailed(f"{url} did not tell its refs within {timeout:.0f} s", hint=hint) from None
    except GitFailed as error:
        said = " ".join(error.stderr.split()).removeprefix("fatal: ")
        raise MirrorFailed(f"{url} does not tell its refs: {said}", hint=hint) from None
    return _parsed(url, output)


def _parsed(url: str, output: bytes) -> Refs:
    oids: dict[str, ObjectId] = {}
    symbolic: dict[str, str] = {}
    heads: dict[str, ObjectId] = {}
    for line in output.splitlines():
        value, _, name_bytes = line.partition(b"\t")
        name = name_bytes.decode(errors="surrogateescape")
        if value.startswith(b"ref: "):
            _put(url, symbolic, name, value[5:].decode(errors="surrogateescape"))
        elif not _OBJECT.fullmatch(value):
            raise MirrorFailed(f"{url} has other objects than SHA-1")
        elif not name.endswith("^{}"):
            _put(url, heads if name == "HEAD" else oids, name, ObjectId(bytes.fromhex(value.decode())))
    return Refs(oids, symbolic, head=heads.get("HEAD"))


def _put(url: str, found: dict[str, _Value], name: str, value: _Value) -> None:
    """Put ``name`` in. Raises: ``MirrorFailed``: it is there with another value, and git takes the first of two."""
    if found.setdefault(name, value) != value:
        shown = "".join(character if character.isprintable() else "?" for character in name)
        raise MirrorFailed(f"{url} lists {shown} twice, at two places", hint=f"git ls-remote {url}")


async def _git_dir(git: Git, path: Path) -> str:
    output = await git.run(["rev-parse", "--absolute-git-dir"], cwd=path)
    return output.decode(errors="surrogateescape").strip()
