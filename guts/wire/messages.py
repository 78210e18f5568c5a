"""The messages (docs/protocol.md §4): what each carries, checked at construction.

Constructing one with a value out of its range raises ``ValueError``: from our own code that is a bug, from
the bytes of a peer the codec turns it into a fault. Signed records travel as bounded opaque bytes;
``guts.records`` and ``guts.trust`` give them meaning.
"""

from dataclasses import dataclass
from enum import IntEnum, unique
from typing import ClassVar, Final, final

from guts.ids import AuthorId, RepositoryId
from guts.wire import limits
from guts.wire.fields import Bytes, Code, Field, Id, Layout, ListOf, OneOf, Part, PartOrNil, Text, Uint


@unique
class GoodbyeCode(IntEnum):
    """Why a connection is closed on purpose."""

    SHUTTING_DOWN = 0
    NO_COMMON_VERSION = 1
    FULL = 2
    BANNED = 3
    DUPLICATE = 4
    PROTOCOL_FAULT = 5
    IDLE = 6


@unique
class ErrorCode(IntEnum):
    """Why a request was not answered."""

    UNSUPPORTED = 1
    NOT_FOUND = 2
    BUSY = 3
    REFUSED = 4
    LIMIT = 5


@unique
class RefsStatus(IntEnum):
    """Whether the answering node holds the repository."""

    HELD = 0
    NOT_HELD = 1


@unique
class ObjectsStatus(IntEnum):
    """What follows a GetObjects; only after ``PACK_FOLLOWS`` does a pack come on the stream."""

    PACK_FOLLOWS = 0
    NOT_HELD = 1
    BUSY = 2
    UNSUPPORTED = 3
    LIMIT = 4


@unique
class ResetCode(IntEnum):
    """Why a stream was given up before its end (docs/protocol.md §3)."""

    CANCELLED = 0
    INTERNAL_ERROR = 1
    NOT_FOUND = 2
    REFUSED = 3
    LIMIT = 4


UPLOAD_PACK: Final = 1
"""Service of ``GitService``: one ``fetch`` of git's protocol v2 (gitprotocol-v2(5))."""

_REQUEST: Final = Uint(1, limits.MAX_UINT32)
_REQUEST_OR_NONE: Final = Uint(0, limits.MAX_UINT32)
_NONCE: Final = Uint(0, limits.MAX_UINT64)
_SEQ: Final = Uint(0, limits.MAX_SEQ)
_COUNT: Final = Uint(0, limits.MAX_UINT32)
_SIZE: Final = Uint(0, limits.MAX_SIZE)
_VERSION: Final = Uint(1, limits.MAX_VERSION)
_RETRY_AFTER: Final = Uint(0, limits.MAX_RETRY_AFTER_S)
_HASH: Final = Bytes(limits.MAX_HASH_BYTES, limits.MAX_HASH_BYTES)
_HASH_OR_EMPTY: Final = Bytes(limits.MAX_HASH_BYTES, limits.MAX_HASH_BYTES, or_empty=True)
_START_NONCE: Final = Bytes(limits.START_NONCE_BYTES, limits.START_NONCE_BYTES)
_CURSOR: Final = Bytes(0, limits.MAX_CURSOR_BYTES)
_PEER_RECORD: Final = Bytes(0, limits.MAX_PEER_RECORD_BYTES)
_SOFTWARE: Final = Text(0, limits.MAX_SOFTWARE_BYTES)
_TEXT: Final = Text(0, limits.MAX_TEXT_BYTES)
_CAPABILITIES: Final = ListOf(Text(1, limits.MAX_CAPABILITY_BYTES), limits.MAX_CAPABILITIES)
_RECEIPT: Final = Bytes(1, limits.MAX_RECEIPT_BYTES)
_PROOF: Final = Bytes(1, limits.MAX_PROOF_BYTES)
_PEER_RECORDS: Final = ListOf(Bytes(1, limits.MAX_PEER_RECORD_BYTES), limits.MAX_PEER_RECORDS)
_REPOSITORY: Final = Id(RepositoryId)
_AUTHOR: Final = Id(AuthorId)
_REPOSITORIES: Final = ListOf(_REPOSITORY, limits.MAX_SUBSCRIPTIONS)


@final
@dataclass(frozen=True, slots=True)
class Hello(Layout):
    """The dialler's first message.

    Attributes:
        version_min, version_max: protocol versions spoken, both included.
        software: name and version, for people.
        peer_record: an encoded ``PeerRecord``.
        time_ms: the sender's Unix time; advisory.
        start_nonce: drawn once per start of the node.
    """

    FIELDS: ClassVar[tuple[Field, ...]] = (
        _VERSION,
        _VERSION,
        _SOFTWARE,
        _CAPABILITIES,
        _PEER_RECORD,
        _SEQ,
        _START_NONCE,
    )

    version_min: int
    version_max: int
    software: str
    capabilities: tuple[str, ...]
    peer_record: bytes
    time_ms: int
    start_nonce: bytes

    def __post_init__(self) -> None:
        """Raises: ``ValueError``: a field is out of its range, or the range of versions is empty."""
        Layout.__post_init__(self)
        if self.version_min > self.version_max:
            raise ValueError("Hello: version_min is above version_max")


@final
@dataclass(frozen=True, slots=True)
class HelloAck(Layout):
    """The answer to Hello; ``version`` is the one chosen, the rest as there."""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        _VERSION,
        _SOFTWARE,
        _CAPABILITIES,
        _PEER_RECORD,
        _SEQ,
        _START_NONCE,
    )

    version: int
    software: str
    capabilities: tuple[str, ...]
    peer_record: bytes
    time_ms: int
    start_nonce: bytes


@final
@dataclass(frozen=True, slots=True)
class Ping(Layout):
    """Asks for a Pong with the same nonce (uint64)."""

    FIELDS: ClassVar[tuple[Field, ...]] = (_NONCE,)

    nonce: int


@final
@dataclass(frozen=True, slots=True)
class Pong(Layout):
    """Answers a Ping."""

    FIELDS: ClassVar[tuple[Field, ...]] = (_NONCE,)

    nonce: int


@final
@dataclass(frozen=True, slots=True)
class KnownHead(Layout):
    """The newest signed refs of an author that the asker has; ``hash`` is that of the header."""

    FIELDS: ClassVar[tuple[Field, ...]] = (_AUTHOR, _SEQ, _HASH)

    author: AuthorId
    seq: int
    hash: bytes


@final
@dataclass(frozen=True, slots=True)
class KnownSplit(Layout):
    """The asker has proof that the history of an author split at ``seq``."""

    FIELDS: ClassVar[tuple[Field, ...]] = (_AUTHOR, _SEQ)

    author: AuthorId
    seq: int


@final
@dataclass(frozen=True, slots=True)
class RefsQuery(Layout):
    """Asks for what is newer than what the asker knows of a repository.

    Attributes:
        documents: how many identity documents it has; 0 for none.
        identity_hash: hash of the newest of them; empty for none.
        known: the newest record of each author that counts there.
        splits: of the authors who signed two histories.
        fork: the epoch of which the asker has proof that there are two documents; 0: of none.
    """

    FIELDS: ClassVar[tuple[Field, ...]] = (
        _REPOSITORY,
        _COUNT,
        _HASH_OR_EMPTY,
        ListOf(Part(KnownHead), limits.MAX_KNOWN_HEADS),
        ListOf(Part(KnownSplit), limits.MAX_SPLITS),
        _COUNT,
    )

    repository: RepositoryId
    documents: int
    identity_hash: bytes
    known: tuple[KnownHead, ...]
    splits: tuple[KnownSplit, ...] = ()
    fork: int = 0


@final
@dataclass(frozen=True, slots=True)
class RecordQuery(Layout):
    """Asks for one record: that of an author with exactly this seq."""

    FIELDS: ClassVar[tuple[Field, ...]] = (_REPOSITORY, _AUTHOR, _SEQ)

    repository: RepositoryId
    author: AuthorId
    seq: int


@final
@dataclass(frozen=True, slots=True)
class GetRefs(Layout):
    """Asks for identity documents and signed refs; ``cursor`` goes on where an earlier answer stopped."""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        _REQUEST,
        ListOf(OneOf((RefsQuery, RecordQuery)), limits.MAX_QUERIES),
        _CURSOR,
    )

    request: int
    queries: tuple[RefsQuery | RecordQuery, ...]
    cursor: bytes = b""


@final
@dataclass(frozen=True, slots=True)
class EncodedRefs(Layout):
    """One signed refs record: the signed header and the entries whose hash it carries."""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Bytes(1, limits.MAX_HEADER_BYTES),
        Bytes(1, limits.MAX_ENTRIES_BYTES),
    )

    header: bytes
    entries: bytes


@final
@dataclass(frozen=True, slots=True)
class RefsAnswer(Layout):
    """What is newer of one repository.

    Attributes:
        documents: signed identity documents in order of epoch.
        headers: signed refs headers that bridge from what the asker knows, oldest first.
        records: the newest record of each author who has a newer one.
        proofs: that an author signed two histories, of an earlier split than the asker knows; and a signed document
            of which ``documents``, or those that the asker has, hold another one of its epoch.
        size: bytes that the whole repository takes at the answering node; a claim; 0: not told.
    """

    FIELDS: ClassVar[tuple[Field, ...]] = (
        _REPOSITORY,
        Code(RefsStatus),
        ListOf(Bytes(1, limits.MAX_DOCUMENT_BYTES), limits.MAX_DOCUMENTS),
        ListOf(Bytes(1, limits.MAX_HEADER_BYTES), limits.MAX_HEADERS),
        ListOf(Part(EncodedRefs), limits.MAX_RECORDS),
        ListOf(Bytes(1, limits.MAX_DOCUMENT_BYTES), limits.MAX_PROOFS),
        _SIZE,
    )

    repository: RepositoryId
    status: RefsStatus
    documents: tuple[bytes, ...] = ()
    headers: tuple[bytes, ...] = ()
    records: tuple[EncodedRefs, ...] = ()
    proofs: tuple[bytes, ...] = ()
    size: int = 0


@final
@dataclass(frozen=True, slots=True)
class Refs(Layout):
    """Answers GetRefs; an empty ``cursor`` says that the answer is complete."""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        _REQUEST,
        ListOf(Part(RefsAnswer), limits.MAX_QUERIES),
        _CURSOR,
    )

    request: int
    answers: tuple[RefsAnswer, ...]
    cursor: bytes = b""


@final
@dataclass(frozen=True, slots=True)
class GetObjects(Layout):
    """Asks for a pack; the ids of wants and haves follow on ``stream``, which the sender opened.

    Attributes:
        slices: which of the 64 slices, a bit each; ``ff`` * 8 is all.
        filter: a git object filter; empty is none.
        wants, haves: how many ids of each follow.
    """

    FIELDS: ClassVar[tuple[Field, ...]] = (
        _REQUEST,
        _REPOSITORY,
        Uint(1, limits.MAX_STREAM_ID),
        Bytes(limits.SLICES_BYTES, limits.SLICES_BYTES),
        Text(0, limits.MAX_FILTER_BYTES),
        Uint(0, limits.MAX_OBJECT_IDS),
        Uint(0, limits.MAX_OBJECT_IDS),
    )

    request: int
    repository: RepositoryId
    stream: int
    slices: bytes
    filter: str
    wants: int
    haves: int


@final
@dataclass(frozen=True, slots=True)
class Objects(Layout):
    """Answers GetObjects; ``retry_after_s`` (seconds) counts with ``BUSY``."""

    FIELDS: ClassVar[tuple[Field, ...]] = (_REQUEST, Code(ObjectsStatus), _RETRY_AFTER)

    request: int
    status: ObjectsStatus
    retry_after_s: int = 0


@final
@dataclass(frozen=True, slots=True)
class GitService(Layout):
    """Asks for git's own protocol on ``stream``, which the sender opened: one request there, one answer.

    Attributes:
        service: ``UPLOAD_PACK``, or a number of a later version.
    """

    FIELDS: ClassVar[tuple[Field, ...]] = (
        _REQUEST,
        _REPOSITORY,
        Uint(1, limits.MAX_STREAM_ID),
        Uint(1, limits.MAX_GIT_SERVICE),
    )

    request: int
    repository: RepositoryId
    stream: int
    service: int


@final
@dataclass(frozen=True, slots=True)
class GetReceipt(Layout):
    """Asks for the receipt of an author's record; answered when the record, or a later one, is committed there."""

    FIELDS: ClassVar[tuple[Field, ...]] = (_REQUEST, _REPOSITORY, _AUTHOR, _SEQ)

    request: int
    repository: RepositoryId
    author: AuthorId
    seq: int


@final
@dataclass(frozen=True, slots=True)
class Receipt(Layout):
    """The sender committed a record; ``request`` is 0 where nobody asked. ``receipt``: an encoded ``CommitReceipt``."""

    FIELDS: ClassVar[tuple[Field, ...]] = (_REQUEST_OR_NONE, _RECEIPT)

    request: int
    receipt: bytes


@final
@dataclass(frozen=True, slots=True)
class GetPeers(Layout):
    """Asks for other nodes."""

    FIELDS: ClassVar[tuple[Field, ...]] = (_REQUEST,)

    request: int


@final
@dataclass(frozen=True, slots=True)
class Peers(Layout):
    """Answers GetPeers: encoded ``PeerRecord``s of nodes that the sender has reached, or is connected to."""

    FIELDS: ClassVar[tuple[Field, ...]] = (_REQUEST, _PEER_RECORDS)

    request: int
    records: tuple[bytes, ...]


@final
@dataclass(frozen=True, slots=True)
class NewCommit(Layout):
    """News: an author signed newer refs. ``hash`` is that of the header; the record comes along if small."""

    FIELDS: ClassVar[tuple[Field, ...]] = (_REPOSITORY, _AUTHOR, _SEQ, _HASH, PartOrNil(Part(EncodedRefs)))

    repository: RepositoryId
    author: AuthorId
    seq: int
    hash: bytes
    record: EncodedRefs | None = None


@final
@dataclass(frozen=True, slots=True)
class NewRepository(Layout):
    """News: the node of ``peer_record`` holds a repository, whose newest identity document has this hash."""

    FIELDS: ClassVar[tuple[Field, ...]] = (_REPOSITORY, _COUNT, _HASH, _PEER_RECORD)

    repository: RepositoryId
    epoch: int
    identity_hash: bytes
    peer_record: bytes


@final
@dataclass(frozen=True, slots=True)
class NewProof(Layout):
    """News: an author signed two histories, which split at ``seq``; ``proof`` shows it."""

    FIELDS: ClassVar[tuple[Field, ...]] = (_REPOSITORY, _AUTHOR, _SEQ, _PROOF)

    repository: RepositoryId
    author: AuthorId
    seq: int
    proof: bytes


@final
@dataclass(frozen=True, slots=True)
class Prune(Layout):
    """Tell the sender in short of what ``author`` signs: somebody else tells it in full, and sooner."""

    FIELDS: ClassVar[tuple[Field, ...]] = (_REPOSITORY, _AUTHOR)

    repository: RepositoryId
    author: AuthorId


@final
@dataclass(frozen=True, slots=True)
class Graft(Layout):
    """Tell the sender in full again of what ``author`` signs: nobody else did in time."""

    FIELDS: ClassVar[tuple[Field, ...]] = (_REPOSITORY, _AUTHOR)

    repository: RepositoryId
    author: AuthorId


@final
@dataclass(frozen=True, slots=True)
class Gossip(Layout):
    """The envelope of news: ``data`` is an encoded NewCommit, NewRepository or NewProof."""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Text(1, limits.MAX_TOPIC_BYTES),
        Bytes(1, limits.MAX_GOSSIP_BYTES),
    )

    topic: str
    data: bytes


@final
@dataclass(frozen=True, slots=True)
class Subscribe(Layout):
    """Whose news the sender wants, as a change to what it said before; at most 1,024 ids in all."""

    FIELDS: ClassVar[tuple[Field, ...]] = (_REPOSITORIES, _REPOSITORIES)

    added: tuple[RepositoryId, ...]
    removed: tuple[RepositoryId, ...] = ()

    def __post_init__(self) -> None:
        """Raises: ``ValueError``: a field is out of its range, or the lists together are too long."""
        Layout.__post_init__(self)
        if len(self.added) + len(self.removed) > limits.MAX_SUBSCRIPTIONS:
            raise ValueError(f"Subscribe: more than {limits.MAX_SUBSCRIPTIONS} repositories")


@final
@dataclass(frozen=True, slots=True)
class Goodbye(Layout):
    """The last message before the sender closes."""

    FIELDS: ClassVar[tuple[Field, ...]] = (Code(GoodbyeCode), _TEXT, _RETRY_AFTER)

    code: GoodbyeCode
    text: str = ""
    retry_after_s: int = 0


@final
@dataclass(frozen=True, slots=True)
class Error(Layout):
    """A request can't be answered; ``request`` is 0 where no request is meant."""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        _REQUEST_OR_NONE,
        Code(ErrorCode),
        _TEXT,
        _RETRY_AFTER,
    )

    request: int
    code: ErrorCode
    text: str = ""
    retry_after_s: int = 0


Message = (
    Hello
    | HelloAck
    | Ping
    | Pong
    | GetRefs
    | Refs
    | GetObjects
    | Objects
    | GitService
    | GetReceipt
    | Receipt
    | GetPeers
    | Peers
    | NewCommit
    | NewRepository
    | NewProof
    | Prune
    | Graft
    | Gossip
    | Subscribe
    | Goodbye
    | Error
)
