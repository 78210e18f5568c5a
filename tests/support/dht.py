"""Nodes of the DHT in a simulated network, and records for them."""

import random
from collections.abc import Callable

from guts import canonical
from guts.addresses import Address
from guts.canonical import Value
from guts.discovery.contact import encode_address
from guts.discovery.datagrams import pad_request, parse_request, sign_answer
from guts.discovery.keys import node_key
from guts.discovery.server import Discovery
from guts.identity import SigningKey
from guts.ids import RepositoryId
from guts.records import RECORD_LIFE_MS, PeerRecord, ProviderRecord
from tests.support.sim_network import SimNetwork, SimTransport
from tests.support.virtual_time import virtual_now

PORT = 9000


def seeded_key(rng: random.Random) -> SigningKey:
    """Return the node key that ``rng`` draws."""
    return SigningKey(rng.randbytes(32))


def repository_id(rng: random.Random) -> RepositoryId:
    """Return a repository id that ``rng`` draws."""
    return RepositoryId(rng.randbytes(32))


def global_ip(index: int) -> str:
    """Return a global address; consecutive ones are in different /24 networks."""
    return f"{20 + index // 65_536}.{index // 256 % 256}.{index % 256}.7"


class SimNode:
    """One node with its own endpoint."""

    def __init__(
        self, network: SimNetwork, seed: int | str, ip: str, *, port: int = PORT, client_mode: bool = False
    ) -> None:
        rng = random.Random(f"node {seed}")
        self.key = seeded_key(rng)
        self.ip = ip
        self.port = port
        self.discovery = Discovery(
            key=self.key,
            clock=virtual_now,
            rng=rng,
            client_mode=client_mode,
            own_address_towards=lambda _: ip,
        )
        self.transport: SimTransport = network.transport((ip, port))
        self.transport.receiver = self.discovery.attach(self.transport, port)

    @property
    def door(self) -> tuple[str, int, None]:
        """What others join by."""
        return self.ip, self.port, None

    def provider_record(
        self, repository: RepositoryId, *, seq: int = 1, life_ms: int = RECORD_LIFE_MS
    ) -> ProviderRecord:
        """Return this node's record for ``repository``."""
        expires = virtual_now().wall + life_ms
        return ProviderRecord.sign(self.key, repository, (Address(self.ip, self.port),), seq, expires)

    def peer_record(self, *, seq: int = 1) -> PeerRecord:
        """Return this node's peer record."""
        expires = virtual_now().wall + RECORD_LIFE_MS
        return PeerRecord.sign(self.key, (Address(self.ip, self.port),), ("seed",), seq, expires)


async def joined(network: SimNetwork, count: int, *, seed: int = 1) -> list[SimNode]:
    """Return ``count`` nodes that joined one after the other through a random earlier one."""
    rng = random.Random(seed)
    nodes: list[SimNode] = []
    for index in range(count):
        node = SimNode(network, f"{seed}/{index}", global_ip(index))
        if nodes:
            await node.discovery.join([rng.choice(nodes).door])
        nodes.append(node)
    return nodes


class RawPeer:
    """Speaks the wire by hand, so that it can say what no node says.

    Attributes:
        received: every datagram that arrived, with its source.
        answer: makes the result of an answer to (method, arguments); ``None`` stays silent.
    """

    def __init__(self, network: SimNetwork, ip: str, seed: int | str, *, port: int = PORT) -> None:
        self.key = seeded_key(random.Random(f"raw {seed}"))
        self.node_key = node_key(self.key.peer_id)
        self.ip = ip
        self.port = port
        self.received: list[tuple[bytes, tuple[str, int]]] = []
        self.answer: Callable[[str, list[Value]], Value | None] = lambda method, arguments: None
        self._transport = network.transport((ip, port))
        self._transport.receiver = self
        self._ids = random.Random(f"ids {seed}")

    @property
    def door(self) -> tuple[str, int, None]:
        """What others join by."""
        return self.ip, self.port, None

    def send(self, data: bytes, node: SimNode) -> None:
        """Send any bytes."""
        self._transport.sendto(data, (node.ip, node.port))

    def request(self, node: SimNode, method: str, *arguments: Value) -> bytes:
        """Send a well-formed request and return its message id."""
        message_id = self._ids.randbytes(20)
        self.send(request_bytes(message_id, method, *arguments), node)
        return message_id

    def answers(self, message_id: bytes) -> list[Value]:
        """Return the bodies of the answers that came to ``message_id``."""
        return [
            canonical.decode(data[21:-96], canonical.Bounds(1152, max_list=100, max_bin=1152))
            for data, _ in self.received
            if data[:21] == b"\x01" + message_id
        ]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.received.append((data, addr))
        if data[:1] != b"\x00":
            return
        request = parse_request(data)
        match canonical.decode(request.datagram[21:], canonical.Bounds(1152)):
            case [str(method), list(arguments)]:
                result = self.answer(method, arguments)
            case _:
                raise AssertionError("parsed above")
        if result is not None:
            body = canonical.encode([encode_address(*addr), None if result == "nil" else result])
            self._transport.sendto(sign_answer(b"\x01" + data[1:21] + body, self.key), addr)


def request_bytes(message_id: bytes, method: str, *arguments: Value) -> bytes:
    """Return a request as a node sends it."""
    return pad_request(b"\x00" + message_id + canonical.encode([method, list(arguments)]))
