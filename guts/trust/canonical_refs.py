"""The refs of a repository: a pure function of its identity and every maintainer's newest record (DESIGN §6).

For each ref, every author's entry is a claim. A claim is *superseded* when another author's claim for that ref
has seen it. Of the claims that survive, a value beats a tombstone, and a commit that contains another beats it
(fast-forward). If one value is left, it is the branch. Otherwise whoever is listed first in the identity
document is shown, and the others appear as ``refs/guts/conflict/<author>/<ref>`` until somebody who has seen
them all pushes. HEAD is joined in the same way, a ref and a directory of that name too.

Nothing here depends on the order in which records came. That holds for the bound on the questions for git too:
which values are compared follows from the records alone (``MAX_QUESTIONS``).
"""

import itertools
from collections.abc import Mapping, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Generic, TypeVar, final

from guts.ids import AuthorId, ObjectId
from guts.trust.acceptance import past_limit
from guts.trust.chain import IdentityChain
from guts.trust.entries import Seen
from guts.trust.ref_names import CONFLICTS, is_tag, parents
from guts.trust.signed_refs import SignedRefs

MAX_QUESTIONS: Final = 20_000
"""Pairs of values that are compared, over all refs: one author against everybody on each of 5,000 refs asks
10,000, so that nobody alone takes the answers from others. 32 who differ on all of them would ask 4,960,000.
"""

AncestorFacts = Set[tuple[ObjectId, ObjectId]]
"""Pairs (ancestor, descendant), as git says."""

_T = TypeVar("_T")


@final
@dataclass(frozen=True, slots=True)
class Conflict:
    """A value that lost against the one shown for ``ref``, and is kept beside it."""

    ref: str
    author: AuthorId
    oid: ObjectId

    @property
    def name(self) -> str:
        """The ref under which it is kept."""
        return f"{CONFLICTS}{self.author}/{self.ref}"


@final
@dataclass(frozen=True, slots=True)
class CanonicalRefs:
    """What a clone sees.

    Attributes:
        refs: every ref, those of conflicts too, in ascending byte order.
        head: full name of the branch to check out; there need not be one of that name.
        conflicts: in the order of ``refs``.
    """

    refs: Mapping[str, ObjectId]
    head: str
    conflicts: tuple[Conflict, ...]


@dataclass(frozen=True, slots=True)
class _Claim(Generic[_T]):
    author: AuthorId
    value: _T
    seq: int
    seen: Seen


def counting(chain: IdentityChain, records: Mapping[AuthorId, SignedRefs]) -> list[SignedRefs]:
    """Return the records that count, in order of precedence: maintainers as listed, then those removed.

    A record past the author's limit (removed, or another one reaffirmed) does not count.
    """
    authors = [*chain.current.maintainers, *(point.author for point in chain.former())]
    return [
        record for record in (records[author] for author in authors if author in records) if within_limit(chain, record)
    ]


def within_limit(chain: IdentityChain, record: SignedRefs) -> bool:
    """Tell whether no identity document has cut the author's history off before ``record``."""
    return not past_limit(chain, record.header)


def ancestor_questions(
    chain: IdentityChain, records: Mapping[AuthorId, SignedRefs]
) -> frozenset[tuple[ObjectId, ObjectId]]:
    """Return the pairs (a, b) for which ``canonical_refs`` must be told whether a is an ancestor of b.

    At most ``MAX_QUESTIONS``, and none between values of a ref that is not compared.
    """
    claims = _claims(counting(chain, records))
    compared = (_distinct(claims[ref]) for ref in _compared(claims))
    return frozenset(pair for oids in compared for pair in itertools.permutations(oids, 2))


def shown_without_git(
    chain: IdentityChain, records: Mapping[AuthorId, SignedRefs]
) -> tuple[list[tuple[ObjectId, ObjectId]], CanonicalRefs | None]:
    """Return the ``ancestor_questions`` in order; with the canonical refs where there is none, as mostly."""
    questions = sorted(ancestor_questions(chain, records))
    return questions, canonical_refs(chain, records, frozenset()) if not questions else None


def canonical_refs(
    chain: IdentityChain, records: Mapping[AuthorId, SignedRefs], ancestors: AncestorFacts = frozenset()
) -> CanonicalRefs:
    """Return the refs of the repository.

    Args:
        records: the newest accepted record of each author, those who were removed too.
        ancestors: at least those of ``ancestor_questions`` that git affirmed; more change nothing.
    """
    counted = counting(chain, records)
    shown: dict[str, _Claim[ObjectId]] = {}
    conflicts: list[Conflict] = []
    claims_of = _claims(counted)
    compared = _compared(claims_of)
    for ref, claims in claims_of.items():
        best = _best(claims, ancestors) if ref in compared else list(_distinct(claims).values())
        shown[ref] = best[0]
        conflicts += [Conflict(ref, claim.author, claim.value) for claim in best[1:]]
    conflicts += _remove_clashes(shown, [record.author for record in counted])
    # An author's text takes as long to make as hundreds of comparisons, and there may be 160,000 conflicts.
    folders = {record.author: f"{CONFLICTS}{record.author}/" for record in counted}
    conflicts.sort(key=lambda conflict: (folders[conflict.author] + conflict.ref).encode())
    refs = {ref: claim.value for ref, claim in shown.items()}
    refs.update({folders[conflict.author] + conflict.ref: conflict.oid for conflict in conflicts})
    ordered = {ref: refs[ref] for ref in sorted(refs, key=str.encode)}
    return CanonicalRefs(MappingProxyType(ordered), _head(chain, counted), tuple(conflicts))


def _claims(counted: list[SignedRefs]) -> dict[str, list[_Claim[ObjectId]]]:
    """Return, by ref, the values that survive, in order of precedence; refs without one are left out."""
    by_ref: dict[str, list[_Claim[ObjectId | None]]] = {}
    for record in counted:
        for ref, entry in record.entries.refs.items():
            claim = _Claim(record.author, entry.oid, entry.seq, entry.seen)
            by_ref.setdefault(ref, []).append(claim)
    values = {
        ref: [
            _Claim(claim.author, claim.value, claim.seq, claim.seen)
            for claim in _survivors(claims)
            if claim.value is not None
        ]
        for ref, claims in by_ref.items()
    }
    return {ref: claims for ref, claims in values.items() if claims}


def _survivors(claims: list[_Claim[_T]]) -> list[_Claim[_T]]:
    """Return the claims that no other has seen; all, if colluding authors claim to have seen each other."""
    seeing = [claim for claim in claims if claim.seen.pairs]
    surviving = [
        claim
        for claim in claims
        if not any(other.seen.get(claim.author) >= claim.seq for other in seeing if other is not claim)
    ]
    return surviving or claims


def _compared(claims: Mapping[str, list[_Claim[ObjectId]]]) -> frozenset[str]:
    """Return the refs with several values that git is asked about: those of few values first, then by name.

    No tags: a tag that somebody else set to a newer commit is not the same tag.
    """
    several = [(len(oids), ref) for ref in claims if not is_tag(ref) and len(oids := _distinct(claims[ref])) > 1]
    several.sort(key=lambda item: (item[0], item[1].encode()))
    asked = itertools.accumulate(values * (values - 1) for values, _ in several)
    return frozenset(ref for (_, ref), so_far in zip(several, asked, strict=True) if so_far <= MAX_QUESTIONS)


def _distinct(claims: list[_Claim[ObjectId]]) -> dict[ObjectId, _Claim[ObjectId]]:
    """Return the first claim of each value, in order of precedence."""
    distinct: dict[ObjectId, _Claim[ObjectId]] = {}
    for claim in claims:
        distinct.setdefault(claim.value, claim)
    return distinct


def _best(claims: list[_Claim[ObjectId]], ancestors: AncestorFacts) -> list[_Claim[ObjectId]]:
    """Return one claim for each value that no other value contains, in order of precedence.

    Values that contain each other (a commit, and annotated tags of it) are one: the first counts.
    """
    best: list[_Claim[ObjectId]] = []
    distinct = _distinct(claims)
    for position, (oid, claim) in enumerate(distinct.items()):
        beaten = (
            (oid, other) in ancestors and (place < position or (other, oid) not in ancestors)
            for place, other in enumerate(distinct)
        )
        if not any(beaten):
            best.append(claim)
    return best


def _remove_clashes(shown: dict[str, _Claim[ObjectId]], precedence: list[AuthorId]) -> list[Conflict]:
    """Take out of ``shown`` what cannot exist beside something of higher precedence, and return it."""
    rank = {author: position for position, author in enumerate(precedence)}
    placed: set[str] = set()
    directories: set[str] = set()
    clashes: list[Conflict] = []
    for ref in sorted(shown, key=lambda ref: (rank[shown[ref].author], ref.encode())):
        if ref in directories or not placed.isdisjoint(parents(ref)):
            claim = shown.pop(ref)
            clashes.append(Conflict(ref, claim.author, claim.value))
        else:
            placed.add(ref)
            directories.update(parents(ref))
    return clashes


def _head(chain: IdentityChain, counted: list[SignedRefs]) -> str:
    claims = [
        _Claim(record.author, record.header.head, record.entries.head_seq, record.entries.head_seen)
        for record in counted
    ]
    return _survivors(claims)[0].value if claims else chain.current.default_ref
