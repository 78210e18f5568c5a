"""The identity document: name, maintainers and rules of a repository at one epoch (docs/protocol.md §5)."""

import hashlib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Self, final

from guts import canonical
from guts.canonical import Bounds, Value
from guts.errors import PeerFault
from guts.identity import SigningKey, domain
from guts.ids import AuthorId, RepositoryId
from guts.records import MAX_SEQ, Signed
from guts.trust.ref_names import BRANCHES, MAX_REF_BYTES, has_control, is_branch

VERSION: Final = 1
MAX_DOCUMENT_BYTES: Final = 65_536
"""One message (docs/protocol.md §3); a chain of 1,000 of them is 64 MiB at the very most."""

MAX_MAINTAINERS: Final = 32
MAX_RULES: Final = 64
MAX_POINTS: Final = 32
"""Removed or reaffirmed keys in one document: as many as there can be maintainers."""

MAX_DESCRIPTION_BYTES: Final = 1024
NONCE_LENGTH: Final = 16
HASH_LENGTH: Final = 32

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
"""What a ``guts://`` URL can carry (``RepositoryUrl``), so that it is also safe as a directory name."""


class InvalidIdentity(PeerFault):
    """An identity document, or a chain of them, breaks a rule."""

    code = "INVALID_IDENTITY"


@dataclass(frozen=True, slots=True, order=True)
class AuthorPoint:
    """One record in an author's history.

    Attributes:
        seq: its sequence number; 0 where the author has published nothing.
        hash: of its header; empty where ``seq`` is 0.
    """

    author: AuthorId
    seq: int
    hash: bytes

    def __post_init__(self) -> None:
        """Raises: ``InvalidIdentity``: number or hash is not one, or only one of the two is there."""
        if not 0 <= self.seq <= MAX_SEQ or len(self.hash) != (HASH_LENGTH if self.seq else 0):
            raise InvalidIdentity("not a point in an author's history")


@dataclass(frozen=True, slots=True, order=True)
class RefRule:
    """A protected pattern and how many maintainers must endorse a change under it (1..32)."""

    pattern: str
    endorsements: int

    def __post_init__(self) -> None:
        """Raises: ``InvalidIdentity``: not a pattern, or an impossible number."""
        if has_control(self.pattern) or not 1 <= len(self.pattern.encode()) <= MAX_REF_BYTES:
            raise InvalidIdentity("not a pattern of refs")
        if not 1 <= self.endorsements <= MAX_MAINTAINERS:
            raise InvalidIdentity("not a number of endorsements")


@final
@dataclass(frozen=True, slots=True)
class IdentityDocument:
    """One epoch of a repository's identity.

    Attributes:
        repository: ``None`` in the genesis document, whose hash it is.
        epoch: 0 in genesis, then one more each time.
        previous: hash of the document before; empty in genesis.
        name: what people call it: letters, digits, ``.``, ``_``, ``-``; at most 100.
        description: at most 1,024 bytes, one line.
        default_branch: a branch's short name, such as ``main``.
        maintainers: author keys in order of precedence.
        threshold: signatures that the next document needs from these maintainers.
        rules: by ascending pattern.
        removed: the maintainers of the epoch before that are none any more, by ascending key, with the last
            record of each that counts.
        reaffirmed: maintainers whose history split, by ascending key, with the record that counts.
        created_ms: Unix milliseconds, by the signers' clock; for people.
        nonce: 16 bytes, so that two repositories with the same words have two ids.
    """

    KIND: ClassVar[str] = "identity"

    repository: RepositoryId | None
    epoch: int
    previous: bytes
    name: str
    description: str
    default_branch: str
    maintainers: tuple[AuthorId, ...]
    threshold: int
    rules: tuple[RefRule, ...]
    removed: tuple[AuthorPoint, ...]
    reaffirmed: tuple[AuthorPoint, ...]
    created_ms: int
    nonce: bytes

    def __post_init__(self) -> None:
        """Raises: ``InvalidIdentity``: a field, or their combination, breaks a rule."""
        self._check_place()
        self._check_texts()
        self._check_people()

    def _check_place(self) -> None:
        genesis = self.epoch == 0
        if not 0 <= self.epoch <= MAX_SEQ or not 0 <= self.created_ms <= MAX_SEQ:
            raise InvalidIdentity("epoch or time is out of range")
        if genesis != (self.repository is None) or len(self.previous) != (0 if genesis else HASH_LENGTH):
            raise InvalidIdentity("genesis names no repository and no predecessor; every other document does")
        if genesis and (self.removed or self.reaffirmed):
            raise InvalidIdentity("genesis removes and reaffirms nobody")
        if len(self.nonce) != NONCE_LENGTH:
            raise InvalidIdentity(f"a nonce has {NONCE_LENGTH} bytes")

    def _check_texts(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise InvalidIdentity("not a name of a repository")
        if has_control(self.description) or len(self.description.encode()) > MAX_DESCRIPTION_BYTES:
            raise InvalidIdentity("the description is too long or has control characters")
        if self.default_branch.startswith("refs/") or not is_branch(self.default_ref):
            raise InvalidIdentity("the default branch is not a branch's short name")

    def _check_people(self) -> None:
        maintainers = set(self.maintainers)
        if not 1 <= len(self.maintainers) <= MAX_MAINTAINERS or len(maintainers) != len(self.maintainers):
            raise InvalidIdentity(f"1..{MAX_MAINTAINERS} distinct maintainers are needed")
        if not 1 <= self.threshold <= len(self.maintainers):
            raise InvalidIdentity("the threshold is not between 1 and the number of maintainers")
        if len(self.rules) > MAX_RULES or not _ascending([rule.pattern.encode() for rule in self.rules]):
            raise InvalidIdentity(f"not at most {MAX_RULES} rules by ascending pattern")
        for points in (self.removed, self.reaffirmed):
            if len(points) > MAX_POINTS or not _ascending([point.author for point in points]):
                raise InvalidIdentity(f"not at most {MAX_POINTS} keys in ascending order")
        if any(point.author in maintainers for point in self.removed):
            raise InvalidIdentity("a maintainer is also removed")
        if any(point.author not in maintainers or not point.seq for point in self.reaffirmed):
            raise InvalidIdentity("a record is reaffirmed whose author is no maintainer, or none is named")

    @classmethod
    def genesis(
        cls,
        *,
        name: str,
        description: str,
        default_branch: str,
        maintainers: tuple[AuthorId, ...],
        threshold: int | None = None,
        created_ms: int,
        nonce: bytes,
        rules: tuple[RefRule, ...] = (),
    ) -> Self:
        """Return the first document of a new repository; its hash is the repository's id.

        Args:
            threshold: ``None`` takes ``default_threshold``.

        Raises:
            InvalidIdentity: a field breaks a rule.
        """
        if threshold is None:
            threshold = default_threshold(len(maintainers))
        return cls(
            repository=None,
            epoch=0,
            previous=b"",
            name=name,
            description=description,
            default_branch=default_branch,
            maintainers=maintainers,
            threshold=threshold,
            rules=tuple(sorted(rules, key=lambda rule: rule.pattern.encode())),
            removed=(),
            reaffirmed=(),
            created_ms=created_ms,
            nonce=nonce,
        )

    @classmethod
    def decode_body(cls, body: bytes) -> Self:
        """Return the document whose body ``body`` is; signatures are not looked at.

        Raises:
            NotCanonical, InvalidIdentity: malformed.
        """
        bounds = Bounds(MAX_DOCUMENT_BYTES, max_list=MAX_RULES, max_bin=HASH_LENGTH, max_depth=3)
        match canonical.decode(body, bounds):
            case [
                version,
                bytes(repository),
                epoch,
                bytes(previous),
                str(name),
                str(description),
                str(branch),
                list(maintainers),
                threshold,
                list(rules),
                list(removed),
                list(reaffirmed),
                created_ms,
                bytes(nonce),
            ] if _number(version) == VERSION and len(repository) in (0, RepositoryId.LENGTH):
                pass
            case _:
                raise InvalidIdentity("not an identity document of version 1")
        return cls(
            repository=RepositoryId(repository) if repository else None,
            epoch=_number(epoch),
            previous=previous,
            name=name,
            description=description,
            default_branch=branch,
            maintainers=tuple(_author(key) for key in maintainers),
            threshold=_number(threshold),
            rules=tuple(_rule(rule) for rule in rules),
            removed=tuple(_point(point) for point in removed),
            reaffirmed=tuple(_point(point) for point in reaffirmed),
            created_ms=_number(created_ms),
            nonce=nonce,
        )

    @property
    def body(self) -> bytes:
        """The canonical bytes that are signed and hashed."""
        return canonical.encode(
            [
                VERSION,
                self.repository or b"",
                self.epoch,
                self.previous,
                self.name,
                self.description,
                self.default_branch,
                list(self.maintainers),
                self.threshold,
                [[rule.pattern, rule.endorsements] for rule in self.rules],
                [[point.author, point.seq, point.hash] for point in self.removed],
                [[point.author, point.seq, point.hash] for point in self.reaffirmed],
                self.created_ms,
                self.nonce,
            ]
        )

    @property
    def hash(self) -> bytes:
        """SHA-256(domain ‖ body), 32 bytes."""
        return hashlib.sha256(domain(self.KIND) + self.body).digest()

    @property
    def default_ref(self) -> str:
        """The full name of the default branch."""
        return BRANCHES + self.default_branch

    def sign(self, *keys: SigningKey) -> bytes:
        """Return the document signed by ``keys``; whether they suffice is the chain's business."""
        return Signed.sign(self.KIND, self.body, *keys).encode()

    def attach(self, signatures: Mapping[AuthorId, bytes]) -> bytes:
        """Return the document with ``signatures`` over ``domain("identity") ‖ body`` made elsewhere.

        Raises:
            InvalidRecord: one of them does not cover this document.
        """
        signed = Signed(self.body, tuple(sorted((bytes(key), value) for key, value in signatures.items())))
        signed.check(self.KIND)
        return signed.encode()


def default_threshold(maintainers: int) -> int:
    """Return ⌊n/2⌋+1: any two documents that follow one document then share a signer, who can be named."""
    return maintainers // 2 + 1


def _ascending(keys: list[AuthorId] | list[bytes]) -> bool:
    return all(a < b for a, b in itertools.pairwise(keys))


def _number(value: Value) -> int:
    # ``bool`` is an ``int`` to isinstance, and another value on the wire.
    if type(value) is not int:
        raise InvalidIdentity("not a number")
    return value


def _author(value: Value) -> AuthorId:
    if not isinstance(value, bytes) or len(value) != AuthorId.LENGTH:
        raise InvalidIdentity("not an author key")
    return AuthorId(value)


def _rule(value: Value) -> RefRule:
    match value:
        case [str(pattern), endorsements]:
            return RefRule(pattern, _number(endorsements))
        case _:
            raise InvalidIdentity("not a rule for refs")


def _point(value: Value) -> AuthorPoint:
    match value:
        case [author, seq, bytes(digest)]:
            return AuthorPoint(_author(author), _number(seq), digest)
        case _:
            raise InvalidIdentity("not a point in an author's history")
