"""A proposal: a repository's next identity document in a file, which goes round and collects signatures.

The file carries the documents so far as well, so that whoever signs needs no node: an added key belongs to somebody
who may not have one. What the file says is checked when it is read; what is missing, before it is applied.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final

from guts.cli.session import instant_text
from guts.errors import PeerFault, UsageError
from guts.identity import SigningKey, domain
from guts.ids import AuthorId, BadId
from guts.trust.acceptance import MAX_AHEAD_MS
from guts.trust.chain import MAX_DOCUMENTS, IdentityChain
from guts.trust.identity_document import MAX_DOCUMENT_BYTES, AuthorPoint, IdentityDocument, RefRule

FORMAT: Final = "guts identity proposal 1"
MAX_FILE_BYTES: Final = (MAX_DOCUMENTS + 1) * MAX_DOCUMENT_BYTES * 3 // 2
"""The longest chain in base64, with room for what is around it."""

MAKES_ONE: Final = "guts identity propose --help says how one is made"


class BadProposal(UsageError):
    """A file is no proposal, is damaged, or can't be signed or written like this."""

    code: ClassVar[str] = "BAD_PROPOSAL"


@dataclass(frozen=True, slots=True)
class Proposal:
    """What shall be the next identity document.

    Attributes:
        chain: the documents that it follows.
        signatures: those collected so far; each has been checked.
    """

    chain: IdentityChain
    document: IdentityDocument
    signatures: Mapping[AuthorId, bytes]

    @classmethod
    def parse(cls, text: str, where: str) -> "Proposal":
        """Return the proposal that ``text``, from ``where``, describes. Raises: ``BadProposal``."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        match value:
            case {"format": str(form), "chain": list(chain), "body": str(body), "signatures": dict(given)}:
                pass
            case _:
                raise BadProposal(f"{where} is no proposal", hint=MAKES_ONE)
        if form != FORMAT:
            raise BadProposal(f"{where} is of the form {form!r}; this version knows {FORMAT!r}")
        try:
            documents = IdentityChain.from_documents([base64.b64decode(str(item), validate=True) for item in chain])
            document = IdentityDocument.decode_body(base64.b64decode(body, validate=True))
            signatures = {AuthorId.parse(key): bytes.fromhex(str(value)) for key, value in given.items()}
            if signatures:
                document.attach(signatures)
        except (PeerFault, BadId, ValueError, binascii.Error) as error:
            raise BadProposal(f"{where} is damaged: {error}", hint="get it again from whoever sent it") from None
        if (document.repository, document.previous) != (documents.repository, documents.hash):
            raise BadProposal(f"the document in {where} does not follow the ones in it")
        return cls(documents, document, signatures)

    @classmethod
    def read(cls, path: Path) -> "Proposal":
        """Return the proposal in a file. Raises: ``BadProposal``, ``OSError``."""
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            raise BadProposal(f"there is no file {path}", hint=MAKES_ONE) from None
        if len(data) > MAX_FILE_BYTES:
            raise BadProposal(f"{path} is larger than any proposal")
        return cls.parse(data.decode(errors="replace"), str(path))

    def create(self, path: Path) -> None:
        """Write a new file. Raises: ``BadProposal``: there is one of that name; ``OSError``."""
        try:
            with path.open("x") as file:
                file.write(self._text())
        except FileExistsError:
            raise BadProposal(f"{path} exists, and may have signatures in it", hint="take another name") from None

    def rewrite(self, path: Path) -> None:
        """Put the proposal in the place of an earlier state of it. Raises: ``OSError``."""
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(self._text())
        temporary.replace(path)

    def _text(self) -> str:
        value = {
            "format": FORMAT,
            "chain": [base64.b64encode(document).decode() for document in self.chain.documents],
            "body": base64.b64encode(self.document.body).decode(),
            "signatures": {str(author): value.hex() for author, value in sorted(self.signatures.items())},
        }
        return json.dumps(value, indent=1) + "\n"

    @property
    def added(self) -> list[AuthorId]:
        """Who becomes a maintainer, as listed."""
        return [author for author in self.document.maintainers if author not in self.chain.current.maintainers]

    @property
    def consent(self) -> list[AuthorId]:
        """Who becomes a maintainer and has not signed yet."""
        return [author for author in self.added if author not in self.signatures]

    @property
    def votes(self) -> int:
        """How many more of the present maintainers must sign."""
        given = sum(author in self.signatures for author in self.chain.current.maintainers)
        return max(0, self.chain.current.threshold - given)

    def signed(self, key: SigningKey) -> "Proposal":
        """Return the proposal with the signature of ``key``. Raises: ``BadProposal``: it has no say in this."""
        author = key.author_id
        if author not in (*self.chain.current.maintainers, *self.added):
            raise BadProposal(f"{author} is neither a maintainer nor to become one: its signature would spoil this")
        signature = key.sign(domain(IdentityDocument.KIND), self.document.body)
        return replace(self, signatures={**self.signatures, author: signature})

    def check_points(self, now_ms: int) -> None:
        """Check who is removed or reaffirmed, after which record. ``now_ms``: Unix milliseconds.

        Raises:
            BadProposal: after one of the future: everything that its author signs until then would count, or be lost.
        """
        for point in (*self.document.removed, *self.document.reaffirmed):
            if point.seq > now_ms + MAX_AHEAD_MS:
                raise BadProposal(
                    f"{point.author}: {record_text(point)}, is more than 10 minutes in the future, and no replica "
                    "accepts such a record now",
                    hint="check the clock of this machine (timedatectl), and propose anew with a node that you trust",
                )

    def encode(self) -> bytes:
        """Return the document with the signatures that there are; whether they suffice, ``missing`` says."""
        return self.document.attach(self.signatures)

    def missing(self) -> list[str]:
        """Return what is missing, for people."""
        lines = [f"{author}, which is added" for author in self.consent]
        left = [str(author) for author in self._undecided] if self.votes else []
        return lines + (left if self.votes == len(left) else [f"{self.votes} of {', '.join(left)}"])

    def next_step(self, file: Path, own: AuthorId | None) -> str:
        """Return what ``own`` does next with the proposal, which is in ``file``."""
        waited_for = [*self.consent, *(self._undecided if self.votes else [])]
        if not waited_for:
            return f"guts identity apply {file}"
        if own in waited_for:
            return f"guts identity sign {file}"
        return f"send {file} to {', and to '.join(self.missing())}; there: guts identity sign {file.name}"

    @property
    def _undecided(self) -> list[AuthorId]:
        """The present maintainers who have not signed."""
        return [author for author in self.chain.current.maintainers if author not in self.signatures]

    def changes(self) -> list[str]:
        """Return what the document changes, for people."""
        return changes(self.chain.current, self.document)


def changes(before: IdentityDocument, after: IdentityDocument) -> list[str]:
    """Return what differs between two documents that follow each other, for people."""
    lines = [f"adds {author}" for author in after.maintainers if author not in before.maintainers]
    lines += [f"removes {point.author}: {_last(point)}" for point in after.removed]
    lines += [f"reaffirms {point.author}, who goes on from {record_text(point)}" for point in after.reaffirmed]
    lines += [f"protects {rule_text(rule)}" for rule in after.rules if rule not in before.rules]
    lines += [f"no longer protects {rule_text(rule)}" for rule in before.rules if rule not in after.rules]
    if before.threshold != after.threshold:
        lines.append(f"threshold: {before.threshold} -> {after.threshold}")
    for name in ("name", "description", "default_branch"):
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            lines.append(f"{name.replace('_', ' ')}: {_quoted(old)} -> {_quoted(new)}")
    stay = [author for author in after.maintainers if author in before.maintainers]
    if stay != [author for author in before.maintainers if author in after.maintainers]:
        lines.append("another order of precedence: " + ", ".join(f"{author.short}…" for author in after.maintainers))
    return lines


def rule_text(rule: RefRule) -> str:
    """Return what a rule protects, for people; nothing counts endorsements yet, so more than one are told."""
    more = f" ({rule.endorsements} endorsements, which nothing counts yet)" if rule.endorsements > 1 else ""
    return f"{_quoted(rule.pattern)}{more}"


def record_text(point: AuthorPoint) -> str:
    """Return which record of an author that is, for people: ``seq`` is the time of its signature, or just after."""
    return f"its record {point.hash.hex()[:12]}… of {instant_text(point.seq)}"


def _last(point: AuthorPoint) -> str:
    return f"{record_text(point)} is the last that counts" if point.seq else "none of its records counts"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
