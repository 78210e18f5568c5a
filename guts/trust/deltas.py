"""Older records of an author as reverse deltas: what to change in a newer record's entries to have the older ones.

A delta is canonical msgpack: ``[entries, [ref…]]``: the older record's own entries where they differ, encoded as
entries are, and the refs that the newer one has and the older one has not. What comes out is checked by the hash in
the older header (``SignedRefs.decode``), so a delta that was damaged can't make up a record.
"""

from typing import Final

from guts import canonical
from guts.canonical import Bounds
from guts.trust.entries import MAX_ENTRIES_BYTES, MAX_REFS, Entries, InvalidRefs
from guts.trust.ref_names import MAX_REF_BYTES

MAX_DELTA_BYTES: Final = MAX_ENTRIES_BYTES + MAX_REFS * (MAX_REF_BYTES + 3) + 16
"""All entries of the one, and all names of the other."""


def make_delta(older: Entries, newer: Entries | None) -> bytes:
    """Return the delta that leads from ``newer`` (``None``: from nothing) back to ``older``."""
    there = {} if newer is None else newer.refs
    changed = {ref: entry for ref, entry in older.refs.items() if there.get(ref) != entry}
    dropped = [ref for ref in there if ref not in older.refs]
    part = Entries(changed, older.seen, older.head_seq, older.head_seen)
    return canonical.encode([part.encode(), [*dropped]])


def apply_delta(delta: bytes, newer: Entries | None) -> Entries:
    """Return the older entries.

    Raises:
        NotCanonical, InvalidRefs: it is no delta, or not one to ``newer``.
    """
    bounds = Bounds(MAX_DELTA_BYTES, max_list=MAX_REFS, max_str=MAX_REF_BYTES, max_bin=MAX_ENTRIES_BYTES, max_depth=2)
    match canonical.decode(delta, bounds):
        case [bytes(encoded), list(dropped)]:
            part = Entries.decode(encoded)
        case _:
            raise InvalidRefs("not a delta between two records")
    there = {} if newer is None else dict(newer.refs)
    for ref in dropped:
        if not isinstance(ref, str) or there.pop(ref, None) is None:
            raise InvalidRefs("a delta to another record")
    return Entries({**there, **part.refs}, part.seen, part.head_seq, part.head_seen)
