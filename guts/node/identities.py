"""A new identity document from the operator: checked against the chain that is held, and committed."""

import asyncio
from collections.abc import Callable
from typing import ClassVar

from guts.clock import Now
from guts.crash import crash_point
from guts.errors import ExitStatus, PeerFault, UsageError
from guts.events import Accepted
from guts.ids import RepositoryId
from guts.node.acceptance import Held, follow
from guts.node.history import settle
from guts.node.repositories import Repositories
from guts.service.commands import NotFollowed
from guts.store.accepted import Conflict
from guts.trust.chain import IdentityChain, IdentityDiverged, IdentityForked, MissingIdentity


class BadIdentity(UsageError):
    """An identity document breaks a rule: signatures are missing, or it does not fit the one before it."""

    code: ClassVar[str] = "BAD_IDENTITY"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED


class IdentityMoved(UsageError):
    """The repository's identity is at another document than the one that was built upon."""

    code: ClassVar[str] = "IDENTITY_MOVED"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED


class IdentityFrozen(UsageError):
    """The maintainers signed two documents of one epoch: none can follow until they agree."""

    code: ClassVar[str] = "IDENTITY_FROZEN"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED


async def apply_document(
    repositories: Repositories, repository: RepositoryId, document: bytes, clock: Callable[[], Now]
) -> tuple[IdentityChain, Accepted | None]:
    """Put the signed ``document`` at the end of the chain; return the chain, and the new state if it is a new one.

    Raises:
        NotFollowed: this node does not seed the repository, or has lost it.
        BadIdentity, IdentityMoved, IdentityFrozen: the document can't follow those that are held.
        StorageFault: the disk or the database failed; old or new state, never a mixture.
    """
    stored = await repositories.stored(repository)
    if stored is None or not stored.summary.seeding or repositories.is_lost(repository):
        raise NotFollowed(repository)
    held = await asyncio.to_thread(Held.of, stored)
    chain = extended(held.chain, document)
    if held.fork is not None and chain.epoch != held.chain.epoch:
        raise IdentityFrozen(
            f"the maintainers signed two documents of epoch {held.fork.epoch}, and replicas follow one or the other",
            hint=f"guts identity show {repository}",
        )
    if chain.epoch == held.chain.epoch:
        return chain, None
    verified = await settle(repositories.database, held, follow(held, chain))
    async with repositories.writing(repository) as (bare, hold), bare.quarantine() as quarantine:
        await quarantine.check(())  # it brings no objects, and those of the records were checked when they came
        crash_point("identity-extended")
        try:
            accepted = await repositories.commit(bare, verified, quarantine, hold, clock().wall)
        except Conflict:
            raise IdentityMoved("something else was committed in the meantime", hint="the same command again") from None
        crash_point("identity-committed")
        return chain, accepted


def extended(chain: IdentityChain, document: bytes) -> IdentityChain:
    """Return ``chain`` with ``document`` at its end; itself, where it is in it already.

    Raises:
        BadIdentity, IdentityMoved: it can't follow.
    """
    try:
        return chain.extend(document)
    except (IdentityForked, IdentityDiverged):
        raise IdentityMoved(
            "another document of that epoch was applied: whoever signs this one too splits the repository",
            hint="make a new proposal on top of it: guts identity propose",
        ) from None
    except MissingIdentity:
        raise IdentityMoved(
            f"documents after epoch {chain.epoch} are missing here", hint=f"guts sync {chain.repository}"
        ) from None
    except PeerFault as error:
        raise BadIdentity(
            f"the document is refused: {error}", hint="guts identity show FILE tells who has signed"
        ) from None
