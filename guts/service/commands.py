"""What the operator, and git through the node, want done."""

from typing import ClassVar, assert_never

from guts.clock import Now
from guts.effects import Effect, Reply
from guts.errors import ExitStatus, UsageError
from guts.events import (
    AwaitReceipts,
    Ban,
    Block,
    CommandId,
    CommandReceived,
    Connect,
    Follow,
    Read,
    Seed,
    SetLimits,
    SyncNow,
    Unban,
    Unblock,
    Unfollow,
    Unseed,
)
from guts.ids import RepositoryId
from guts.service.admission import Admission
from guts.service.banning import Banning
from guts.service.connections import Connections
from guts.service.news import News
from guts.service.seeding import Seeding
from guts.sync.goal import Waiter
from guts.sync.policy import Blocked
from guts.sync.receipts import Receipts, ReceiptWaiter
from guts.sync.reposync import RepoSync


class NotFollowed(UsageError):
    """The command names a repository that this node does not seed."""

    code: ClassVar[str] = "NOT_SEEDED"
    exit_status: ClassVar[ExitStatus] = ExitStatus.NOT_FOUND

    def __init__(self, repository: RepositoryId) -> None:
        super().__init__(f"this node does not seed {repository}", hint=f"guts seed {repository}")


class Commands:
    """Carries commands out; each ends in one ``Reply``."""

    def __init__(
        self,
        connections: Connections,
        banning: Banning,
        sync: RepoSync,
        receipts: Receipts,
        news: News,
        admission: Admission,
        seeding: Seeding,
    ) -> None:
        self._connections = connections
        self._banning = banning
        self._sync = sync
        self._receipts = receipts
        self._news = news
        self._seeding = seeding
        self._admission = admission

    def execute(self, event: CommandReceived, now: Now) -> list[Effect]:
        """Begin to carry ``event.command`` out."""
        command = event.command
        match command:
            case Seed(repository=repository) if self._sync.policy.blocks(repository):
                return [Reply(event.command_id, Blocked(repository))]
            case Seed(repository=repository, hints=hints, timeout=timeout):
                waiter = Waiter(event.command_id, now.mono, now.mono + timeout)
                return self._sync.want(repository, hints, waiter, now.mono)
            case SyncNow(repository=repository, timeout=timeout, every=every):
                if not self._sync.holds(repository):
                    return [Reply(event.command_id, NotFollowed(repository))]
                waiter = Waiter(event.command_id, now.mono, now.mono + timeout, every)
                return self._sync.sync_now(repository, waiter, now.mono)
            case Read(repository=repository, known=known, hints=hints, timeout=timeout):
                waiter = Waiter(event.command_id, now.mono, now.mono + timeout)
                return self._sync.readings.read(repository, known, hints, waiter, now.mono)
            case Unseed(repository=repository):
                return self._unseed(event.command_id, repository)
            case Follow() | Unfollow() | Block() | Unblock():
                return self._seeding.execute(event.command_id, command, now)
            case AwaitReceipts():
                return self._await_receipts(event.command_id, command, now)
            case Connect():
                return self._connections.connect(event.command_id, command, now)
            case Ban():
                return self._banning.ban(event.command_id, command, now)
            case Unban():
                return self._banning.unban(event.command_id, command, now)
            case SetLimits(values=values):
                self._admission.change(values)
                return [Reply(event.command_id, {})]
            case _:
                assert_never(command)

    def _unseed(self, command_id: CommandId, repository: RepositoryId) -> list[Effect]:
        # It may be going already, by another choice: that it is not wanted is news all the same.
        stopped = self._seeding.stop(repository)
        self._sync.policy.dropped(repository, declined=True)
        return [*stopped, Reply(command_id, {"repository": str(repository)})]

    def _await_receipts(self, command_id: CommandId, command: AwaitReceipts, now: Now) -> list[Effect]:
        known = self._sync.committed(command.repository)
        if known is None:
            return [Reply(command_id, NotFollowed(command.repository))]
        waiter = ReceiptWaiter(
            command_id,
            command.repository,
            command.author,
            command.seq,
            command.replicas,
            now.mono + command.timeout,
            set(command.confirmed),
        )
        return self._receipts.wait(waiter, known, self._news.holders(command.repository))
