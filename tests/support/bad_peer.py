"""Hostile peers: programs that speak the protocol well enough to be let in, and then don't keep to it.

``BadPeer`` dials a node, or is dialled through a ``BadHolder``, and sends whatever its test wants, over the real
transport. ``RawPeer`` has no more than the handshake, written by hand, so that frames and messages can be anything.
"""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeVar

from guts.addresses import Address, BootstrapAddress
from guts.errors import Unavailable
from guts.identity import SigningKey, domain
from guts.ids import ObjectId, PeerId
from guts.net.dial import dial
from guts.net.listener import Listener
from guts.net.tcp import TcpConnection
from guts.noise.keys import KeyPair
from guts.records import PeerRecord
from guts.trust.authoring import prepare_refs
from guts.trust.signed_refs import KIND, SignedRefs
from guts.wire import codec
from guts.wire.codec import UnknownMessage
from guts.wire.messages import (
    EncodedRefs,
    GetObjects,
    GetRefs,
    GitService,
    Goodbye,
    Hello,
    HelloAck,
    Message,
    Objects,
    ObjectsStatus,
    Ping,
    Pong,
    Refs,
    RefsAnswer,
    RefsStatus,
    Subscribe,
)
from tests.support.node_by_hand import NodeByHand, frame
from tests.support.nodes import NETWORK, SOON, Maintainer, RunningNode, eventually
from tests.support.repositories import ENVIRONMENT, git

M = TypeVar("M")
DAY_MS = 86_400_000
CAPABILITIES = ("seed", "git-service")


def now_ms() -> int:
    """Return the wall clock."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Offer:
    """What a holder says it has, and the pack that it gives."""

    answer: RefsAnswer
    pack: bytes

    @classmethod
    def honest(cls, maintainer: Maintainer, record: SignedRefs | None = None) -> Self:
        """Return what an honest holder would offer of what ``maintainer`` has now."""
        signed = record or sign(maintainer)
        encoded = EncodedRefs(signed.header_bytes, signed.entries_bytes)
        answer = RefsAnswer(maintainer.repository, RefsStatus.HELD, (maintainer.genesis,), (), (encoded,))
        return cls(answer, pack_of(maintainer.path, *maintainer.refs().values()))

    def with_record(self, *records: SignedRefs) -> Self:
        """Return the same offer with other records."""
        encoded = tuple(EncodedRefs(record.header_bytes, record.entries_bytes) for record in records)
        return replace(self, answer=replace(self.answer, records=encoded))


def sign(
    maintainer: Maintainer,
    previous: SignedRefs | None = None,
    refs: dict[str, ObjectId] | None = None,
    *,
    forced: frozenset[str] = frozenset(),
    now: int | None = None,
) -> SignedRefs:
    """Return the record over ``refs`` (its own, by default) that ``maintainer`` signs after ``previous``."""
    unsigned = prepare_refs(
        maintainer.chain,
        maintainer.key.author_id,
        previous,
        maintainer.refs() if refs is None else refs,
        "refs/heads/main",
        now_ms() if now is None else now,
        forced=forced,
    )
    assert unsigned is not None
    return unsigned.attach(maintainer.key.author_id, maintainer.key.sign(domain(KIND), unsigned.body))


def pack_of(path: Path, *tips: ObjectId, without: tuple[ObjectId, ...] = ()) -> bytes:
    """Return a pack of what ``tips`` reach and ``without`` don't."""
    revisions = "".join([f"{tip}\n" for tip in tips] + [f"^{tip}\n" for tip in without])
    command = ["git", "pack-objects", "--revs", "--stdout", "-q"]
    return subprocess.run(
        command, cwd=path, env=ENVIRONMENT, input=revisions.encode(), check=True, capture_output=True
    ).stdout


def pack_of_objects(path: Path, *names: str) -> bytes:
    """Return a pack of exactly the objects ``names``."""
    command = ["git", "pack-objects", "--stdout", "-q"]
    ids = "".join(f"{git(path, 'rev-parse', name)}\n" for name in names)
    return subprocess.run(
        command, cwd=path, env=ENVIRONMENT, input=ids.encode(), check=True, capture_output=True
    ).stdout


class BadPeer:
    """One connection to a node; ``received`` is what the node said, in order."""

    def __init__(self, key: SigningKey, connection: TcpConnection) -> None:
        self.key = key
        self.connection = connection
        self.received: list[Message | UnknownMessage] = []
        self._news = asyncio.Condition()
        self._read = 0
        self.closed = False
        self._task = asyncio.create_task(self._run())
        self.on_message: Callable[[Message], Awaitable[None]] | None = None

    @property
    def id(self) -> PeerId:
        """Who it says it is, and proves to be."""
        return self.key.peer_id

    async def _run(self) -> None:
        await self.connection.run(self._take)
        async with self._news:
            self.closed = True
            self._news.notify_all()

    async def _take(self, message: Message | UnknownMessage) -> None:
        if isinstance(message, Ping):
            self.connection.send(Pong(message.nonce))
        async with self._news:
            self.received.append(message)
            self._news.notify_all()
        if self.on_message is not None and not isinstance(message, UnknownMessage):
            await self.on_message(message)

    def send(self, *messages: Message) -> None:
        """Send ``messages``."""
        for message in messages:
            self.connection.send(message)

    async def expect(self, kind: type[M]) -> M:
        """Return the next message of ``kind``, passing over others."""
        async with asyncio.timeout(SOON), self._news:
            while True:
                while self._read < len(self.received):
                    message = self.received[self._read]
                    self._read += 1
                    if isinstance(message, kind):
                        return message
                assert not self.closed, f"closed, and no {kind.__name__} came: {self.received[-3:]}"
                await self._news.wait()

    async def is_dropped(self) -> None:
        """Wait until the node has closed the connection."""
        async with asyncio.timeout(SOON), self._news:
            await self._news.wait_for(lambda: self.closed)

    def goodbyes(self) -> list[Goodbye]:
        """Return what the node said when it left."""
        return [message for message in self.received if isinstance(message, Goodbye)]

    def record(self, addresses: tuple[Address, ...] = ()) -> bytes:
        """Return its PeerRecord."""
        return PeerRecord.sign(self.key, addresses, ("seed",), now_ms(), now_ms() + DAY_MS).encoded

    def hello(self) -> Hello:
        """Return an honest Hello."""
        return Hello(1, 1, "bad/1", CAPABILITIES, self.record(), now_ms(), os.urandom(8))

    def hello_ack(self) -> HelloAck:
        """Return an honest HelloAck."""
        return HelloAck(1, "bad/1", CAPABILITIES, self.record(), now_ms(), os.urandom(8))

    async def introduce(self) -> Self:
        """Say hello as the dialler should, and hear the answer."""
        self.send(self.hello())
        await self.expect(HelloAck)
        return self

    async def ended(self) -> None:
        """Wait until the connection has ended."""
        await self._task

    async def close(self) -> None:
        """Hang up."""
        await self.connection.close()
        await self._task


@contextlib.asynccontextmanager
async def intruder(node: RunningNode, key: SigningKey | None = None, *, hello: bool = True) -> AsyncIterator[BadPeer]:
    """Enter with a hostile peer that has dialled ``node``, and said ``hello``."""
    key = key or SigningKey.generate()
    connection = await dial(node.address, key=key, network=NETWORK, static=KeyPair.generate())
    peer = BadPeer(key, connection)
    try:
        yield await peer.introduce() if hello else peer
    finally:
        await peer.close()


class BadHolder:
    """A node that others dial as a holder of a repository; its methods are what a test makes it do."""

    def __init__(self, offer: Offer, key: SigningKey | None = None) -> None:
        self.key = key or SigningKey.generate()
        self.offer = offer
        self.previous: SignedRefs | None = None
        self.peers: list[BadPeer] = []
        self.asked: list[GetRefs] = []
        self.wanted: list[GetObjects] = []
        self.address = Address("127.0.0.1", 1)

    @property
    def hint(self) -> BootstrapAddress:
        """What others dial."""
        return BootstrapAddress(self.address.ip, self.address.port, self.key.peer_id)

    async def answer_refs(self, peer: BadPeer, request: GetRefs) -> None:
        """Answer a GetRefs: with the offer, to whoever knows less; overridden by what lies."""
        answers = []
        for query in request.queries:
            if query.repository == self.offer.answer.repository:
                answers.append(self.offer.answer)
            else:
                answers.append(RefsAnswer(query.repository, RefsStatus.NOT_HELD))
        peer.send(Refs(request.request, tuple(answers)))

    async def answer_objects(self, peer: BadPeer, request: GetObjects) -> None:
        """Answer a GetObjects with the offer's pack; overridden by what lies."""
        stream = peer.connection.stream(request.stream)
        peer.send(Objects(request.request, ObjectsStatus.PACK_FOLLOWS, 0))
        await stream.write(self.offer.pack)
        await stream.end()

    async def answer_git(self, peer: BadPeer, message: GitService) -> None:
        """Answer a request of git's own protocol; overridden by what lies."""
        raise AssertionError(message)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Self]:
        """Enter with the holder listening."""
        listener = await Listener.start(
            Address("127.0.0.1", 0),
            key=self.key,
            network=NETWORK,
            static=KeyPair.generate(),
            on_connection=self._met,
        )
        self.address = listener.address
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(listener.run())
            try:
                yield self
            finally:
                listener.close()
                for peer in self.peers:
                    await peer.close()

    @contextlib.asynccontextmanager
    async def visiting(self, node: RunningNode) -> AsyncIterator[BadPeer]:
        """Enter with the holder having dialled ``node`` and told that it holds the repository."""
        async with asyncio.TaskGroup() as tasks, intruder(node, self.key) as peer:
            peer.on_message = self._handler(peer, tasks)
            peer.send(Subscribe((self.offer.answer.repository,)))
            yield peer

    async def _met(self, connection: TcpConnection) -> None:
        peer = BadPeer(self.key, connection)
        self.peers.append(peer)
        async with asyncio.TaskGroup() as tasks:
            peer.on_message = self._handler(peer, tasks)
            await peer.ended()

    def _handler(self, peer: BadPeer, tasks: asyncio.TaskGroup) -> Callable[[Message], Awaitable[None]]:
        async def on_message(message: Message) -> None:
            match message:
                case Hello():
                    peer.send(peer.hello_ack())
                case GetRefs():
                    self.asked.append(message)
                    await self.answer_refs(peer, message)
                case GetObjects():
                    self.wanted.append(message)
                    # The node may hang up in the middle.
                    tasks.create_task(_unless_cut(self.answer_objects(peer, message)))
                case GitService():
                    tasks.create_task(_unless_cut(self.answer_git(peer, message)))
                case _:
                    pass

        return on_message


async def _unless_cut(work: Awaitable[None]) -> None:
    with contextlib.suppress(Unavailable):
        await work


class RawPeer:
    """A handshake by hand, and then any bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, node: NodeByHand) -> None:
        self._reader = reader
        self._writer = writer
        self._node = node
        self.id = PeerId(node.public)
        self._heard = b""

    @classmethod
    @contextlib.asynccontextmanager
    async def meet(cls, node: RunningNode, seed: bytes | None = None) -> AsyncIterator[Self]:
        """Enter with a peer that ``node`` has authenticated."""
        reader, writer = await asyncio.open_connection(node.address.ip, node.address.port)
        by_hand = NodeByHand(initiator=True, seed=seed or os.urandom(32), network=NETWORK)
        try:
            writer.write(by_hand.hello())
            by_hand.meet(await _framed(reader))
            writer.write(by_hand.introduce())
            peer = cls(reader, writer, by_hand)
            # What comes together with the handshake belongs to nobody yet.
            connections = node.node.control._service.peers.connections
            await eventually(lambda: peer.id in [connection.peer for connection in connections.values()])
            yield peer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    @property
    def key(self) -> SigningKey:
        """Its node key."""
        return SigningKey(bytes(self._node.key))

    async def messages(self, count: int) -> list[Message]:
        """Return the next ``count`` messages on stream 0."""
        found: list[Message] = []
        async with asyncio.timeout(SOON):
            while len(found) < count:
                plaintext = self._node.decrypt(await _framed(self._reader))
                while plaintext:
                    size = 7 + int.from_bytes(plaintext[5:7], "big")
                    if plaintext[:5] == bytes(5):
                        self._heard += plaintext[7:size]
                    plaintext = plaintext[size:]
                while len(self._heard) >= 4 and len(self._heard) >= (end := 4 + int.from_bytes(self._heard[:4], "big")):
                    found.append(codec.decode(self._heard[4:end]))
                    self._heard = self._heard[end:]
        return found

    def send(self, plaintext: bytes) -> None:
        """Send ``plaintext`` as one transport message."""
        self._writer.write(self._node.encrypt(plaintext))

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    def hang_up(self) -> None:
        """Close without a word."""
        self._writer.close()

    def send_ciphertext(self, data: bytes) -> None:
        """Send bytes that were never encrypted."""
        self._writer.write(frame(data))

    def send_message(self, data: bytes, claimed: int | None = None) -> None:
        """Send ``data`` as a message on stream 0, in as many frames as it takes."""
        whole = (len(data) if claimed is None else claimed).to_bytes(4, "big") + data
        for start in range(0, len(whole), 60_000):
            self.send(data_frame(whole[start : start + 60_000]))

    async def is_dropped(self) -> None:
        """Wait until the node has closed the connection."""
        async with asyncio.timeout(SOON):
            with contextlib.suppress(ConnectionError):
                while await self._reader.read(65_536):
                    pass


def data_frame(payload: bytes, stream: int = 0, kind: int = 0) -> bytes:
    """Return a frame; see docs/protocol.md §3 for ``kind``."""
    return bytes([kind]) + stream.to_bytes(4, "big") + len(payload).to_bytes(2, "big") + payload


async def _framed(reader: asyncio.StreamReader) -> bytes:
    length = await reader.readexactly(2)
    return length + await reader.readexactly(int.from_bytes(length, "big"))
