"""What to do: the outputs of the service, named in the imperative. The driver runs them in order.

An effect never returns anything. What comes of it is an event later, or nothing.
"""

from dataclasses import dataclass, field

from guts.addresses import Address, BanSubject, BootstrapAddress
from guts.errors import GutsError
from guts.events import CommandId, ConnectionId, FetchId, Head, Reason
from guts.ids import AuthorId, PeerId, RepositoryId
from guts.records import CommitReceipt
from guts.wire.messages import EncodedRefs, GetObjects, GitService, Goodbye, Message, RecordQuery, RefsQuery, ResetCode


@dataclass(frozen=True, slots=True)
class Send:
    """Queue ``message`` on ``connection``."""

    connection: ConnectionId
    message: Message


@dataclass(frozen=True, slots=True)
class Dial:
    """Try ``target``, and soon beside it the ``others``, of the same peer; ends in ``Connected`` or ``DialFailed``.

    Attributes:
        hinted: the operator named it in a command: it may be anywhere, and goes first.
    """

    target: BootstrapAddress
    others: tuple[Address, ...] = ()
    hinted: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close ``connection``, after ``goodbye`` where there is one; ends in ``Disconnected``."""

    connection: ConnectionId
    goodbye: Goodbye | None


@dataclass(frozen=True, slots=True)
class Withhold:
    """Take no further message of ``connection`` for so many seconds; its credit for messages stays out.

    Pings, Pongs and Goodbyes pass, unless ``pause``: they are what the peer sends too many of, and since they travel
    outside credit the socket is not read at all.
    """

    connection: ConnectionId
    seconds: float
    pause: bool = False


@dataclass(frozen=True, slots=True)
class ResetStream:
    """Refuse a stream that the peer opened."""

    connection: ConnectionId
    stream: int
    code: ResetCode


@dataclass(frozen=True, slots=True)
class FindProviders:
    """Look ``repository`` up in the DHT; ends in ``LookupFinished``."""

    repository: RepositoryId


@dataclass(frozen=True, slots=True)
class Provide:
    """Tell the DHT that this node holds ``repository``."""

    repository: RepositoryId


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Tell the DHT so no longer."""

    repository: RepositoryId


@dataclass(frozen=True, slots=True)
class LoadRefs:
    """Read what a GetRefs asks for; ends in ``RefsLoaded``."""

    connection: ConnectionId
    request: int
    queries: tuple[RefsQuery | RecordQuery, ...]
    cursor: bytes


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a peer says is newer than what we know of a repository; nothing in it is verified yet."""

    documents: tuple[bytes, ...]
    bridge: tuple[bytes, ...]
    records: tuple[EncodedRefs, ...]
    proofs: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms a repository is taken; see ``guts.sync.policy.judge``.

    Attributes:
        reason: why it is wanted; ``None``: its maintainers decide.
        owners: authors whose repositories are wanted; looked at where there is no ``reason``.
        topic: it is wanted whoever maintains it; looked at where there is no ``reason``.
        blocked: authors whose repositories are never taken.
        room: there is a place for it; looked at where there is no ``reason``.
    """

    reason: Reason | None = Reason.EXPLICIT
    owners: frozenset[AuthorId] = frozenset()
    topic: bool = False
    blocked: frozenset[AuthorId] = frozenset()
    room: bool = True


@dataclass(frozen=True, slots=True)
class Fetch:
    """Verify ``candidate``, get its objects over ``connection``, commit; ends in ``FetchFinished``.

    Attributes:
        request: the id for the GetObjects message that the worker sends.
        terms: as they are when it begins; what it is judged on is how they are later.
        claim: bytes that the peer says the whole repository takes; 0: it does not say.
    """

    fetch: FetchId
    connection: ConnectionId
    request: int
    repository: RepositoryId
    candidate: Candidate
    terms: Terms = Terms()
    claim: int = 0


@dataclass(frozen=True, slots=True)
class Hurry:
    """Another peer has what ``fetch`` gets: give it up where it brings next to nothing for ``seconds``."""

    fetch: FetchId
    seconds: float


@dataclass(frozen=True, slots=True)
class Look:
    """Verify ``candidate`` as far as that needs no objects, and keep what it says; ends in ``LookFinished``."""

    fetch: FetchId
    connection: ConnectionId
    repository: RepositoryId
    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Serve:
    """Answer ``request`` with a pack on its stream; ends in ``ServeFinished``."""

    connection: ConnectionId
    request: GetObjects


@dataclass(frozen=True, slots=True)
class ServeGit:
    """Answer ``request`` on its stream, in git's own protocol; ends in ``GitServed``."""

    connection: ConnectionId
    request: GitService


@dataclass(frozen=True, slots=True)
class GiveReceipt:
    """Sign that this node committed the record ``head`` of ``author``, and send that; ``request`` 0: unasked."""

    connection: ConnectionId
    request: int
    repository: RepositoryId
    author: AuthorId
    head: Head


@dataclass(frozen=True, slots=True)
class PeerSeen:
    """A peer spoke to us at ``wall`` (Unix ms); ``address`` is where we dialled it, if we did."""

    peer: PeerId
    address: Address | None
    peer_record: bytes
    capabilities: tuple[str, ...]
    wall: int


@dataclass(frozen=True, slots=True)
class PeerMissed:
    """A peer did not answer at ``wall`` (Unix ms) where it was reached before."""

    peer: PeerId
    address: Address
    wall: int


@dataclass(frozen=True, slots=True)
class KeptScore:
    """What is remembered of a peer's faults. Times are ms of the node's running time: see ``guts.peers.score``.

    Attributes:
        value: the fault when the node had run for ``ran``; it decays from there.
        barred_until: the peer is not let in before then; ``None``: it is.
        banned: that is a ban, not a shut-out.
        shut_outs, bans: how many there were in a row, each twice as long as the one before.
        repeats_until: when those are forgotten.
    """

    peer: PeerId
    value: float
    ran: int
    barred_until: int | None = None
    banned: bool = False
    shut_outs: int = 0
    bans: int = 0
    repeats_until: int = 0


@dataclass(frozen=True, slots=True)
class ScoreChanged:
    """A peer's fault became another one.

    Attributes:
        score: as it is now.
        change: what was added to it; less than 0 where a fault is forgiven.
        reason: the fault's code.
        barred_ms: for how long the peer is shut out or banned for it, beginning now; 0 = it is not.
        wall: what the clock says, Unix ms, for people.
    """

    score: KeptScore
    change: float
    reason: str
    barred_ms: int
    wall: int


@dataclass(frozen=True, slots=True)
class BanKept:
    """The operator has banned somebody, or changed such a ban.

    Attributes:
        until: when it ends, in ms of the node's running time; ``None``: never.
        made: Unix ms, for people.
    """

    subject: BanSubject
    until: int | None
    made: int
    reason: str


@dataclass(frozen=True, slots=True)
class BanLifted:
    """The operator's ban of ``subject`` is no more."""

    subject: BanSubject


@dataclass(frozen=True, slots=True)
class SeedingStopped:
    """The operator follows ``repository`` no longer."""

    repository: RepositoryId


@dataclass(frozen=True, slots=True)
class ReceiptKept:
    """A peer confirmed that it has committed a record that is held here."""

    receipt: CommitReceipt


@dataclass(frozen=True, slots=True)
class Persist:
    """Keep ``change`` in the database; nobody waits for it."""

    change: PeerSeen | PeerMissed | ScoreChanged | BanKept | BanLifted | SeedingStopped | ReceiptKept


Result = dict[str, str | int | float | list[str] | None]
"""What came of a command, ready for JSON."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a command: with ``result``, or with the error that it ended in."""

    command_id: CommandId
    result: Result | GutsError


Effect = (
    Send
    | Dial
    | Disconnect
    | Withhold
    | ResetStream
    | FindProviders
    | Provide
    | Withdraw
    | LoadRefs
    | Fetch
    | Hurry
    | Look
    | Serve
    | ServeGit
    | GiveReceipt
    | Persist
    | Reply
)
