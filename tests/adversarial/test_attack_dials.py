"""What a node does with addresses that a peer made up."""

import socket

import pytest

from guts.addresses import Address
from guts.identity import SigningKey
from guts.net import sockets
from guts.records import PeerRecord
from guts.wire import codec
from guts.wire.messages import Gossip, NewRepository
from tests.adversarial.test_bad_asker import server, still_serves
from tests.support.bad_peer import DAY_MS, intruder, now_ms
from tests.support.nodes import World, eventually


async def test_node_survives_an_address_of_a_family_that_this_machine_has_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without IPv6 can't even make the socket to dial such an address."""
    node, maintainer = await server(world)
    family = sockets.family
    monkeypatch.setattr(sockets, "family", lambda a: socket.AF_APPLETALK if ":" in a.ip else family(a))
    key = SigningKey.generate()
    record = PeerRecord.sign(key, (Address("2001:db8::1", 9000),), ("seed",), now_ms(), now_ms() + DAY_MS)
    news = NewRepository(maintainer.repository, 0, bytes(32), record.encoded)
    peers = node.node.control._service.peers
    async with intruder(node) as peer:
        peer.send(Gossip("repositories", codec.encode(news)))
        await eventually(lambda: peers.state(key.peer_id).backoff.failures > 0 or not node.alive)
    await still_serves(world, node, maintainer)
