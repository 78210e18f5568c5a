"""The entries of a SignedRefs record: which ref is where, since when, and what its author had seen by then.

The byte form repeats neither author keys nor equal ``seen`` vectors: both are in tables, and referred to by
index (docs/protocol.md §5). There is one encoding of a value, made by ``Entries.encode``; ``Entries.decode``
refuses every other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Self, TypeVar, final

from guts import canonical
from guts.canonical import Bounds, Value
from guts.errors import PeerFault
from guts.ids import AuthorId, ObjectId
from guts.records import MAX_SEQ
from guts.trust.ref_names import MAX_REF_BYTES, is_ref_name, parents

MAX_ENTRIES_BYTES: Final = 4 * 1024 * 1024
"""5,000 refs with names of 255 bytes, each with what was seen of 31 others, take 3.3 MiB."""

MAX_REFS: Final = 5_000
MAX_SEEN_AUTHORS: Final = 64
"""32 maintainers, and as many who were removed and whose refs still count."""

MAX_ITEMS: Final = 700_000
"""Values in the entries of one record: 5,000 refs, each with its own vector of 31 other authors."""

_MAX_VECTORS: Final = MAX_REFS + 2
"""A different one for every ref, for HEAD and for the record."""

_DEPTH: Final = 4

_T = TypeVar("_T")


class InvalidRefs(PeerFault):
    """A SignedRefs record, or a part of it, breaks a rule that can be checked from its bytes alone."""

    code = "INVALID_REFS"


@final
@dataclass(frozen=True, slots=True)
class Seen:
    """A version vector: how far the author had seen each other maintainer.

    Attributes:
        pairs: (author, seq ≥ 1), by ascending key.
    """

    pairs: tuple[tuple[AuthorId, int], ...] = ()
    _by_author: Mapping[AuthorId, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises: ``InvalidRefs``: keys repeat or are not ascending, or a number is not a seq."""
        by_author = dict(self.pairs)
        if len(by_author) != len(self.pairs) or list(by_author) != sorted(by_author):
            raise InvalidRefs("authors seen are not in strictly ascending order")
        if not all(1 <= seq <= MAX_SEQ for seq in by_author.values()):
            raise InvalidRefs("a seq that was seen is out of range")
        object.__setattr__(self, "_by_author", by_author)

    @classmethod
    def of(cls, seqs: Mapping[AuthorId, int]) -> Self:
        """Return the vector with these ``seqs``, each ≥ 1."""
        return cls(tuple(sorted(seqs.items())))

    def get(self, author: AuthorId) -> int:
        """Return the highest seq of ``author`` that had been seen; 0: none."""
        return self._by_author.get(author, 0)

    def covers(self, other: "Seen") -> bool:
        """Tell whether all that ``other`` had seen is in this one."""
        return self is other or all(self.get(author) >= seq for author, seq in other.pairs)


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """One ref of one author.

    Attributes:
        oid: where it points; ``None``: the author deleted it (a tombstone).
        seq: of the record that set it so.
        seen: what the author had seen of the others when setting it.
        forced: seq of the last record that moved it other than forward; 0: none.
    """

    oid: ObjectId | None
    seq: int
    seen: Seen
    forced: int = 0

    def __post_init__(self) -> None:
        """Raises: ``InvalidRefs``: numbers out of range, or a deletion that is not marked as forced."""
        if not 1 <= self.seq <= MAX_SEQ or not 0 <= self.forced <= self.seq:
            raise InvalidRefs("an entry's numbers are out of range")
        if self.oid is None and self.forced != self.seq:
            raise InvalidRefs("a deletion is a forced change")


@final
@dataclass(frozen=True, slots=True)
class Entries:
    """All entries of one record.

    Attributes:
        refs: by ref name, in ascending byte order; at most 5,000.
        seen: what the author had seen of the others when signing the record; covers every entry's.
        head_seq: seq of the record that set HEAD to what it is (the name itself is in the header).
        head_seen: what the author had seen of the others then.
    """

    refs: Mapping[str, Entry]
    seen: Seen
    head_seq: int
    head_seen: Seen

    def __post_init__(self) -> None:
        """Raises: ``InvalidRefs``: a name, a number, or the combination breaks a rule."""
        if len(self.refs) > MAX_REFS:
            raise InvalidRefs(f"more than {MAX_REFS} refs")
        if not 1 <= self.head_seq <= MAX_SEQ:
            raise InvalidRefs("the seq of HEAD is out of range")
        for ref in self.refs:
            if not is_ref_name(ref):
                raise InvalidRefs("a ref name is not allowed")
        live = {ref for ref, entry in self.refs.items() if entry.oid is not None}
        if any(parent in live for ref in live for parent in parents(ref)):
            raise InvalidRefs("one ref is the directory of another")
        vectors = {id(seen): seen for seen in self.vectors()}
        if not all(self.seen.covers(seen) for seen in vectors.values()):
            raise InvalidRefs("the record has not seen what one of its entries has seen")
        ordered = {ref: self.refs[ref] for ref in sorted(self.refs, key=str.encode)}
        object.__setattr__(self, "refs", MappingProxyType(ordered))

    def vectors(self) -> Iterable[Seen]:
        """Return every ``seen`` vector in the record, with repetitions."""
        yield self.seen
        yield self.head_seen
        for entry in self.refs.values():
            yield entry.seen

    def live(self) -> dict[str, ObjectId]:
        """Return the refs that point somewhere, in ascending byte order."""
        return {ref: entry.oid for ref, entry in self.refs.items() if entry.oid is not None}

    def last_seq(self) -> int:
        """Return the highest seq at which something in the record was set."""
        return max([self.head_seq, *(entry.seq for entry in self.refs.values())])

    def encode(self) -> bytes:
        """Return the canonical bytes; not bounded by ``MAX_ENTRIES_BYTES``."""
        # The record's vector covers all others, so its authors are all authors.
        authors = [author for author, _ in self.seen.pairs]
        index_of = {author: index for index, author in enumerate(authors)}
        packed = {seen: [(index_of[author], seq) for author, seq in seen.pairs] for seen in set(self.vectors())}
        table = sorted(packed, key=packed.__getitem__)
        row_of = {seen: row for row, seen in enumerate(table)}
        rows: list[Value] = [[[index, seq] for index, seq in packed[seen]] for seen in table]
        refs: list[Value] = [
            [ref, entry.oid, entry.seq, row_of[entry.seen], entry.forced] for ref, entry in self.refs.items()
        ]
        keys: list[Value] = list(authors)
        head: list[Value] = [self.head_seq, row_of[self.head_seen]]
        return canonical.encode([keys, rows, row_of[self.seen], head, refs])

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the entries in ``data``.

        Raises:
            NotCanonical, InvalidRefs: malformed, over a bound, or another encoding than ``encode`` makes.
        """
        bounds = Bounds(
            MAX_ENTRIES_BYTES,
            max_list=_MAX_VECTORS,
            max_str=MAX_REF_BYTES,
            max_bin=AuthorId.LENGTH,
            max_depth=_DEPTH,
            max_items=MAX_ITEMS,
        )
        match canonical.decode(data, bounds):
            case [list(keys), list(rows), row, [head_seq, head_row], list(refs)] if (
                len(keys) <= MAX_SEEN_AUTHORS and len(refs) <= MAX_REFS
            ):
                pass
            case _:
                raise InvalidRefs("not the entries of a record")
        authors = [_author(key) for key in keys]
        table = [_vector(pairs, authors) for pairs in rows]
        by_name: dict[str, Entry] = {}
        for item in refs:
            ref, entry = _entry(item, table)
            by_name[ref] = entry
        entries = cls(by_name, _pick(table, row), number(head_seq), _pick(table, head_row))
        if entries.encode() != data:
            raise InvalidRefs("refs or tables are out of order, repeated or unused")
        return entries


def number(value: Value) -> int:
    """Return ``value`` if it is an integer; ``True`` is none, being another value on the wire.

    Raises:
        InvalidRefs: it is something else.
    """
    if type(value) is not int:
        raise InvalidRefs("not a number")
    return value


def _author(value: Value) -> AuthorId:
    if not isinstance(value, bytes) or len(value) != AuthorId.LENGTH:
        raise InvalidRefs("not an author key")
    return AuthorId(value)


def _pick(table: list[_T], index: Value) -> _T:
    position = number(index)
    if not 0 <= position < len(table):
        raise InvalidRefs("an index is outside its table")
    return table[position]


def _vector(value: Value, authors: list[AuthorId]) -> Seen:
    if not isinstance(value, list):
        raise InvalidRefs("not a vector of what was seen")
    pairs: list[tuple[AuthorId, int]] = []
    for pair in value:
        match pair:
            case [index, seq]:
                pairs.append((_pick(authors, index), number(seq)))
            case _:
                raise InvalidRefs("not a pair of author and seq")
    return Seen(tuple(pairs))


def _entry(value: Value, table: list[Seen]) -> tuple[str, Entry]:
    match value:
        case [str(ref), None | bytes() as oid, seq, row, forced] if oid is None or len(oid) == ObjectId.LENGTH:
            target = None if oid is None else ObjectId(oid)
            return ref, Entry(target, number(seq), _pick(table, row), number(forced))
        case _:
            raise InvalidRefs("not an entry for a ref")
