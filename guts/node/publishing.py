"""``Publishing``: a maintainer's own commits come in, the next record is prepared, signed elsewhere, and committed.

Two steps, because the node never has the author key: ``prepare`` takes refs and a pack, checks the objects in a
quarantine and answers with the bytes to sign; ``commit`` takes the signature and commits, unless something else was
committed in between. A publication that nobody signs is forgotten, and its objects with it.

What a push wants is refused ref by ref (``guts.trust.updates``). The objects that only the refused refs reach are left
behind in a quarantine, so they are never in the repository. Where something else was committed before the signature
came, a push is prepared ``again`` from what is in the quarantine already.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

from guts.clock import Now
from guts.crash import crash_point
from guts.errors import ExitStatus, PeerFault, UsageError
from guts.events import Accepted
from guts.git.faults import ObjectTooLarge, OverLimit, TooLarge, UnsafeTree
from guts.git.locks import SharedHold
from guts.git.quarantine import Quarantine
from guts.git.repository import BareRepository
from guts.ids import AuthorId, RepositoryId
from guts.node.acceptance import Held, MissingContext, NotYet, verify
from guts.node.disk import Disk
from guts.node.drafts import BadPublication, Draft
from guts.node.limits import Patience
from guts.node.moves import plan
from guts.node.repositories import Repositories
from guts.node.transfers import check_forced
from guts.store.accepted import Conflict
from guts.sync.policy import Blocked, Policy, judge
from guts.trust.authoring import UnsignedRefs, check_head, check_maintainer, prepare_refs
from guts.trust.canonical_refs import AncestorFacts, ancestor_questions, canonical_refs
from guts.trust.chain import IdentityChain
from guts.trust.signed_refs import SignedRefs
from guts.trust.updates import Refusal, Updates
from guts.wire.messages import EncodedRefs

MAX_SESSIONS: Final = 16
_LARGEST: Final = "git cat-file --batch-all-objects --batch-check='%(objectsize) %(objectname)' | sort -n | tail"
"""Shows what is large, where git itself met a limit and does not say at which object."""


class HistorySplit(UsageError):
    """The author's key signed two histories, so that neither counts."""

    code: ClassVar[str] = "HISTORY_SPLIT"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED

    def __init__(self, repository: RepositoryId, author: AuthorId, split: int) -> None:
        super().__init__(
            f"your key has signed two histories of {repository}, as happens after a restore from a backup: what it "
            f"signed since seq {split} does not count on any replica, and nothing more can be published with it",
            hint=f"the maintainers say from which record it goes on: guts identity reaffirm {author} {repository} FILE",
        )


class NoSuchSession(UsageError):
    """The publication was committed, was forgotten, or never was."""

    code: ClassVar[str] = "NO_SUCH_SESSION"


class Overtaken(UsageError):
    """Something else was committed since the publication was prepared."""

    code: ClassVar[str] = "OVERTAKEN"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED

    def __init__(self) -> None:
        super().__init__("something else was published in the meantime", hint="publish, or push, again")


class NoRoom(UsageError):
    """More publications wait for their signature than a node keeps."""

    code: ClassVar[str] = "BUSY"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the author is to sign, with what it was made from: whoever has the key can make it again, and compare.

    Attributes:
        records: the newest record of every author, as they were.
        ancestors: what git said about their tips.
        refused: refs of a push that are not in it.
    """

    session: str
    unsigned: UnsignedRefs
    records: Mapping[AuthorId, SignedRefs]
    ancestors: AncestorFacts
    refused: Mapping[str, Refusal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unchanged:
    """There is nothing to sign, but for what was refused."""

    refused: Mapping[str, Refusal] = field(default_factory=dict)


@dataclass(slots=True)
class _Session:
    draft: Draft
    unsigned: UnsignedRefs
    generation: int
    bare: BareRepository
    quarantine: Quarantine
    hold: SharedHold
    objects: int
    resources: contextlib.AsyncExitStack
    deadline: float


class Publishing:
    """The publications that wait for their signature."""

    def __init__(
        self,
        repositories: Repositories,
        clock: Callable[[], Now],
        patience: Patience,
        policy: Policy,
        disk: Disk,
    ) -> None:
        self._repositories = repositories
        self._clock = clock
        self._policy = policy
        self._disk = disk
        self._patience = patience
        self._sessions: dict[str, _Session] = {}
        self._preparing = 0

    async def prepare(self, draft: Draft, pack: AsyncIterator[bytes]) -> Prepared | Unchanged:
        """Take in the objects of ``draft`` and return what to sign.

        Raises:
            UsageError: it can't be published like this; the error says what helps.
            Blocked: it is on this node's block list, or is maintained by who is.
            DiskLow: too little space is left on the disk.
            StorageFault: our disk or database failed.
        """
        if len(self._sessions) + self._preparing >= MAX_SESSIONS:
            raise NoRoom("too many publications wait for their signature", hint="try again in a few minutes")
        self._preparing += 1
        try:
            async with contextlib.AsyncExitStack() as stack:
                # Nobody sends gigabytes to be told that they have no say, and nothing is written of what is refused.
                held = await self._repositories.held(draft.repository)
                chain = await asyncio.to_thread(_chain, draft, held)
                self._check_blocks(chain)
                check_maintainer(chain, draft.author)
                _check_split(draft, held)
                self._disk.check_floor()
                bare, hold = await stack.enter_async_context(self._repositories.writing(draft.repository))
                is_whole = self._repositories.is_whole(bare, draft.repository)
                quarantine = await stack.enter_async_context(bare.quarantine(is_whole=is_whole))
                objects = await self._take_in(draft, quarantine, pack)
                # Afresh: others may have published while the pack came in.
                return await self._draw_up(stack, draft, bare, hold, quarantine, objects)
        finally:
            self._preparing -= 1

    async def again(self, name: str) -> Prepared | Unchanged:
        """Return what to sign now of the session ``name``, a push that was overtaken. Raises: as ``prepare``."""
        session = self._take(name)
        async with session.resources as stack:
            return await self._draw_up(
                stack, session.draft, session.bare, session.hold, session.quarantine, session.objects
            )

    async def _draw_up(
        self,
        stack: contextlib.AsyncExitStack,
        draft: Draft,
        bare: BareRepository,
        hold: SharedHold,
        quarantine: Quarantine,
        objects: int,
    ) -> Prepared | Unchanged:
        """Return what to sign of ``draft``; what is on ``stack`` is then the session's."""
        held = await self._repositories.held(draft.repository)
        chain = await asyncio.to_thread(_chain, draft, held)
        _check_split(draft, held)
        records = dict(held.records) if held is not None else {}
        ancestors = await self._ancestors(chain, records, quarantine)
        shown = await asyncio.to_thread(canonical_refs, chain, records, ancestors)
        planned = await plan(draft, chain, records, shown, ancestors, quarantine)
        if isinstance(planned.draft.intent, Updates) and not planned.draft.intent.refs:
            return Unchanged(planned.refused)
        check_head(planned.refs, planned.head)
        unsigned = await asyncio.to_thread(
            prepare_refs,
            chain,
            draft.author,
            records.get(draft.author),
            planned.refs,
            planned.head,
            self._clock().wall,
            forced=planned.forced,
            others={author: record for author, record in records.items() if author != draft.author},
            ancestors=planned.ancestors,
        )
        if unsigned is None:
            return Unchanged(planned.refused)
        if planned.refused and objects:
            # What only the refused refs reach goes no further.
            sifted = await stack.enter_async_context(bare.quarantine())
            known = held.tips if held is not None else frozenset()
            objects = await bare.sift(quarantine, sifted, planned.draft.intent.tips, known)
            quarantine.discard()
            quarantine = sifted
        name = secrets.token_hex(16)
        deadline = self._clock().mono + self._patience.signing
        generation = held.generation if held is not None else 0
        self._sessions[name] = _Session(
            planned.draft, unsigned, generation, bare, quarantine, hold, objects, stack.pop_all(), deadline
        )
        crash_point("publication-prepared")
        return Prepared(name, unsigned, records, planned.ancestors, planned.refused)

    async def _take_in(self, draft: Draft, quarantine: Quarantine, pack: AsyncIterator[bytes]) -> int:
        first = await anext(pack, b"")
        try:
            indexed = await quarantine.index(_prepend(first, pack)) if first else None
            await quarantine.check(draft.intent.tips)
        except UnsafeTree as error:
            hint = "git log --all --find-object=OBJECT shows where it is; a replica would refuse it too"
            raise BadPublication(f"the repository's objects are refused: {error}", hint=hint) from error
        except ObjectTooLarge as error:
            hint = f"git rev-list --objects --all | grep {error.object_id} says which file it is; no replica takes it"
            raise BadPublication(f"the repository's objects are refused: {error}", hint=hint) from error
        except OverLimit as error:
            hint = "publish the history in parts, older commits first; no replica takes more at once"
            raise BadPublication(f"the repository's objects are refused: {error}", hint=hint) from error
        except TooLarge as error:
            raise BadPublication(f"the repository's objects are refused: {error}", hint=_LARGEST) from error
        except PeerFault as error:
            raise BadPublication(f"the repository's objects are refused: {error}", hint="git fsck --full") from error
        return indexed.objects if indexed is not None else 0

    async def _ancestors(
        self, chain: IdentityChain, records: Mapping[AuthorId, SignedRefs], quarantine: Quarantine
    ) -> AncestorFacts:
        # In threads: dozens of authors with thousands of refs each take seconds.
        questions = sorted(await asyncio.to_thread(ancestor_questions, chain, records))
        answers = await quarantine.are_ancestors(questions)
        return frozenset(pair for pair, answer in zip(questions, answers, strict=True) if answer)

    async def commit(self, name: str, signature: bytes) -> tuple[Draft, Accepted, int]:
        """Commit the session ``name`` under ``signature``; return the draft, the new state, the objects brought.

        Raises:
            NoSuchSession: it is gone.
            BadPublication: not the author's signature over what was to be signed.
            Blocked: it was blocked in between.
            Overtaken: something else was committed in between; a push can be prepared ``again``.
        """
        session = self._take(name)
        async with session.resources:
            try:
                return await self._commit(session, signature)
            except Overtaken:
                if isinstance(session.draft.intent, Updates) and session.quarantine.is_open:
                    session.resources = session.resources.pop_all()
                    session.deadline = self._clock().mono + self._patience.signing
                    self._sessions[name] = session
                raise

    async def _commit(self, session: _Session, signature: bytes) -> tuple[Draft, Accepted, int]:
        draft = session.draft
        held = await self._repositories.held(draft.repository)
        self._check_blocks(await asyncio.to_thread(_chain, draft, held))
        if (held.generation if held is not None else 0) != session.generation:
            # What the author signs has seen all that is here, or two who push at once are in conflict.
            raise Overtaken
        documents = (draft.genesis,) if held is None and draft.genesis is not None else ()
        try:
            record = session.unsigned.attach(draft.author, signature)
            encoded = EncodedRefs(record.header_bytes, record.entries_bytes)
            verified = await asyncio.to_thread(
                verify, draft.repository, held, documents, (), (encoded,), self._clock().wall
            )
            if verified is None:
                raise Overtaken
            await check_forced(verified, session.quarantine)
        except PeerFault as error:
            raise BadPublication(f"the signed refs are refused: {error}") from error
        except (NotYet, MissingContext):
            raise Overtaken from None
        crash_point("publication-signed")
        try:
            accepted = await self._repositories.commit(
                session.bare, verified, session.quarantine, session.hold, self._clock().wall
            )
        except Conflict:
            raise Overtaken from None
        crash_point("publication-committed")
        return draft, accepted, session.objects

    def _check_blocks(self, chain: IdentityChain) -> None:
        """Raises: ``Blocked``."""
        if self._policy.blocks(chain.repository):
            raise Blocked(chain.repository)
        judge(self._policy.terms(chain.repository, None), chain.repository, chain.current.maintainers)

    async def forget(self, name: str) -> None:
        """Forget the session ``name`` with its objects, if it is there: whoever was to sign it has gone."""
        session = self._sessions.pop(name, None)
        if session is not None:
            await session.resources.aclose()

    def _take(self, name: str) -> _Session:
        session = self._sessions.pop(name, None)
        if session is None:
            raise NoSuchSession("this publication is not waiting any more", hint="publish, or push, again")
        return session

    async def run(self) -> None:
        """Forget, until cancelled, what nobody signs."""
        while True:
            await asyncio.sleep(self._patience.sweep)
            now = self._clock().mono
            for name in [name for name, session in self._sessions.items() if session.deadline <= now]:
                await self.forget(name)

    async def close(self) -> None:
        """Forget every session."""
        for name in list(self._sessions):
            await self.forget(name)


def _chain(draft: Draft, held: Held | None) -> IdentityChain:
    if held is not None:
        return held.chain
    if draft.genesis is None:
        raise BadPublication(
            f"this node does not hold {draft.repository}", hint=f"guts seed {draft.repository}, then publish again"
        )
    try:
        chain = IdentityChain.from_documents([draft.genesis])
    except PeerFault as error:
        raise BadPublication(f"the identity document is refused: {error}") from error
    if chain.repository != draft.repository:
        raise BadPublication("the identity document is another repository's")
    return chain


def _check_split(draft: Draft, held: Held | None) -> None:
    """Raises: ``HistorySplit``: the author can't go on."""
    if held is not None and (proof := held.proofs.get(draft.author)) is not None:
        raise HistorySplit(draft.repository, draft.author, proof.split_seq)


async def _prepend(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
