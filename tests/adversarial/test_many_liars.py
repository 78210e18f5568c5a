"""Peers that agree on a lie, and peers that say old things again: how many say so never counts."""

import contextlib
import time
from collections.abc import Callable

import pytest

from guts.gossip import protocol as gossip
from guts.gossip.envelope import envelope
from guts.trust.signed_refs import SignedRefs
from guts.wire.messages import EncodedRefs, GetRefs, Gossip, NewCommit, Refs, RefsQuery, Subscribe
from tests.adversarial.test_bad_holder import MAIN, by_a_stranger
from tests.support.bad_peer import BadHolder, Offer, intruder, now_ms, sign
from tests.support.nodes import Maintainer, World, eventually

LIARS = 99


def older(maintainer: Maintainer, honest: Offer) -> Offer:
    """What the author really signed, and has replaced since."""
    return honest


@pytest.mark.parametrize("lie", [older, by_a_stranger])
async def test_c3_fresh_replica_ends_where_one_honest_holder_is_among_99_that_agree_on(
    world: World, lie: Callable[[Maintainer, Offer], Offer]
) -> None:
    maintainer = world.maintainer()
    first = sign(maintainer, now=1_000)
    offer = lie(maintainer, Offer.honest(maintainer, first))
    maintainer.commit("second")
    honest = BadHolder(Offer.honest(maintainer, sign(maintainer, first, now=2_000)))
    liars = [BadHolder(offer) for _ in range(LIARS)]
    replica = await world.node("replica", network__max_connections=str(2 * LIARS))
    async with contextlib.AsyncExitStack() as stack:
        for liar in liars:
            await stack.enter_async_context(liar.visiting(replica))
        await stack.enter_async_context(honest.listening())
        await replica.seed(maintainer.repository, honest.hint)
        await eventually(lambda: replica.has(maintainer.repository, {MAIN: maintainer.tip()}))
        await eventually(lambda: all(liar.asked for liar in liars))
        banned = LIARS if lie is by_a_stranger else 0
        scores = replica.node.control._service.peers.scores
        await eventually(lambda: sum(scores.banned(liar.key.peer_id, time.monotonic()) for liar in liars) == banned)
        await eventually(lambda: not replica.node.control._service.sync.fetches.running)
    assert await replica.canonical(maintainer.repository) == {MAIN: maintainer.tip()}
    await replica.shows_what_it_says(maintainer.repository)
    if not banned:
        assert [await replica.score(liar.key.peer_id) for liar in liars] == [None] * LIARS


async def test_node_passes_old_news_on_to_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has seen is forgotten at once here: the record that it holds is what tells old from new."""
    monkeypatch.setattr(gossip, "SEEN_LIMIT", 1)
    maintainer = world.maintainer()
    author = maintainer.key.author_id
    records = [sign(maintainer, now=1_000)]
    for number in range(2, 5):
        maintainer.commit(str(number))
        records.append(sign(maintainer, records[-1], now=number * 1_000))
    node = await world.node("node")
    holder = BadHolder(Offer.honest(maintainer, records[-1]))
    async with holder.listening():
        await node.seed(maintainer.repository, holder.hint)
    maintainer.commit("newest")
    newest = sign(maintainer, records[-1], now=now_ms())
    holder.offer = Offer.honest(maintainer, newest)

    def news(record: SignedRefs, *, whole: bool) -> Gossip:
        encoded = EncodedRefs(record.header_bytes, record.entries_bytes) if whole else None
        return envelope(NewCommit(maintainer.repository, author, record.header.seq, record.header.hash, encoded))

    question = GetRefs(1, (RefsQuery(maintainer.repository, 0, b"", ()),))
    async with intruder(node) as listener, holder.visiting(node) as replayer:
        listener.send(Subscribe((maintainer.repository,)), question)
        await listener.expect(Refs)
        for _ in range(100):
            for record in records:
                replayer.send(news(record, whole=True), news(record, whole=False))
        replayer.send(question)
        await replayer.expect(Refs)
        replayer.send(news(newest, whole=True))
        await eventually(lambda: any(isinstance(message, Gossip) for message in listener.received))
        assert [message for message in listener.received if isinstance(message, Gossip)] == [news(newest, whole=True)]
    assert await node.reasons(replayer.id) == []
