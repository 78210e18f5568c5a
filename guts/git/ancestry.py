"""What objects point at, and which commits contain which; in a repository, or in a quarantine before it.

A few pairs get a git child each, which looks no further than where the two histories meet. For more, one child
lists the history of all of them, children before parents, and ``_Walk`` follows who contains what: the number of
children does not grow with the number of pairs, and dates that lie change nothing.
"""

import asyncio
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, Final

from guts.errors import Unavailable
from guts.git.command import Git
from guts.git.objects import BATCH_CHECK, ObjectInfo, parse_infos
from guts.ids import ObjectId

MAX_SINGLE: Final = 16
"""Pairs that get a child of their own (a few ms each, plus what the two commits differ by)."""

WALK_WIDTH: Final = 4_096
"""Commits asked about as containers in one walk: each commit on its way holds a bit for each of them."""

_CHUNK: Final = 1024 * 1024


class NotHeld(Unavailable):
    """Somebody wants objects that are not here (any more, or yet).

    Attributes:
        missing: some of them.
    """

    code: ClassVar[str] = "NOT_HELD"

    def __init__(self, missing: Collection[ObjectId]) -> None:
        super().__init__(f"{len(missing)} wanted objects are not held here")
        self.missing = frozenset(missing)


NO_PARENTS: Final[Mapping[ObjectId, tuple[ObjectId, ...]]] = {}


async def are_ancestors(
    git: Git,
    environment: Mapping[str, str],
    pairs: Sequence[tuple[ObjectId, ObjectId]],
    parents: Mapping[ObjectId, tuple[ObjectId, ...]] = NO_PARENTS,
) -> list[bool]:
    """Return for each pair (old, new) whether ``old`` is ``new`` or one of its ancestors.

    Tags count as the commits they point at. Objects that are no commits are only their own ancestors.

    Args:
        environment: what tells git where to work.
        parents: of commits here that are known to be complete; what they show git is not asked about.

    Raises:
        NotHeld: one is not here.
        GitFailed: git can't say.
    """
    if parents:
        shown = _shown(pairs, parents)
        rest = [pair for pair in pairs if pair not in shown]
        found = dict(zip(rest, await are_ancestors(git, environment, rest), strict=True)) if rest else {}
        return [pair in shown or found[pair] for pair in pairs]
    peeled = await peel(git, environment, {id_ for pair in pairs for id_ in pair})
    commits = set()
    for old, new in pairs:
        (_, old_target), (_, new_target) = peeled[old], peeled[new]
        if old_target.id != new_target.id and {old_target.kind, new_target.kind} == {"commit"}:
            commits.add((old_target.id, new_target.id))
    contained = await (_one_by_one if len(commits) <= MAX_SINGLE else _together)(git, environment, commits)
    targets = [(peeled[old][1].id, peeled[new][1].id) for old, new in pairs]
    return [old == new or (old, new) in contained for old, new in targets]


def _shown(
    pairs: Sequence[tuple[ObjectId, ObjectId]], parents: Mapping[ObjectId, tuple[ObjectId, ...]]
) -> set[tuple[ObjectId, ObjectId]]:
    """Return those of ``pairs`` (old, new) where ``parents`` lead from ``new`` to ``old``."""
    shown = set()
    reached: dict[ObjectId, set[ObjectId]] = {}
    for old, new in pairs:
        if new not in reached:
            reached[new] = seen = set()
            ways = [new] if new in parents else []
            while ways:
                id_ = ways.pop()
                if id_ not in seen:
                    seen.add(id_)
                    ways += parents.get(id_, ())
        if old in reached[new]:
            shown.add((old, new))
    return shown


async def contained(
    git: Git, environment: Mapping[str, str], pairs: Sequence[tuple[ObjectId, ObjectId]]
) -> set[tuple[ObjectId, ObjectId]]:
    """Return those of ``pairs`` (old, new) of which ``new`` is known to contain ``old``; both are here.

    Raises: ``GitFailed``: git can't say.
    """
    try:
        found = await are_ancestors(git, environment, pairs)
    except NotHeld as error:
        pairs = [pair for pair in pairs if error.missing.isdisjoint(pair)]
        found = await are_ancestors(git, environment, pairs)
    return {pair for pair, contains in zip(pairs, found, strict=True) if contains}


async def _one_by_one(
    git: Git, environment: Mapping[str, str], pairs: Collection[tuple[ObjectId, ObjectId]]
) -> set[tuple[ObjectId, ObjectId]]:
    """Return those of ``pairs`` of commits (old, new) where ``new`` contains ``old``."""
    contained = set()
    for old, new in pairs:
        # Not "old ^new": that gives up early where the dates between the two are older than both.
        data = b"%s...%s\n" % (old.hex().encode(), new.hex().encode())
        arguments = ["rev-list", "--left-only", "--max-count=1", "--stdin"]
        if not await git.run(arguments, environment=environment, data=data):
            contained.add((old, new))
    return contained


async def _together(
    git: Git, environment: Mapping[str, str], pairs: Collection[tuple[ObjectId, ObjectId]]
) -> set[tuple[ObjectId, ObjectId]]:
    """Return the same as ``_one_by_one``, with one child for ``WALK_WIDTH`` different ``new``."""
    contained = set()
    olds_of: dict[ObjectId, list[ObjectId]] = {}
    for old, new in pairs:
        olds_of.setdefault(new, []).append(old)
    names = iter(olds_of)
    while news := list(itertools.islice(names, WALK_WIDTH)):
        walk = _Walk({new: olds_of[new] for new in news})
        data = b"".join(b"%s\n" % new.hex().encode() for new in news)
        arguments = ["rev-list", "--topo-order", "--parents", "--stdin"]
        async with git.start(arguments, environment=environment) as child:
            child.write(data)
            child.close_stdin()
            while chunk := await child.stdout.read(_CHUNK):
                # In a thread: a long history is seconds of work.
                await asyncio.to_thread(walk.feed, chunk)
            await child.finish()
        contained |= walk.contained
    return contained


class _Walk:
    """Follows a history, children before parents, to find out who contains what.

    Attributes:
        contained: pairs (old, new) found so far.
    """

    def __init__(self, olds_of: Mapping[ObjectId, Collection[ObjectId]]) -> None:
        self.contained: set[tuple[ObjectId, ObjectId]] = set()
        # By name in hex: the containers of a commit whose children have been seen, one bit each.
        self._containers = {new.hex().encode(): 1 << bit for bit, new in enumerate(olds_of)}
        self._asked: dict[bytes, list[tuple[int, tuple[ObjectId, ObjectId]]]] = {}
        for bit, (new, olds) in enumerate(olds_of.items()):
            for old in olds:
                self._asked.setdefault(old.hex().encode(), []).append((1 << bit, (old, new)))
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take in more lines of ``commit parent…``."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        containers = self._containers
        for line in lines:
            commit, *parents = line.split(b" ")
            here = containers.pop(commit)
            for bit, pair in self._asked.get(commit, ()):
                if here & bit:
                    self.contained.add(pair)
            for parent in parents:
                containers[parent] = containers.get(parent, 0) | here


async def peel(
    git: Git, environment: Mapping[str, str], ids: Collection[ObjectId]
) -> dict[ObjectId, tuple[bool, ObjectInfo]]:
    """Return for each id whether it is an annotated tag, and what it finally points at.

    Raises:
        NotHeld: one is not here.
        GitFailed: git can't say.
    """
    ordered = list(ids)
    if not ordered:
        return {}
    questions = b"".join([b"%s^{}\n" % id_.hex().encode() for id_ in ordered])
    answer = await git.run(BATCH_CHECK, environment=environment, data=questions)
    lines = answer.splitlines()
    assert len(lines) == len(ordered), "cat-file answers every question"
    peeled: dict[ObjectId, tuple[bool, ObjectInfo]] = {}
    for id_, line in zip(ordered, lines, strict=True):
        for info in parse_infos(line):
            peeled[id_] = (info.id != id_, info)
    if missing := [id_ for id_ in ordered if id_ not in peeled]:
        raise NotHeld(missing)
    return peeled
