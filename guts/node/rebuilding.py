"""A database that is damaged or gone is made anew; what was accepted is accepted again from the repositories' folders.

A damaged SQLite file is set aside, never deleted: renamed to ``guts.db.damaged-<Unix milliseconds>``, beside the new.
Each repository's ``guts/`` has the signed records; they pass the same checks as when a peer sent them, and so do the
objects, and what proves that an author signed two histories. What only the database had is lost: statistics, scores,
bans, receipts, peers and DHT contacts, and older records: who needs one gets it, or the headers that lead on from it,
from another replica.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

from guts.crash import crash_point
from guts.errors import GutsError, PeerFault, StorageFault, Unavailable
from guts.git.files import disk_faults
from guts.ids import AuthorId, RepositoryId
from guts.node.acceptance import Verified, verify
from guts.store import dialect
from guts.store.database import Database
from guts.store.dialect import DatabaseDamaged
from guts.wire.messages import EncodedRefs

log = logging.getLogger(__name__)

SUFFIX = ".damaged-"


class NothingAccepted(StorageFault):
    """The folder of a repository has no record that can be accepted."""

    code: ClassVar[str] = "NOTHING_ACCEPTED"


async def open_database(where: str, patience: float) -> Database:
    """Open the database; a SQLite file that is damaged is set aside, and a new one made in its place.

    Args:
        patience: seconds that an outage of a server may last.

    Raises:
        StorageFault, UsageError: as ``Database.open``, but for ``DatabaseDamaged``.
    """
    try:
        return await Database.open(where, patience=patience)
    except DatabaseDamaged as error:
        path = dialect.sqlite_path(dialect.parse_url(where))
        assert path is not None, "only a file is found damaged"
        with disk_faults():
            aside = await asyncio.to_thread(
                dialect.set_aside, path, f"{path.name}{SUFFIX}{time.time_ns() // 1_000_000}"
            )
        crash_point("database-set-aside")
        log.warning(
            "%s; set aside as %s. A new one is made from the repositories; peers, scores and bans are forgotten",
            error,
            aside,
        )
    return await Database.open(where, patience=patience)


def accept_again(
    repository: RepositoryId,
    documents: Sequence[bytes],
    records: Mapping[AuthorId, tuple[bytes, bytes]],
    proofs: Sequence[bytes],
    now_ms: int,
) -> tuple[Verified, Mapping[AuthorId, GutsError]]:
    """Return the state that documents, records (header, entries) and proofs add up to, and why other records don't.

    Pure, and possibly slow: for a thread.

    Raises:
        PeerFault, Unavailable: the documents are no identity of ``repository``.
        NothingAccepted: no record counts.
    """
    told = tuple(proof for proof in proofs if _holds(repository, documents, proof, now_ms))
    refused: dict[AuthorId, GutsError] = {}
    offered: list[EncodedRefs] = []
    for author, (header, entries) in records.items():
        record = EncodedRefs(header, entries)
        try:
            verify(repository, None, tuple(documents), (), (record,), now_ms, told)
        except PeerFault as error:
            # Damaged by itself, so that it must not spoil the others.
            refused[author] = error
            continue
        except Unavailable as error:
            # It may have seen others, and they it: those are accepted together or not at all.
            refused[author] = error
        offered.append(record)
    try:
        whole = verify(repository, None, tuple(documents), (), tuple(offered), now_ms, told)
    except Unavailable as error:
        raise NothingAccepted("; ".join(map(str, refused.values())) or str(error)) from error
    assert whole is not None, "documents are new where nothing is held"
    if not whole.new:
        raise NothingAccepted("; ".join(map(str, refused.values())) or "there is no record")
    return whole, {author: error for author, error in refused.items() if author not in whole.records}


def _holds(repository: RepositoryId, documents: Sequence[bytes], proof: bytes, now_ms: int) -> bool:
    """Tell whether ``proof`` is one; a damaged one is told again by others, and must not spoil the records."""
    try:
        verify(repository, None, tuple(documents), (), (), now_ms, (proof,))
    except PeerFault:
        return False
    return True
