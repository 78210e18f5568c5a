"""Hostile requests of git's own protocol: to a node, over the wire."""

import contextlib
import random

import pytest

from guts.git.git_requests import MAX_FETCH_BYTES
from guts.git.pkt_line import Mark, encode
from guts.ids import ObjectId, RepositoryId
from guts.limits import DEFAULTS
from guts.net.stream import Stream, StreamFailed
from guts.node.limits import Patience
from guts.wire.messages import UPLOAD_PACK, Error, ErrorCode, GitService, ResetCode
from tests.support.bad_peer import BadPeer, intruder
from tests.support.fetch_requests import done, fetch_request, response
from tests.support.nodes import Maintainer, RunningNode, World, eventually
from tests.support.repositories import git

MAX_GIT = int(DEFAULTS["git"])
MAX_GIT_PER_PEER = int(DEFAULTS["git_per_peer"])

NOBODY = RepositoryId(bytes(32))


async def server(world: World, patience: Patience | None = None) -> tuple[RunningNode, Maintainer]:
    node, maintainer = await world.node("server", patience=patience), world.maintainer()
    await maintainer.publish(node)
    return node, maintainer


async def asked(peer: BadPeer, repository: RepositoryId, data: bytes, request: int = 1) -> tuple[bytes, int | None]:
    """Send one request; return the answer, and the code of the reset that it ended in."""
    stream = peer.connection.open_stream()
    peer.send(GitService(request, repository, stream.id, UPLOAD_PACK))
    answer = b""
    try:
        await stream.write(data)
        await stream.end()
        while chunk := await stream.read(65_536):
            answer += chunk
    except StreamFailed as error:
        return answer, error.reset
    return answer, None


async def still_answers(world: World, node: RunningNode, maintainer: Maintainer) -> None:
    """A stranger gets what it asks for, nothing is held back, and no child is left."""
    await eventually(lambda: not node.node.control._service.serving.admission._git)
    async with intruder(node) as peer:
        answer, reset = await asked(peer, maintainer.repository, done(maintainer.tip()))
        assert reset is None
        assert response(answer).pack[:4] == b"PACK"
        assert response(answer).whole
    await eventually(lambda: node.node.repositories.locks(maintainer.repository).idle)


def cut(data: bytes) -> bytes:
    return data[:-1]


@pytest.mark.parametrize(
    "data",
    [b"", b"garbage", b"0000", b"\x00" * 100_000, b"GET / HTTP/1.1\r\n\r\n", cut(fetch_request("want " + "1" * 40))],
)
async def test_node_counts_garbage_instead_of_a_request(world: World, data: bytes) -> None:
    node, maintainer = await server(world)
    async with intruder(node) as peer:
        await asked(peer, maintainer.repository, data)
        await peer.is_dropped()
    assert (await node.reasons(peer.id))[0] in ("BAD_GIT_REQUEST", "BAD_PKT_LINE")
    await still_answers(world, node, maintainer)


@pytest.mark.parametrize(
    "data",
    [
        fetch_request(command="ls-refs"),
        fetch_request(command="object-info"),
        fetch_request("want-ref refs/heads/main", "done"),
        fetch_request("want " + "1" * 40, "packfile-uris https", "done"),
        fetch_request("want " + "1" * 40, "sideband-all", "done"),
        fetch_request("want " + "1" * 40, "--upload-pack=touch /tmp/x", "done"),
    ],
)
async def test_node_refuses_what_a_later_version_may_ask_and_holds_it_against_nobody(world: World, data: bytes) -> None:
    node, maintainer = await server(world)
    async with intruder(node) as peer:
        assert await asked(peer, maintainer.repository, data) == (b"", ResetCode.REFUSED)
        assert (await peer.expect(Error)).code is ErrorCode.REFUSED
        assert await asked(peer, NOBODY, data, 2) == (b"", ResetCode.NOT_FOUND)
        assert (await peer.expect(Error)).code is ErrorCode.NOT_FOUND
    assert await node.reasons(peer.id) == []
    await still_answers(world, node, maintainer)


async def test_node_refuses_a_service_that_it_does_not_know(world: World) -> None:
    node, maintainer = await server(world)
    async with intruder(node) as peer:
        stream = peer.connection.open_stream()
        peer.send(GitService(7, maintainer.repository, stream.id, 2))
        error = await peer.expect(Error)
        assert (error.request, error.code) == (7, ErrorCode.UNSUPPORTED)
        with pytest.raises(StreamFailed) as caught:
            await stream.read(1)
        assert caught.value.reset == ResetCode.REFUSED
    await still_answers(world, node, maintainer)


@pytest.mark.parametrize(
    ("filter_", "why"),
    [
        ("sparse:oid=main:first", "filter 'sparse:oid' not supported"),
        ("sparse:path=/etc/passwd", "sparse:path filters support has been dropped"),
        ("tree:9", "tree filter allows max depth 8, but got 9"),
        ("combine:blob:none+sparse:oid=main:first", "filter 'sparse:oid' not supported"),
        ("combine:tree:1+tree:99", "tree filter allows max depth 8, but got 99"),
        ("nonsense", "invalid filter-spec"),
    ],
)
async def test_node_applies_no_filter_that_costs_much(world: World, filter_: str, why: str) -> None:
    node, maintainer = await server(world)
    async with intruder(node) as peer:
        data = fetch_request(f"want {maintainer.tip()}", f"filter {filter_}", "done")
        answer, reset = await asked(peer, maintainer.repository, data)
        assert reset is None
        assert b"PACK" not in answer
        # Some are told in the answer, some end it without a word.
        assert why.encode() in answer or answer == b""
    assert await node.reasons(peer.id) == []
    await still_answers(world, node, maintainer)


@pytest.mark.parametrize(
    "filter_", ["blob:none", "blob:limit=1k", "tree:8", "object:type=commit", "combine:blob:none+tree:0"]
)
async def test_node_applies_the_filters_that_cost_little(world: World, filter_: str) -> None:
    node, maintainer = await server(world)
    async with intruder(node) as peer:
        data = fetch_request(f"want {maintainer.tip()}", f"filter {filter_}", "done")
        answer, _ = await asked(peer, maintainer.repository, data)
        assert response(answer).pack[:4] == b"PACK"


@pytest.mark.parametrize("more", [0, 1])
async def test_request_has_as_many_bytes_as_it_may_and_no_more(world: World, more: int) -> None:
    node, maintainer = await server(world)
    head = fetch_request(f"want {maintainer.tip()}")[:-4]
    line = encode(f"have {'1' * 40}\n".encode())
    data = head + line * ((MAX_FETCH_BYTES - len(head) - 4) // len(line)) + Mark.FLUSH.value
    async with intruder(node) as peer:
        answer, _ = await asked(peer, maintainer.repository, data + b"\x00" * (MAX_FETCH_BYTES + 1 - len(data)) * more)
        if not more:
            assert response(answer).header == ["acknowledgments", "NAK", "FLUSH"]
        else:
            assert answer == b""
            await peer.is_dropped()
    assert await node.reasons(peer.id) == ["BAD_GIT_REQUEST"] * more
    await still_answers(world, node, maintainer)


async def test_endless_request_is_cut_off(world: World) -> None:
    node, maintainer = await server(world)
    line = encode(f"have {'1' * 40}\n".encode())
    async with intruder(node) as peer:
        stream = peer.connection.open_stream()
        peer.send(GitService(1, maintainer.repository, stream.id, UPLOAD_PACK))
        with pytest.raises(StreamFailed):
            await _forever(stream, line * 1000)
        await peer.is_dropped()
    assert await node.reasons(peer.id) == ["BAD_GIT_REQUEST"]
    await still_answers(world, node, maintainer)


async def _forever(stream: Stream, data: bytes) -> None:
    while True:
        await stream.write(data)


async def test_want_of_what_is_not_here_is_told(world: World) -> None:
    node, maintainer = await server(world)
    unknown = ObjectId(b"\x11" * 20)
    async with intruder(node) as peer:
        answer, reset = await asked(peer, maintainer.repository, done(unknown))
        assert reset is None
        assert answer == encode(f"ERR upload-pack: not our ref {unknown}".encode())
    assert await node.reasons(peer.id) == []


async def test_objects_that_failed_acceptance_are_not_given(world: World) -> None:
    node, maintainer = await server(world)
    bare = node.bare(maintainer.repository)
    hidden = maintainer.commit("hidden")
    quarantine = bare / "objects" / "incoming-test" / "pack"
    quarantine.mkdir(parents=True)
    git(maintainer.path, "pack-objects", "-q", str(quarantine / "pack"), data=f"{hidden}\n".encode())
    async with intruder(node) as peer:
        answer, _ = await asked(peer, maintainer.repository, done(hidden))
        assert b"not our ref" in answer


async def test_idle_clients_cost_no_place_and_places_come_back(world: World) -> None:
    node, maintainer = await server(world, Patience(stall=0.5))
    places = node.node.control._service.serving.admission._git
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(MAX_GIT // MAX_GIT_PER_PEER):
            peer = await stack.enter_async_context(intruder(node))
            for request in range(1, MAX_GIT_PER_PEER + 1):
                stream = peer.connection.open_stream()
                peer.send(GitService(request, maintainer.repository, stream.id, UPLOAD_PACK))
        await eventually(lambda: len(places) == MAX_GIT)
        late = await stack.enter_async_context(intruder(node))
        assert await asked(late, maintainer.repository, done(maintainer.tip())) == (b"", ResetCode.LIMIT)
        busy = await late.expect(Error)
        assert (busy.code, busy.retry_after_s > 0) == (ErrorCode.BUSY, True)
        # Who sends no request loses its place, and keeps its name.
        await eventually(lambda: not places)
        answer, _ = await asked(late, maintainer.repository, done(maintainer.tip()), 2)
        assert response(answer).whole
    assert await node.reasons(peer.id) == []


async def test_client_that_does_not_read_loses_its_place(world: World) -> None:
    node = await world.node("server", patience=Patience(stall=0.5))
    maintainer = world.maintainer()
    maintainer.commit("large", random.Random(7).randbytes(4 << 20))
    await maintainer.publish(node)
    places = node.node.control._service.serving.admission._git
    async with intruder(node) as peer:
        stream = peer.connection.open_stream()
        peer.send(GitService(1, maintainer.repository, stream.id, UPLOAD_PACK))
        await stream.write(done(maintainer.tip()))
        await stream.end()
        await stream.read(1)
        await eventually(lambda: len(places) == 1)
        await eventually(lambda: not places)
        await eventually(lambda: node.node.repositories.locks(maintainer.repository).idle)
    assert await node.reasons(peer.id) == []


@pytest.mark.parametrize("when", ["before the request", "in the middle of the answer"])
async def test_client_that_goes_away_leaves_no_child(world: World, when: str) -> None:
    node = await world.node("server")
    maintainer = world.maintainer()
    maintainer.commit("large", random.Random(7).randbytes(4 << 20))
    await maintainer.publish(node)
    async with intruder(node) as peer:
        stream = peer.connection.open_stream()
        peer.send(GitService(1, maintainer.repository, stream.id, UPLOAD_PACK))
        if when != "before the request":
            await stream.write(done(maintainer.tip()))
            await stream.end()
            await stream.read(1)
        else:
            await stream.write(b"00")
    await still_answers(world, node, maintainer)
