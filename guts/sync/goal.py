"""What is known and under way for one followed repository."""

from dataclasses import dataclass, field
from typing import ClassVar

from guts.addresses import BootstrapAddress
from guts.errors import ExitStatus, Unavailable
from guts.events import CommandId, FetchId, Known
from guts.ids import PeerId, RepositoryId


class NoProviders(Unavailable):
    """Nobody is known to hold the repository."""

    code: ClassVar[str] = "NO_PROVIDERS"
    exit_status: ClassVar[ExitStatus] = ExitStatus.NOT_FOUND

    def __init__(self, repository: RepositoryId, asked: int) -> None:
        super().__init__(
            f"no replica of {repository} found (asked {asked} DHT nodes and every connected peer)",
            hint="is the id right? its check characters are valid; ask the publisher for an address and try "
            f"guts seed guts://HOST:PORT/{repository}",
        )


class ProvidersUnreachable(Unavailable):
    """Providers are known, and none of them could be reached or served it."""

    code: ClassVar[str] = "PROVIDERS_UNREACHABLE"

    def __init__(self, repository: RepositoryId, reasons: dict[str, str]) -> None:
        lines = "".join(f"\n  {who}: {why}" for who, why in sorted(reasons.items()))
        super().__init__(
            f"{len(reasons)} possible replicas of {repository} known, none served it{lines}",
            hint=f"try again later, or with an address that you know: guts seed guts://HOST:PORT/{repository}",
        )


class SyncTimedOut(Unavailable):
    """The time that the command allowed is over; what was begun goes on only if it had been followed before."""

    code: ClassVar[str] = "TIMED_OUT"
    exit_status: ClassVar[ExitStatus] = ExitStatus.TIMED_OUT


@dataclass(slots=True)
class Waiter:
    """A command that is answered when the goal settles.

    Attributes:
        started, deadline: monotonic seconds.
    """

    command_id: CommandId
    started: float
    deadline: float


@dataclass(slots=True)
class Goal:
    """One repository that this node follows, or wants.

    Attributes:
        held: a state has been committed here.
        next_ask: monotonic seconds of the next round of anti-entropy.
        next_search: monotonic seconds before which the DHT is not asked again.
        searching: a DHT lookup is running.
        asked: DHT nodes that answered the last lookup.
        dials: targets being dialled for this goal.
        asking: peers whose answer about this repository is awaited.
        offers: peers that have something newer and were not yet fetched from.
        fetch: the running transfer and its peer.
        told: the running transfer is of a record that came as news, without what it builds on.
        again: ask the peer of the running transfer once more when it has ended.
        confirmed: since a command last woke the goal, a peer said or made that nothing newer is to be had.
        reasons: why somebody who might hold it did not serve it, by peer or address.
        retry_after: monotonic seconds before which a peer that failed is not asked again.
        waiters: the commands to answer.
    """

    repository: RepositoryId
    known: Known = field(default_factory=Known)
    held: bool = False
    next_ask: float = 0.0
    next_search: float = 0.0
    searching: bool = False
    asked: int = 0
    dials: set[BootstrapAddress] = field(default_factory=set)
    asking: set[PeerId] = field(default_factory=set)
    offers: set[PeerId] = field(default_factory=set)
    fetch: tuple[FetchId, PeerId] | None = None
    told: bool = False
    again: bool = False
    confirmed: bool = False
    reasons: dict[str, str] = field(default_factory=dict)
    retry_after: dict[PeerId, float] = field(default_factory=dict)
    waiters: list[Waiter] = field(default_factory=list)

    @property
    def busy(self) -> bool:
        """Tell whether something that was started for this goal has not ended yet."""
        return bool(self.searching or self.dials or self.asking or self.offers or self.fetch)
