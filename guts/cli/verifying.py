"""What was signed, and how the refs of a clone or a mirror compare with it.

What is believed is checked here: the identity documents from the repository's id on, every record's signature, and the
join of them (``guts.trust.canonical_refs``). Who told them, a node or a folder, is not trusted; but for which commits
contain which, where two maintainers differ, and for which of the things that nobody signs now are merely old.
"""

import base64
import enum
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final, Self

from guts.cli.answer import Answer, BadAnswer
from guts.errors import ExitStatus, GutsError, PeerFault, Unavailable
from guts.git.folder import NAME, RecordsFolder
from guts.ids import AuthorId, ObjectId, RepositoryId
from guts.node.rebuilding import NothingAccepted, accept_again
from guts.records import MAX_SEQ
from guts.trust.canonical_refs import AncestorFacts, CanonicalRefs, ancestor_questions, canonical_refs, counting
from guts.trust.chain import IdentityChain
from guts.trust.equivocation import EquivocationProof
from guts.trust.ref_names import BRANCHES, CONFLICTS
from guts.trust.signed_refs import SignedHeader, SignedRefs

HEAD: Final = "HEAD"
DETACHED: Final = "HEAD (detached)"
"""The HEAD of a clone itself; ``HEAD`` is that of where it came from."""

TAGS: Final = "refs/tags/"
NOTES: Final = "refs/notes/"
SIGNED: Final = (BRANCHES, TAGS, NOTES, CONFLICTS)
"""What records speak of, or what follows from them; of other refs nothing can be said."""


class BadRecords(GutsError):
    """Records in a folder are not what was signed for the repository."""

    code: ClassVar[str] = "BAD_RECORDS"
    exit_status: ClassVar[ExitStatus] = ExitStatus.INTEGRITY


class NoRecords(GutsError):
    """There are no signed records in the folder."""

    code: ClassVar[str] = "NO_RECORDS"
    exit_status: ClassVar[ExitStatus] = ExitStatus.NOT_FOUND


class Verdict(enum.StrEnum):
    """What is to be said of one ref."""

    OK = "ok"
    FORGED = "forged"
    STALE = "stale"
    WITHHELD = "withheld"
    UNSIGNED = "unsigned"
    LOCAL = "local"

    @property
    def bad(self) -> bool:
        """Whether the mirror is not as it should be."""
        return self not in (Verdict.OK, Verdict.LOCAL)


@dataclass(frozen=True, slots=True)
class Signature:
    """Who signed that a ref is somewhere.

    Attributes:
        oid: where; ``None``: that it is gone. For HEAD: empty.
        seq, signed_ms: of the author's record, the newest that says so.
    """

    author: AuthorId
    oid: ObjectId | None
    seq: int
    signed_ms: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One ref, compared.

    Attributes:
        ref: as the mirror names it.
        oid: where it is there, hex; for HEAD, the branch that it is on; ``None``: it is not there.
        signed: what is signed now.
        earlier: the older record that had it where it is.
        note: what else there is to say.
        signed_as: the ref that is signed to be there, where that is another one.
    """

    verdict: Verdict
    ref: str
    oid: str | None
    signed: Signature | None = None
    earlier: Signature | None = None
    note: str = ""
    signed_as: str | None = None

    @property
    def doubtful(self) -> bool:
        """Whether it may have been signed once, or be part of what is."""
        return (
            self.verdict in (Verdict.FORGED, Verdict.UNSIGNED) and self.oid is not None and self.ref.startswith(SIGNED)
        )


@dataclass(frozen=True, slots=True)
class Signed:
    """The verified state of a repository.

    Attributes:
        records: of each author, the newest that counts.
        sources: other holders that were compared.
        ancestors: what the join of the records depends on besides: which commits contain which.
        path: of a repository on this machine that has the objects.
    """

    chain: IdentityChain
    records: Mapping[AuthorId, SignedRefs]
    proofs: tuple[EquivocationProof, ...] = ()
    sources: int = 0
    notes: tuple[str, ...] = ()
    ancestors: AncestorFacts = frozenset()
    path: Path | None = None

    @classmethod
    def from_answer(cls, repository: RepositoryId, answer: Answer) -> Self:
        """Return what a node's answer (``…/evidence``) proves. Raises: ``BadAnswer``: nothing."""
        try:
            documents = [base64.b64decode(text) for text in answer.texts("documents")]
            records = [
                (base64.b64decode(record.text("header")), base64.b64decode(record.text("entries")))
                for record in answer.objects("records")
            ]
            proofs = [base64.b64decode(text) for text in answer.texts("proofs")]
            by_author = {SignedHeader.decode(header).header.author: (header, entries) for header, entries in records}
            state = cls._accepted(repository, documents, by_author, proofs)
            ancestors = {
                (_oid(pair.text("ancestor")), _oid(pair.text("descendant"))) for pair in answer.objects("ancestors")
            }
        except (PeerFault, Unavailable, NothingAccepted, ValueError) as error:
            raise BadAnswer(f"does not prove what it says of {repository.short}…: {error}") from None
        notes = (*state.notes, *answer.texts("notes"))
        return replace(state, sources=answer.number("sources", 0), notes=notes, ancestors=ancestors)

    @classmethod
    async def from_folder(cls, repository: RepositoryId | None, folder: Path) -> Self:
        """Return what the records in ``folder`` prove: ``guts/`` of a node's repository, or the repository.

        Args:
            repository: that it has to be; ``None``: whichever it is.

        Raises:
            NoRecords: it is no such folder.
            BadRecords: they prove nothing.
            DiskFault: they can't be read.
        """
        path = folder / NAME if (folder / NAME).is_dir() else folder
        if not (path / "identity").is_dir() or not (path / "refs").is_dir():
            raise NoRecords(f"{folder} has no signed records", hint="guts inspect names the folder of a repository")
        kept = RecordsFolder(path)
        documents, records, proofs = await kept.identities(), await kept.refs(), await kept.proofs()
        if not documents:
            raise NoRecords(f"{folder} has no identity document")
        try:
            found = IdentityChain.from_documents(documents).repository
            if repository is not None and found != repository:
                raise BadRecords(f"{folder} has the records of {found}, and this is {repository}")
            state = cls._accepted(found, documents, records, proofs)
        except (PeerFault, Unavailable, NothingAccepted) as error:
            raise BadRecords(f"the records in {folder} are not what was signed: {error}") from None
        return replace(state, path=path.parent if (path.parent / "objects").is_dir() else None)

    @classmethod
    def _accepted(
        cls,
        repository: RepositoryId,
        documents: list[bytes],
        records: Mapping[AuthorId, tuple[bytes, bytes]],
        proofs: list[bytes],
    ) -> Self:
        # At the end of time nothing is ahead of the clock: this machine's may be wrong, and replicas have judged that.
        whole, refused = accept_again(repository, documents, records, proofs, MAX_SEQ)
        for error in refused.values():
            if isinstance(error, PeerFault):
                raise error
        # One that waits for a record that is nowhere is nobody's fault, as in a replica that is made anew.
        notes = [f"a record of {author.short}… does not count here: {error}" for author, error in refused.items()]
        return cls(whole.chain, whole.records, tuple(whole.proofs.values()), notes=tuple(notes))

    @property
    def questions(self) -> list[tuple[ObjectId, ObjectId]]:
        """The pairs (old, new) of which it has to be known whether ``new`` contains ``old``."""
        return sorted(ancestor_questions(self.chain, self.records))

    @property
    def canonical(self) -> CanonicalRefs:
        """The refs of the repository."""
        return canonical_refs(self.chain, self.records, self.ancestors)

    def signature(self, ref: str, oid: ObjectId | None) -> Signature | None:
        """Return who says now that ``ref`` is at ``oid`` (``None``: gone), first in precedence."""
        name = ref
        author: str | None = None
        if ref.startswith(CONFLICTS):
            author, _, name = ref.removeprefix(CONFLICTS).partition("/")
        for record in counting(self.chain, self.records):
            entry = record.entries.refs.get(name)
            if entry is not None and entry.oid == oid and author in (None, str(record.author)):
                return Signature(record.author, oid, record.seq, record.header.time_ms)
        return None

    def answer(self) -> Answer:
        """Return it as ``known_repositories.remember`` takes it."""
        document = self.chain.current
        return Answer(
            {
                "repository": str(self.chain.repository),
                "name": document.name,
                "epoch": self.chain.epoch,
                "identity_hash": self.chain.hash.hex(),
                "maintainers": [str(author) for author in document.maintainers],
                "documents": [base64.b64encode(encoded).decode() for encoded in self.chain.documents],
                "heads": [
                    {"author": str(record.author), "seq": record.seq, "hash": record.hash.hex()}
                    for record in self.records.values()
                ],
                "proofs": [base64.b64encode(proof.encode()).decode() for proof in self.proofs],
            }
        )


def compare(
    state: Signed, canonical: CanonicalRefs, there: Mapping[str, ObjectId], expected: Callable[[str], bool]
) -> list[Finding]:
    """Compare the refs of a mirror with those that were signed.

    A ref at a place that nobody signs now is FORGED or UNSIGNED here; ``judged`` tells those that were signed once.

    Args:
        there: what the mirror shows.
        expected: whether a ref that is missing in ``there`` should be there.
    """
    conflicting = {(conflict.ref, conflict.oid) for conflict in canonical.conflicts}
    # The first name of each, and a name in a conflict only where there is no other.
    by_name = sorted(canonical.refs.items(), key=lambda item: (item[0].startswith(CONFLICTS), item[0]), reverse=True)
    names = {oid: ref for ref, oid in by_name}
    found = []
    for ref in sorted({*there, *canonical.refs}, key=lambda name: name.encode(errors="surrogateescape")):
        oid, right = there.get(ref), canonical.refs.get(ref)
        signed = state.signature(ref, right)
        if oid is None:
            if expected(ref) and not ref.startswith(CONFLICTS):
                found.append(Finding(Verdict.WITHHELD, ref, None, signed))
        elif right is None:
            found.append(Finding(Verdict.UNSIGNED, ref, str(oid), signed, signed_as=names.get(oid)))
        elif oid == right:
            note = "in conflict with another maintainer's" if any(ref == name for name, _ in conflicting) else ""
            found.append(Finding(Verdict.OK, ref, str(oid), signed, note=note))
        elif (ref, oid) in conflicting:
            note = "in conflict with another maintainer's, which is shown first"
            found.append(Finding(Verdict.OK, ref, str(oid), state.signature(ref, oid), note=note))
        else:
            mine = state.signature(ref, oid)
            verdict = Verdict.FORGED if mine is None else Verdict.STALE
            found.append(Finding(verdict, ref, str(oid), signed, mine, signed_as=names.get(oid)))
    return found


def compare_whole_head(
    state: Signed,
    canonical: CanonicalRefs,
    there: Mapping[str, ObjectId],
    target: str | None,
    oid: ObjectId | None,
    findings: Sequence[Finding],
) -> Finding | None:
    """Compare a mirror's HEAD: the branch that it is on, and where it is itself, which need not be the same.

    Args:
        there: what the mirror shows.
        target: the branch; ``None``: it is on none, or the server is too old to tell.
        oid: where HEAD is, as far as that is known.
        findings: of the other refs, ``judged``.
    """
    if target is not None:
        named = compare_head(state, canonical, target)
        if oid is None or oid == there.get(target):
            return named
        note = f"it is on {target} by name, and that is elsewhere"
        return replace(named, verdict=Verdict.FORGED, oid=str(oid), note=note)
    if oid is None:
        return None
    head, right = canonical.head, canonical.refs.get(canonical.head)
    note = f"on no branch, as {head}"
    if oid == right:
        return Finding(Verdict.OK, HEAD, str(oid), state.signature(head, oid), note=note)
    for finding in findings:
        if (finding.ref, finding.oid) == (head, str(oid)):
            return replace(finding, ref=HEAD, note=note)
    note = f"it is on no branch, and not where {head} is"
    return Finding(Verdict.FORGED, HEAD, str(oid), state.signature(head, right), note=note)


def disguised(name: str, oid: ObjectId | None) -> Finding:
    """Return what is to be said of what makes git show other objects (``refs/replace/…``), or other parents."""
    if oid is None:
        return Finding(Verdict.FORGED, name, None, note="git shows other parents of commits than they have")
    note = f"git shows it in the place of {name.rpartition('/')[2][:7]}"
    return Finding(Verdict.FORGED, name, str(oid), note=note)


def fetching_may_help(findings: Sequence[Finding]) -> bool:
    """Tell whether all that is wrong is old or missing, as in a clone that was not fetched for a while."""
    bad = {finding.verdict for finding in findings if finding.verdict.bad}
    return bool(bad) and bad <= {Verdict.STALE, Verdict.WITHHELD}


def compare_head(state: Signed, canonical: CanonicalRefs, target: str) -> Finding:
    """Compare the branch that a mirror's HEAD is on with the signed one."""
    records = counting(state.chain, state.records)
    signers = {record.header.head: record for record in reversed(records)}

    def signature(head: str) -> Signature | None:
        record = signers.get(head)
        return None if record is None else Signature(record.author, None, record.seq, record.header.time_ms)

    if target == canonical.head:
        return Finding(Verdict.OK, "HEAD", target, signature(target))
    verdict = Verdict.FORGED if signature(target) is None else Verdict.STALE
    note = f"the signed one is {canonical.head}"
    return Finding(verdict, "HEAD", target, signature(canonical.head), signature(target), note)


def judged(finding: Finding, earlier: Mapping[str, Signature], contained: Set[str]) -> Finding:
    """Return ``finding`` of a value that nobody signs now as STALE, where it was signed once or is part of what is.

    Args:
        earlier: by ref, of the older record that had it where the mirror has it.
        contained: the refs that are part of what is signed.
    """
    if not finding.doubtful or finding.oid is None:
        return finding
    oid = _oid(finding.oid)
    past = earlier.get(finding.ref)
    if past is not None and past.oid == oid:
        return replace(finding, verdict=Verdict.STALE, earlier=past)
    if finding.ref in contained:
        return replace(finding, verdict=Verdict.STALE, note="it is part of what is signed")
    return finding


def earlier_signature(repository: RepositoryId, answer: Answer) -> Signature:
    """Return who signed once that a ref was somewhere. Raises: ``BadAnswer``: there is no such header."""
    try:
        header = SignedHeader.decode(base64.b64decode(answer.text("header"))).header
        oid = _oid(answer.text("oid"))
    except (PeerFault, ValueError) as error:
        raise BadAnswer(f"has a header that nobody signed: {error}") from None
    if (header.repository, header.seq) != (repository, answer.number("seq")):
        raise BadAnswer("has a header of another record")
    return Signature(header.author, oid, header.seq, header.time_ms)


def _oid(text: str) -> ObjectId:
    return ObjectId(bytes.fromhex(text))
