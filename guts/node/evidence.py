"""What vouches for a repository's refs, for a client that judges for itself (``guts verify``)."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from typing import Final

from guts.ids import AuthorId, ObjectId
from guts.node.acceptance import Held
from guts.node.history import header_of
from guts.store import history as table
from guts.store.database import Database
from guts.store.history import KeptRecord
from guts.trust.canonical_refs import AncestorFacts
from guts.trust.deltas import apply_delta
from guts.trust.entries import Entries
from guts.trust.signed_refs import Header, SignedRefs

MAX_EARLIER: Final = 200
"""Records of one author that are looked through: each may have 5,000 refs, and takes some 20 ms then."""


def evidence(held: Held, ancestors: AncestorFacts, sources: int, notes: Sequence[str]) -> dict[str, object]:
    """Return documents, records and proofs of ``held``.

    Args:
        ancestors: as for ``canonical_refs``.
        sources: holders whose word was compared.
    """
    return {
        "repository": str(held.chain.repository),
        "name": held.chain.current.name,
        "documents": [_text(document) for document in held.chain.documents],
        "records": [
            {"header": _text(record.header_bytes), "entries": _text(record.entries_bytes)}
            for _, record in sorted(held.records.items())
        ],
        "proofs": [_text(proof.encode()) for _, proof in sorted(held.proofs.items())],
        "ancestors": [{"ancestor": str(old), "descendant": str(new)} for old, new in sorted(ancestors)],
        "sources": sources,
        "notes": list(notes),
    }


Pair = tuple[ObjectId, ObjectId]


async def contained(
    held: Held, refs: Mapping[str, ObjectId], ask: Callable[[Sequence[Pair]], Awaitable[Set[Pair]]]
) -> list[str]:
    """Return the names of ``refs`` that are part of what a record has for the ref of that name.

    Args:
        ask: returns those of the pairs (old, new) of which ``new`` contains ``old``.

    Raises: what ``ask`` raises.
    """
    named = [
        (ref, (oid, entry.oid))
        for record in held.records.values()
        for ref, oid in refs.items()
        if (entry := record.entries.refs.get(ref)) is not None and entry.oid is not None
    ]
    found = await ask(sorted({pair for _, pair in named})) if named else frozenset()
    return sorted({ref for ref, pair in named if pair in found})


async def earlier(database: Database, held: Held, asked: Mapping[str, ObjectId]) -> list[dict[str, object]]:
    """Return which older record had each of the refs in ``asked`` where it says: the newest such one.

    Raises:
        StorageFault: the database failed.
    """
    found: dict[str, tuple[Header, bytes]] = {}
    for author, newest in held.records.items():
        for header, encoded, entries in await _older(database, held, author, newest):
            for ref, oid in asked.items():
                entry = entries.refs.get(ref)
                if entry is not None and entry.oid == oid and (ref not in found or found[ref][0].seq < header.seq):
                    found[ref] = header, encoded
    return [
        {
            "ref": ref,
            "oid": str(asked[ref]),
            "author": str(header.author),
            "seq": header.seq,
            "signed_ms": header.time_ms,
            "header": _text(encoded),
        }
        for ref, (header, encoded) in found.items()
    ]


async def _older(
    database: Database, held: Held, author: AuthorId, newest: SignedRefs
) -> list[tuple[Header, bytes, Entries]]:
    """Return the author's records before ``newest`` that are kept whole, newest first."""
    rows = await database.read(table.load_kept, held.chain.repository, author)
    by_base: dict[bytes, KeptRecord] = {row.base: row for row in rows if row.base}
    chain: list[tuple[KeptRecord, bytes]] = []
    base = newest.hash
    while len(chain) < MAX_EARLIER and (row := by_base.pop(base, None)) is not None:
        kept = await database.read(table.load_delta, held.chain.repository, author, row.header.hash)
        if kept is None:
            break
        chain.append((row, kept[1]))
        base = row.header.hash
    return await asyncio.to_thread(_entries, newest.entries, chain)


def _entries(entries: Entries, chain: Sequence[tuple[KeptRecord, bytes]]) -> list[tuple[Header, bytes, Entries]]:
    made = []
    for row, delta in chain:
        entries = apply_delta(delta, entries)
        made.append((header_of(row), row.header.encoded, entries))
    return made


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
