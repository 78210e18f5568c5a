"""What annotated tags point at, by what they say themselves: their targets need not be here."""

import re
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from guts.git.ancestry import NotHeld
from guts.git.command import Git
from guts.git.objects import BATCH_CHECK, BATCH_CONTENTS, UnreadableObject, contents, id_lines, parse_infos
from guts.ids import ObjectId

MAX_TAG_BYTES: Final = 4 << 20
"""Of one tag: a message and a signature."""

MAX_NESTED: Final = 16
"""Tags of tags of tags: nobody makes more than two."""

_HEAD: Final = re.compile(rb"object ([0-9a-f]{40})\ntype (\w+)\n")


async def targets(git: Git, environment: Mapping[str, str], ids: Collection[ObjectId]) -> dict[ObjectId, ObjectId]:
    """Return what each of ``ids`` that is an annotated tag finally points at; others are left out.

    Raises:
        NotHeld: one of them is not here, or a tag that one points at.
        UnreadableObject, OversizedObject: a tag is not what git makes.
        GitFailed: git can't say.
    """
    found: dict[ObjectId, ObjectId] = {}
    # By the id that was asked about: the tag that is to be followed from there.
    followed = {id_: id_ for id_ in ids}
    for _ in range(MAX_NESTED):
        if not followed:
            return found
        tagged = await _tagged(git, environment, set(followed.values()))
        followed = {id_: last for id_, last in followed.items() if last in tagged}
        found.update({id_: tagged[last].target for id_, last in followed.items()})
        followed = {id_: tagged[last].target for id_, last in followed.items() if tagged[last].is_tag}
    raise UnreadableObject(f"a tag of a tag, more than {MAX_NESTED} times over")


class _Tagged(NamedTuple):
    target: ObjectId
    is_tag: bool


async def _tagged(git: Git, environment: Mapping[str, str], ids: Collection[ObjectId]) -> dict[ObjectId, _Tagged]:
    """Return what those of ``ids`` that are tags name."""
    infos = list(parse_infos(await git.run(BATCH_CHECK, environment=environment, data=id_lines(ids))))
    if missing := set(ids) - {info.id for info in infos}:
        raise NotHeld(missing)
    names = [info.id for info in infos if info.kind == "tag"]
    if not names:
        return {}
    named: dict[ObjectId, _Tagged] = {}
    async with git.start(BATCH_CONTENTS, environment=environment) as child:
        child.write(id_lines(names))
        child.close_stdin()
        async for block in contents(child, MAX_TAG_BYTES):
            for content in block:
                match = _HEAD.match(content.data)
                if match is None:
                    raise UnreadableObject(f"the tag {content.id} names no object")
                target = ObjectId(bytes.fromhex(match[1].decode()))
                named[ObjectId(bytes.fromhex(content.id))] = _Tagged(target, match[2] == b"tag")
        await child.finish()
    return named
