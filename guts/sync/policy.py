"""``Policy``: what this node seeds, and why; how much of it is for ``guts.sync.quotas``.

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

What strangers announce evicts nothing: where there is no place the newcomer is refused.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from guts.effects import Terms
from guts.errors import ExitStatus, GutsError, UsageError
from guts.events import Reason
from guts.ids import AuthorId, RepositoryId
from guts.sync.goal import Goal, Prospect
from guts.sync.refusals import Refusal, Refusals

MAX_FOLLOWED: Final = 1_000
"""Authors that are followed; each is looked for among the maintainers of all that is met."""

MAX_BLOCKED: Final = 100_000
"""Ids on the block list, 32 bytes each: a shared list of a large community fits, a mistake does not fill the memory."""

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


class NoPlace(NotTaken):
    """As many repositories are here that nobody asked for as may be."""

    def __init__(self, repository: RepositoryId) -> None:
        super().__init__(
            "as many repositories are here by policy as seeding.max_repositories allows",
            hint=f"guts seed {repository}, which needs no such place",
        )


def judge(terms: Terms, repository: RepositoryId, maintainers: Iterable[AuthorId]) -> Reason:
    """Return why ``repository`` is taken, whose newest identity document lists ``maintainers``.

    Raises:
        Blocked, NotWanted, NoPlace: it is not.
    """
    names = set(maintainers)
    for author in sorted(names & terms.blocked):
        raise Blocked(author, repository)
    if terms.reason is not None:
        return terms.reason
    if not (names & terms.owners or terms.topic):
        raise NotWanted
    if not terms.room:
        raise NoPlace(repository)
    return Reason.OWNER if names & terms.owners else Reason.TOPIC


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
        refusals: the newest of what was not taken, and why.
    """

    def __init__(self, choices: Choices = NO_CHOICES, *, topic: bool = False, max_repositories: int = 0) -> None:
        self.topic = topic
        self.max_repositories = max_repositories
        self.owners = choices.owners
        self.refused = 0
        self.refusals = Refusals()
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

    @property
    def places(self) -> int:
        """How many more may be."""
        return max(0, self.max_repositories - self.taken)

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

    def considers(self, repository: RepositoryId, now_ms: int, *, announced: bool) -> bool:
        """Tell whether ``repository``, which is not followed, is worth a look.

        Args:
            now_ms: Unix milliseconds.
            announced: on the topic; else it was met as what a peer follows.
        """
        if repository in self._repositories or repository in self._declined:
            return False
        if not (self.owners or (self.topic and announced)):
            return False
        if self.places:
            return True
        self.refused += announced
        if self.topic and announced:
            self.refusals.note(Refusal(repository, NoPlace(repository), Reason.TOPIC, frozenset(), now_ms))
        return False

    def not_taken(self, goal: Goal, error: GutsError, maintainers: Collection[AuthorId], now_ms: int) -> None:
        """Note why ``goal`` is not here, or nothing newer of it, where the operator has not been told.

        Args:
            maintainers: of its newest identity document, as far as that was verified.
        """
        owners = self.owners & set(maintainers)
        if goal.held:
            reason = self.reason(goal.repository)
        elif goal.prospect is None:
            # Somebody waits, and is told.
            return
        elif owners:
            reason = Reason.OWNER
        elif self.topic and goal.prospect.identity_hash is not None:
            reason = Reason.TOPIC
        else:
            return
        self.refusals.note(Refusal(goal.repository, error, reason, owners, now_ms))

    def terms(self, repository: RepositoryId, prospect: Prospect | None) -> Terms:
        """Return on which terms ``repository`` is taken now."""
        if prospect is None:
            return Terms(self.reason(repository), blocked=self._authors)
        topic = self.topic and prospect.identity_hash is not None
        return Terms(None, self.owners, topic, self._authors, room=self.places > 0)

    # --- changes --------------------------------------------------------------------------------------------

    def took(self, repository: RepositoryId, reason: Reason) -> None:
        """Note that ``repository`` is seeded, and why."""
        self._declined.discard(repository)
        self.refusals.forget(repository)
        self._reasons.pop(repository, None)
        if reason is not Reason.EXPLICIT:
            self._reasons[repository] = reason

    def dropped(self, repository: RepositoryId, *, declined: bool) -> None:
        """Note that ``repository`` is not seeded any more; ``declined``: the operator does not want it."""
        self.refusals.forget(repository)
        self._reasons.pop(repository, None)
        if declined:
            self._declined.add(repository)

    def follow(self, author: AuthorId) -> None:
        """Take the repositories of ``author``."""
        self.owners |= {author}

    def unfollow(self, author: AuthorId) -> None:
        """Take them no longer; what is here stays until it is dropped."""
        self.owners -= {author}
        self.refusals.unfollowed(self.owners)

    def block(self, who: Blockable) -> None:
        """Put ``who`` on the block list."""
        match who:
            case RepositoryId():
                self._repositories.add(who)
                self.refusals.forget(who)
            case AuthorId():
                self._authors |= {who}

    def unblock(self, who: Blockable) -> None:
        """Take ``who`` off the block list."""
        match who:
            case RepositoryId():
                self._repositories.discard(who)
            case AuthorId():
                self._authors -= {who}
