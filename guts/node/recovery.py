"""The start of a node: every repository brought to what the database says, and what it does not know taken in again."""

import asyncio
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from guts.crash import crash_point
from guts.errors import GutsError, StorageFault, Unavailable
from guts.events import Known
from guts.git.folder import has_refs
from guts.git.repository import clean_up
from guts.ids import BadId, RepositoryId
from guts.node.rebuilding import accept_again
from guts.node.repositories import REMOVED, SUFFIX, Repositories, delete_folder, known_of
from guts.store import repositories as table
from guts.store import seeding as seeding_table
from guts.store.accepted import RepositorySummary

log = logging.getLogger(__name__)

SETTLED_AT_A_TIME: Final = 4
"""Repositories taken in at a time: each waits for the disk and for git, and may hold the records of many authors."""

MAX_TOLD: Final = 3
"""Names of strange entries in the one warning about them: enough to find them."""


async def recover(repositories: Repositories, now_ms: int) -> dict[RepositoryId, Known]:
    """Bring every repository to the state that the database says; return those that are seeded.

    One that the database does not know, for it was lost or put back from a copy, is accepted again from the
    records in its folder.

    One whose directory is gone or damaged is told to the operator and left out: the others are served, and
    seeding it again fetches it whole. To be called before anything else touches a repository.

    Raises:
        StorageFault: the database can't be read.
    """
    await asyncio.to_thread(repositories.root.mkdir, mode=0o700, parents=True, exist_ok=True)
    held: dict[RepositoryId, Known] = {}
    crash_point("recovery-begun")
    await _finish_removals(repositories)
    summaries = await repositories.database.read(table.load_summaries)
    paths = {summary.id: repositories.path(summary.id) for summary in summaries}
    if await _settle_unknown(repositories, set(paths.values()), now_ms):
        summaries = await repositories.database.read(table.load_summaries)
    # In one go: thousands of turns of this loop would each wait for the processor where it is busy.
    cleaned = await asyncio.to_thread(_clean_up, paths)
    for summary in summaries:
        repositories.sizes[summary.id] = summary.size
        try:
            await _recover(repositories, summary, cleaned.get(summary.id, []))
        except (StorageFault, Unavailable) as error:
            repositories.mark_lost(summary.id)
            log.error("%s can't be served: %s; guts seed %s fetches it again", summary.name, error, summary.id)
            continue
        if summary.seeding:
            held[summary.id] = known_of(summary)
    return held


async def _finish_removals(repositories: Repositories) -> None:
    """Go on with what an earlier run began to remove: its folder is set aside, or is gone."""
    for aside in sorted(repositories.root.glob(f"{REMOVED}*")):
        await asyncio.to_thread(delete_folder, aside)
        log.info("removed %s, left by an earlier run", aside.name)
    for row in await repositories.database.read(seeding_table.load):
        begun = row.remove_at is not None and not repositories.path(row.repository).exists()
        if begun:
            await repositories.database.write(seeding_table.removed, row.repository)


async def _recover(repositories: Repositories, summary: RepositorySummary, cleaned: list[str] | StorageFault) -> None:
    if isinstance(cleaned, StorageFault):
        raise cleaned
    for leftover in cleaned:
        log.info("%s: removed %s, left by an earlier run", summary.id.short, leftover)
    if not summary.projected:
        stored = await repositories.database.read(table.load, summary.id)
        bare = await repositories.open(summary.id)
        await bare.project(stored.canonical, summary.head or "refs/heads/main")
        await bare.sync_refs()
        await repositories.database.write(table.mark_projected, summary.id, summary.generation)


async def _settle_unknown(repositories: Repositories, known: Collection[Path], now_ms: int) -> int:
    """Take in what the database does not know; remove what a first fetch began: nothing signed is in it.

    Only folders that have the name of a repository are touched. Returns how many were taken in.
    """
    turns = asyncio.Semaphore(SETTLED_AT_A_TIME)

    async def settle(path: Path, repository: RepositoryId) -> bool:
        async with turns:
            if await asyncio.to_thread(has_refs, path):
                return await _take_in(repositories, path, repository, now_ms)
            await repositories.at(path).delete()
            log.info("removed %s, begun by an earlier run", path.name)
            return False

    unknown = await asyncio.to_thread(_unknown, repositories, known)
    try:
        async with asyncio.TaskGroup() as tasks:
            settled = [tasks.create_task(settle(path, repository)) for path, repository in unknown.items()]
    except* StorageFault as group:
        raise group.exceptions[0] from None
    if taken := sum(task.result() for task in settled):
        log.warning("repositories that the database did not know, taken in from their folders: %d", taken)
    return taken


def _unknown(repositories: Repositories, known: Collection[Path]) -> dict[Path, RepositoryId]:
    """Return the folders of repositories that are not ``known``; whatever else somebody put there is left alone."""
    unknown: dict[Path, RepositoryId] = {}
    strange: list[Path] = []
    for path in sorted(repositories.root.glob(f"*{SUFFIX}")):
        if path in known:
            continue
        try:
            repository = RepositoryId.parse(path.name.removesuffix(SUFFIX))
        except BadId:
            strange.append(path)
            continue
        # An id has a second spelling, in capitals: only the one that this node writes is its own.
        if path != repositories.path(repository) or path.is_symlink() or not path.is_dir():
            strange.append(path)
            continue
        unknown[path] = repository
    if strange:
        told = ", ".join(path.name for path in strange[:MAX_TOLD])
        more = f" and {len(strange) - MAX_TOLD} more" if len(strange) > MAX_TOLD else ""
        log.warning("%s: no folders of repositories of this node: %s%s; left alone", repositories.root, told, more)
    return unknown


async def _take_in(repositories: Repositories, path: Path, repository: RepositoryId, now_ms: int) -> bool:
    """Accept again what is in the repository at ``path``; tell whether that succeeded."""
    try:
        bare = await repositories.open(repository)
        await asyncio.to_thread(clean_up, bare.path)
        documents, records = await bare.records.identities(), await bare.records.refs()
        proofs = [*await bare.records.proofs(), *await bare.records.fork()]
        verified, refused = await asyncio.to_thread(accept_again, repository, documents, records, proofs, now_ms)
        async with repositories.locks(repository).shared() as hold, bare.quarantine() as quarantine:
            await quarantine.check(verified.tips)
            seeding = await bare.records.seeding()
            await repositories.commit(bare, verified, quarantine, hold, now_ms, seeding=seeding)
    except GutsError as error:
        log.error("%s is left as it is: %s; moved away, guts seed %s fetches it again", path, error, repository)
        return False
    for author, why in refused.items():
        log.warning("%s: the record of %s is not accepted again: %s", repository.short, author.short, why)
    log.info("%s (%s) is in the database again", verified.chain.current.name, repository)
    crash_point("repository-taken-in")
    return True


def _clean_up(paths: Mapping[RepositoryId, Path]) -> dict[RepositoryId, list[str] | StorageFault]:
    cleaned: dict[RepositoryId, list[str] | StorageFault] = {}
    for repository, path in paths.items():
        try:
            cleaned[repository] = clean_up(path)
        except StorageFault as error:
            cleaned[repository] = error
    return cleaned
