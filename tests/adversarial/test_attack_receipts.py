"""Who lies about what is stored where: forged receipts, receipts of no use, and more of either than anybody reads."""

import asyncio
import base64
import time

import pytest

from guts.events import Head
from guts.identity import SigningKey
from guts.ids import AuthorId, RepositoryId
from guts.records import CommitReceipt, Signed
from guts.store import receipts as table
from guts.sync.receipts import MAX_OPEN
from guts.wire.messages import Error, ErrorCode, GetReceipt, GetRefs, Message, Receipt, Refs, Subscribe
from tests.support.bad_peer import BadPeer, intruder, now_ms
from tests.support.nodes import Maintainer, RunningNode, World

FLOOD = 3_000


async def published(world: World) -> tuple[RunningNode, Maintainer, Head]:
    """Return a node that limits no rates, a maintainer who has published on it, and the record."""
    fast = "1000000"
    node = await world.node("node", seeding__sync_interval="1h", limits__answers_rate=fast, limits__refs_rate=fast)
    maintainer = world.maintainer()
    await maintainer.publish(node)
    known = await node.node.repositories.known(maintainer.repository)
    head = known.head(maintainer.key.author_id)
    assert head is not None
    return node, maintainer, head


def signed_by(key: SigningKey, maintainer: Maintainer, head: Head, time_ms: int | None = None) -> bytes:
    when = now_ms() if time_ms is None else time_ms
    made = CommitReceipt.sign(key, maintainer.repository, maintainer.key.author_id, head.seq, head.hash, when)
    return made.encoded


def in_the_name_of(victim: SigningKey, key: SigningKey, maintainer: Maintainer, head: Head) -> bytes:
    """Return a receipt of ``victim`` with the signature of ``key``."""
    body = Signed.decode(signed_by(victim, maintainer, head), 300).body
    (_, signature), *_ = Signed.sign("receipt", body, key).signatures
    return Signed(body, ((victim.public, signature),)).encode()


async def confirmed(node: RunningNode, maintainer: Maintainer, replicas: int, timeout: float) -> set[str]:  # noqa: ASYNC109
    told = await node.node.control.receipts(maintainer.repository, maintainer.key.author_id, None, replicas, timeout)
    assert isinstance(told["receipts"], list)
    for row in told["receipts"]:
        CommitReceipt.verify(base64.b64decode(row["receipt"]))
    return {row["peer"] for row in told["receipts"]}


async def heard(peer: BadPeer, *messages: Message) -> None:
    """Return when the node has heard ``messages``, and all that ``peer`` said before; some at a time, as TCP takes."""
    for start in range(0, len(messages) or 1, 200):
        request = 1 + time.time_ns() % 2**31
        peer.send(*messages[start : start + 200], GetRefs(request, ()))
        while (await peer.expect(Refs)).request != request:
            pass


@pytest.mark.parametrize("lie", ["another node's", "a signature of its own under another's name", "garbage"])
async def test_node_bans_who_forges_a_receipt(world: World, lie: str) -> None:
    node, maintainer, head = await published(world)
    victim = SigningKey.generate()
    async with intruder(node) as eve:
        forged = {
            "another node's": signed_by(victim, maintainer, head),
            "a signature of its own under another's name": in_the_name_of(victim, eve.key, maintainer, head),
            "garbage": b"receipt",
        }
        eve.send(Receipt(0, forged[lie]))
        await eve.is_dropped()
        assert len(await node.reasons(eve.id)) == 1
    assert await confirmed(node, maintainer, 1, 0.2) == set()
    assert await node.node.repositories.database.read(table.load, maintainer.repository) == []


async def test_answer_with_a_signature_that_is_not_its_own_is_banned(world: World) -> None:
    node, maintainer, head = await published(world)
    async with intruder(node) as eve:
        eve.send(Subscribe((maintainer.repository,)))
        await heard(eve)
        waiting = asyncio.create_task(confirmed(node, maintainer, 1, 1.0))
        asked = await eve.expect(GetReceipt)
        assert asked.seq == head.seq
        other = SigningKey.generate()
        eve.send(Receipt(asked.request, in_the_name_of(eve.key, other, maintainer, head)))
        await eve.is_dropped()
        assert await waiting == set()
    assert await node.reasons(eve.id) == ["INVALID_RECORD"]


async def test_flood_of_receipts_of_no_use_changes_nothing(world: World) -> None:
    node, maintainer, head = await published(world)
    replica = await world.node("replica")
    async with intruder(node) as eve:
        unknown, stranger = RepositoryId(bytes(32)), AuthorId(bytes(32))
        elsewhere = CommitReceipt.sign(eve.key, unknown, stranger, 1, bytes(32), 0).encoded
        ahead = signed_by(eve.key, maintainer, Head(head.seq + 1, head.hash))
        again = [signed_by(eve.key, maintainer, head, number) for number in range(FLOOD)]
        await heard(eve, *[Receipt(0, (elsewhere, ahead, again[number])[number % 3]) for number in range(FLOOD)])
        assert not eve.closed
        await replica.seed(maintainer.repository, node.hint)
        assert await confirmed(node, maintainer, 2, 10.0) == {str(eve.id), str(replica.id)}
    await node.node.control._persistence.drain()
    rows = await node.node.repositories.database.read(table.load, maintainer.repository)
    assert {row.peer for row in rows} == {eve.id, replica.id}
    assert len(rows) == 2


async def test_flood_of_requests_for_receipts_to_come_keeps_few_open(world: World) -> None:
    node, maintainer, head = await published(world)
    author = maintainer.key.author_id
    async with intruder(node) as eve:
        later = head.seq + 10**9
        await heard(eve, *[GetReceipt(n + 1, maintainer.repository, author, later) for n in range(FLOOD)])
        refused = [message for message in eve.received if isinstance(message, Error)]
        assert len(refused) == FLOOD - MAX_OPEN
        assert {error.code for error in refused} == {ErrorCode.LIMIT}
        assert await node.reasons(eve.id) == []
        # Honest requests are answered as ever.
        eve.send(GetReceipt(FLOOD + 1, maintainer.repository, author, head.seq))
        given = CommitReceipt.verify((await eve.expect(Receipt)).receipt).claim
        assert (given.peer, given.seq, given.hash) == (node.id, head.seq, head.hash)


async def test_more_keys_push_out_no_receipt(world: World) -> None:
    node, maintainer, head = await published(world)
    replica = await world.node("replica")
    await replica.seed(maintainer.repository, node.hint)
    assert await confirmed(node, maintainer, 1, 10.0) == {str(replica.id)}
    for _ in range(table.KEPT_RECEIPTS + 3):
        async with intruder(node) as eve:
            eve.send(Receipt(0, signed_by(eve.key, maintainer, head)))
            await heard(eve)
    found = await confirmed(node, maintainer, 0, 1.0)
    assert len(found) == table.KEPT_RECEIPTS
    assert str(replica.id) in found
