"""What a node does with a peer that asks or says what no honest peer does: end it by name, serve the others."""

import asyncio
import contextlib
import os
import struct
from collections.abc import Callable

import pytest

from guts import canonical
from guts.identity import SigningKey
from guts.ids import ObjectId, PeerId, RepositoryId
from guts.limits import DEFAULTS
from guts.net.stream import StreamFailed
from guts.node import transfers
from guts.node.git_service import CAPABILITY
from guts.node.limits import Patience
from guts.records import PeerRecord
from guts.service.serve_queue import MAX_WAITING_PER_PEER
from guts.wire import codec
from guts.wire.limits import MAX_MESSAGE_BYTES, MAX_OBJECT_IDS
from guts.wire.messages import (
    Error,
    ErrorCode,
    GetObjects,
    GetRefs,
    Goodbye,
    GoodbyeCode,
    Gossip,
    Hello,
    HelloAck,
    Message,
    NewRepository,
    Objects,
    ObjectsStatus,
    Ping,
    Refs,
    RefsAnswer,
    RefsQuery,
    RefsStatus,
    ResetCode,
    Subscribe,
)
from tests.support.bad_peer import BadHolder, BadPeer, Offer, RawPeer, data_frame, intruder, now_ms
from tests.support.nodes import Maintainer, RunningNode, World, eventually, files
from tests.support.peers import repository

MAX_LOADS_PER_PEER = int(DEFAULTS["requests_per_peer"])
MAX_SERVES = int(DEFAULTS["serves"])
MAX_SERVES_PER_PEER = int(DEFAULTS["serves_per_peer"])

ALL = b"\xff" * 8
NOBODY = RepositoryId(bytes(32))


async def server(world: World, patience: Patience | None = None) -> tuple[RunningNode, Maintainer]:
    """Return a node that holds a repository."""
    node = await world.node("node", patience=patience)
    maintainer = world.maintainer()
    await maintainer.publish(node)
    return node, maintainer


async def still_serves(world: World, node: RunningNode, maintainer: Maintainer) -> None:
    """Assert that an honest peer gets everything from ``node``."""
    replica = await world.node("honest")
    await replica.seed(maintainer.repository, node.hint)
    await replica.shows_what_it_says(maintainer.repository)
    await node.shows_what_it_says(maintainer.repository)


async def banned(node: RunningNode, peer: PeerId, code: str) -> None:
    """Assert that ``node`` has banned ``peer`` for ``code``, and tells it so when it comes back."""
    assert await node.reasons(peer) == [code]
    score = await node.score(peer)
    assert score is not None
    assert score.barred_until is not None


async def blamed(node: RunningNode, peer: PeerId, code: str) -> None:
    """Wait until ``node`` has counted a fault of ``peer``, and assert that it is ``code``."""

    async def counted() -> bool:
        return bool(await node.reasons(peer))

    await eventually(counted)
    assert await node.reasons(peer) == [code]


# --- messages that the state of the connection does not allow -------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        Ping(1),
        GetRefs(1, (RefsQuery(NOBODY, 0, b"", ()),)),
        Refs(1, ()),
        GetObjects(1, NOBODY, 1, ALL, "", 0, 0),
        Subscribe((NOBODY,)),
        Gossip("repositories", b"x"),
        Error(0, ErrorCode.BUSY),
    ],
    ids=lambda message: type(message).__name__,
)
async def test_node_bans_who_speaks_before_the_hello(world: World, message: Message) -> None:
    node = await world.node("node")
    async with intruder(node, hello=False) as peer:
        peer.send(message)
        await peer.is_dropped()
    await banned(node, peer.id, "OUT_OF_STATE")
    async with intruder(node, peer.key, hello=False) as again:
        await again.is_dropped()
        (goodbye,) = again.goodbyes()
        assert goodbye.code is GoodbyeCode.BANNED
        assert goodbye.retry_after_s > 3600


async def test_node_bans_who_says_hello_twice(world: World) -> None:
    node = await world.node("node")
    async with intruder(node) as peer:
        peer.send(peer.hello())
        await peer.is_dropped()
    assert len(await node.reasons(peer.id)) == 1


async def test_node_bans_a_dialler_that_answers_its_own_hello(world: World) -> None:
    node = await world.node("node")
    async with intruder(node, hello=False) as peer:
        peer.send(peer.hello_ack())
        await peer.is_dropped()
    await banned(node, peer.id, "UNEXPECTED_MESSAGE")


async def test_node_bans_who_shows_another_nodes_record(world: World) -> None:
    node = await world.node("node")
    async with intruder(node, hello=False) as peer:
        honest, peer.key = peer.key, SigningKey.generate()
        peer.send(peer.hello())
        await peer.is_dropped()
    assert len(await node.reasons(honest.peer_id)) == 1


async def test_node_drops_who_never_says_hello(world: World) -> None:
    node = await world.node("node")
    async with intruder(node, hello=False) as peer:
        await peer.is_dropped()
    assert await node.reasons(peer.id) == []


# --- answers that nobody asked for ------------------------------------------------------------------------------


async def test_node_blames_who_answers_what_was_not_asked(world: World) -> None:
    node, maintainer = await server(world)
    before = files(node.repositories)
    async with intruder(node) as peer:
        peer.send(Refs(77, (RefsAnswer(maintainer.repository, RefsStatus.NOT_HELD),)))
        await blamed(node, peer.id, "UNSOLICITED_ANSWER")
    assert files(node.repositories) == before


async def test_node_blames_who_answers_about_another_repository(world: World) -> None:
    class Changes(BadHolder):
        async def answer_refs(self, peer: BadPeer, request: GetRefs) -> None:
            peer.send(Refs(request.request, (RefsAnswer(NOBODY, RefsStatus.NOT_HELD),)))

    node, maintainer = await server(world)
    holder = Changes(Offer.honest(maintainer))
    async with holder.visiting(node) as peer:
        await blamed(node, peer.id, "UNSOLICITED_ANSWER")


async def test_node_passes_over_objects_and_errors_that_it_did_not_ask_for(world: World) -> None:
    node, maintainer = await server(world)
    before = files(node.repositories)
    async with intruder(node) as peer:
        for number in range(100):
            peer.send(Objects(number + 1, ObjectsStatus.PACK_FOLLOWS), Error(number + 1, ErrorCode.BUSY))
        peer.send(GetRefs(9, (RefsQuery(maintainer.repository, 0, b"", ()),)))
        assert (await peer.expect(Refs)).answers[0].status is RefsStatus.HELD
    assert await node.reasons(peer.id) == []
    assert files(node.repositories) == before


# --- bytes ------------------------------------------------------------------------------------------------------


def message_of(length: int) -> bytes:
    return b"\x92\x05" + b"x" * (length - 2)


BAD_BYTES: dict[str, Callable[[RawPeer], None]] = {
    "message too long by one": lambda peer: peer.send_message(message_of(64), claimed=MAX_MESSAGE_BYTES + 1),
    "message of 4 GiB": lambda peer: peer.send_message(message_of(64), claimed=2**32 - 1),
    "empty message": lambda peer: peer.send_message(b""),
    "not msgpack": lambda peer: peer.send_message(os.urandom(64)),
    "not canonical": lambda peer: peer.send_message(b"\x92\x03\xcd\x00\x01"),
    "a map": lambda peer: peer.send_message(b"\x92\x03\x81\x01\x01"),
    "trailing bytes": lambda peer: peer.send_message(codec.encode(Ping(1)) + b"\x00"),
    "a bomb of lists": lambda peer: peer.send_message(b"\x93\x05" + b"\x91" * 60_000),
    "frame of an unknown type": lambda peer: peer.send(data_frame(b"x", kind=9)),
    "frame longer than its message": lambda peer: peer.send(b"\x00" + bytes(4) + b"\xff\xff" + b"x"),
    "END on stream 0": lambda peer: peer.send(data_frame(b"", kind=1)),
    "RESET on stream 0": lambda peer: peer.send(data_frame(b"\0\0", kind=2)),
    "a stream that is ours to open": lambda peer: peer.send(data_frame(b"x", stream=2)),
    "stream 2**32 - 1": lambda peer: peer.send(data_frame(b"x", stream=2**32 - 1)),
    "GetRefs as CONTROL": lambda peer: peer.send(
        data_frame(codec.encode(GetRefs(1, (RefsQuery(NOBODY, 0, b"", ()),))), kind=4)
    ),
    "credit of 4 GiB": lambda peer: peer.send(data_frame(struct.pack(">I", 2**32 - 1), kind=3)),
    "an empty transport message": lambda peer: peer.send(b""),
}


@pytest.mark.parametrize("send", BAD_BYTES.values(), ids=BAD_BYTES.keys())
async def test_node_drops_who_sends(world: World, send: Callable[[RawPeer], None]) -> None:
    node = await world.node("node")
    async with RawPeer.meet(node) as peer:
        send(peer)
        await peer.is_dropped()
        await eventually(lambda: not node.node.control._service.peers.connections)
    reasons = await node.reasons(peer.id)
    print(reasons)
    assert len(reasons) == 1
    async with intruder(node):
        pass


async def test_node_drops_what_does_not_decrypt_and_blames_nobody(world: World) -> None:
    """Whoever sits on the line can do that to an honest peer."""
    node = await world.node("node")
    async with RawPeer.meet(node) as peer:
        peer.send_ciphertext(os.urandom(200))
        await peer.is_dropped()
        await eventually(lambda: not node.node.control._service.peers.connections)
    assert await node.reasons(peer.id) == []


async def test_node_survives_what_is_no_handshake(world: World) -> None:
    node = await world.node("node")
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"\x00\x00", b"\x00\x20" + bytes(32), b""):
        reader, writer = await asyncio.open_connection(node.address.ip, node.address.port)
        writer.write(data)
        writer.write_eof()
        await reader.read()
        writer.close()
    async with intruder(node):
        pass


async def test_node_answers_unknown_messages_with_unsupported(world: World) -> None:
    node = await world.node("node")
    async with RawPeer.meet(node) as peer:
        peer.send_message(canonical.encode([99, 1, b"x"]))
        await peer.is_dropped()
    assert await node.reasons(peer.id) == ["OUT_OF_STATE"]


# --- requests for objects ---------------------------------------------------------------------------------------


async def ask(
    peer: BadPeer, repository: RepositoryId, wants: list[ObjectId], haves: list[ObjectId], request: int = 1
) -> tuple[Objects, bytes]:
    """Ask for objects as an honest peer would; return the answer and the pack."""
    stream = peer.connection.open_stream()
    peer.send(GetObjects(request, repository, stream.id, ALL, "", len(wants), len(haves)))
    await stream.write(b"".join(wants) + b"".join(haves))
    await stream.end()
    pack = b""
    try:
        while chunk := await stream.read(65_536):
            pack += chunk
    except StreamFailed:
        pass
    return await peer.expect(Objects), pack


@pytest.mark.parametrize("stream", [2, 2**32 - 1, 2**32 - 2])
async def test_node_survives_a_request_that_names_a_stream_it_may_not_use(world: World, stream: int) -> None:
    node, maintainer = await server(world)
    async with intruder(node) as peer:
        peer.send(GetObjects(1, maintainer.repository, stream, ALL, "", 1, 0))
        peer.send(GetObjects(2, NOBODY, stream, ALL, "", 1, 0))
        await peer.is_dropped()
    assert (await node.reasons(peer.id))[0] == "BAD_STREAM"
    await still_serves(world, node, maintainer)


async def test_node_survives_requests_on_one_stream_again_and_again(world: World) -> None:
    node, maintainer = await server(world)
    tip = maintainer.tip()
    async with intruder(node) as peer:
        stream = peer.connection.open_stream()
        for request in range(1, 9):
            peer.send(GetObjects(request, maintainer.repository, stream.id, ALL, "", 1, 0))
        with contextlib.suppress(StreamFailed):
            await stream.write(tip)
            await stream.end()
        await peer.is_dropped()
    await blamed(node, peer.id, "BAD_STREAM")
    await still_serves(world, node, maintainer)


async def test_node_says_not_held_for_100_000_wants_that_it_has_not(world: World) -> None:
    node, maintainer = await server(world)
    wants = [ObjectId(number.to_bytes(20, "big")) for number in range(100_000)]
    async with intruder(node) as peer:
        answer, pack = await ask(peer, maintainer.repository, wants, [])
        assert (answer.status, pack) == (ObjectsStatus.NOT_HELD, b"")
        answer, pack = await ask(peer, maintainer.repository, [maintainer.tip()], wants)
        assert answer.status is ObjectsStatus.PACK_FOLLOWS
        assert pack[:4] == b"PACK"
    assert await node.reasons(peer.id) == []
    await still_serves(world, node, maintainer)


@pytest.mark.parametrize("too_many", [0, 1])
async def test_node_reads_as_many_wants_as_a_request_may_have(world: World, too_many: int) -> None:
    node, maintainer = await server(world)
    async with intruder(node) as peer:
        stream = peer.connection.open_stream()
        head: list[canonical.Value] = [
            1,
            bytes(maintainer.repository),
            stream.id,
            ALL,
            "",
            MAX_OBJECT_IDS + too_many,
            0,
        ]
        if too_many:
            with pytest.raises(ValueError, match="wants"):
                GetObjects(1, maintainer.repository, stream.id, ALL, "", MAX_OBJECT_IDS + 1, 0)
        else:
            wants = [ObjectId(number.to_bytes(20, "big")) for number in range(MAX_OBJECT_IDS)]
            answer, _ = await ask(peer, maintainer.repository, wants, [])
            assert answer.status is ObjectsStatus.NOT_HELD
    if too_many:
        async with RawPeer.meet(node) as raw:
            raw.send_message(canonical.encode([7, *head]))
            await raw.is_dropped()
        assert await node.reasons(raw.id) == ["BAD_MESSAGE"]


async def test_node_serves_trees_and_blobs_by_id_and_survives_any_mixture(world: World) -> None:
    node, maintainer = await server(world)
    maintainer.commit("second")
    await maintainer.publish(node)
    names = ["HEAD", "HEAD~1", "HEAD^{tree}", "HEAD:first"]
    ids = [maintainer.tip(name) for name in names]
    async with intruder(node) as peer:
        for number, (wants, haves) in enumerate(
            [(ids, []), (ids[2:], []), (ids[:1], ids[1:]), (ids[:1] * 50, ids[3:] * 50), ([], ids), ([], [])], 1
        ):
            answer, pack = await ask(peer, maintainer.repository, wants, haves, number)
            assert answer.status is ObjectsStatus.PACK_FOLLOWS, number
            assert pack[:4] == b"PACK", number
    await still_serves(world, node, maintainer)


@pytest.mark.parametrize(
    ("slices", "filter_", "status"),
    [(bytes(8), "", ObjectsStatus.UNSUPPORTED), (ALL, "blob:none", ObjectsStatus.UNSUPPORTED)],
)
async def test_node_refuses_what_it_does_not_support(
    world: World, slices: bytes, filter_: str, status: ObjectsStatus
) -> None:
    node, maintainer = await server(world)
    async with intruder(node) as peer:
        stream = peer.connection.open_stream()
        peer.send(GetObjects(1, maintainer.repository, stream.id, slices, filter_, 1, 0))
        assert (await peer.expect(Objects)).status is status
        with pytest.raises(StreamFailed):
            await stream.read(1)


async def test_node_gives_up_on_a_request_whose_ids_never_come(world: World) -> None:
    node, maintainer = await server(world, Patience(stall=0.5))
    async with intruder(node) as peer:
        streams = []
        for request in range(1, MAX_SERVES_PER_PEER + MAX_WAITING_PER_PEER + 2):
            stream = peer.connection.open_stream()
            peer.send(GetObjects(request, maintainer.repository, stream.id, ALL, "", 1, 0))
            streams.append(stream)
        busy = await peer.expect(Objects)
        last = MAX_SERVES_PER_PEER + MAX_WAITING_PER_PEER + 1
        assert (busy.request, busy.status) == (last, ObjectsStatus.BUSY)
        for stream in streams:
            with pytest.raises(StreamFailed):
                await stream.read(1)
        # The slots are free again.
        await eventually(lambda: not node.node.control._service.serving.admission._serves)
        answer, _ = await ask(peer, maintainer.repository, [maintainer.tip()], [], 99)
        assert answer.status is ObjectsStatus.PACK_FOLLOWS
    assert await node.reasons(peer.id) == []
    await eventually(lambda: node.node.repositories.locks(maintainer.repository).idle)


async def test_place_for_a_pack_waits_for_ids_no_longer_than_they_take(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert transfers.ids_seconds(GetObjects(1, repository(1), 1, ALL, "", 1, 0)) < 10.1
    assert transfers.ids_seconds(GetObjects(1, repository(1), 1, ALL, "", MAX_OBJECT_IDS, MAX_OBJECT_IDS)) < 60.0
    monkeypatch.setattr(transfers, "IDS_SECONDS", 0.3)
    node, maintainer = await server(world)
    async with intruder(node) as peer:
        stream = peer.connection.open_stream()
        peer.send(GetObjects(1, maintainer.repository, stream.id, ALL, "", 1, 0))
        with pytest.raises(StreamFailed):
            await stream.read(1)
        await eventually(lambda: not node.node.control._service.serving.admission._serves)


async def test_node_makes_as_many_packs_at_a_time_as_it_may_and_no_more(world: World) -> None:
    """Two identities that ask and then say nothing have all places but one; who finds none waits for one."""
    node, maintainer = await server(world)
    serves = node.node.control._service.serving.admission._serves
    async with contextlib.AsyncExitStack() as stack:
        hogs = [await stack.enter_async_context(intruder(node)) for _ in range(2)]
        streams = [peer.connection.open_stream() for peer in hogs for _ in range(MAX_SERVES_PER_PEER)]
        for number, stream in enumerate(streams):
            hog = hogs[number // MAX_SERVES_PER_PEER]
            hog.send(GetObjects(number + 1, maintainer.repository, stream.id, ALL, "", 1, 0))
        await eventually(lambda: sum(serves.values()) == MAX_SERVES - 1)
        async with intruder(node) as follower:
            answer, _ = await ask(follower, maintainer.repository, [maintainer.tip()], [])
            assert answer.status is ObjectsStatus.PACK_FOLLOWS
        third = await stack.enter_async_context(intruder(node))
        stream = third.connection.open_stream()
        third.send(GetObjects(1, maintainer.repository, stream.id, ALL, "", 1, 0))
        await eventually(lambda: sum(serves.values()) == MAX_SERVES)
        async with intruder(node) as follower:
            async with asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(ask(follower, maintainer.repository, [maintainer.tip()], []))
                await eventually(lambda: len(node.node.control._service.serving._queue.in_turn()) == 2)
                stream.reset(ResetCode.CANCELLED)
            assert waiting.result()[0].status is ObjectsStatus.PACK_FOLLOWS
    await eventually(lambda: not serves)
    await still_serves(world, node, maintainer)


@pytest.mark.parametrize("count", [MAX_LOADS_PER_PEER, 4 * MAX_LOADS_PER_PEER])
async def test_node_reads_as_many_refs_at_a_time_as_a_peer_may_ask_for(world: World, count: int) -> None:
    """A read takes as long as it takes, so which question is one too many is not fixed; that one is, is."""
    node, maintainer = await server(world)
    async with RawPeer.meet(node) as raw:
        record = PeerRecord.sign(raw.key, (), (), now_ms(), now_ms() + 1_000_000).encoded
        hello = codec.encode(Hello(1, 1, "raw/1", (), record, now_ms(), os.urandom(8)))
        asks = [codec.encode(GetRefs(n, (RefsQuery(maintainer.repository, 0, b"", ()),))) for n in range(1, count + 1)]
        # One transport message brings them all at once.
        raw.send(data_frame(b"".join(len(data).to_bytes(4, "big") + data for data in (hello, *asks))))
        answers: list[Refs | Error] = []
        while len(answers) < count:
            answers += [message for message in await raw.messages(1) if isinstance(message, Refs | Error)]
    busy = [answer for answer in answers if isinstance(answer, Error)]
    assert bool(busy) == (count > MAX_LOADS_PER_PEER)
    assert all(answer.code is ErrorCode.BUSY for answer in busy)
    assert await node.reasons(raw.id) == []


@pytest.mark.parametrize("size", [1_150_000, 6_000_000], ids=["to its end", "on"])
async def test_node_gives_up_on_a_peer_that_does_not_read_the_pack(world: World, size: int) -> None:
    """The smaller pack fits its first credit and the queue of the sender, so that only its end has to wait."""
    node, maintainer = await server(world, Patience(stall=0.5))
    maintainer.commit("noise", os.urandom(size))
    await maintainer.publish(node)
    async with intruder(node) as peer:
        stream = peer.connection.open_stream()
        peer.send(GetObjects(1, maintainer.repository, stream.id, ALL, "", 1, 0))
        await stream.write(maintainer.tip())
        await stream.end()
        await peer.expect(Objects)
        await eventually(lambda: not node.node.control._service.serving.admission._serves)
        await eventually(lambda: node.node.repositories.locks(maintainer.repository).idle)
        with pytest.raises(StreamFailed):
            await stream.readexactly(size)
    await still_serves(world, node, maintainer)


async def test_node_frees_the_slot_of_a_peer_that_hangs_up_in_the_pack(world: World) -> None:
    node, maintainer = await server(world)
    maintainer.commit("noise", os.urandom(6_000_000))
    await maintainer.publish(node)
    async with intruder(node) as peer:
        stream = peer.connection.open_stream()
        peer.send(GetObjects(1, maintainer.repository, stream.id, ALL, "", 1, 0))
        await stream.write(maintainer.tip())
        await stream.end()
        await peer.expect(Objects)
    await eventually(lambda: not node.node.control._service.serving.admission._serves)
    await eventually(lambda: node.node.repositories.locks(maintainer.repository).idle)
    await still_serves(world, node, maintainer)


# --- gossip -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gossip",
    [
        Gossip("repositories", b"\xc1"),
        Gossip("repositories", codec.encode(Ping(1))),
        Gossip("weather", codec.encode(NewRepository(NOBODY, 0, bytes(32), b""))),
        Gossip("repositories", codec.encode(Goodbye(GoodbyeCode.FULL))),
    ],
)
async def test_node_bans_who_gossips_nonsense(world: World, gossip: Gossip) -> None:
    node, maintainer = await server(world)
    async with intruder(node) as peer:
        peer.send(gossip)
        await peer.is_dropped()
    assert len(await node.reasons(peer.id)) == 1
    await still_serves(world, node, maintainer)


async def test_node_survives_a_flood_of_news_about_what_it_does_not_follow(world: World) -> None:
    node, maintainer = await server(world)
    async with intruder(node) as peer:
        for number in range(1_000):
            repository = RepositoryId(number.to_bytes(32, "big"))
            data = codec.encode(NewRepository(repository, 0, bytes(32), b""))
            peer.send(Gossip("repositories", data))
            if number % 100 == 99:
                peer.send(GetRefs(number, (RefsQuery(repository, 0, b"", ()),)))
                await peer.expect(Refs)
    assert await node.reasons(peer.id) == []
    assert list(node.node.control._service.sync.goals) == [maintainer.repository]


async def test_hello_ack_names_who_answers(world: World) -> None:
    node = await world.node("node")
    async with intruder(node, hello=False) as peer:
        peer.send(peer.hello())
        ack = await peer.expect(HelloAck)
        assert ack.capabilities == ("seed", CAPABILITY)
    async with RawPeer.meet(node) as raw:
        assert raw.id != peer.id
