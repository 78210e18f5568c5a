"""Peers that keep a place taken by being slow, never by being silent."""

import asyncio
import time

import pytest

from guts.node.limits import Patience
from guts.sync.goal import ProvidersUnreachable, SyncTimedOut
from guts.wire.messages import GetObjects, Objects, ObjectsStatus
from tests.support.bad_peer import BadHolder, BadPeer, Offer
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
