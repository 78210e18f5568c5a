"""``Policy``: what this node seeds, and why; ``Quotas``: how much of it.

What decides, the strongest first:

1. a **block**, of a repository or an author, by the operator: never taken, not served, not announced (one of a node is
   a ban without an end: ``guts.peers``);
2. an **explicit** wish: ``guts seed repo1…``, or a publication through this node;
3. an **owner** who is followed: one of the maintainers in the newest identity document is that author;
4. the **topic** ``repositories``: whatever is announced, where the operator wants that.

What an operator unseeded is *declined*: 3 and 4 do not bring it back, only 2 does. Whose repository it is nobody knows
before its identity document is here. So what is met is looked at first, as a *prospect*, whose place of a transfer is
one of all, and ``judge`` decides when the document is verified and before any object is asked for. What is chosen while
they come counts too: what runs is judged again then, at the commit, and when the service is told of it.

Quotas are judged twice: by what a holder claims, before anything is fetched, and by the bytes that come. What strangers
announce evicts nothing: where there is no room the newcomer is refused.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from guts.effects import Terms
from guts.errors import ExitStatus, StorageFault, UsageError
from guts.events import Reason
from guts.ids import AuthorId, RepositoryId
from guts.sync.goal import Prospect

MAX_FOLLOWED: Final = 1_000
"""Authors that are followed; each is looked for among the maintainers of all that is met."""

MAX_BLOCKED: Final = 100_000
"""Ids on the block list, 32 bytes each: a shared list of a large community fits, a mistake does not fill the memory."""

MIN_FREE_BYTES: Final = 1 << 30
MIN_FREE_SHARE: Final = 0.05
"""Of a file system: what stays free where the operator says nothing, whichever is more. Databases, logs and other
programs share the disk, and file systems grow slow when they are nearly full."""

Blockable = RepositoryId | AuthorId


class NotTaken(UsageError):
    """This node does not take a repository, by what its operator chose. Nobody else is to blame."""

    code: ClassVar[str] = "NOT_TAKEN"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED


class NotWanted(NotTaken):
    """A prospect is not of a followed author, and there is no place, or no wish, for what anybody announces."""

    def __init__(self) -> None:
        super().__init__("none of its maintainers is followed")


class Blocked(NotTaken):
    """What is on the block list, or is maintained by who is."""

    code: ClassVar[str] = "BLOCKED"

    def __init__(self, blocked: Blockable, repository: RepositoryId | None = None) -> None:
        by = f"{repository} is maintained by {blocked}, who is blocked" if repository else f"{blocked} is blocked"
        super().__init__(f"{by} on this node", hint=f"guts unblock {blocked}")


class QuotaExceeded(NotTaken):
    """There is room for no more, by the operator's own limits.

    Attributes:
        limit: the setting.
        value: what it is.
        claimed: nothing has come yet; a holder says how much it would be.
    """

    code: ClassVar[str] = "QUOTA"
    exit_status: ClassVar[ExitStatus] = ExitStatus.QUOTA

    def __init__(self, limit: str, value: int, needed: int, *, claimed: bool = False) -> None:
        said = ", as its holder says" if claimed else ""
        text = f"it takes {needed} bytes{said}, where {limit} allows {value}"
        if limit == "seeding.max_repositories":
            text = f"{value} repositories are here by policy, and {limit} allows no more"
        variable = "GUTS_" + limit.upper().replace(".", "__")
        super().__init__(
            text, hint=f"guts node stop && {variable}=VALUE guts node start; always: {limit} in the config"
        )
        self.limit, self.value, self.claimed = limit, value, claimed


class DiskLow(StorageFault):
    """Too little space is left on the disk for anything to be fetched."""

    code: ClassVar[str] = "DISK_LOW"
    exit_status: ClassVar[ExitStatus] = ExitStatus.QUOTA

    def __init__(self, free: int, floor: int) -> None:
        super().__init__(
            f"{free} bytes are free on the disk, and {floor} are to stay free: nothing is fetched until there is more",
            hint="guts unseed REPOSITORY --now; guts ls shows what each takes. Or lower seeding.min_free in the config",
        )


@dataclass(frozen=True, slots=True)
class Space:
    """A file system, in bytes."""

    free: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What is on the disk, in bytes.

    Attributes:
        repository: of the repository in question.
        total: of all, with what is coming in.
        space: of the file system.
    """

    repository: int
    total: int
    space: Space


@dataclass(frozen=True, slots=True)
class Quotas:
    """The operator's limits; sizes in bytes. See ``SeedingConfig``.

    Attributes:
        min_free: ``None``: by the size of the file system.
    """

    repo_max: int
    disk: int
    min_free: int | None = None

    def floor(self, space: Space) -> int:
        """Return how many bytes of ``space`` are to stay free."""
        return self.min_free if self.min_free is not None else max(MIN_FREE_BYTES, int(space.capacity * MIN_FREE_SHARE))

    def check(self, usage: Usage, more: int, *, claimed: bool = False) -> None:
        """Check that ``more`` bytes of the repository may come.

        Args:
            claimed: they have not come yet: a holder says that they would.

        Raises:
            QuotaExceeded: they may not.
            DiskLow: nothing may.
        """
        floor = self.floor(usage.space)
        if usage.space.free - (more if claimed else 0) < floor:
            if usage.space.free < floor:
                raise DiskLow(usage.space.free, floor)
            raise QuotaExceeded("seeding.min_free", floor, more, claimed=claimed)
        if usage.repository + more > self.repo_max:
            raise QuotaExceeded("seeding.repo_max", self.repo_max, usage.repository + more, claimed=claimed)
        if usage.total + more > self.disk:
            raise QuotaExceeded("seeding.disk", self.disk, usage.total + more, claimed=claimed)


def judge(terms: Terms, repository: RepositoryId, maintainers: Iterable[AuthorId]) -> Reason:
    """Return why ``repository`` is taken, whose newest identity document lists ``maintainers``.

    Raises:
        Blocked, NotWanted: it is not.
    """
    names = set(maintainers)
    for author in sorted(names & terms.blocked):
        raise Blocked(author, repository)
    if terms.reason is not None:
        return terms.reason
    if names & terms.owners:
        return Reason.OWNER
    if terms.topic:
        return Reason.TOPIC
    raise NotWanted


@dataclass(frozen=True, slots=True)
class Choices:
    """What the operator chose, as the database remembers it.

    Attributes:
        reasons: of what is seeded, where it is not explicit.
        declined: what was unseeded.
        owners: authors who are followed.
    """

    reasons: Mapping[RepositoryId, Reason]
    declined: frozenset[RepositoryId] = frozenset()
    owners: frozenset[AuthorId] = frozenset()
    blocked: frozenset[Blockable] = frozenset()


NO_CHOICES: Final = Choices({})


class Policy:
    """What this node seeds. One per node; the operator's commands change it while it runs.

    Attributes:
        topic: what anybody announces is taken, as far as the quotas go.
        max_repositories: how many repositories are taken for another reason than an explicit wish.
        owners: authors who are followed.
        refused: how many repositories were announced for which there was no place.
    """

    def __init__(self, choices: Choices = NO_CHOICES, *, topic: bool = False, max_repositories: int = 0) -> None:
        self.topic = topic
        self.max_repositories = max_repositories
        self.owners = choices.owners
        self.refused = 0
        self._reasons = dict(choices.reasons)
        self._declined = set(choices.declined)
        self._repositories = {blocked for blocked in choices.blocked if isinstance(blocked, RepositoryId)}
        self._authors = frozenset(blocked for blocked in choices.blocked if isinstance(blocked, AuthorId))

    # --- questions ------------------------------------------------------------------------------------------

    @property
    def takes_more(self) -> bool:
        """Tell whether what is met may be taken without an explicit wish."""
        return bool(self.owners or self.topic)

    @property
    def taken(self) -> int:
        """How many repositories are here for another reason than an explicit wish."""
        return len(self._reasons)

    def reason(self, repository: RepositoryId) -> Reason:
        """Return why ``repository``, which is seeded, is."""
        return self._reasons.get(repository, Reason.EXPLICIT)

    def blocks(self, who: Blockable) -> bool:
        """Tell whether ``who`` itself is on the block list."""
        match who:
            case RepositoryId():
                return who in self._repositories
            case AuthorId():
                return who in self._authors

    def considers(self, repository: RepositoryId, *, announced: bool) -> bool:
        """Tell whether ``repository``, which is not followed, is worth a look.

        Args:
            announced: on the topic; else it was met as what a peer follows.
        """
        if repository in self._repositories or repository in self._declined:
            return False
        if not (self.owners or (self.topic and announced)):
            return False
        if self.taken < self.max_repositories:
            return True
        self.refused += announced
        return False

    def terms(self, repository: RepositoryId, prospect: Prospect | None) -> Terms:
        """Return on which terms ``repository`` is taken now."""
        if prospect is None:
            return Terms(self.reason(repository), blocked=self._authors)
        return Terms(None, self.owners, self.topic and prospect.identity_hash is not None, self._authors)

    # --- changes --------------------------------------------------------------------------------------------

    def took(self, repository: RepositoryId, reason: Reason) -> None:
        """Note that ``repository`` is seeded, and why."""
        self._declined.discard(repository)
        self._reasons.pop(repository, None)
        if reason is not Reason.EXPLICIT:
            self._reasons[repository] = reason

    def dropped(self, repository: RepositoryId, *, declined: bool) -> None:
        """Note that ``repository`` is not seeded any more; ``declined``: the operator does not want it."""
        self._reasons.pop(repository, None)
        if declined:
            self._declined.add(repository)

    def follow(self, author: AuthorId) -> None:
        """Take the repositories of ``author``."""
        self.owners |= {author}

    def unfollow(self, author: AuthorId) -> None:
        """Take them no longer; what is here stays until it is dropped."""
        self.owners -= {author}

    def block(self, who: Blockable) -> None:
        """Put ``who`` on the block list."""
        match who:
            case RepositoryId():
                self._repositories.add(who)
            case AuthorId():
                self._authors |= {who}

    def unblock(self, who: Blockable) -> None:
        """Take ``who`` off the block list."""
        match who:
            case RepositoryId():
                self._repositories.discard(who)
            case AuthorId():
                self._authors -= {who}
