"""What objects point at, and which commits contain which; in a repository, or in a quarantine before it."""

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from guts.errors import Unavailable
from guts.git.command import Git
from guts.git.objects import BATCH_CHECK, ObjectInfo, parse_infos
from guts.ids import ObjectId


class NotHeld(Unavailable):
    """Somebody wants objects that are not here (any more, or yet).

    Attributes:
        missing: some of them.
    """

    code: ClassVar[str] = "NOT_HELD"

    def __init__(self, missing: Collection[ObjectId]) -> None:
        super().__init__(f"{len(missing)} wanted objects are not held here")
        self.missing = frozenset(missing)


async def are_ancestors(
    git: Git, environment: Mapping[str, str], pairs: Sequence[tuple[ObjectId, ObjectId]]
) -> list[bool]:
    """Return for each pair (old, new) whether ``old`` is ``new`` or one of its ancestors.

    Tags count as the commits they point at. Objects that are no commits are only their own ancestors.

    Args:
        environment: what tells git where to work.

    Raises:
        NotHeld: one is not here.
        GitFailed: git can't say.
    """
    peeled = await peel(git, environment, {id_ for pair in pairs for id_ in pair})
    answers = []
    for old, new in pairs:
        (_, old_target), (_, new_target) = peeled[old], peeled[new]
        if old == new or old_target.id == new_target.id:
            answers.append(True)
        elif {old_target.kind, new_target.kind} != {"commit"}:
            answers.append(False)
        else:
            data = b"%s\n^%s\n" % (str(old_target.id).encode(), str(new_target.id).encode())
            found = await git.run(["rev-list", "--max-count=1", "--stdin"], environment=environment, data=data)
            answers.append(not found)
    return answers


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
