"""One commit with all its files, of a repository that is not held: what ``git archive --remote`` is answered from."""

import asyncio
import contextlib
import functools
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from guts.git.ancestry import NotHeld
from guts.git.command import Git
from guts.git.files import disk_faults, write_files
from guts.git.quarantine import Quarantine
from guts.git.repository import BareRepository
from guts.ids import ObjectId
from guts.node.git_relay import NoSourceAnswered, Source
from guts.node.object_fetch import TIPS_ONLY, fetch_objects


@contextlib.asynccontextmanager
async def shallow_copy(
    folder: Path,
    git: Git,
    ref: str,
    oid: ObjectId,
    head: str,
    sources: Sequence[Source],
    max_pack_bytes: int,
    busy: float,
) -> AsyncIterator[BareRepository]:
    """Enter with a repository below ``folder`` that has ``ref`` and nothing before it; it passed a replica's checks.

    Args:
        oid: what ``ref`` points at, verified: a commit, or a tag.
        head: name of the ref that HEAD points at.

    Raises:
        NoSourceAnswered: none of ``sources`` gave all of it.
        StorageFault: our own side failed.
    """
    async with empty_copy(folder, git) as bare:
        path = bare.path
        reasons: list[str] = []
        for source in sources:
            try:
                # What one has sent is not mixed with what another sends: nothing may be there that is not reached.
                async with bare.quarantine() as quarantine:
                    await fetch_objects(
                        {oid},
                        (),
                        (TIPS_ONLY,),
                        [source],
                        quarantine,
                        max_pack_bytes,
                        busy,
                        functools.partial(_checked, path, quarantine, oid),
                    )
                    await quarantine.migrate()
                break
            except NoSourceAnswered as error:
                reasons += error.reasons
        else:
            raise NoSourceAnswered(reasons)
        await bare.project({ref: oid}, head)
        yield bare


@contextlib.asynccontextmanager
async def empty_copy(folder: Path, git: Git) -> AsyncIterator[BareRepository]:
    """Enter with a repository below ``folder`` that has nothing: it answers what needs no ref. Raises: as above."""
    path = await asyncio.to_thread(_new_folder, folder)
    try:
        yield await BareRepository.create(path, git)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _new_folder(folder: Path) -> Path:
    with disk_faults():
        folder.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="copy-", dir=folder))


async def _checked(git_dir: Path, quarantine: Quarantine, oid: ObjectId) -> bool:
    try:
        _, target = (await quarantine.peel([oid]))[oid]
    except NotHeld:
        return False
    if target.kind == "commit":
        # History ends here on purpose: git looks for no parents.
        await asyncio.to_thread(write_files, git_dir, {"shallow": f"{target.id}\n".encode()})
    await quarantine.check([oid])
    return True
