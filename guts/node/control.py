"""``Control``: what the operator may ask of a running node. Results are ready for JSON; errors are ``GutsError``."""

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final

import guts
from guts.addresses import Address, BanSubject, BootstrapAddress
from guts.clock import Now
from guts.config import Config
from guts.events import Connect, Published, SyncNow, WantedBan
from guts.git import ancestry
from guts.ids import AuthorId, ObjectId, PeerId, RepositoryId
from guts.node.acceptance import Held
from guts.node.disk import Disk
from guts.node.drafts import Draft
from guts.node.driver import Driver
from guts.node.evidence import contained, earlier, evidence
from guts.node.git_answers import GitAnswer, GitAnswers
from guts.node.identities import apply_document
from guts.node.limit_settings import LimitSettings
from guts.node.limits import Patience
from guts.node.peer_desk import PeerDesk
from guts.node.persistence import Persistence
from guts.node.presence import Presence
from guts.node.publishing import Prepared, Publishing, Unchanged
from guts.node.reader import Reader
from guts.node.readings import Readings
from guts.node.receipts import told
from guts.node.removal import Removals
from guts.node.repositories import Repositories
from guts.node.seeding import Seeding, check_role
from guts.node.shown_refs import NOT_FOLLOWED, held_refs
from guts.node.signing import make_ready
from guts.records import Signed
from guts.service.commands import NotFollowed
from guts.store import objects as object_table
from guts.store import repositories as repository_table
from guts.store.accepted import RepositorySummary, StoredRepository
from guts.trust.canonical_refs import ancestor_questions
from guts.trust.equivocation import EquivocationProof
from guts.trust.identity_document import MAX_DOCUMENT_BYTES, IdentityDocument
from guts.trust.ref_names import CONFLICTS

TELL_TIMEOUT: Final = 10.0
"""Seconds that a first publication waits until the DHT knows of it, so that its id works when it is shown."""

Json = dict[str, object]


def _split(proof: EquivocationProof) -> Json:
    headers = [signed.header for signed in (proof.first, proof.second)]
    records = [{"seq": header.seq, "hash": header.hash.hex(), "signed_ms": header.time_ms} for header in headers]
    return {"author": str(proof.author), "seq": proof.split_seq, "records": records}


def _fork(held: Held) -> Json | None:
    if held.fork is None:
        return None
    other = IdentityDocument.decode_body(Signed.decode(held.fork.encoded, MAX_DOCUMENT_BYTES).body)
    followed = held.chain.history[held.fork.epoch]
    return {"epoch": held.fork.epoch, "followed": followed.hash.hex(), "other": other.hash.hex()}


class Control:
    """The operator's hands; ``guts.api`` puts them on a socket.

    Args:
        listening: where the node accepts connections.
        stop: begins a graceful stop.
    """

    def __init__(
        self,
        config: Config,
        driver: Driver,
        repositories: Repositories,
        readings: Readings,
        publishing: Publishing,
        presence: Presence,
        persistence: Persistence,
        removals: Removals,
        disk: Disk,
        clock: Callable[[], Now],
        patience: Patience,
        listening: tuple[Address, ...],
        stop: Callable[[], None],
    ) -> None:
        self._config = config
        self._driver = driver
        self._service = driver.service
        self._repositories = repositories
        self._reader = Reader(driver, readings, patience)
        self._git_answers = GitAnswers(repositories, self._reader, patience)
        self._publishing = publishing
        self._presence = presence
        self._persistence = persistence
        self.seeding = Seeding(config, driver, repositories, self._reader, removals, persistence, disk, clock)
        self._peers = PeerDesk(driver, repositories.database, persistence, clock)
        self._disk = disk
        self._clock = clock
        self._listening = listening
        self._stop = stop
        self._limits = LimitSettings(config.paths.limits_file, config.limits, driver)
        self._started = clock().mono

    async def status(self) -> Json:
        """Return the node in one object."""
        ready = list(self._service.peers.ready())
        outbound = sum(1 for connection in ready if connection.dialled is not None)
        return {
            "id": str(self._service.peers.me.peer),
            "network": self._config.network.network_name,
            "role": self._config.network.role,
            "listen": [str(address) for address in self._listening],
            "uptime_s": round(self._clock().mono - self._started, 1),
            "peers": {"inbound": len(ready) - outbound, "outbound": outbound},
            "repositories": sum(1 for goal in self._service.sync.goals.values() if goal.held),
            "dht_contacts": len(self._presence.discovery.contacts()),
            "disk": self.seeding.disk(),
            "version": guts.__version__,
            "pid": os.getpid(),
            "data": str(self._config.paths.data),
            "bans_suspended": self._peers.suspended(),
        }

    async def stop(self) -> None:
        """Begin a graceful stop."""
        self._stop()

    async def limits(self) -> list[Json]:
        """Return what this node grants its peers; see ``LimitSettings.show``."""
        return self._limits.show(self._clock())

    async def set_limits(self, changes: Mapping[str, object]) -> list[Json]:
        """Change limits, now and for the next start. Raises: as ``LimitSettings.set``."""
        return await self._limits.set(changes, self._clock())

    # --- repositories ---------------------------------------------------------------------------------------

    async def repositories(self) -> list[Json]:
        """Return what this node holds, by name."""
        summaries = await self._repositories.database.read(repository_table.load_summaries)
        return [await self._summary(summary) for summary in summaries]

    async def _summary(self, summary: RepositorySummary) -> Json:
        canonical = await self._repositories.database.read(repository_table.load_canonical, summary.id)
        goal = self._service.sync.goals.get(summary.id)
        if goal is not None and goal.fetch is not None:
            state = "fetching"
        elif self._repositories.is_lost(summary.id):
            state = "lost"
        else:
            state = "not seeded" if goal is None else "synced"
        return {
            "id": str(summary.id),
            "name": summary.name,
            "epoch": summary.epoch,
            "seeding": summary.seeding,
            "state": state,
            "head_seq": max((seq for seq, _ in summary.authors.values()), default=0),
            "refs": len(canonical),
            "conflicts": _conflicts(canonical),
            "suspended": len(summary.splits),
            "size_bytes": summary.size,
            "replicas_seen": len(self._service.peers.peers_with_repository(summary.id)),
            "last_sync_ms": summary.updated,
        }

    async def inspect(self, repository: RepositoryId) -> Json:
        """Return identity, refs, objects and holders of a repository. Raises: ``NotFollowed``."""
        stored = await self._stored(repository)
        held = await asyncio.to_thread(Held.of, stored)
        totals = await self._repositories.database.read(object_table.totals, repository)
        document = held.chain.current
        wall = self._clock().wall
        return {
            **await self._summary(stored.summary),
            "description": document.description,
            "identity_hash": document.hash.hex(),
            "maintainers": [str(author) for author in document.maintainers],
            "threshold": document.threshold,
            "default_branch": document.default_branch,
            "head": stored.summary.head,
            "canonical_refs": {ref: str(oid) for ref, oid in stored.canonical.items()},
            "signed_refs": [
                {
                    "author": str(record.author),
                    "seq": record.seq,
                    "hash": record.hash.hex(),
                    "signed_ms": record.header.time_ms,
                    "age_s": round((wall - record.header.time_ms) / 1000, 1),
                    "refs": len(record.entries.refs),
                }
                for record in held.records.values()
            ],
            "identity_fork": _fork(held),
            "splits": [_split(held.proofs[author]) for author in sorted(held.proofs)],
            "objects": {kind.name.lower(): total.count for kind, total in totals.items()},
            "holders": [str(state.id) for state in self._service.peers.peers_with_repository(repository)],
            "path": str(self._repositories.path(repository)),
        }

    async def refs(self, repository: RepositoryId, hints: Sequence[BootstrapAddress], timeout: float) -> Json:  # noqa: ASYNC109
        """Return the verified refs of a repository, held or not. Raises: as ``Reader.refs``; ``StorageFault``."""
        stored = await self._repositories.stored(repository)
        if stored is not None and not self._repositories.is_lost(repository):
            shown = await held_refs(self._repositories, stored)
        else:
            shown = await self._reader.refs(repository, hints, timeout)
        return shown.to_json()

    async def evidence(self, repository: RepositoryId, hints: Sequence[BootstrapAddress], timeout: float) -> Json:  # noqa: ASYNC109
        """Return what vouches for the refs of a repository. Raises: as ``refs``."""
        stored = await self._repositories.stored(repository)
        if stored is None or self._repositories.is_lost(repository):
            return evidence(*await self._reader.state(repository, hints, timeout))
        held = await asyncio.to_thread(Held.of, stored)
        questions = sorted(await asyncio.to_thread(ancestor_questions, held.chain, held.records))
        bare = await self._repositories.open(repository)
        ancestors = await ancestry.contained(bare.git, bare.environment, questions) if questions else frozenset()
        notes = () if stored.summary.seeding else (NOT_FOLLOWED,)
        return evidence(held, ancestors, len(self._service.peers.peers_with_repository(repository)), notes)

    async def past(
        self,
        repository: RepositoryId,
        refs: Mapping[str, ObjectId],
        hints: Sequence[BootstrapAddress],
        timeout: float,  # noqa: ASYNC109 (told to the service)
    ) -> Json:
        """Return which older records had ``refs``, and which are part of what is signed now. Raises: as ``refs``.

        Of a repository that is not held no older records are kept.
        """
        stored = await self._repositories.stored(repository)
        if stored is None or self._repositories.is_lost(repository):
            return {"refs": [], "contained": await self._reader.contained(repository, refs, hints, timeout)}
        held = await asyncio.to_thread(Held.of, stored)
        bare = await self._repositories.open(repository)
        return {
            "refs": await earlier(self._repositories.database, held, refs),
            "contained": await contained(held, refs, partial(ancestry.contained, bare.git, bare.environment)),
        }

    def upload_pack(
        self, repository: RepositoryId, request: bytes, hints: Sequence[BootstrapAddress], timeout: float
    ) -> AbstractAsyncContextManager[GitAnswer]:
        """Enter with the answer to one ``fetch`` of protocol v2. Raises: as ``GitAnswers.upload_pack``."""
        return self._git_answers.upload_pack(repository, request, hints, timeout)

    def upload_archive(
        self, repository: RepositoryId, request: bytes, hints: Sequence[BootstrapAddress], timeout: float
    ) -> AbstractAsyncContextManager[GitAnswer]:
        """Enter with the answer to one ``git archive --remote``. Raises: as ``GitAnswers.upload_archive``."""
        return self._git_answers.upload_archive(repository, request, hints, timeout)

    async def receipts(
        self,
        repository: RepositoryId,
        author: AuthorId | None,
        seq: int | None,
        replicas: int,
        timeout: float,  # noqa: ASYNC109 (told to the service)
    ) -> Json:
        """Return who has confirmed which record; see ``guts.node.receipts.told``. Raises: ``NotFollowed``."""
        return await told(self._driver, self._repositories, repository, author, seq, replicas, timeout)

    async def sync(self, repository: RepositoryId, timeout: float) -> Json:  # noqa: ASYNC109 (told to the service)
        """Ask the holders for news now. Raises: ``NotFollowed``, ``Unavailable``."""
        return dict(await self._driver.execute(SyncNow(repository, timeout)))

    # --- peers and discovery --------------------------------------------------------------------------------

    async def peers(self) -> list[Json]:
        """Return the connections."""
        return self._peers.connected()

    async def peer(self, peer: PeerId) -> Json:
        """Return all that is known of ``peer``. Raises: ``UnknownPeer``."""
        return await self._peers.show(peer)

    async def bans(self) -> list[Json]:
        """Return whom this node does not let in."""
        return self._peers.bans()

    async def ban(self, bans: Sequence[WantedBan], *, merge: bool) -> Json:
        """Let nobody of ``bans`` in; where ``merge``, the later end of two counts. Raises: as ``Banning.ban``."""
        return await self._peers.ban(bans, merge=merge)

    async def unban(self, subject: BanSubject) -> Json:
        """Let ``subject`` in again. Raises: ``StillBanned``."""
        return await self._peers.unban(subject)

    async def connect(self, address: BootstrapAddress, timeout: float) -> Json:  # noqa: ASYNC109 (told to the service)
        """Dial ``address`` and return who answered. Raises: ``PeerFault``, ``Unavailable``: why nobody did."""
        return dict(await self._driver.execute(Connect(address, timeout)))

    async def find_providers(self, repository: RepositoryId, timeout: float) -> Json:  # noqa: ASYNC109
        """Return what the DHT says about who holds ``repository``, within ``timeout`` seconds."""
        discovery = self._presence.discovery
        providers: list[Json] = []
        try:
            async with asyncio.timeout(timeout):
                async for record in discovery.find_providers(repository):
                    providers.append(
                        {
                            "peer": str(record.peer),
                            "addresses": [str(address) for address in record.addresses],
                            "seq": record.seq,
                            "expires_ms": record.expires,
                        }
                    )
        except TimeoutError:
            pass
        stats = discovery.last_lookup
        return {
            "repository": str(repository),
            "providers": providers,
            "asked": stats.asked,
            "hops": stats.hops,
            "rpcs": stats.rpcs,
            "seconds": round(stats.seconds, 3),
        }

    # --- publishing -----------------------------------------------------------------------------------------

    async def publication(self, repository: RepositoryId) -> Json:
        """Return what a publisher needs to go on: identity documents and tips. Raises: ``NotFollowed``."""
        stored = await self._stored(repository)
        held = await asyncio.to_thread(Held.of, stored)
        tips = sorted({str(oid) for record in held.records.values() for oid in record.tips()})
        documents = [base64.b64encode(document).decode() for document in held.chain.documents]
        return {"documents": documents, "tips": tips}

    async def prepare(self, header: Json, pack: AsyncIterator[bytes]) -> Json:
        """Take a publication in; return what is to be signed. Raises: ``UsageError``, ``StorageFault``."""
        check_role(self._config)
        draft = Draft.parse(header)
        await make_ready(self._driver, draft.repository, self._clock())
        return _to_sign(await self._publishing.prepare(draft, pack))

    async def prepare_again(self, session: str) -> Json:
        """Return what is to be signed now of a push that was overtaken. Raises: as ``prepare``."""
        return _to_sign(await self._publishing.again(session))

    async def forget(self, session: str) -> Json:
        """Forget a publication that nobody is going to sign."""
        await self._publishing.forget(session)
        return {"session": session}

    async def commit(self, session: str, signature: bytes) -> Json:
        """Commit a prepared publication under its signature, and tell the world. Raises: as ``Publishing.commit``."""
        begun = self._clock().mono
        draft, accepted, objects = await self._publishing.commit(session, signature)
        id_ = draft.repository
        # Asked for before it can have been published.
        provided = None if self._service.sync.holds(id_) else self._presence.provided(id_)
        await self._driver.post(Published(id_, accepted))
        self._driver.settle(id_)
        return {
            "repository": str(id_),
            "seq": max(head.seq for _, head, _ in accepted.news),
            "refs": len(draft.intent.refs),
            "objects": objects,
            "conflicts": _conflicts(await self._repositories.database.read(repository_table.load_canonical, id_)),
            "followers": len(self._service.peers.subscribers(id_)),
            "warnings": [dataclasses.asdict(passed) for passed in self._disk.passed(id_)],
            "told_nodes": await _told(provided) if provided is not None else None,
            "seconds": round(self._clock().mono - begun, 3),
        }

    async def apply_identity(self, repository: RepositoryId, document: bytes) -> Json:
        """Commit the next identity document, and tell the world. Raises: as ``apply_document``."""
        chain, accepted = await apply_document(self._repositories, repository, document, self._clock)
        if accepted is not None:
            await self._driver.post(Published(repository, accepted))
            self._driver.settle(repository)
        return {
            "repository": str(repository),
            "epoch": chain.epoch,
            "identity_hash": chain.hash.hex(),
            "maintainers": [str(author) for author in chain.current.maintainers],
            "threshold": chain.current.threshold,
            "unchanged": accepted is None,
        }

    async def _stored(self, repository: RepositoryId) -> StoredRepository:
        stored = await self._repositories.stored(repository)
        if stored is None:
            raise NotFollowed(repository)
        return stored


def _to_sign(prepared: Prepared | Unchanged) -> Json:
    refused = {ref: {"reason": refusal.reason, "hint": refusal.hint} for ref, refusal in prepared.refused.items()}
    if isinstance(prepared, Unchanged):
        return {"unchanged": True, "seq": 0, **({"refused": refused} if refused else {})}
    unsigned = prepared.unsigned
    return {
        "unchanged": False,
        "session": prepared.session,
        "body": base64.b64encode(unsigned.body).decode(),
        "entries": base64.b64encode(unsigned.entries).decode(),
        "entries_hash": hashlib.sha256(unsigned.entries).hexdigest(),
        "seq": unsigned.header.seq,
        "records": [
            {
                "header": base64.b64encode(record.header_bytes).decode(),
                "entries": base64.b64encode(record.entries_bytes).decode(),
            }
            for record in prepared.records.values()
        ],
        "ancestors": [{"ancestor": str(old), "descendant": str(new)} for old, new in sorted(prepared.ancestors)],
        "refused": refused,
    }


def _conflicts(canonical: Iterable[str]) -> int:
    return sum(ref.startswith(CONFLICTS) for ref in canonical)


async def _told(provided: Awaitable[int]) -> int:
    """Return how many nodes of the DHT know that a repository is here, waiting a little for them."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TELL_TIMEOUT):
            return await provided
    return 0
