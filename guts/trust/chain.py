"""The identity chain: from the genesis document, whose hash is the repository's id, to the newest one."""

from dataclasses import dataclass
from typing import ClassVar, Final, final

from guts.errors import Severity
from guts.ids import AuthorId, RepositoryId
from guts.records import Signed
from guts.trust.identity_document import (
    MAX_DOCUMENT_BYTES,
    AuthorPoint,
    IdentityDocument,
    InvalidIdentity,
    RefRule,
    default_threshold,
)

MAX_DOCUMENTS: Final = 1_000
"""A weekly change for 19 years; with 64 KiB each, what one repository can make a replica keep."""


class IdentityForked(InvalidIdentity):
    """The maintainers signed two documents of one epoch. Kept as proof; no relay is punished.

    Attributes:
        document: the signed document that is not the one in our chain.
        epoch: of both.
    """

    code = "IDENTITY_FORKED"
    severity: ClassVar[Severity] = Severity.NETWORK

    def __init__(self, epoch: int, document: bytes) -> None:
        super().__init__(f"two identity documents of epoch {epoch}")
        self.epoch = epoch
        self.document = document


class IdentityDiverged(InvalidIdentity):
    """A document follows another one than that of its epoch here: the maintainers signed two of some epoch.

    Whoever relays it met the other one first; nobody is punished.
    """

    code = "IDENTITY_DIVERGED"
    severity: ClassVar[Severity] = Severity.NETWORK


class MissingIdentity(InvalidIdentity):
    """A document is further ahead than the next one. Ask for those between; nobody is punished."""

    code = "MISSING_IDENTITY"
    severity: ClassVar[Severity] = Severity.NETWORK


@final
@dataclass(frozen=True, slots=True)
class IdentityChain:
    """All identity documents of one repository, checked: ``from_documents`` and ``extend`` make it.

    Attributes:
        documents: the signed bytes, genesis first.
        history: the same, decoded.
        repository: SHA-256(domain ‖ genesis body).
    """

    documents: tuple[bytes, ...]
    history: tuple[IdentityDocument, ...]
    repository: RepositoryId

    @classmethod
    def from_documents(cls, documents: list[bytes]) -> "IdentityChain":
        """Return the chain of ``documents``, genesis first.

        Raises:
            InvalidIdentity, InvalidRecord, NotCanonical: none, too many, or one breaks a rule.
        """
        if not 1 <= len(documents) <= MAX_DOCUMENTS:
            raise InvalidIdentity(f"a chain has 1..{MAX_DOCUMENTS} documents")
        signed, genesis = _decode(documents[0])
        if genesis.epoch != 0:
            raise InvalidIdentity("the first document is not a genesis document")
        if [key for key, _ in signed.signatures] != sorted(genesis.maintainers):
            raise InvalidIdentity("genesis is signed by every maintainer that it lists and by nobody else")
        signed.check(IdentityDocument.KIND)
        chain = cls((documents[0],), (genesis,), RepositoryId(genesis.hash))
        for document in documents[1:]:
            chain = chain.extend(document)
        return chain

    @property
    def epoch(self) -> int:
        """Epoch of the newest document."""
        return self.current.epoch

    @property
    def hash(self) -> bytes:
        """Hash of the newest document, 32 bytes."""
        return self.current.hash

    @property
    def current(self) -> IdentityDocument:
        """The newest document."""
        return self.history[-1]

    def extend(self, data: bytes) -> "IdentityChain":
        """Return the chain with the signed document ``data`` at its end; itself, if it is in it already.

        Raises:
            IdentityForked: ``data`` is valid, and another document of its epoch is in the chain.
            IdentityDiverged: it follows another document than ours.
            MissingIdentity: documents before it are missing.
            InvalidIdentity, InvalidRecord, NotCanonical: it breaks a rule.
        """
        signed, document = _decode(data)
        if document.epoch == 0:
            if document.hash == self.repository:
                return self
            raise InvalidIdentity("genesis of another repository")
        if document.repository != self.repository:
            raise InvalidIdentity("an identity document of another repository")
        if document.epoch > self.epoch + 1:
            raise MissingIdentity(f"epoch {document.epoch} after epoch {self.epoch}")
        if document.epoch >= MAX_DOCUMENTS:
            raise InvalidIdentity(f"a chain has 1..{MAX_DOCUMENTS} documents")
        if document.epoch <= self.epoch and document.hash == self.history[document.epoch].hash:
            return self
        _check_succession(self.history[document.epoch - 1], document, signed)
        if document.epoch <= self.epoch:
            raise IdentityForked(document.epoch, data)
        return IdentityChain((*self.documents, data), (*self.history, document), self.repository)

    def limit(self, author: AuthorId, epoch: int) -> AuthorPoint | None:
        """Return the last record of ``author`` that counts, of those signed at ``epoch``; ``None``: all do.

        The first document after ``epoch`` that removes the author, or settles a split of its history,
        says so.
        """
        for document in self.history[epoch + 1 :]:
            for point in (*document.removed, *document.reaffirmed):
                if point.author == author:
                    return point
        return None

    def last_limit(self, author: AuthorId) -> AuthorPoint | None:
        """Return what the newest document that removes or reaffirms ``author`` says; ``None``: none ever did."""
        for document in reversed(self.history):
            for point in (*document.removed, *document.reaffirmed):
                if point.author == author:
                    return point
        return None

    def former(self) -> tuple[AuthorPoint, ...]:
        """Return those who were maintainers and are not, by epoch of their last removal, then by key."""
        removed: dict[AuthorId, AuthorPoint] = {}
        for document in self.history:
            for point in document.removed:
                removed.pop(point.author, None)
                removed[point.author] = point
        now = set(self.current.maintainers)
        return tuple(point for author, point in removed.items() if author not in now)

    def successor(
        self,
        *,
        created_ms: int,
        nonce: bytes,
        name: str | None = None,
        description: str | None = None,
        default_branch: str | None = None,
        maintainers: tuple[AuthorId, ...] | None = None,
        threshold: int | None = None,
        rules: tuple[RefRule, ...] | None = None,
        removed: tuple[AuthorPoint, ...] = (),
        reaffirmed: tuple[AuthorPoint, ...] = (),
    ) -> IdentityDocument:
        """Return the next document, to be signed; what is ``None`` stays as it is.

        A change of maintainers without ``threshold`` takes ``default_threshold``.

        Raises:
            InvalidIdentity: a field breaks a rule, or ``removed`` is not exactly who leaves.
        """
        current = self.current
        if threshold is None:
            threshold = current.threshold if maintainers is None else default_threshold(len(maintainers))
        document = IdentityDocument(
            repository=self.repository,
            epoch=current.epoch + 1,
            previous=current.hash,
            name=current.name if name is None else name,
            description=current.description if description is None else description,
            default_branch=current.default_branch if default_branch is None else default_branch,
            maintainers=current.maintainers if maintainers is None else maintainers,
            threshold=threshold,
            rules=current.rules if rules is None else rules,
            removed=tuple(sorted(removed)),
            reaffirmed=tuple(sorted(reaffirmed)),
            created_ms=created_ms,
            nonce=nonce,
        )
        _check_removed(current, document)
        return document


def _decode(data: bytes) -> tuple[Signed, IdentityDocument]:
    signed = Signed.decode(data, MAX_DOCUMENT_BYTES)
    return signed, IdentityDocument.decode_body(signed.body)


def _check_removed(before: IdentityDocument, document: IdentityDocument) -> None:
    gone = set(before.maintainers) - set(document.maintainers)
    if {point.author for point in document.removed} != gone:
        raise InvalidIdentity("a document names exactly those as removed who were maintainers and are not")


def _check_succession(before: IdentityDocument, document: IdentityDocument, signed: Signed) -> None:
    """Raises: ``IdentityDiverged``, ``InvalidIdentity``, ``InvalidRecord``: ``document`` may not follow ``before``."""
    if document.previous != before.hash:
        raise IdentityDiverged("the document does not follow the one before it")
    _check_removed(before, document)
    signers = {AuthorId(key) for key, _ in signed.signatures}
    old, added = set(before.maintainers), set(document.maintainers) - set(before.maintainers)
    if len(signers & old) < before.threshold:
        raise InvalidIdentity(f"{before.threshold} maintainers of epoch {before.epoch} must sign")
    if not added <= signers:
        raise InvalidIdentity("a key was added without its own signature")
    if signers - old - added:
        raise InvalidIdentity("a signature of somebody who has no say in this document")
    signed.check(IdentityDocument.KIND)
