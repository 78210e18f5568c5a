"""Id, type and size of every object, told to the database: derived data, off the critical path."""

import contextlib

from guts.git.repository import BareRepository
from guts.ids import RepositoryId
from guts.node.repositories import Repositories
from guts.store import objects as object_table
from guts.store.database import Database


async def list_objects(repositories: Repositories, repository: RepositoryId) -> None:
    """Write id, type and size of every object that is not told yet into the database.

    Derived data, off the critical path: pack by pack, and a pack is told when all of it is.

    Raises:
        StorageFault: git or the database failed; what is missing is told by the next run.
    """
    bare = await repositories.open(repository)
    told: set[str] = set()
    # Another commit may bring a pack while these are told.
    while packs := set(await bare.packs()) - told:
        for pack in await repositories.database.read(object_table.unlisted, repository, sorted(packs)):
            await _list_pack(repositories.database, repository, bare, pack)
        told |= packs


async def _list_pack(database: Database, repository: RepositoryId, bare: BareRepository, pack: str) -> None:
    chunk: list[object_table.ObjectInfo] = []
    async with contextlib.aclosing(bare.objects([pack])) as found:
        async for info in found:
            kind = object_table.ObjectType[info.kind.upper()]
            chunk.append(object_table.ObjectInfo(info.id, kind, info.size))
            if len(chunk) >= object_table.CHUNK:
                await database.write(object_table.insert, repository, chunk)
                chunk = []
    await database.write(object_table.insert_last, repository, chunk, pack)
