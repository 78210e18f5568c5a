"""The next record of an author, made by a node that has no author key, to be signed by whoever has it."""

import hashlib
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Final, final

from guts.errors import ExitStatus, UsageError
from guts.ids import AuthorId, ObjectId
from guts.records import Signed
from guts.trust.canonical_refs import AncestorFacts, canonical_refs, counting, within_limit
from guts.trust.chain import IdentityChain
from guts.trust.entries import MAX_ENTRIES_BYTES, MAX_REFS, MAX_SEEN_AUTHORS, Entries, Entry, Seen
from guts.trust.ref_names import is_branch, is_ref_name, is_tag, parents
from guts.trust.signed_refs import Header, SignedRefs

_NOBODY: Final[Mapping[AuthorId, SignedRefs]] = MappingProxyType({})


class CannotPublish(UsageError):
    """These refs can't be published, or not by this author."""

    code: ClassVar[str] = "CANNOT_PUBLISH"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED


@final
@dataclass(frozen=True, slots=True)
class UnsignedRefs:
    """A record that waits for its signature over ``domain("refs") ‖ body``.

    Attributes:
        body: of the header.
        entries: encoded.
        header: what ``body`` says.
    """

    body: bytes
    entries: bytes = field(repr=False)
    header: Header

    def attach(self, author: AuthorId, signature: bytes) -> SignedRefs:
        """Return the record with the signature that ``author`` made, perhaps in another process.

        Raises:
            PeerFault: it is not the signature of the author named in the body, over this body.
        """
        return SignedRefs.decode(Signed(self.body, ((author, signature),)).encode(), self.entries)


@final
@dataclass(frozen=True, slots=True)
class Copy:
    """An author's own copy of a repository, and what the author asks for.

    Attributes:
        refs: all of it that can be published.
        head: full name of the branch that it is on.
        force: refs whose published commits may be given up.
        prune: refs that the copy lacks shall go away, whoever published them.
        move_head: a clone shall check out ``head``, whatever it checks out now.
    """

    refs: Mapping[str, ObjectId]
    head: str
    force: Set[str] = frozenset()
    prune: bool = False
    move_head: bool = False

    @property
    def tips(self) -> frozenset[ObjectId]:
        """The objects that its refs point at."""
        return frozenset(self.refs.values())


def prepare_refs(
    chain: IdentityChain,
    author: AuthorId,
    previous: SignedRefs | None,
    wanted: Mapping[str, ObjectId],
    head: str,
    now_ms: int,
    *,
    forced: Set[str] = frozenset(),
    others: Mapping[AuthorId, SignedRefs] = _NOBODY,
    ancestors: AncestorFacts = frozenset(),
) -> UnsignedRefs | None:
    """Return the author's next record, which makes the refs ``wanted``; ``None``: it would say nothing new.

    Args:
        previous: the author's newest record; ``None``: there is none anywhere.
        wanted: all refs that the repository shall have, as the author sees it.
        head: full name of the branch that a clone shall check out.
        now_ms: Unix milliseconds.
        forced: refs whose new value does not contain their old one; see ``own_moves``.
        others: the newest record of every other maintainer, and of those who were removed.
        ancestors: as for ``canonical_refs``.

    Raises:
        CannotPublish: not a maintainer, too many refs, a name that can't be published, or the maintainers have
            said from which record the author goes on, and ``previous`` is not that one or after it.
    """
    _check(chain, author, wanted, head)
    _check_previous(chain, author, previous)
    theirs = {record.author: record for record in counting(chain, others) if record.author != author}
    records = dict(theirs) if previous is None else {**theirs, author: previous}
    shown = canonical_refs(chain, records, ancestors)
    now_seen = Seen.of({other: record.seq for other, record in theirs.items()})
    # Others may have seen more of the author than what counts: what was cut off is not to be taken for this record.
    past = max((record.entries.seen.get(author) for record in others.values()), default=0)
    seq = max(now_ms, past + 1, 1 if previous is None else previous.seq + 1)
    own = {} if previous is None else _unsuperseded(author, previous, theirs)

    # What an author had seen it goes on to have seen, also where that is not held here: nothing superseded returns.
    before = {} if previous is None else previous.entries.refs
    entries: dict[str, Entry] = {}
    for ref in sorted(own.keys() | wanted.keys() | shown.refs.keys(), key=str.encode):
        if not is_ref_name(ref):
            continue
        oid, held = wanted.get(ref), own.get(ref)
        if oid == shown.refs.get(ref):
            if held is not None and (held.oid is not None or _claimed(ref, theirs)):
                entries[ref] = held
            continue
        seen = _joined(now_seen, before[ref].seen) if ref in before else now_seen
        for record in theirs.values():
            # What takes the place of an entry takes it over: its author may drop it then.
            if ref in record.entries.refs:
                seen = _joined(seen, record.entries.refs[ref].seen)
        seen = Seen.of({other: other_seq for other, other_seq in seen.pairs if other != author})
        if oid is None:
            entries[ref] = Entry(None, seq, seen, forced=seq)
        elif ref in forced or (held is None and previous is not None):
            # Without an own entry to compare with, replicas may still hold one that was dropped since.
            entries[ref] = Entry(oid, seq, seen, forced=seq)
        else:
            entries[ref] = Entry(oid, seq, seen, forced=0 if held is None else held.forced)

    _withdraw_clashing(entries, wanted, seq, now_seen)
    changed = any(entry.seq == seq for entry in entries.values())
    if records and not changed and head == shown.head:
        return None
    if previous is not None and head == shown.head:
        name, head_seq, head_seen = (
            previous.header.head,
            previous.entries.head_seq,
            previous.entries.head_seen,
        )
    else:
        head_seen = now_seen if previous is None else _joined(now_seen, previous.entries.head_seen)
        name, head_seq = head, seq
    return _unsigned(chain, author, previous, now_ms, seq, name, entries, (now_seen, head_seq, head_seen))


def wanted(
    chain: IdentityChain,
    author: AuthorId,
    previous: SignedRefs | None,
    own_copy: Copy,
    *,
    others: Mapping[AuthorId, SignedRefs] = _NOBODY,
    ancestors: AncestorFacts = frozenset(),
) -> tuple[dict[str, ObjectId], str]:
    """Return ``wanted`` and ``head`` of ``prepare_refs``: what an author means whose own copy is ``own_copy``.

    - A ref that the copy lacks is kept, the author's own too, unless it is to be pruned: the copy may never have had
      it. The author may have other copies, and a clone has one branch to begin with.
    - A branch that is only behind the published one is left alone.
    - Which branch somebody works on is nobody else's concern: what a clone checks out stays, as long as it is there.

    Args:
        ancestors: as for ``canonical_refs``, and whether values of the copy are behind those shown.
    """
    theirs = {record.author: record for record in counting(chain, others) if record.author != author}
    records = dict(theirs) if previous is None else {**theirs, author: previous}
    shown = canonical_refs(chain, records, ancestors)
    refs: dict[str, ObjectId] = {}
    for ref, oid in shown.refs.items():
        if ref not in own_copy.refs:
            if is_ref_name(ref) and not own_copy.prune:
                refs[ref] = oid
        elif ref not in own_copy.force and not is_tag(ref) and (own_copy.refs[ref], oid) in ancestors:
            refs[ref] = oid
    refs = {**own_copy.refs, **refs}
    return refs, own_copy.head if own_copy.move_head or shown.head not in refs else shown.head


def own_moves(
    previous: SignedRefs | None, wanted: Mapping[str, ObjectId]
) -> tuple[tuple[str, ObjectId, ObjectId], ...]:
    """Return (ref, old, new) for each of the author's refs that ``wanted`` moves.

    Those where git says that old is not an ancestor of new belong into ``forced``.
    """
    live = {} if previous is None else previous.entries.live()
    return tuple((ref, old, new) for ref, old in live.items() if (new := wanted.get(ref)) is not None and new != old)


def check_maintainer(chain: IdentityChain, author: AuthorId) -> None:
    """Raises: ``CannotPublish``: ``author`` is not a maintainer now."""
    if author not in chain.current.maintainers:
        left = [document.epoch for document in chain.history if any(p.author == author for p in document.removed)]
        standing = f"has been removed, at epoch {left[-1]}, as" if left else "is not"
        raise CannotPublish(
            f"{author} {standing} a maintainer of {chain.repository}",
            hint=f"a maintainer adds the key: guts identity propose --add {author} {chain.repository} FILE",
        )


def check_head(wanted: Mapping[str, ObjectId], head: str) -> None:
    """Raises: ``CannotPublish``: there are branches, and ``head``, which a clone is to check out, is none of them."""
    if head not in wanted and any(map(is_branch, wanted)):
        raise CannotPublish(
            f"a clone would check out {head!r}, and there is no such branch",
            hint="guts publish --head BRANCH, or git push -o guts.head=BRANCH, names one that is there",
        )


def _check(chain: IdentityChain, author: AuthorId, wanted: Mapping[str, ObjectId], head: str) -> None:
    check_maintainer(chain, author)
    for ref in wanted:
        if not is_ref_name(ref):
            raise CannotPublish(f"{ref!r} can't be published", hint="rename it: git branch -m, or tag it anew")
        if not wanted.keys().isdisjoint(parents(ref)):
            raise CannotPublish(f"{ref!r} is inside another ref", hint="rename one of them, or: git push --delete")
    if not is_branch(head):
        raise CannotPublish(f"HEAD is {head!r}, not a branch", hint="git switch to a branch first")


def _check_previous(chain: IdentityChain, author: AuthorId, previous: SignedRefs | None) -> None:
    """Raises: ``CannotPublish``: the maintainers have said from which record to go on, and it is another one."""
    limit = chain.last_limit(author)
    if limit is None or not limit.seq:
        return
    if previous is None or previous.seq < limit.seq or not within_limit(chain, previous):
        raise CannotPublish(
            f"the record of {author.short} that counts (seq {limit.seq}) is not held here",
            hint="sync with a node that has it",
        )


def _unsuperseded(author: AuthorId, previous: SignedRefs, theirs: Mapping[AuthorId, SignedRefs]) -> dict[str, Entry]:
    """Return the author's entries that nobody else's entry for the same ref has seen."""
    return {
        ref: entry
        for ref, entry in previous.entries.refs.items()
        if not any(
            other.seen.get(author) >= entry.seq
            for record in theirs.values()
            if (other := record.entries.refs.get(ref)) is not None
        )
    }


def _withdraw_clashing(entries: dict[str, Entry], wanted: Mapping[str, ObjectId], seq: int, now_seen: Seen) -> None:
    """Delete the author's own values, kept beside as conflicts, that stand in the way of one it wants now."""
    taken = {ref for ref in entries if ref in wanted}
    directories = {parent for ref in taken for parent in parents(ref)}
    for ref, entry in entries.items():
        stands_in_the_way = ref in directories or not taken.isdisjoint(parents(ref))
        if entry.oid is not None and ref not in wanted and stands_in_the_way:
            entries[ref] = Entry(None, seq, _joined(now_seen, entry.seen), forced=seq)


def _joined(one: Seen, other: Seen) -> Seen:
    """Return how far either had seen each author."""
    furthest = dict(one.pairs)
    for author, seq in other.pairs:
        furthest[author] = max(seq, furthest.get(author, 0))
    return Seen.of(furthest)


def _claimed(ref: str, theirs: Mapping[AuthorId, SignedRefs]) -> bool:
    return any(ref in record.entries.refs for record in theirs.values())


def _unsigned(
    chain: IdentityChain,
    author: AuthorId,
    previous: SignedRefs | None,
    now_ms: int,
    seq: int,
    head: str,
    refs: Mapping[str, Entry],
    seen: tuple[Seen, int, Seen],
) -> UnsignedRefs:
    now_seen, head_seq, head_seen = seen
    joined = dict(now_seen.pairs)
    for vector in {head_seen, *(entry.seen for entry in refs.values())}:
        for other, other_seq in vector.pairs:
            joined[other] = max(other_seq, joined.get(other, 0))
    if len(joined) > MAX_SEEN_AUTHORS:
        raise CannotPublish(
            f"{len(joined)} other maintainers have signed refs that count, or counted, those of former ones too; "
            f"a record tells of {MAX_SEEN_AUTHORS}",
            hint="publish the refs as a new repository, of those who maintain it now",
        )
    live = sum(entry.oid is not None for entry in refs.values())
    if live > MAX_REFS:
        raise CannotPublish(f"{live} refs; a record holds {MAX_REFS}", hint="publish fewer branches or tags")
    if len(refs) > MAX_REFS:
        raise CannotPublish(
            f"{len(refs)} refs with those deleted lately; a record holds {MAX_REFS}", hint="delete fewer refs at a time"
        )
    entries = Entries(refs, Seen.of(joined), head_seq, head_seen).encode()
    if len(entries) > MAX_ENTRIES_BYTES:
        raise CannotPublish("the refs take more than 4 MiB in a record", hint="publish fewer branches or tags")
    header = Header(
        repository=chain.repository,
        author=author,
        epoch=chain.epoch,
        identity_hash=chain.hash,
        seq=seq,
        previous=b"" if previous is None else previous.hash,
        time_ms=now_ms,
        head=head,
        entries_hash=hashlib.sha256(entries).digest(),
    )
    return UnsignedRefs(header.body, entries, header)
