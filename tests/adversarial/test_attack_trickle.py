"""Peers that keep a place taken by being slow, never by being silent."""

import asyncio
import math
import time

import pytest

from guts.events import Ban, WantedBan
from guts.node.limits import Patience
from guts.sync.goal import ProvidersUnreachable, SyncTimedOut
from guts.wire.messages import (
    GetObjects,
    GetRefs,
    Gossip,
    Message,
    Objects,
    ObjectsStatus,
    Refs,
    RefsAnswer,
    RefsStatus,
    Subscribe,
)
from tests.support import packs
from tests.support.bad_peer import BadHolder, BadPeer, Offer, intruder
from tests.support.nodes import World, eventually


class Trickles(BadHolder):
    """Sends a byte ten times as often as it has to send something."""

    ended = 0.0

    async def answer_objects(self, peer: BadPeer, request: GetObjects) -> None:
        stream = peer.connection.stream(request.stream)
        peer.send(Objects(request.request, ObjectsStatus.PACK_FOLLOWS, 0))
        begun = time.monotonic()
        try:
            for number in range(100):
                await stream.write(self.offer.pack[number : number + 1])
                await asyncio.sleep(0.05)
        finally:
            self.ended = time.monotonic() - begun


async def test_holder_that_sends_a_byte_now_and_then_holds_no_place(world: World) -> None:
    replica = await world.node("replica", patience=Patience(first_byte=0.5, stall=0.5))
    maintainer = world.maintainer()
    holder = Trickles(Offer.honest(maintainer))
    async with holder.listening():
        with pytest.raises((ProvidersUnreachable, SyncTimedOut)):
            await replica.seed(maintainer.repository, holder.hint, timeout=1.5)
        await eventually(lambda: holder.ended > 0.0)
    assert holder.ended < 3.0
    assert await replica.reasons(holder.key.peer_id) == []


@pytest.mark.parametrize("drips", [False, True])
async def test_first_teller_that_keeps_the_pack_back_keeps_nobody_waiting(world: World, drips: bool) -> None:
    publisher = await world.node("publisher")
    honest = await world.node("honest", doors=(publisher.hint,))
    maintainer = world.maintainer()
    await maintainer.publish(publisher)
    await honest.seed(maintainer.repository, publisher.hint)
    victim = await world.node("victim", doors=(honest.hint,))
    await victim.seed(maintainer.repository, honest.hint)
    # It hears of what is new from an honest node and from the other one, as in any network of more than one hop.
    await victim.node.control._driver.execute(Ban((WantedBan(publisher.id, math.inf, ""),)))
    await eventually(lambda: not victim.connected_to(publisher.id) and honest.connected_to(victim.id))
    async with intruder(publisher) as ear, intruder(victim) as mouth:
        subscribed: set[str] = set()
        asked = 0

        async def held(peer: BadPeer, message: GetRefs) -> None:
            peer.send(Refs(message.request, tuple(RefsAnswer(q.repository, RefsStatus.HELD) for q in message.queries)))
            subscribed.add(peer.id.short)

        async def heard(message: Message) -> None:
            if isinstance(message, Gossip):
                mouth.send(message)
            elif isinstance(message, GetRefs):
                await held(ear, message)

        async def said(message: Message) -> None:
            nonlocal asked
            if isinstance(message, GetRefs):
                await held(mouth, message)
            elif isinstance(message, GetObjects):
                asked += 1
                mouth.send(Objects(message.request, ObjectsStatus.PACK_FOLLOWS, 0))
                if drips:
                    stream = mouth.connection.stream(message.stream)
                    for byte in packs.pack([(packs.BLOB, bytes(1000))])[:40]:
                        await stream.write(bytes([byte]))
                        await asyncio.sleep(0.5)

        ear.on_message, mouth.on_message = heard, said
        ear.send(Subscribe((maintainer.repository,)))
        mouth.send(Subscribe((maintainer.repository,)))
        await eventually(lambda: len(subscribed) == 2)
        maintainer.commit("second")
        await maintainer.publish(publisher)
        refs = maintainer.refs()
        await eventually(lambda: victim.has(maintainer.repository, refs), 25.0)
        assert await victim.reasons(mouth.id) == []
