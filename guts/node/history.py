"""What counts of an author whose newest record does not count any more, or again: found among what is kept.

A new identity document may cut an author's history off, or name a record to go on from; a proof of equivocation takes
it back to before the split. The records of before are in the database, as deltas (``guts.store.history``), so a replica
goes back, and forward again, without asking anybody; where it has not kept the record, it gets it as a new one from
those who have.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from guts.errors import PeerFault
from guts.ids import AuthorId, RepositoryId
from guts.node.acceptance import Held, MissingContext, NewRecord, Verified
from guts.records import Signed
from guts.store import history as table
from guts.store.database import Database
from guts.store.history import KeptRecord
from guts.trust.deltas import apply_delta
from guts.trust.signed_refs import MAX_HEADER_BYTES, Header, SignedHeader, SignedRefs
from guts.trust.standing import counts, standing


async def with_headers(database: Database, held: Held) -> Held:
    """Return ``held`` with the kept headers of the authors whose history split. Raises: ``StorageFault``."""
    headers: dict[bytes, SignedHeader] = {}
    for author in held.proofs:
        rows = await database.read(table.load_headers, held.chain.repository, author)
        headers.update({row.hash: SignedHeader.decode(row.encoded) for row in rows})
    return replace(held, headers=headers)


async def settle(database: Database, held: Held | None, verified: Verified) -> Verified:
    """Return ``verified`` with the record that counts of each author of whom another one counts now.

    Raises:
        StorageFault: the database failed.
    """
    if held is None:
        return _fresh(verified)
    for author in sorted(_concerned(verified)):
        verified = await _settle(database, held, verified, author)
    return verified


def _fresh(verified: Verified) -> Verified:
    """Return ``verified``, the first state of a repository here, with the records that count.

    Raises:
        MissingContext: none of them does; somebody may have one from before the split.
    """
    settled = settle_at_hand(verified)
    if verified.records and not settled.records:
        raise MissingContext("no record from before the histories of its authors split")
    return settled


def settle_at_hand(verified: Verified) -> Verified:
    """Return ``verified`` with the records that count, of those at hand: nothing older is kept to go back to."""
    chain, proofs = verified.chain, verified.proofs
    records = {
        author: record
        for author, record in verified.records.items()
        if counts(chain, proofs.get(author), record.header)
    }
    new = tuple(n for n in verified.new if records.get(n.record.author) is n.record)
    return replace(verified, new=new, records=records)


def _concerned(verified: Verified) -> set[AuthorId]:
    """Return the authors about whom something new was said."""
    documents = verified.chain.history[verified.first_new_document :]
    points = (point for document in documents for point in (*document.removed, *document.reaffirmed))
    return {*verified.new_proofs, *(point.author for point in points)}


async def _settle(database: Database, held: Held, verified: Verified, author: AuthorId) -> Verified:
    chain, proof = verified.chain, verified.proofs.get(author)
    before, now = held.records.get(author), verified.records.get(author)
    valid = now is not None and counts(chain, proof, now.header)
    rows = await database.read(table.load_kept, chain.repository, author)
    kept = {row.header.hash: header_of(row) for row in rows}
    whole = {row.header.hash for row in rows if row.base is not None}
    current = None if before is None else before.header
    target = standing(chain, proof, author, current, kept, whole)
    if valid and now is not None and (target is None or _seq(target, current, kept) <= now.seq):
        return verified
    record = await _whole(database, chain.repository, target, before, rows)
    if record is not None:
        new = NewRecord(record, now, None, ())
        return replace(verified, new=(*verified.new, new), records={**verified.records, author: record})
    if now is None or valid:
        return verified
    left = {other: record for other, record in verified.records.items() if other != author}
    return replace(verified, withdrawn=(*verified.withdrawn, now), records=left)


def _seq(target: bytes, current: Header | None, kept: Mapping[bytes, Header]) -> int:
    return current.seq if current is not None and current.hash == target else kept[target].seq


async def _whole(
    database: Database,
    repository: RepositoryId,
    target: bytes | None,
    before: SignedRefs | None,
    rows: Sequence[KeptRecord],
) -> SignedRefs | None:
    if before is not None and target == before.hash:
        return before
    headers = [row.header for row in rows if row.header.hash == target]
    return await restore(database, repository, headers[0], before) if headers else None


def header_of(row: KeptRecord) -> Header:
    """Return the header of a kept record; its signature was checked when it came."""
    return Header.decode_body(Signed.decode(row.header.encoded, MAX_HEADER_BYTES).body)


async def restore(
    database: Database,
    repository: RepositoryId,
    header: table.Header,
    newest: SignedRefs | None,
    most: int = table.KEPT_RECORDS,
) -> SignedRefs | None:
    """Return the kept record of ``header``, made by deltas from ``newest``; ``None`` where that can't be done.

    Args:
        most: deltas that may be gone through.

    Raises:
        StorageFault: the database failed.
    """
    deltas: list[bytes] = []
    wanted = header.hash
    seen: set[bytes] = set()
    while wanted and (newest is None or wanted != newest.hash):
        found = await database.read(table.load_delta, repository, header.author, wanted)
        if found is None or wanted in seen or len(deltas) == most:
            return None
        seen.add(wanted)
        wanted, delta = found
        deltas.append(delta)
    return await asyncio.to_thread(_apply, header, deltas, newest if wanted else None)


def _apply(header: table.Header, deltas: list[bytes], newest: SignedRefs | None) -> SignedRefs | None:
    entries = None if newest is None else newest.entries
    try:
        for delta in reversed(deltas):
            entries = apply_delta(delta, entries)
        assert entries is not None, "the newest record is not among those that are kept"
        return SignedRefs.decode(header.encoded, entries.encode())
    except PeerFault:
        # What the database has is damaged; no peer is to blame, and others have the record too.
        return None
