"""``Seeding``: what the operator says about what this node seeds, and what is told about it.

A choice is in the database before anything follows from it: a crash in between is made good at the next start.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import ClassVar

from guts.addresses import BootstrapAddress
from guts.clock import Now
from guts.config import Config
from guts.errors import ExitStatus, GutsError, UsageError
from guts.events import Accepted, Block, Follow, Published, Reason, Seed, Unblock, Unfollow, Unseed
from guts.ids import AuthorId, RepositoryId
from guts.node.disk import Disk
from guts.node.driver import Driver
from guts.node.persistence import Persistence
from guts.node.reader import Reader
from guts.node.removal import Removals
from guts.node.repositories import Repositories
from guts.records import Signed
from guts.service.commands import NotFollowed
from guts.sizes import size_text
from guts.store import repositories as repository_table
from guts.store import seeding as table
from guts.store.accepted import NotHeld, RepositorySummary
from guts.store.database import Database
from guts.sync.policy import MAX_BLOCKED, MAX_FOLLOWED, Blockable, Blocked, Choices, NotTaken, Policy, judge
from guts.sync.quotas import DiskLow
from guts.sync.refusals import Refusal
from guts.trust.identity_document import MAX_DOCUMENT_BYTES, IdentityDocument

Json = dict[str, object]


class HoldsNone(UsageError):
    """A bootstrap node is asked to hold a repository."""

    code: ClassVar[str] = "HOLDS_NONE"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED

    def __init__(self) -> None:
        super().__init__(
            "this is a bootstrap node: a door, which holds no repositories",
            hint="use another node, or set network.role to 'node' and restart",
        )


class NotHere(NotFollowed):
    """What is to go is neither followed nor here."""

    def __init__(self, repository: RepositoryId) -> None:
        super().__init__(repository)
        self.hint = "there is nothing of it here to remove; guts ls shows what is here"


class TooMany(UsageError):
    """A list of the operator's is full."""

    code: ClassVar[str] = "LIST_FULL"
    exit_status: ClassVar[ExitStatus] = ExitStatus.QUOTA


def check_role(config: Config) -> None:
    """Raises: ``HoldsNone``."""
    if config.network.role == "bootstrap":
        raise HoldsNone


async def load_policy(database: Database, config: Config, *, client: bool) -> Policy:
    """Return what the operator chose.

    Args:
        client: the node lives for one command, and takes nothing on by itself.

    Raises:
        StorageFault: the database can't be read.
    """
    alone = client or config.network.role == "bootstrap"
    rows = await database.read(table.load)
    owners = await database.read(table.load_followed)
    going = (table.DECLINED, table.DROPPED, table.DROPPED_EXPLICIT)
    choices = Choices(
        {row.repository: Reason(row.reason) for row in rows if row.reason not in going},
        frozenset(row.repository for row in rows if row.reason == table.DECLINED),
        frozenset() if alone else frozenset(owners),
        frozenset(await database.read(table.load_blocked)),
    )
    seeding = config.seeding
    return Policy(choices, topic=seeding.repositories and not alone, max_repositories=seeding.max_repositories)


class Seeding:
    """The operator's hands on the policy. Every method may raise ``StorageFault``."""

    def __init__(
        self,
        config: Config,
        driver: Driver,
        repositories: Repositories,
        reader: Reader,
        removals: Removals,
        persistence: Persistence,
        disk: Disk,
        clock: Callable[[], Now],
    ) -> None:
        self._config = config
        self._driver = driver
        self._sync = driver.service.sync
        self._policy = driver.service.sync.policy
        self._repositories = repositories
        self._database = repositories.database
        self._reader = reader
        self._removals = removals
        self._persistence = persistence
        self._disk = disk
        self._clock = clock

    # --- one repository -------------------------------------------------------------------------------------

    async def seed(self, repository: RepositoryId, hints: Sequence[BootstrapAddress], timeout: float) -> Json:  # noqa: ASYNC109 (told to the service)
        """Hold ``repository`` from now on; return when it is here.

        Raises:
            HoldsNone, Blocked, QuotaExceeded: this node does not take it.
            Unavailable: it can't be had.
        """
        check_role(self._config)
        if self._policy.blocks(repository):
            raise Blocked(repository)
        stored = await self._repositories.stored(repository)
        here = stored is not None and not self._repositories.is_lost(repository)
        if stored is not None:
            judge(self._policy.terms(repository, None), repository, await self._maintainers(repository))
            await self._keep(stored.summary)
        return {**await self._driver.execute(Seed(repository, tuple(hints), timeout)), "copied": not here}

    async def _keep(self, summary: RepositorySummary) -> None:
        """Seed what is here, by an explicit wish."""
        if summary.seeding and self._policy.reason(summary.id) is Reason.EXPLICIT:
            return
        try:
            await self._repositories.set_seeding(summary.id, seeding=True)
        except NotHeld:
            # Removed in this moment.
            return
        self._removals.cancel(summary.id)
        if not summary.seeding:
            known = await self._repositories.known(summary.id)
            await self._driver.post(Published(summary.id, Accepted(known, ())))

    async def dry_run(
        self,
        repository: RepositoryId,
        hints: Sequence[BootstrapAddress],
        timeout: float,  # noqa: ASYNC109 (told to the service)
        besides: int = 0,
    ) -> Json:
        """Return what ``seed`` would take, and leave, without fetching an object.

        The size of what is not here is what its holders say, and no more than that.

        Args:
            besides: bytes of others that would be seeded before it; what would be left is left after all of them.

        Raises:
            HoldsNone, Blocked: this node does not take it.
            Unavailable: nobody tells of it.
        """
        check_role(self._config)
        if self._policy.blocks(repository):
            raise Blocked(repository)
        here = self._repositories.sizes.get(repository)
        sources = 0
        if here is None:
            size, sources, maintainers = await self._reader.claim(repository, hints, timeout)
        else:
            size, maintainers = here, await self._maintainers(repository)
        judge(self._policy.terms(repository, None), repository, maintainers)
        refusal: GutsError | None = None
        # Of what is here ``seed`` fetches nothing, so no quota is in its way.
        if here is None or self._repositories.is_lost(repository):
            try:
                self._disk.check(repository, 0 if here is not None else size, besides)
            except (UsageError, DiskLow) as error:
                refusal = error
        before = f"with {size_text(besides)} of those before it, " if besides else ""
        return {
            "repository": str(repository),
            "here": here is not None,
            "size_bytes": size or None,
            "claimed": here is None,
            "sources": sources,
            **self._disk.after(besides + (0 if here is not None else size)),
            "allowed": refusal is None,
            "refusal": f"{before}{refusal}" if refusal else None,
            "hint": refusal.hint if refusal else None,
        }

    async def unseed(self, repository: RepositoryId, *, at_once: bool = False, dry_run: bool = False) -> Json:
        """Follow ``repository`` no longer; what is here is removed after the grace time, or at once.

        Args:
            dry_run: change nothing, and tell what would go.

        Raises:
            NotHere: it is neither followed nor here.
        """
        goal = self._sync.goals.get(repository)
        if (goal is None or goal.prospect is not None) and repository not in self._repositories.sizes:
            raise NotHere(repository)
        if dry_run:
            return self._would_go([repository], at_once=at_once)
        await self._driver.execute(Unseed(repository))
        await self._persistence.drain()
        return await self._drop(repository, table.DECLINED, at_once=at_once)

    async def _drop(self, repository: RepositoryId, reason: str, *, at_once: bool) -> Json:
        await self._removals.stop_seeding(repository, reason, at_once=at_once)
        removed = at_once and await self._removals.remove(repository)
        return {"repository": str(repository), "removed": removed, "removed_in_s": self._removed_in(repository)}

    def _would_go(self, repositories: Iterable[RepositoryId], *, at_once: bool) -> Json:
        """Tell what of ``repositories`` is here, and what its going would leave."""
        sizes = {one: self._repositories.sizes[one] for one in repositories if one in self._repositories.sizes}
        grace = 0.0 if at_once else self._config.seeding.grace
        due = {one: min(grace, grace if (left := self._removed_in(one)) is None else left) for one in sizes}
        return {
            "repositories": [
                {"repository": str(one), "size_bytes": size, "removed_in_s": due[one]} for one, size in sizes.items()
            ],
            **self._disk.after(-sum(sizes.values())),
        }

    def _removed_in(self, repository: RepositoryId) -> float | None:
        due = self._removals.due(repository)
        return None if due is None else round(max(0.0, due - self._clock().mono), 1)

    # --- owners and blocks ----------------------------------------------------------------------------------

    async def follow(self, author: AuthorId, *, dry_run: bool = False) -> Json:
        """Seed the repositories of ``author`` from now on, as they are met. Raises: ``HoldsNone``, ``Blocked``."""
        check_role(self._config)
        if self._policy.blocks(author):
            raise Blocked(author)
        if len(self._policy.owners) >= MAX_FOLLOWED and author not in self._policy.owners:
            raise TooMany(f"{MAX_FOLLOWED} authors are followed already", hint="guts unfollow auth1…")
        if dry_run:
            return {"author": str(author), "new": author not in self._policy.owners, **self._disk.after(0)}
        new = await self._database.write(table.follow, author, self._clock().wall)
        await self._driver.execute(Follow(author))
        return {"author": str(author), "new": new}

    async def unfollow(self, author: AuthorId) -> Json:
        """Do so no longer, and let go what is here because of that alone."""
        was = await self._database.write(table.unfollow, author)
        others = self._policy.owners - {author}
        stopped: list[RepositoryId] = []
        for summary in await self._database.read(repository_table.load_summaries):
            if summary.seeding and self._policy.reason(summary.id) is Reason.OWNER:
                maintainers = set(await self._maintainers(summary.id))
                if author in maintainers and not maintainers & others:
                    stopped.append(summary.id)
        await self._driver.execute(Unfollow(author, tuple(stopped)))
        self._driver.transfers.judge_again()
        await self._persistence.drain()
        return {"author": str(author), "was_followed": was, "stopped": [str(repository) for repository in stopped]}

    async def block(self, who: Blockable, *, purge: bool, dry_run: bool = False) -> Json:
        """Never take ``who``; stop serving what is here, and let it go: after the grace time, or now.

        Args:
            dry_run: change nothing, and tell what would go.
        """
        if len(await self._database.read(table.load_blocked)) >= MAX_BLOCKED and not self._policy.blocks(who):
            raise TooMany(f"{MAX_BLOCKED} ids are blocked already", hint="guts unblock ID")
        if dry_run:
            would_go = self._would_go(await self._affected(who), at_once=purge)
            return {"blocked": str(who), "new": not self._policy.blocks(who), **would_go}
        new = await self._database.write(table.block, who, self._clock().wall)
        here = await self._affected(who)
        await self._driver.execute(Block(who, tuple(here)))
        self._driver.transfers.judge_again()
        await self._persistence.drain()
        dropped = [await self._drop(repository, table.DROPPED, at_once=purge) for repository in here]
        return {"blocked": str(who), "new": new, "repositories": dropped}

    async def unblock(self, who: Blockable, *, dry_run: bool = False) -> Json:
        """Take ``who`` off the block list, and back what is here still and was asked for, or is wanted by policy.

        Args:
            dry_run: change nothing, and tell what is here that may come back.
        """
        dropped = await self._database.read(table.load_dropped)
        if dry_run:
            here = [str(one) for one in await self._affected(who) if one in dropped]
            was = self._policy.blocks(who)
            return {"unblocked": str(who), "was_blocked": was, "repositories": here, **self._disk.after(0)}
        was = await self._database.write(table.unblock, who)
        await self._driver.execute(Unblock(who))
        affected = [repository for repository in await self._affected(who) if repository in dropped]
        back = [one for one in affected if await self._take_back(one, explicit=dropped[one])]
        return {"unblocked": str(who), "was_blocked": was, "repositories": [str(repository) for repository in back]}

    async def _take_back(self, repository: RepositoryId, *, explicit: bool) -> bool:
        """Seed again what is to be removed, where that is the operator's wish; tell whether it is."""
        if self._policy.blocks(repository):
            return False
        terms = self._policy.terms(repository, None)
        if not explicit:
            terms = replace(terms, reason=None, owners=self._policy.owners, topic=self._policy.topic)
        try:
            reason = judge(terms, repository, await self._maintainers(repository))
            if reason is not Reason.EXPLICIT and self._policy.taken >= self._policy.max_repositories:
                return False
            await self._repositories.set_seeding(repository, seeding=True, reason=reason, now_ms=self._clock().wall)
            known = await self._repositories.known(repository)
        except (NotTaken, NotHeld):
            # Another block is in the way, nobody wants it, or it was removed in this moment.
            return False
        self._removals.cancel(repository)
        await self._driver.post(Published(repository, Accepted(known, (), reason=reason)))
        return True

    async def _affected(self, who: Blockable) -> list[RepositoryId]:
        """Return what ``who`` is, or maintains, of what is here or being fetched."""
        if isinstance(who, RepositoryId):
            return [who]
        return [one for one in sorted(self._repositories.sizes) if who in await self._maintainers(one)]

    # --- what is told ---------------------------------------------------------------------------------------

    def disk(self) -> Json:
        """Return how full the disk is."""
        space = self._disk.space()
        floor = self._disk.quotas.floor(space)
        return {
            "used_bytes": self._disk.used,
            "limit_bytes": self._disk.quotas.disk,
            "free_bytes": space.free,
            "floor_bytes": floor,
            "low": space.free < floor,
        }

    async def policy(self) -> Json:
        """Return what is seeded, and why, and what is not."""
        settings = self._config.seeding
        owners = await self._database.read(table.load_followed)
        summaries = await self._database.read(repository_table.load_summaries)
        known = await self._database.read(table.load)
        blocked = await self._database.read(table.load_blocked)
        return {
            "topic": self._policy.topic,
            "taken": self._policy.taken,
            "max_repositories": settings.max_repositories,
            "refused": self._policy.refused,
            "refusals": [_refusal(refusal) for refusal in self._policy.refusals],
            "repo_max_bytes": settings.repo_max,
            "grace_s": settings.grace,
            "disk": self.disk(),
            "owners": [{"author": str(author), "since_ms": since} for author, since in owners.items()],
            "blocked": [{"id": str(who), "since_ms": since} for who, since in blocked.items()],
            "declined": [str(row.repository) for row in known if row.reason == table.DECLINED],
            "repositories": [await self._told(summary) for summary in summaries],
        }

    async def _told(self, summary: RepositorySummary) -> Json:
        reason = self._policy.reason(summary.id) if summary.seeding else None
        owners: list[str] = []
        if reason is Reason.OWNER:
            maintainers = await self._maintainers(summary.id)
            owners = [str(author) for author in maintainers if author in self._policy.owners]
        return {
            "id": str(summary.id),
            "name": summary.name,
            "reason": reason.value if reason else "going",
            "owners": owners,
            "size_bytes": summary.size,
            "lost": self._repositories.is_lost(summary.id),
            "removed_in_s": None if summary.seeding else self._removed_in(summary.id),
        }

    async def _maintainers(self, repository: RepositoryId) -> tuple[AuthorId, ...]:
        """Return who maintains what is held; nobody, where it was removed in this moment."""
        documents = await self._database.read(repository_table.load_documents, repository)
        if not documents:
            return ()
        return await asyncio.to_thread(_maintainers, documents[-1].encoded)


def _refusal(refusal: Refusal) -> Json:
    return {
        "repository": str(refusal.repository),
        "reason": refusal.reason.value,
        "owners": [str(author) for author in sorted(refusal.owners)],
        "error": refusal.error.code,
        "message": str(refusal.error),
        "hint": refusal.error.hint,
        "at_ms": refusal.at_ms,
    }


def _maintainers(encoded: bytes) -> tuple[AuthorId, ...]:
    return IdentityDocument.decode_body(Signed.decode(encoded, MAX_DOCUMENT_BYTES).body).maintainers
