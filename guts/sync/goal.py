"""What is known and under way for one repository, and how a command that waits for it is answered."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

from guts.addresses import BootstrapAddress
from guts.effects import Reply, Result
from guts.errors import ExitStatus, GutsError, Unavailable
from guts.events import CommandId, FetchId, Known
from guts.ids import AuthorId, PeerId, RepositoryId
from guts.sync.refused import RefusedRecords

NOT_HELD = "does not hold it"


class NoProviders(Unavailable):
    """Nobody is known to hold the repository."""

    code: ClassVar[str] = "NO_PROVIDERS"
    exit_status: ClassVar[ExitStatus] = ExitStatus.NOT_FOUND

    def __init__(self, repository: RepositoryId, asked: int, *, alone: bool = False) -> None:
        if alone:
            super().__init__(
                f"no node of the network is known here, so nobody could be asked for {repository}",
                hint="guts node start --bootstrap HOST:PORT; for one command GUTS_NETWORK__BOOTSTRAP_NODES=HOST:PORT; "
                "always network.bootstrap_nodes in the config; or an address with the id: "
                f"guts://HOST:PORT/{repository}",
            )
            return
        super().__init__(
            f"no replica of {repository} found (asked {asked} DHT nodes and every connected peer)",
            hint="is the id right? its check characters are valid; ask the publisher for an address, and "
            f"name it with the id: guts://HOST:PORT/{repository}",
        )


class ProvidersUnreachable(Unavailable):
    """Providers are known, and none of them could be reached or served it."""

    code: ClassVar[str] = "PROVIDERS_UNREACHABLE"

    def __init__(self, repository: RepositoryId, reasons: dict[str, str]) -> None:
        super().__init__(
            f"{len(reasons)} possible replica{'s' * (len(reasons) > 1)} of {repository} known, "
            f"none served it{_listed(reasons)}",
            hint=f"try again later, or name an address that you know with the id: guts://HOST:PORT/{repository}",
        )


class SyncTimedOut(Unavailable):
    """The time that the command allowed is over; what was begun goes on only if it had been followed before."""

    code: ClassVar[str] = "TIMED_OUT"
    exit_status: ClassVar[ExitStatus] = ExitStatus.TIMED_OUT


class NoLongerFollowed(Unavailable):
    """Another command ended what this one waited for."""

    code: ClassVar[str] = "NOT_SEEDED"

    def __init__(self, repository: RepositoryId) -> None:
        super().__init__(f"{repository} is no longer seeded", hint=f"guts seed {repository}")


@dataclass(frozen=True, slots=True)
class Waiter:
    """A command that is answered when the goal settles.

    Attributes:
        started, deadline: monotonic seconds.
        every: it is answered when nobody's answer is awaited any more.
    """

    command_id: CommandId
    started: float
    deadline: float
    every: bool = False


@dataclass(frozen=True, slots=True)
class Prospect:
    """How a repository was met that nobody asked for.

    Attributes:
        peer: who told of it.
        identity_hash: of its newest document, where it was announced on the topic ``repositories``.
    """

    peer: PeerId
    identity_hash: bytes | None


@dataclass(frozen=True, slots=True)
class WaitingDial:
    """Why a target waits to be dialled.

    Attributes:
        rank: each holder's first address comes before any second.
        teller: the network of who told of it; "": the DHT; ``None``: the operator.
    """

    rank: int
    teller: str | None


@dataclass(slots=True)
class Goal:
    """One repository that this node follows, or wants, or reads.

    Attributes:
        held: a state is here: committed, or, where it is only read, verified.
        prospect: how it was met, where nobody asked for it: whether it is taken is decided by its identity documents,
            and until then nobody is told of it.
        refusal: why this node does not take it, by its own limits.
        next_ask: monotonic seconds of the next round of anti-entropy.
        next_search: monotonic seconds before which the DHT is not asked again of our own accord.
        paused_until: monotonic seconds before which nothing is fetched, because our own disk failed.
        asked: DHT nodes that answered the last lookup.
        alone: when it ended, no node at all was known here.
        dials: targets being dialled for this goal, in order.
        to_dial: targets to dial when one of those has ended.
        asking: peers whose answer about this repository is awaited.
        offers: peers to be asked (again) once there is room for a transfer, in order.
        resting: peers that could not serve it for a passing reason and are asked again at ``retry_after``.
        fetch: the running transfer.
        confirmed: since a command last woke the goal, a peer said or made that nothing newer is to be had.
        compared: since the start every holder that could be had has said what it has, or a record was signed here.
        reasons: why somebody who might hold it did not serve it, by peer or address; noted while a command waits.
        retry_after: monotonic seconds before which a peer that failed is not asked again.
        failed: monotonic seconds of the last transfer that failed for no fault of the peer; kept as ``retry_after`` is.
        doubted: monotonic seconds before which a record that gossip brings of an author is not fetched from its teller.
        failures: transfers that failed since the last that did not, by peer, the last one last.
        hurried: transfers since the last commit that were told to hurry, as another peer had the same.
        unheard: monotonic seconds before which a peer whose news came to nothing tells its news in vain.
        refused: what was fetched and is not taken, whoever has it.
        waiters: the commands to answer.
    """

    repository: RepositoryId
    known: Known = field(default_factory=Known)
    held: bool = False
    prospect: Prospect | None = None
    refusal: GutsError | None = None
    next_ask: float = 0.0
    next_search: float = 0.0
    paused_until: float = -math.inf
    searching: bool = False
    asked: int = 0
    alone: bool = False
    dials: dict[BootstrapAddress, None] = field(default_factory=dict)
    to_dial: dict[BootstrapAddress, WaitingDial] = field(default_factory=dict)
    asking: set[PeerId] = field(default_factory=set)
    offers: dict[PeerId, None] = field(default_factory=dict)
    resting: dict[PeerId, None] = field(default_factory=dict)
    fetch: FetchId | None = None
    confirmed: bool = False
    compared: bool = False
    reasons: dict[str, str] = field(default_factory=dict)
    retry_after: dict[PeerId, float] = field(default_factory=dict)
    failed: dict[PeerId, float] = field(default_factory=dict)
    doubted: dict[AuthorId, float] = field(default_factory=dict)
    failures: dict[PeerId, int] = field(default_factory=dict)
    hurried: int = 0
    unheard: dict[PeerId, float] = field(default_factory=dict)
    refused: RefusedRecords = field(default_factory=RefusedRecords)
    waiters: list[Waiter] = field(default_factory=list)

    @property
    def busy(self) -> bool:
        """Tell whether something that was started for this goal has not ended yet."""
        return bool(self.searching or self.dials or self.asking or self.offers or self.resting or self.fetch)

    @property
    def done(self) -> bool:
        """Tell whether what a command waits for is here."""
        return self.held and self.confirmed and self.fetch is None

    def willing(self, peer: PeerId, now: float) -> bool:
        """Tell whether ``peer`` may be asked at ``now`` (monotonic seconds)."""
        return now >= self.retry_after.get(peer, -math.inf)

    def listens(self, peer: PeerId, now: float) -> bool:
        """Tell whether news of ``peer`` are listened to at ``now`` (monotonic seconds)."""
        return now >= self.unheard.get(peer, -math.inf)

    def note(self, who: PeerId | BootstrapAddress, why: str) -> None:
        """Keep a reason for the command that waits, if one does."""
        if self.waiters:
            self.reasons[str(who)] = why

    def reply(self, waiter: Waiter, now: float) -> Reply:
        """Answer ``waiter``: what it waited for is here."""
        result: Result = {
            "repository": str(self.repository),
            "epoch": self.known.epoch,
            "seq": max((head.seq for _, head in self.known.heads), default=0),
            "seconds": round(now - waiter.started, 3),
        }
        return Reply(waiter.command_id, result)

    def failure(self) -> GutsError:
        """Return why it can't be had: it is too much, nobody holds it, or those who might did not serve it."""
        if self.refusal is not None:
            return self.refusal
        reasons = {who: why for who, why in self.reasons.items() if why != NOT_HELD}
        if reasons:
            return ProvidersUnreachable(self.repository, reasons)
        return NoProviders(self.repository, self.asked, alone=self.alone and not self.asked)

    def too_late(self) -> GutsError:
        """Return what is to be said when the time is over."""
        text = "no holder answered in time" if self.held else f"{self.repository} did not arrive in time"
        waiting = {str(peer): "has not answered" for peer in self.asking}
        waiting |= {str(target): "is being dialled" for target in self.dials}
        return SyncTimedOut(text + _listed(self.reasons | waiting))


def _listed(reasons: dict[str, str]) -> str:
    return "".join(f"\n  {who}: {why}" for who, why in sorted(reasons.items()))
