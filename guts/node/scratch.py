"""The few objects without which the refs of a repository that is not held can't be told.

Which of two commits contains the other, and what an annotated tag points at, stands in commits and tags alone. They are
fetched from those who hold the repository, into a bare repository in a folder of its own. Their ids are the hashes of
what they say, so it does not matter who sends them: who leaves one out is passed over.

Holders that have not heard of each other's newest records have different objects. So what can't be had from one of them
at once is fetched record by record: whoever tells a record has what it names.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Collection, Sequence, Set
from pathlib import Path

from guts.git import ancestry, tags
from guts.git.ancestry import NotHeld
from guts.git.command import Git, GitFailed
from guts.git.objects import id_lines
from guts.git.quarantine import Quarantine
from guts.git.repository import BareRepository
from guts.ids import ObjectId
from guts.node.git_relay import NoSourceAnswered, Source
from guts.node.object_fetch import TIPS_ONLY, WITHOUT_TREES, fetch_objects

_Learn = Callable[[Quarantine, Collection[ObjectId]], Awaitable[bool]]


class Scratch:
    """The objects of one reading. Each is checked against its id when it comes; none is ever served.

    Args:
        folder: made when something is first needed, and gone after ``close``.
        max_pack_bytes: of one fetch.
        busy: seconds for a place at a source that is busy.
    """

    def __init__(self, folder: Path, git: Git, max_pack_bytes: int, busy: float) -> None:
        self._folder = folder
        self._git = git
        self._max_pack_bytes = max_pack_bytes
        self._busy = busy
        self._quarantine: Quarantine | None = None
        self._turn = asyncio.Lock()
        self._peeled: dict[ObjectId, ObjectId | None] = {}
        self._complete: set[ObjectId] = set()

    async def peel(
        self, ids: Set[ObjectId], records: Sequence[Set[ObjectId]], sources: Sequence[Source]
    ) -> dict[ObjectId, ObjectId]:
        """Return what those of ``ids`` that are annotated tags finally point at.

        Args:
            records: the objects that each record names.

        Raises:
            NoSourceAnswered: none of ``sources`` has given all of them.
            StorageFault: our own side failed.
        """
        async with self._turn:
            if unknown := ids - self._peeled.keys():
                await self._fetch(unknown, (TIPS_ONLY,), records, sources, self._learn_targets)
        return {id_: target for id_ in ids if (target := self._peeled[id_]) is not None}

    async def are_ancestors(
        self,
        pairs: Sequence[tuple[ObjectId, ObjectId]],
        records: Sequence[Set[ObjectId]],
        sources: Sequence[Source],
    ) -> list[bool]:
        """Return for each pair (old, new) whether ``new`` contains ``old``. Args, Raises: as ``peel``."""
        async with self._turn:
            tips = {id_ for pair in pairs for id_ in pair}
            if unknown := tips - self._complete:
                await self._fetch(unknown, (), records, sources, self._learn_history)
            return await (await self._opened()).are_ancestors(pairs)

    async def contained(
        self,
        pairs: Sequence[tuple[ObjectId, ObjectId]],
        records: Sequence[Set[ObjectId]],
        sources: Sequence[Source],
    ) -> set[tuple[ObjectId, ObjectId]]:
        """Return those of ``pairs`` (old, new) of which ``new``, which is signed, contains ``old``, which need not be.

        Args, Raises: as ``peel``.
        """
        async with self._turn:
            if unknown := {new for _, new in pairs} - self._complete:
                await self._fetch(unknown, (), records, sources, self._learn_history)
            return await ancestry.contained(self._git, (await self._opened()).environment, pairs)

    def close(self) -> None:
        """Remove what was fetched."""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _opened(self) -> Quarantine:
        if self._quarantine is None:
            bare = await BareRepository.create(self._folder, self._git)
            self._quarantine = await bare.quarantine().__aenter__()
        return self._quarantine

    async def _fetch(
        self,
        wants: Set[ObjectId],
        options: Sequence[str],
        records: Sequence[Set[ObjectId]],
        sources: Sequence[Source],
        learn: _Learn,
    ) -> None:
        try:
            await self._fetch_part(wants, options, sources, learn)
        except NoSourceAnswered:
            parts = [part for record in records if (part := wants & record)]
            if len(parts) <= 1:
                raise
            for part in parts:
                await self._fetch_part(part, options, sources, learn)

    async def _fetch_part(
        self, wants: Set[ObjectId], options: Sequence[str], sources: Sequence[Source], learn: _Learn
    ) -> None:
        quarantine = await self._opened()
        haves = () if TIPS_ONLY in options else self._complete
        await fetch_objects(
            wants,
            haves,
            [WITHOUT_TREES, *options],
            sources,
            quarantine,
            self._max_pack_bytes,
            self._busy,
            lambda: learn(quarantine, wants),
        )

    async def _learn_targets(self, quarantine: Quarantine, wants: Collection[ObjectId]) -> bool:
        try:
            found = await tags.targets(self._git, quarantine.environment, wants)
        except NotHeld:
            return False
        self._peeled.update({id_: found.get(id_) for id_ in wants})
        return True

    async def _learn_history(self, quarantine: Quarantine, wants: Collection[ObjectId]) -> bool:
        walk = ["rev-list", "--count", "--stdin"]
        try:
            await self._git.run(walk, environment=quarantine.environment, data=id_lines(wants))
        except GitFailed as error:
            if error.is_ours:
                raise
            return False
        self._complete.update(wants)
        return True
