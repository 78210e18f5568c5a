"""Real nodes in this process, on loopback, each in a task of its own; and maintainers who publish on them."""

import asyncio
import base64
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from guts.addresses import Address, BootstrapAddress, RepositoryUrl
from guts.clock import Now
from guts.config import Config
from guts.git.source import SourceRepository
from guts.identity import SigningKey, domain
from guts.ids import ObjectId, PeerId, RepositoryId
from guts.keystore import load_or_create_node_key
from guts.net.handshake_limits import DEFAULT_HANDSHAKE_LIMITS, HandshakeLimits
from guts.node.disk import space_of
from guts.node.limits import Patience
from guts.node.node import Node, read_clock, running
from guts.store import repositories as table
from guts.store import scores as score_table
from guts.sync.quotas import Space
from guts.trust.chain import IdentityChain
from guts.trust.identity_document import IdentityDocument
from guts.trust.signed_refs import KIND
from tests.support.repositories import git

NETWORK = "test"
SOON = 20.0
"""Seconds until a test gives up waiting for what should take milliseconds."""


async def eventually(holds: Callable[[], bool] | Callable[[], Awaitable[bool]], timeout: float = SOON) -> None:  # noqa: ASYNC109
    """Return when ``holds`` does."""
    async with asyncio.timeout(timeout):
        while True:
            answer = holds()
            if await answer if isinstance(answer, Awaitable) else answer:
                return
            await asyncio.sleep(0.01)


def config_of(home: Path, doors: tuple[BootstrapAddress, ...] = (), **flags: str) -> Config:
    """Return the config of a node at ``home``; ``flags`` have ``__`` for the dot."""
    settings = {
        "network.listen_addr": "127.0.0.1:0",
        "network.network_name": NETWORK,
        "network.bootstrap_nodes": ",".join(map(str, doors)),
        **{name.replace("__", "."): value for name, value in flags.items()},
    }
    return Config.load(settings, {"GUTS_HOME": str(home)})


def files(root: Path) -> dict[str, str]:
    """Return what is on disk under ``root``: each file's name and the hash of its content, and each directory."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "directory"
    return found


@dataclass
class RunningNode:
    """A node at ``home``, and how to stop it and start it again."""

    home: Path
    config: Config
    patience: Patience = field(default_factory=Patience)
    client: bool = False
    clock: Callable[[], Now] = read_clock
    space: Callable[[Path], Space] = space_of
    handshakes: HandshakeLimits = DEFAULT_HANDSHAKE_LIMITS
    _node: Node | None = None
    _task: "asyncio.Task[None] | None" = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        """Raises: what the node raises when it can't start."""
        started: asyncio.Future[Node] = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self._run(started))
        self._task.add_done_callback(lambda _: started.cancel())
        await asyncio.wait([started])
        if started.cancelled():
            await self.ended()
        self._node = started.result()

    async def _run(self, started: "asyncio.Future[Node]") -> None:
        key = load_or_create_node_key(self.config.network.keypair)
        async with running(
            self.config,
            key,
            client=self.client,
            stop=self._stop,
            patience=self.patience,
            clock=self.clock,
            space=self.space,
            handshakes=self.handshakes,
        ) as node:
            started.set_result(node)
            await self._stop.wait()

    async def stop(self) -> float:
        """Stop gracefully and return how many seconds that took. Raises: what the node ended in."""
        begun = time.monotonic()
        self._stop.set()
        task, self._task = self._task, None
        if task is not None:
            await task
        return time.monotonic() - begun

    async def ended(self) -> None:
        """Wait until the node has ended by itself. Raises: what it ended in."""
        assert self._task is not None
        task, self._task = self._task, None
        await task

    @property
    def alive(self) -> bool:
        """Whether the node runs."""
        return self._task is not None and not self._task.done()

    @property
    def wanted(self) -> bool:
        """Whether it was started, and nobody has stopped it."""
        return self._task is not None

    @property
    def node(self) -> Node:
        """The node."""
        assert self._node is not None
        return self._node

    @property
    def id(self) -> PeerId:
        """The node's id."""
        return self.node.control._service.peers.me.peer

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self.node.control._listening[0]

    @property
    def hint(self) -> BootstrapAddress:
        """What others dial."""
        return BootstrapAddress(self.address.ip, self.address.port, self.id)

    @property
    def repositories(self) -> Path:
        """The folder of its repositories."""
        return self.config.paths.repositories

    def bare(self, repository: RepositoryId) -> Path:
        """Where it has ``repository``."""
        return self.node.repositories.path(repository)

    async def seed(
        self,
        repository: RepositoryId,
        *hints: BootstrapAddress,
        timeout: float = SOON,  # noqa: ASYNC109
    ) -> dict[str, object]:
        """As the command."""
        return await self.node.control.seeding.seed(repository, hints, timeout)

    async def canonical(self, repository: RepositoryId) -> dict[str, ObjectId]:
        """Return the canonical refs in its database."""
        return await self.node.repositories.database.read(table.load_canonical, repository)

    async def score(self, peer: PeerId) -> score_table.StoredScore | None:
        """Return what its database says about ``peer``."""
        await self.node.control._persistence.drain()
        rows = await self.node.repositories.database.read(score_table.load_scores)
        return next((row for row in rows if row.peer == peer), None)

    async def reasons(self, peer: PeerId) -> list[str]:
        """Return the codes of the faults that its database counts for ``peer``, oldest first."""
        await self.node.control._persistence.drain()
        return [row.reason for row in await self.node.repositories.database.read(score_table.load_ledger, peer)]

    async def has(self, repository: RepositoryId, refs: Mapping[str, ObjectId]) -> bool:
        """Tell whether ``refs`` are what it shows of ``repository``."""
        return await self.canonical(repository) == dict(refs)

    def connected_to(self, peer: PeerId) -> bool:
        """Tell whether it has a ready connection to ``peer``."""
        return self.node.control._service.peers.connection_to(peer) is not None

    async def shows_what_it_says(self, repository: RepositoryId) -> None:
        """Assert that git's refs are the canonical refs, whole, and that nothing is left over."""
        bare = self.bare(repository)
        await eventually(lambda: self._projected(repository))
        shown = {}
        for line in git(bare, "for-each-ref", "--format=%(objectname) %(refname)").splitlines():
            oid, _, name = line.partition(" ")
            shown[name] = ObjectId(bytes.fromhex(oid))
        assert shown == await self.canonical(repository)
        stored = await self.node.repositories.stored(repository)
        assert stored is not None
        assert git(bare, "symbolic-ref", "HEAD") == stored.summary.head
        git(bare, "fsck", "--full", "--strict", "--no-dangling")
        # Another fetch may be under way.
        await eventually(lambda: no_leftovers(bare))

    async def _projected(self, repository: RepositoryId) -> bool:
        stored = await self.node.repositories.stored(repository)
        return stored is not None and stored.summary.projected


def no_leftovers(bare: Path) -> bool:
    """Tell whether nothing in ``bare`` is a quarantine, a lock or a temporary file."""
    return not [
        path for path in bare.rglob("*") if path.name.startswith(("incoming-", "tmp_")) or path.suffix == ".lock"
    ]


class NotCloned(Exception):
    """A clone failed; the text is what was said on stderr, an error as JSON last."""


class World:
    """The nodes of one test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.nodes: list[RunningNode] = []

    async def node(
        self,
        name: str,
        *,
        doors: tuple[BootstrapAddress, ...] = (),
        patience: Patience | None = None,
        space: Callable[[Path], Space] = space_of,
        handshakes: HandshakeLimits = DEFAULT_HANDSHAKE_LIMITS,
        **flags: str,
    ) -> RunningNode:
        """Return a new node that runs."""
        config = config_of(self.root / name, doors, **flags)
        node = RunningNode(self.root / name, config, patience or Patience(), space=space, handshakes=handshakes)
        await node.start()
        self.nodes.append(node)
        return node

    def maintainer(self, name: str = "example", key: SigningKey | None = None) -> "Maintainer":
        """Return a maintainer, a new one where no ``key`` is given, with a new repository of one commit."""
        return Maintainer(self.root / f"{name}.work", name, key)

    async def clone(self, url: RepositoryUrl, target: str, doors: tuple[BootstrapAddress, ...] = ()) -> Path:
        """Return the clone of ``url`` that is made where no node runs. Raises: ``NotCloned``."""
        path = self.root / target
        settings = {
            "GUTS_HOME": str(self.root / f"{target}.home"),
            "GUTS_NETWORK__NETWORK_NAME": NETWORK,
            "GUTS_NETWORK__BOOTSTRAP_NODES": ",".join(map(str, doors)),
        }
        command = [sys.executable, "-m", "guts", "clone", str(url), str(path), "--json"]
        done = await asyncio.to_thread(
            subprocess.run, command, env={**os.environ, **settings}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise NotCloned(done.stderr)
        return path

    async def close(self) -> None:
        """Stop every node."""
        for node in reversed(self.nodes):
            await node.stop()


class Maintainer:
    """A person with an author key and a working repository, who publishes on a node as the command does."""

    def __init__(self, path: Path, name: str, key: SigningKey | None = None) -> None:
        self.path = path
        self.key = key or SigningKey.generate()
        path.mkdir(parents=True)
        git(path, "init", "-q", "-b", "main")
        self.commit("first")
        document = IdentityDocument.genesis(
            name=name,
            description="",
            default_branch="main",
            maintainers=(self.key.author_id,),
            created_ms=time.time_ns() // 1_000_000,
            nonce=os.urandom(16),
        )
        self.genesis = document.sign(self.key)
        self.chain = IdentityChain.from_documents([self.genesis])
        self.repository = self.chain.repository

    @property
    def url(self) -> RepositoryUrl:
        """The repository's URL without a hint."""
        return RepositoryUrl(self.repository, self.chain.current.name)

    def commit(self, text: str, data: bytes | None = None) -> ObjectId:
        """Commit a file named ``text``."""
        (self.path / text).write_bytes(text.encode() + b"\n" if data is None else data)
        git(self.path, "add", "--all")
        git(self.path, "commit", "-q", "-m", text)
        return self.tip()

    def tip(self, name: str = "HEAD") -> ObjectId:
        """Return the object that ``name`` is."""
        return ObjectId(bytes.fromhex(git(self.path, "rev-parse", name)))

    def refs(self) -> dict[str, ObjectId]:
        """Return the repository's refs."""
        found = {}
        for line in git(self.path, "for-each-ref", "--format=%(objectname) %(refname)").splitlines():
            oid, _, name = line.partition(" ")
            found[name] = ObjectId(bytes.fromhex(oid))
        return found

    async def prepare(
        self, node: RunningNode, *force: str, move_head: bool = False, prune: bool = False
    ) -> dict[str, object]:
        """Take the first of the two steps."""
        known = await node.node.repositories.stored(self.repository)
        tips: list[str] = []
        if known is not None:
            publication = await node.node.control.publication(self.repository)
            told = publication["tips"]
            assert isinstance(told, list)
            tips = told
        refs = self.refs()
        header: dict[str, object] = {
            "genesis": None if known is not None else base64.b64encode(self.genesis).decode(),
            "repository": str(self.repository),
            "author": str(self.key.author_id),
            "refs": {name: str(oid) for name, oid in refs.items()},
            "head": git(self.path, "symbolic-ref", "HEAD"),
            "move_head": move_head,
            "force": list(force),
            "prune": prune,
        }
        source = await SourceRepository.open(self.path)
        async with source.pack(set(refs.values()), [ObjectId(bytes.fromhex(tip)) for tip in tips]) as pack:
            return await node.node.control.prepare(header, pack)

    def sign(self, prepared: Mapping[str, object]) -> bytes:
        """Return the signature over what was prepared."""
        body = prepared["body"]
        assert isinstance(body, str)
        return self.key.sign(domain(KIND), base64.b64decode(body))

    async def publish(self, node: RunningNode, *force: str, prune: bool = False) -> dict[str, object]:
        """Publish all refs on ``node``."""
        prepared = await self.prepare(node, *force, prune=prune)
        if prepared["unchanged"]:
            return prepared
        session = prepared["session"]
        assert isinstance(session, str)
        return await node.node.control.commit(session, self.sign(prepared))


async def pieces(data: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    """Yield ``data`` in pieces."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
