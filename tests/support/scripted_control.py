"""A small ``Control`` with answers of its own, for the doors that are tested without a whole node.

What travels through the API is real: the socket, the HTTP server, and for ``prepare`` and ``commit`` the
records and signatures. Only the node behind it is small.
"""

# ruff: noqa: ASYNC109

import asyncio
import base64
import contextlib
import hashlib
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

from guts.addresses import BanSubject, BootstrapAddress, subject_text
from guts.api.requests import Json
from guts.api.server import control_server
from guts.errors import ExitStatus, GutsError, Unavailable, UsageError
from guts.events import WantedBan
from guts.identity import SigningKey
from guts.ids import AuthorId, ObjectId, PeerId, RepositoryId
from guts.limits import LIMITS
from guts.node.git_answers import GitAnswer
from guts.records import CommitReceipt
from guts.trust.authoring import UnsignedRefs, prepare_refs
from guts.trust.chain import IdentityChain
from guts.trust.signed_refs import SignedRefs

REPOSITORY = RepositoryId(hashlib.sha256(b"a repository").digest())
NODE = str(PeerId(bytes(range(32))))
NOW_MS = 1_760_000_000_000


class NothingHere(UsageError):
    """What a node says of a repository that it does not hold."""

    code = "NOT_FOUND"
    exit_status = ExitStatus.NOT_FOUND

    def __init__(self, repository: RepositoryId) -> None:
        super().__init__("there is no such repository here", hint="guts seed it first")
        self.repository = repository


class NobodyProvides(Unavailable):
    """What a node says when the DHT knows no holder."""

    code = "NO_PROVIDERS"
    exit_status = ExitStatus.NOT_FOUND


def limit_row(name: str, value: float, source: str, used: float | None = None, bit: int = 0) -> Json:
    """Return what a node says of a limit."""
    limit = LIMITS[name]
    return {
        **{"name": name, "value": value, "unit": limit.unit, "source": source, "default": limit.default},
        **{"used": used, "peak": used, "bit": bit, "of": limit.why},
    }


class ScriptedControl:
    """Notes every call in ``calls``; publications are kept in ``records``."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.pack = b""
        self.disk_bytes = 50 << 30
        self.chains: dict[RepositoryId, IdentityChain] = {}
        self.records: dict[RepositoryId, SignedRefs] = {}
        self.splits: list[Json] = []
        self.fork: Json | None = None
        self.replicas: list[SigningKey] = []
        """Nodes that confirm every record."""
        self.alone: set[RepositoryId] = set()
        """Repositories that nobody else holds."""
        self.waiting: dict[str, UnsignedRefs] = {}
        self.notes: list[str] = []
        self.answer: list[bytes | GutsError] = []
        """What git is answered, in pieces, and perhaps the error in which it ends."""
        self.answered = threading.Event()
        self.suspended: Json | None = None
        """Why bans are suspended."""
        self.banned: list[Json] = []
        """What ``guts peer bans`` shows."""
        self.refusals: list[Json] = []
        """What ``guts seeding`` says was not taken."""
        self.objects: dict[str, int] = {"commit": 2, "tree": 1}
        """Objects of a repository, by type."""
        self.lost = False
        """Whether the folder of the repository that ``guts seeding`` lists is."""
        self.taken = 1
        """Repositories that are here for another reason than an explicit wish, as ``guts seeding`` has it."""
        self.held: set[RepositoryId] = set()
        """Repositories that git can fetch."""
        self.lie: dict[str, str] = {}
        """Refs that ``prepare`` puts in the place of those it was asked for."""

    async def status(self) -> Json:
        return {
            "id": NODE,
            "network": "guts",
            "role": "node",
            "listen": ["127.0.0.1:9000"],
            "uptime_s": 3700.5,
            "peers": {"inbound": 1, "outbound": 2},
            "repositories": len(self.records),
            "dht_contacts": 7,
            "version": "0.1.0",
            "pid": os.getpid(),
            "data": "/data",
            "bans_suspended": self.suspended,
        }

    async def stop(self) -> None:
        self.calls.append(("stop",))

    async def repositories(self) -> list[Json]:
        return [
            {
                "id": str(repository),
                "name": chain.current.name,
                "epoch": 0,
                "seeding": True,
                "state": "seeding",
                "head_seq": 1,
                "refs": len(self.records[repository].entries.live()),
                "size_bytes": 3 << 20,
                "replicas_seen": 2,
                "last_sync_ms": None,
            }
            for repository, chain in self.chains.items()
        ]

    async def refs(self, repository: RepositoryId, hints: Sequence[BootstrapAddress], timeout: float) -> Json:
        self.calls.append(("refs", repository, tuple(hints), timeout))
        if repository not in self.chains:
            raise NobodyProvides("no replica found", hint="ask the publisher")
        chain, record = self.chains[repository], self.records[repository]
        refs = record.entries.live()
        return {
            "repository": str(repository),
            "name": chain.current.name,
            "held": True,
            "head": record.header.head,
            "refs": [{"ref": name, "oid": str(oid), "peeled": None} for name, oid in refs.items()],
            "epoch": chain.epoch,
            "identity_hash": chain.hash.hex(),
            "maintainers": [str(author) for author in chain.current.maintainers],
            "documents": [base64.b64encode(document).decode() for document in chain.documents],
            "heads": [
                {
                    "author": str(record.author),
                    "seq": record.seq,
                    "hash": record.hash.hex(),
                    "signed_ms": record.header.time_ms,
                }
            ],
            "conflicts": [],
            "sources": 0,
            "notes": [],
        }

    async def evidence(self, repository: RepositoryId, hints: Sequence[BootstrapAddress], timeout: float) -> Json:
        self.calls.append(("evidence", repository, tuple(hints), timeout))
        if repository not in self.chains:
            raise NobodyProvides("no replica found", hint="ask the publisher")
        chain, record = self.chains[repository], self.records[repository]
        return {
            "repository": str(repository),
            "name": chain.current.name,
            "documents": [base64.b64encode(document).decode() for document in chain.documents],
            "records": [
                {
                    "header": base64.b64encode(record.header_bytes).decode(),
                    "entries": base64.b64encode(record.entries_bytes).decode(),
                }
            ],
            "proofs": [],
            "sources": 2,
            "notes": [],
        }

    async def past(
        self, repository: RepositoryId, refs: Mapping[str, ObjectId], hints: Sequence[BootstrapAddress], timeout: float
    ) -> Json:
        self.calls.append(("past", repository, dict(refs), tuple(hints), timeout))
        return {"refs": [], "contained": []}

    async def inspect(self, repository: RepositoryId) -> Json:
        if repository not in self.chains:
            raise NothingHere(repository)
        chain, record = self.chains[repository], self.records[repository]
        return {
            "id": str(repository),
            "name": chain.current.name,
            "description": chain.current.description,
            "epoch": chain.epoch,
            "identity_hash": chain.hash.hex(),
            "default_branch": chain.current.default_branch,
            "maintainers": [str(author) for author in chain.current.maintainers],
            "threshold": 1,
            "head": record.header.head,
            "canonical_refs": {name: str(oid) for name, oid in record.entries.live().items()},
            "signed_refs": [
                {
                    "author": str(record.author),
                    "seq": record.seq,
                    "hash": record.hash.hex(),
                    "signed_ms": NOW_MS,
                    "age_s": 65.0,
                }
            ],
            "identity_fork": self.fork,
            "path": f"/data/repos/{repository}.git",
            "splits": self.splits,
            "objects": self.objects,
            "holders": [NODE],
        }

    @contextlib.asynccontextmanager
    async def upload_pack(
        self, repository: RepositoryId, request: bytes, hints: Sequence[BootstrapAddress], timeout: float
    ) -> AsyncIterator[GitAnswer]:
        self.calls.append(("upload_pack", repository, request, tuple(hints), timeout))
        if repository not in self.held:
            raise NothingHere(repository)
        yield GitAnswer(self._answer(), list(self.notes))

    @contextlib.asynccontextmanager
    async def upload_archive(
        self, repository: RepositoryId, request: bytes, hints: Sequence[BootstrapAddress], timeout: float
    ) -> AsyncIterator[GitAnswer]:
        self.calls.append(("upload_archive", repository, request, tuple(hints), timeout))
        try:
            yield GitAnswer(self._answer())
        finally:
            self.answered.set()

    async def _answer(self) -> AsyncIterator[bytes]:
        for part in self.answer:
            if isinstance(part, GutsError):
                raise part
            yield part

    async def receipts(
        self, repository: RepositoryId, author: AuthorId | None, seq: int | None, replicas: int, timeout: float
    ) -> Json:
        self.calls.append(("receipts", repository, author, seq, replicas, timeout))
        if repository not in self.records:
            raise NothingHere(repository)
        record = self.records[repository]
        given = [
            CommitReceipt.sign(key, repository, record.author, record.seq, record.hash, NOW_MS) for key in self.replicas
        ]
        return {
            "repository": str(repository),
            "receipts": [
                {
                    "peer": str(receipt.claim.peer),
                    "author": str(record.author),
                    "seq": record.seq,
                    "hash": record.hash.hex(),
                    "signed_ms": NOW_MS,
                    "receipt": base64.b64encode(receipt.encoded).decode(),
                }
                for receipt in given
            ],
            "known": len(given),
            "records": [
                {
                    "author": str(record.author),
                    "seq": record.seq,
                    "hash": record.hash.hex(),
                    "header": base64.b64encode(record.header_bytes).decode(),
                }
            ],
        }

    async def seed(self, repository: RepositoryId, hints: Sequence[BootstrapAddress], timeout: float) -> Json:
        self.calls.append(("seed", repository, tuple(hints), timeout))
        if repository not in self.chains:
            raise NobodyProvides("no replica found", hint="is the id right?")
        return {"repository": str(repository), "seconds": 0.25, "copied": repository not in self.held}

    @property
    def seeding(self) -> "ScriptedControl":
        return self

    async def dry_run(
        self, repository: RepositoryId, hints: Sequence[BootstrapAddress], timeout: float, besides: int = 0
    ) -> Json:
        self.calls.append(("dry_run", repository, tuple(hints), timeout, besides))
        return {
            "repository": str(repository),
            "here": False,
            "size_bytes": 3 << 20,
            "claimed": True,
            "sources": 2,
            "free_bytes": 10 << 20,
            "free_after_bytes": 7 << 20,
            "used_bytes": 1 << 20,
            "used_after_bytes": 4 << 20,
            "disk_bytes": self.disk_bytes,
            "allowed": self.disk_bytes >= 4 << 20,
            "refusal": None if self.disk_bytes >= 4 << 20 else "it takes too much",
            "hint": None if self.disk_bytes >= 4 << 20 else "more disk",
        }

    @property
    def _left(self) -> Json:
        return {
            "free_bytes": 10 << 20,
            "free_after_bytes": 13 << 20,
            "used_bytes": 4 << 20,
            "used_after_bytes": 1 << 20,
            "disk_bytes": self.disk_bytes,
        }

    def _would_go(self, seconds: float) -> Json:
        going = {"repository": str(REPOSITORY), "size_bytes": 3 << 20, "removed_in_s": seconds}
        return {"repositories": [going], **self._left}

    async def unseed(self, repository: RepositoryId, *, at_once: bool = False, dry_run: bool = False) -> Json:
        self.calls.append(("unseed", repository, at_once, *(["dry"] if dry_run else [])))
        if dry_run:
            return self._would_go(0.0 if at_once else 86_400.0)
        return {"repository": str(repository), "removed": at_once, "removed_in_s": None if at_once else 86_400.0}

    async def follow(self, author: AuthorId, *, dry_run: bool = False) -> Json:
        self.calls.append(("follow", author, *(["dry"] if dry_run else [])))
        if dry_run:
            return {"author": str(author), "new": True, **self._left}
        return {"author": str(author), "new": self.calls.count(("follow", author)) == 1}

    async def unfollow(self, author: AuthorId) -> Json:
        self.calls.append(("unfollow", author))
        return {"author": str(author), "was_followed": True, "stopped": [str(REPOSITORY)]}

    async def block(self, who: RepositoryId | AuthorId, *, purge: bool, dry_run: bool = False) -> Json:
        self.calls.append(("block", who, purge, *(["dry"] if dry_run else [])))
        if dry_run:
            return {"blocked": str(who), "new": True, **self._would_go(0.0 if purge else 60.0)}
        gone = {"repository": str(REPOSITORY), "removed": purge, "removed_in_s": None if purge else 60.0}
        return {"blocked": str(who), "new": True, "repositories": [gone]}

    async def unblock(self, who: RepositoryId | AuthorId, *, dry_run: bool = False) -> Json:
        self.calls.append(("unblock", who, *(["dry"] if dry_run else [])))
        if dry_run:
            here = {"repositories": [str(REPOSITORY)], **self._left}
            return {"unblocked": str(who), "was_blocked": True, **here}
        return {"unblocked": str(who), "was_blocked": False, "repositories": []}

    async def policy(self) -> Json:
        disk = {"used_bytes": 1 << 20, "limit_bytes": 50 << 30, "free_bytes": 1, "floor_bytes": 2, "low": True}
        held = {"id": str(REPOSITORY), "name": "project", "reason": "topic", "owners": [], "size_bytes": 5}
        return {
            "topic": True,
            "taken": self.taken,
            "max_repositories": 9,
            "refused": 2,
            "repo_max_bytes": 2 << 30,
            "grace_s": 86_400.0,
            "disk": disk,
            "owners": [],
            "blocked": [],
            "declined": [],
            "refusals": self.refusals,
            "repositories": [{**held, "lost": self.lost, "removed_in_s": None}],
        }

    async def sync(self, repository: RepositoryId, timeout: float) -> Json:
        self.calls.append(("sync", repository, timeout))
        if repository in self.alone:
            raise NobodyProvides("no replica found", hint="is the id right?")
        return {"repository": str(repository), "seconds": 0.1}

    async def peers(self) -> list[Json]:
        return [
            {
                "peer": NODE,
                "address": "127.0.0.1:9001",
                "direction": "outbound",
                "state": "connected",
                "since_s": 61.0,
                "rtt_ms": 0.4,
                "repositories": 1,
                "score": 0.0,
            },
            {"peer": NODE, "address": None, "direction": None, "state": "known", "score": 5.0},
        ]

    async def connect(self, address: BootstrapAddress, timeout: float) -> Json:
        self.calls.append(("connect", address, timeout))
        return {"peer": NODE, "seconds": 0.01}

    async def peer(self, peer: PeerId) -> Json:
        self.calls.append(("peer", peer))
        return {
            "peer": str(peer),
            "state": "not connected",
            "score": 25.0,
            "standing": "grey",
            "left_s": 0.0,
            "half_life_s": 600.0,
            "shut_outs": 0,
            "bans": 0,
            "ledger": [
                {"at_ms": NOW_MS, "ago_s": 0.0, "change": 25.0, "total": 25.0, "reason": "RUDE", "barred_s": 0.0}
            ],
        }

    async def bans(self) -> list[Json]:
        return self.banned

    async def ban(self, bans: Sequence[WantedBan], *, merge: bool) -> Json:
        self.calls.append(("ban", tuple(bans), merge))
        return {"changed": len(bans), "unchanged": 0, "skipped": 0, "closed": 1}

    async def unban(self, subject: BanSubject) -> Json:
        self.calls.append(("unban", subject))
        return {"subject": subject_text(subject), "changed": 0}

    async def limits(self) -> list[Json]:
        self.calls.append(("limits",))
        return [limit_row("gossip_rate", 10.0, "default"), limit_row("bytes_burst", 32 << 20, "limits set", 1 << 20, 3)]

    async def set_limits(self, changes: Mapping[str, object]) -> list[Json]:
        self.calls.append(("set_limits", dict(changes)))
        return [limit_row(name, 7, "limits set") for name in changes]

    async def find_providers(self, repository: RepositoryId, timeout: float) -> Json:
        self.calls.append(("find_providers", repository, timeout))
        known = [{"peer": NODE, "addresses": ["127.0.0.1:9001"], "expires_ms": NOW_MS}]
        found = known if repository in self.chains else []
        return {"providers": found, "asked": 3, "hops": 1, "rpcs": 4, "seconds": 0.02}

    async def publication(self, repository: RepositoryId) -> Json:
        if repository not in self.chains:
            raise NothingHere(repository)
        return {
            "documents": [base64.b64encode(d).decode() for d in self.chains[repository].documents],
            "tips": [str(tip) for tip in self.records[repository].tips()],
        }

    async def prepare(self, header: Json, pack: AsyncIterator[bytes]) -> Json:
        match header:
            case {"repository": str(text), "author": str(author), "refs": dict(refs), "head": str(head)}:
                repository = RepositoryId.parse(text)
            case _:
                raise AssertionError(header)
        self.pack = b"".join([piece async for piece in pack])
        genesis = header["genesis"]
        if isinstance(genesis, str):
            self.chains[repository] = IdentityChain.from_documents([base64.b64decode(genesis)])
        wanted = {name: ObjectId(bytes.fromhex(oid)) for name, oid in (refs | self.lie).items()}
        unsigned = prepare_refs(
            self.chains[repository],
            AuthorId.parse(author),
            self.records.get(repository),
            wanted,
            head,
            time.time_ns() // 1_000_000,
            forced=set(map(str, header["force"])) if isinstance(header["force"], list) else set(),
        )
        if unsigned is None:
            return {"session": "", "body": "", "entries": "", "seq": 0, "unchanged": True}
        session = f"session{len(self.waiting)}"
        self.waiting[session] = unsigned
        return {
            "session": session,
            "body": base64.b64encode(unsigned.body).decode(),
            "entries": base64.b64encode(unsigned.entries).decode(),
            "entries_hash": unsigned.header.entries_hash.hex(),
            "seq": unsigned.header.seq,
            "unchanged": False,
            "records": [
                {
                    "header": base64.b64encode(record.header_bytes).decode(),
                    "entries": base64.b64encode(record.entries_bytes).decode(),
                }
                for record in [self.records.get(repository)]
                if record is not None
            ],
            "ancestors": [],
        }

    async def prepare_again(self, session: str) -> Json:
        raise NothingHere(REPOSITORY)

    async def forget(self, session: str) -> Json:
        self.calls.append(("forget", session))
        self.waiting.pop(session, None)
        return {"session": session}

    async def commit(self, session: str, signature: bytes) -> Json:
        unsigned = self.waiting.pop(session)
        record = unsigned.attach(unsigned.header.author, signature)
        repository = unsigned.header.repository
        self.records[repository] = record
        refs = len(record.entries.live())
        return {"repository": str(repository), "seq": record.seq, "refs": refs, "objects": 2, "seconds": 0.1}

    async def apply_identity(self, repository: RepositoryId, document: bytes) -> Json:
        before = self.chains[repository]
        chain = self.chains[repository] = before.extend(document)
        return {
            "repository": str(repository),
            "epoch": chain.epoch,
            "identity_hash": chain.hash.hex(),
            "maintainers": [str(author) for author in chain.current.maintainers],
            "threshold": chain.current.threshold,
            "unchanged": chain is before,
        }


@contextlib.contextmanager
def serving(control: ScriptedControl, path: Path) -> Iterator[None]:
    """Serve ``control`` at ``path`` from a thread of its own, as another process would."""
    up, down = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with control_server(control, path):
            up.set()
            await down.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert up.wait(5)
        yield
    finally:
        loop.call_soon_threadsafe(down.set)
        thread.join(10)
        loop.close()
