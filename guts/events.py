"""What happened: the inputs of the service, named in the past tense.

The driver reads the clocks once, hands ``Service.handle`` one event, and runs the effects that come back. Values
in an event are bounded and well-formed where they were made (the codec, the store, a worker); whether they may
be believed is for the service to decide.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

from guts.addresses import Address, BanSubject, BootstrapAddress
from guts.errors import GutsError, PeerFault
from guts.ids import AuthorId, PeerId, RepositoryId
from guts.records import ProviderRecord
from guts.wire.messages import EncodedRefs, Message, RefsAnswer
from guts.wire.secure import Direction

ConnectionId = NewType("ConnectionId", int)
"""Names one authenticated connection for as long as this process lives; given by the driver, never reused."""

CommandId = NewType("CommandId", int)
"""Names one command until its ``Reply``; given by the driver."""

FetchId = NewType("FetchId", int)
"""Names one transfer until its ``FetchFinished``; given by the service."""


# --- what a node knows of a repository between events -------------------------------------------------------


class Reason(StrEnum):
    """Why a repository is seeded; what comes first outranks what follows."""

    EXPLICIT = "explicit"
    OWNER = "owner"
    TOPIC = "topic"


@dataclass(frozen=True, slots=True)
class Head:
    """The newest accepted record of one author: its number and the hash of its header."""

    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Known:
    """All that the service keeps of a repository; everything else is loaded when needed.

    Attributes:
        epoch: of the newest identity document; -1 where nothing is known yet.
        identity_hash: its hash; empty where nothing is known yet.
        heads: the newest record of each author that counts.
        splits: the seq from which the records of an author whose history split do not count, by author.
        fork: epoch of which there are two identity documents; 0: none.
    """

    epoch: int = -1
    identity_hash: bytes = b""
    heads: tuple[tuple[AuthorId, Head], ...] = ()
    splits: tuple[tuple[AuthorId, int], ...] = ()
    fork: int = 0

    def split(self, author: AuthorId) -> int | None:
        """Return where the history of ``author`` split, or ``None``."""
        return next((seq for known, seq in self.splits if known == author), None)

    def head(self, author: AuthorId) -> Head | None:
        """Return the newest accepted record of ``author``, or ``None``."""
        return next((head for known, head in self.heads if known == author), None)


# --- connections --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connected:
    """A handshake has ended: ``peer`` is proven to be at the other end of ``connection``."""

    connection: ConnectionId
    direction: Direction
    peer: PeerId
    address: Address
    dialled: BootstrapAddress | None


@dataclass(frozen=True, slots=True)
class DialFailed:
    """No connection came of a ``Dial``."""

    target: BootstrapAddress
    error: GutsError


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A well-formed message came.

    Attributes:
        size: its bytes, and those that came since the last one on streams that the peer opened.
    """

    connection: ConnectionId
    message: Message
    size: int = 0


@dataclass(frozen=True, slots=True)
class UnknownMessageReceived:
    """A message of a type that this version does not know came; ``size`` as in ``MessageReceived``."""

    connection: ConnectionId
    message_type: int
    size: int = 0


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A connection is gone. ``error`` is a ``PeerFault`` where the peer broke a rule, ``None`` where we closed."""

    connection: ConnectionId
    error: GutsError | None


# --- discovery ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProvidersFound:
    """A running lookup found verified records."""

    repository: RepositoryId
    records: tuple[ProviderRecord, ...]


@dataclass(frozen=True, slots=True)
class LookupFinished:
    """A lookup has ended, after ``asked`` nodes answered; ``alone``: no node at all is known, to ask or to dial."""

    repository: RepositoryId
    asked: int
    alone: bool = False


# --- workers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RefsLoaded:
    """What a peer asked for by GetRefs, read from the store; ``cursor`` is not empty where there is more."""

    connection: ConnectionId
    request: int
    answers: tuple[RefsAnswer, ...]
    cursor: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """A newer state was verified and committed.

    Attributes:
        known: the state after the commit.
        news: the authors whose record is new, with the record itself.
        proofs: that authors signed two histories, as far as they are new: author, seq of the split, proof.
        reason: why it is seeded.
        maintainers: of its newest identity document, where a transfer brought it.
        pack_bytes, pack_seconds: how much was received for it, and how long that took.
    """

    known: Known
    news: tuple[tuple[AuthorId, Head, EncodedRefs], ...]
    proofs: tuple[tuple[AuthorId, int, bytes], ...] = ()
    reason: Reason = Reason.EXPLICIT
    maintainers: tuple[AuthorId, ...] = ()
    pack_bytes: int = 0
    pack_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class NothingNew:
    """What the peer offered is what we have, or older; ``known`` is what we have."""

    known: Known


@dataclass(frozen=True, slots=True)
class Incomplete:
    """What was offered does not follow from what we have; a GetRefs to the same peer fills the gap."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The transfer failed; the kind of the error says whose fault it was.

    Attributes:
        maintainers: of its newest identity document, where this node itself did not take what they had signed.
    """

    error: GutsError
    maintainers: tuple[AuthorId, ...] = ()


FetchOutcome = Accepted | NothingNew | Incomplete | Failed


@dataclass(frozen=True, slots=True)
class VettedRecord:
    """A record that is good as far as that can be told without its objects; ``time_ms``: when its author signed it."""

    author: AuthorId
    head: Head
    record: EncodedRefs
    time_ms: int


@dataclass(frozen=True, slots=True)
class Vetted:
    """A running ``Fetch`` has found records good, by all that needs no objects, and gets their objects next."""

    fetch: FetchId
    repository: RepositoryId
    connection: ConnectionId
    records: tuple[VettedRecord, ...]


@dataclass(frozen=True, slots=True)
class FetchFinished:
    """A ``Fetch`` has ended, one way or the other; every Fetch ends with exactly one of these."""

    fetch: FetchId
    repository: RepositoryId
    connection: ConnectionId
    outcome: FetchOutcome


@dataclass(frozen=True, slots=True)
class LookFinished:
    """A ``Look`` has ended, one way or the other; every Look ends with exactly one of these."""

    fetch: FetchId
    repository: RepositoryId
    connection: ConnectionId
    outcome: FetchOutcome


@dataclass(frozen=True, slots=True)
class ServeFinished:
    """A ``Serve`` has ended; ``error`` tells why where it failed."""

    connection: ConnectionId
    repository: RepositoryId
    error: GutsError | None


@dataclass(frozen=True, slots=True)
class GitServed:
    """A ``ServeGit`` has ended; ``error`` tells why where it failed."""

    connection: ConnectionId
    error: GutsError | None


@dataclass(frozen=True, slots=True)
class SourceFailed:
    """What a peer answered to git, through this node, was what no honest peer answers."""

    connection: ConnectionId
    error: PeerFault


@dataclass(frozen=True, slots=True)
class Published:
    """Our own maintainer signed: the commit is made, and the world may know."""

    repository: RepositoryId
    accepted: Accepted


# --- commands -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seed:
    """Hold ``repository`` from now on; answered when it is here. ``hints`` are dialled beside the lookup."""

    repository: RepositoryId
    hints: tuple[BootstrapAddress, ...]
    timeout: float


@dataclass(frozen=True, slots=True)
class Unseed:
    """Follow ``repository`` no longer, until it is asked for explicitly."""

    repository: RepositoryId


@dataclass(frozen=True, slots=True)
class Follow:
    """Seed the repositories of ``author`` from now on, as they are met."""

    author: AuthorId


@dataclass(frozen=True, slots=True)
class Unfollow:
    """Do so no longer; ``repositories`` are here because of that alone."""

    author: AuthorId
    repositories: tuple[RepositoryId, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Never take ``who``, or what is maintained by ``who``; ``repositories`` are here and are that."""

    who: RepositoryId | AuthorId
    repositories: tuple[RepositoryId, ...]


@dataclass(frozen=True, slots=True)
class Unblock:
    """Take ``who`` off the block list."""

    who: RepositoryId | AuthorId


@dataclass(frozen=True, slots=True)
class SyncNow:
    """Ask every connected holder of ``repository`` for news now; answered when one has answered.

    Attributes:
        every: answered when every one of them has answered, and those have whom a lookup finds where they are few.
    """

    repository: RepositoryId
    timeout: float
    every: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """Find out what the refs of ``repository`` are, which this node need not hold; answered when holders were compared.

    Attributes:
        known: of an earlier reading.
        hints: dialled beside the lookup.
    """

    repository: RepositoryId
    known: Known
    hints: tuple[BootstrapAddress, ...]
    timeout: float


@dataclass(frozen=True, slots=True)
class Connect:
    """Dial ``target``; answered when the hello is exchanged."""

    target: BootstrapAddress
    timeout: float


@dataclass(frozen=True, slots=True)
class WantedBan:
    """A ban that the operator wants; ``seconds``: from now on, infinity for good."""

    subject: BanSubject
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Ban:
    """Let in nobody of ``bans``, and close what is open to them; ``merge``: of two ends the later one counts."""

    bans: tuple[WantedBan, ...]
    merge: bool = False


@dataclass(frozen=True, slots=True)
class Unban:
    """Let ``subject`` in again, and forgive a node its faults."""

    subject: BanSubject


@dataclass(frozen=True, slots=True)
class AwaitReceipts:
    """Answered when ``replicas`` peers have confirmed the record ``seq`` of ``author`` or a later one, or time is over.

    Attributes:
        confirmed: peers that have done so before, as the database remembers.
    """

    repository: RepositoryId
    author: AuthorId
    seq: int
    replicas: int
    confirmed: frozenset[PeerId]
    timeout: float


@dataclass(frozen=True, slots=True)
class SetLimits:
    """Go by these limits from now on; ``values`` has every one."""

    values: Mapping[str, float]


Command = (
    Seed
    | Unseed
    | Follow
    | Unfollow
    | Block
    | Unblock
    | SyncNow
    | Read
    | Connect
    | Ban
    | Unban
    | AwaitReceipts
    | SetLimits
)


@dataclass(frozen=True, slots=True)
class CommandReceived:
    """Somebody at the control socket wants something done."""

    command_id: CommandId
    command: Command


# --- time and life ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Woke:
    """The deadline that the service named has passed."""


@dataclass(frozen=True, slots=True)
class AddressesChanged:
    """The node's own PeerRecord is another one from now on."""

    peer_record: bytes


OwnEvent = (
    Connected
    | DialFailed
    | Disconnected
    | ProvidersFound
    | LookupFinished
    | RefsLoaded
    | Vetted
    | FetchFinished
    | LookFinished
    | ServeFinished
    | GitServed
    | SourceFailed
    | Published
    | CommandReceived
    | Woke
    | AddressesChanged
)
"""What no peer says."""

Event = MessageReceived | UnknownMessageReceived | OwnEvent
