"""``Publishing``: a maintainer's own commits come in, the next record is prepared, signed elsewhere, and committed.

Two steps, because the node never has the author key: ``prepare`` takes refs and a pack, checks the objects in a
quarantine and answers with the bytes to sign; ``commit`` takes the signature and commits, unless something else was
committed in between. A publication that nobody signs is forgotten, and its objects with it.
"""

import asyncio
import base64
import binascii
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from guts.clock import Now
from guts.crash import crash_point
from guts.errors import ExitStatus, PeerFault, UsageError
from guts.events import Accepted
from guts.git.faults import UnsafeTree
from guts.git.locks import SharedHold
from guts.git.quarantine import Quarantine
from guts.git.repository import BareRepository
from guts.ids import AuthorId, ObjectId, RepositoryId
from guts.node.acceptance import Held, MissingContext, NotYet, verify
from guts.node.limits import Patience
from guts.node.repositories import Repositories
from guts.node.transfers import check_forced
from guts.store.repositories import Conflict
from guts.trust.authoring import Copy, UnsignedRefs, check_maintainer, prepare_refs, wanted
from guts.trust.canonical_refs import AncestorFacts, CanonicalRefs, ancestor_questions, canonical_refs
from guts.trust.chain import IdentityChain
from guts.trust.ref_names import is_tag
from guts.trust.signed_refs import SignedRefs
from guts.wire.messages import EncodedRefs

MAX_SESSIONS: Final = 16


class BadPublication(UsageError):
    """What a command wants published does not fit together."""

    code: ClassVar[str] = "BAD_PUBLICATION"


class NonFastForward(UsageError):
    """A branch would lose commits that others may have, or a tag would become another one.

    Args:
        lost: (ref, name under which the node has what it would lose), in order.
        where: the node's folder of the repository, from where it can be fetched.
    """

    code: ClassVar[str] = "NON_FAST_FORWARD"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED

    def __init__(self, lost: list[tuple[str, str]], where: Path) -> None:
        ref, source = lost[0]
        names = ", ".join(dict.fromkeys(name for name, _ in lost))
        if is_tag(ref):
            text, fetch = "published already, and another object", f"git fetch {where} +{source}:{ref}"
        else:
            text = "what is published is not contained in yours"
            text = f"{text}: {source}" if source != ref else text
            fetch = f"git fetch {where} {source} && git merge FETCH_HEAD"
        super().__init__(
            f"{names}: {text}",
            hint=f"{fetch}, then publish again; --force gives up what is published",
        )


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
        super().__init__("something else was published in the meantime", hint="guts publish again")


class NoRoom(UsageError):
    """More publications wait for their signature than a node keeps."""

    code: ClassVar[str] = "BUSY"


@dataclass(frozen=True, slots=True)
class Draft:
    """What a command wants to publish.

    Attributes:
        genesis: the signed genesis document, for a repository that the node does not hold.
    """

    repository: RepositoryId
    author: AuthorId
    genesis: bytes | None
    copy: Copy

    @classmethod
    def parse(cls, header: Mapping[str, object]) -> "Draft":
        """Return the draft that the JSON ``header`` of a publication describes.

        Raises:
            BadPublication, BadId: it describes none.
        """
        match header:
            case {
                "repository": str(repository),
                "author": str(author),
                "genesis": str() | None as genesis,
                "refs": dict(refs),
                "head": str(head),
                "force": list(force),
            }:
                pass
            case _:
                raise BadPublication("not the header of a publication")
        try:
            document = base64.b64decode(genesis, validate=True) if genesis is not None else None
            oids = {str(name): ObjectId(bytes.fromhex(str(oid))) for name, oid in refs.items()}
        except (binascii.Error, ValueError) as error:
            raise BadPublication(f"not the header of a publication: {error}") from None
        return cls(
            RepositoryId.parse(repository),
            AuthorId.parse(author),
            document,
            Copy(
                oids,
                head,
                frozenset(str(name) for name in force),
                prune=header.get("prune") is True,
                move_head=header.get("move_head") is True,
            ),
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the author is to sign, with what it was made from: whoever has the key can make it again, and compare.

    Attributes:
        records: the newest record of every author, as they were.
        ancestors: what git said about their tips.
    """

    session: str
    unsigned: UnsignedRefs
    records: Mapping[AuthorId, SignedRefs]
    ancestors: AncestorFacts


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
        self, repositories: Repositories, clock: Callable[[], Now], max_pack_bytes: int, patience: Patience
    ) -> None:
        self._repositories = repositories
        self._clock = clock
        self._max_pack_bytes = max_pack_bytes
        self._patience = patience
        self._sessions: dict[str, _Session] = {}
        self._preparing = 0

    async def prepare(self, draft: Draft, pack: AsyncIterator[bytes]) -> Prepared | None:
        """Take in the objects of ``draft`` and return what to sign; ``None``: nothing changed.

        Raises:
            UsageError: it can't be published like this; the error says what helps.
            StorageFault: our disk or database failed.
        """
        if len(self._sessions) + self._preparing >= MAX_SESSIONS:
            raise NoRoom("too many publications wait for their signature", hint="try again in a few minutes")
        self._preparing += 1
        try:
            return await self._prepare(draft, pack)
        finally:
            self._preparing -= 1

    async def _prepare(self, draft: Draft, pack: AsyncIterator[bytes]) -> Prepared | None:
        async with contextlib.AsyncExitStack() as stack:
            bare, hold = await stack.enter_async_context(self._repositories.writing(draft.repository))
            # Nobody sends gigabytes to be told that they have no say.
            held = await self._held(draft.repository)
            check_maintainer(await asyncio.to_thread(_chain, draft, held), draft.author)
            _check_split(draft, held)
            quarantine = await stack.enter_async_context(bare.quarantine())
            objects = await self._take_in(draft, quarantine, pack)
            # Afresh: others may have published while the pack came in.
            held = await self._held(draft.repository)
            chain = await asyncio.to_thread(_chain, draft, held)
            _check_split(draft, held)
            records = dict(held.records) if held is not None else {}
            others = {author: record for author, record in records.items() if author != draft.author}
            previous = records.get(draft.author)
            ancestors = await self._ancestors(chain, records, quarantine)
            shown = await asyncio.to_thread(canonical_refs, chain, records, ancestors)
            ancestors |= await _behind(draft.copy, shown, quarantine)
            refs, head = await asyncio.to_thread(
                wanted, chain, draft.author, previous, draft.copy, others=others, ancestors=ancestors
            )
            unsigned = await asyncio.to_thread(
                prepare_refs,
                chain,
                draft.author,
                previous,
                refs,
                head,
                self._clock().wall,
                forced=await _forced(draft.copy.force, refs, shown, quarantine, bare.path),
                others=others,
                ancestors=ancestors,
            )
            if unsigned is None:
                return None
            name = secrets.token_hex(16)
            deadline = self._clock().mono + self._patience.signing
            generation = held.generation if held is not None else 0
            self._sessions[name] = _Session(
                draft, unsigned, generation, bare, quarantine, hold, objects, stack.pop_all(), deadline
            )
            crash_point("publication-prepared")
            return Prepared(name, unsigned, records, ancestors)

    async def _take_in(self, draft: Draft, quarantine: Quarantine, pack: AsyncIterator[bytes]) -> int:
        first = await anext(pack, b"")
        try:
            indexed = await quarantine.index(_prepend(first, pack), self._max_pack_bytes) if first else None
            await quarantine.check(frozenset(draft.copy.refs.values()))
        except UnsafeTree as error:
            hint = "git log --all --find-object=OBJECT shows where it is; a replica would refuse it too"
            raise BadPublication(f"the repository's objects are refused: {error}", hint=hint) from error
        except PeerFault as error:
            raise BadPublication(f"the repository's objects are refused: {error}", hint="git fsck --full") from error
        return indexed.objects if indexed is not None else 0

    async def _held(self, repository: RepositoryId) -> Held | None:
        stored = await self._repositories.stored(repository)
        return await asyncio.to_thread(Held.of, stored) if stored is not None else None

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
            Overtaken: something else was committed in between.
        """
        session = self._sessions.pop(name, None)
        if session is None:
            raise NoSuchSession("this publication is not waiting any more", hint="guts publish again")
        async with session.resources:
            draft = session.draft
            held = await self._held(draft.repository)
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

    async def run(self) -> None:
        """Forget, until cancelled, what nobody signs."""
        while True:
            await asyncio.sleep(self._patience.sweep)
            now = self._clock().mono
            for name in [name for name, session in self._sessions.items() if session.deadline <= now]:
                await self._forget(name)

    async def close(self) -> None:
        """Forget every session."""
        for name in list(self._sessions):
            await self._forget(name)

    async def _forget(self, name: str) -> None:
        session = self._sessions.pop(name, None)
        if session is not None:
            await session.resources.aclose()


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


async def _behind(own_copy: Copy, shown: CanonicalRefs, quarantine: Quarantine) -> AncestorFacts:
    """Return which values of the copy are contained in those shown for the same branch."""
    pairs = [(oid, shown.refs[ref]) for ref, oid in own_copy.refs.items() if shown.refs.get(ref, oid) != oid]
    answers = await quarantine.are_ancestors(pairs)
    return frozenset(pair for pair, answer in zip(pairs, answers, strict=True) if answer)


async def _forced(
    allowed: Set[str], refs: Mapping[str, ObjectId], shown: CanonicalRefs, quarantine: Quarantine, where: Path
) -> frozenset[str]:
    """Return which of the ``refs`` wanted lose commits. Raises: ``NonFastForward``: some that may not."""
    moved = {ref: oid for ref, oid in refs.items() if shown.refs.get(ref) != oid}
    # What is kept beside a ref as a conflict goes away with a record that has seen it.
    beside = [(conflict.ref, conflict.name, conflict.oid) for conflict in shown.conflicts]
    old = [*((ref, ref, oid) for ref, oid in shown.refs.items()), *beside]
    old = [(ref, name, oid) for ref, name, oid in old if ref in moved]
    kept = await quarantine.are_ancestors([(oid, moved[ref]) for ref, _, oid in old])
    # A tag that moves is another tag, wherever it goes.
    losing = [(ref, name) for (ref, name, _), contained in zip(old, kept, strict=True) if is_tag(ref) or not contained]
    if refused := sorted((ref, name) for ref, name in losing if ref not in allowed):
        raise NonFastForward(refused, where)
    return frozenset(ref for ref, _ in losing)


async def _prepend(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
