"""The node's half of every RPC: the package's protocol, with the two seams guarded.

``datagram_received`` lets through what ``datagrams`` and the rate limiter accept; ``sendto`` goes through
``SignedTransport``. In between the package matches answers to requests and dispatches methods as it always did.
"""

import asyncio
import hashlib
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from kademlia.node import Node
from kademlia.protocol import KademliaProtocol
from rpcudp.protocol import RPCProtocol

from guts import canonical
from guts.canonical import Value
from guts.clock import Now
from guts.discovery.contact import AddressPolicy, Contact, address_group, encode_address, encode_contacts
from guts.discovery.datagrams import ANSWER, REQUEST, Request, open_answer, parse_request
from guts.discovery.keys import Key, node_key
from guts.discovery.limiter import RateLimiter
from guts.discovery.limits import (
    AMPLIFICATION,
    BUCKET_SIZE,
    CONTACTS_WITH_RECORDS,
    DATAGRAM_BYTES,
    GIVE_UP_SECONDS,
    HEADER_BYTES,
    MAX_PROBES,
    REQUEST_BYTES,
    TRAILER_BYTES,
)
from guts.discovery.messages import Answer
from guts.discovery.routing import RoutingTable
from guts.discovery.store import PutStatus, RecordStore, record_key, verify_record
from guts.discovery.tokens import WriteTokens
from guts.discovery.transport import DatagramSender, Sender, SignedTransport, Target, received_from
from guts.errors import PeerFault
from guts.identity import SigningKey
from guts.ids import PeerId

log = logging.getLogger(__name__)

PROBE_PAUSE_SECONDS: Final = 60.0
"""A stranger whose probe was not answered is not probed again for so long."""

MAX_PAUSED: Final = 256


class DiscoveryProtocol(KademliaProtocol):  # type: ignore[misc]  # the package has no types
    """One socket's protocol."""

    def __init__(
        self,
        source_node: Node,
        storage: RecordStore,
        ksize: int,
        *,
        key: SigningKey,
        clock: Callable[[], Now],
        router: RoutingTable,
        tokens: WriteTokens,
        policy: AddressPolicy,
        counters: Counter[str],
        client_mode: bool,
        mapped: bool,
    ) -> None:
        # KademliaProtocol's own constructor would build the table this one replaces, and keeps the 5 s timeout.
        RPCProtocol.__init__(self, wait_timeout=GIVE_UP_SECONDS)
        self.source_node = source_node
        self.storage = storage
        self.ksize = ksize
        self.router = router
        self.own = Key(source_node.id)
        self.key = key
        self.clock = clock
        self.tokens = tokens
        self.policy = policy
        self.counters = counters
        self.client_mode = client_mode
        self.mapped = mapped
        self.limiter = RateLimiter()
        self.probing: set[bytes] = set()
        self.paused: OrderedDict[tuple[str, int], float] = OrderedDict()

    def connection_made(self, transport: DatagramSender) -> None:
        """Wrap the transport; all that the package sends goes through the wrapper."""
        super().connection_made(SignedTransport(transport, self.key, self.counters, mapped=self.mapped))

    # Incoming seam

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Check a datagram and hand it to the package in its own form; anything else is counted and dropped."""
        self.counters["received"] += 1
        self.counters["received_bytes"] += len(data)
        ip, port = received_from(addr)
        try:
            self._admit(data, ip, port)
        except PeerFault as fault:
            self.counters[f"dropped_{fault.code.lower()}"] += 1
            log.debug("dropped a datagram from %s port %d: %s", ip, port, fault)

    def _admit(self, data: bytes, ip: str, port: int) -> None:
        if data[:1] == ANSWER:
            self._admit_answer(data, ip, port)
        elif data[:1] == REQUEST and not self.client_mode:
            self._admit_request(data, ip, port)
        else:
            self.counters["dropped_kind"] += 1

    def _admit_answer(self, data: bytes, ip: str, port: int) -> None:
        message_id = data[1:HEADER_BYTES]
        target = self.transport.awaited_from(message_id, ip, port)
        if target is None:
            self.counters["dropped_unasked"] += 1
            return
        peer, body = open_answer(data)
        key = node_key(peer)
        if key == self.own or (target.key is not None and key != target.key):
            self.counters["dropped_imposter"] += 1
            return
        self.transport.answered(message_id)
        # The package matches the id and decodes; who signed travels in front of the body.
        super().datagram_received(data[:HEADER_BYTES] + _signed_by(peer, body), (ip, port))

    def _admit_request(self, data: bytes, ip: str, port: int) -> None:
        if not self.policy.is_local(ip):
            source = address_group(ip) if ":" in ip else encode_address(ip, 0)
        else:
            source = encode_address(ip, port)
        if not self.limiter.allow(source, self.clock().mono):
            self.counters["dropped_rate"] += 1
            return
        request = parse_request(data)
        if request.sender == self.own:
            self.counters["dropped_own"] += 1
            return
        self.counters[f"asked_{request.method}"] += 1
        super().datagram_received(request.datagram, self._sender(request, len(data), ip, port))

    def _sender(self, request: Request, length: int, ip: str, port: int) -> Sender:
        now = self.clock().mono
        if self.router.at((ip, port)) is not None or self.tokens.valid(request.token, ip, port, now):
            return Sender(ip, port, DATAGRAM_BYTES, proven=True)
        # What an unproven address may be sent in all, less the probe that may go there too.
        return Sender(ip, port, min(DATAGRAM_BYTES, AMPLIFICATION * length - REQUEST_BYTES), proven=False)

    # Answering

    def rpc_ping(self, sender: Sender, nodeid: bytes) -> list[Value]:
        """Answer that this node is here."""
        self._welcome(sender, nodeid)
        return _body(sender, None)

    def rpc_find_node(self, sender: Sender, nodeid: bytes, key: bytes) -> list[Value]:
        """Answer the contacts nearest to ``key``, and a token."""
        self._welcome(sender, nodeid)
        v4, v6 = self._contacts(sender, nodeid, Key(key), BUCKET_SIZE)
        return _body(sender, [self._token(sender), v4, v6])

    def rpc_get_records(self, sender: Sender, nodeid: bytes, key: bytes, skip: int, _token: bytes) -> list[Value]:
        """Answer the records at ``key`` that fit from ``skip`` on, how many there are, contacts and a token."""
        self._welcome(sender, nodeid)
        records = sorted(self.storage.records(Key(key)), key=lambda record: self._order(record.peer))
        v4 = v6 = b""
        if skip == 0:
            count = CONTACTS_WITH_RECORDS if records else BUCKET_SIZE
            v4, v6 = self._contacts(sender, nodeid, Key(key), count)
        page: list[Value] = []
        body = _body(sender, [self._token(sender), v4, v6, len(records), page])
        for record in records[skip:]:
            page.append(record.encoded)
            if HEADER_BYTES + len(canonical.encode(body)) + TRAILER_BYTES > sender.allowance:
                page.pop()
                break
        return body

    def rpc_put_record(self, sender: Sender, nodeid: bytes, token: bytes, kind: int, record: bytes) -> list[Value]:
        """Store a record for a sender who has shown that it is where it says."""
        now = self.clock()
        if not self.tokens.valid(token, sender.ip, sender.port, now.mono):
            return _put_body(sender, PutStatus.BAD_TOKEN, b"", 0, now)
        self._welcome(sender, nodeid)
        try:
            verified = verify_record(kind, record, now.wall)
        except PeerFault as fault:
            self.counters[f"refused_{fault.code.lower()}"] += 1
            return _put_body(sender, PutStatus.INVALID, b"", 0, now)
        status = self.storage.put(verified, sender.ip)
        return _put_body(sender, status, record_key(verified), verified.expires, now)

    def _token(self, sender: Sender) -> bytes:
        return self.tokens.issue(sender.ip, sender.port, self.clock().mono)

    def _order(self, peer: PeerId) -> bytes:
        # Salted with this node's id, so that the first pages of several holders differ.
        return hashlib.blake2b(peer, key=self.own, digest_size=8).digest()

    def _contacts(self, sender: Sender, nodeid: bytes, key: Key, count: int) -> tuple[bytes, bytes]:
        nearest = self.router.nearest(
            key,
            count,
            lambda c: c.key != nodeid and c.address != sender[:2] and self.policy.may_tell(sender.ip, c.ip),
        )
        return encode_contacts(nearest)

    # Meeting strangers

    def _welcome(self, sender: Sender, nodeid: bytes) -> None:
        if nodeid:
            self.welcome_if_new(Node(nodeid, sender.ip, sender.port))

    def welcome_if_new(self, node: Node) -> None:
        """Probe a stranger that could have a place in the table: one datagram, a few strangers at a time."""
        contact = Contact(Key(node.id), node.ip, node.port)
        now = self.clock().mono
        group = encode_address(node.ip, node.port)
        if not self.policy.is_local(node.ip):
            group = address_group(node.ip)
        if (
            len(self.probing) >= MAX_PROBES
            or group in self.probing
            or now < self.paused.get(contact.address, now)
            or not self.policy.allows(node.ip, node.port)
            or not self.router.wants(contact)
        ):
            return
        self.probing.add(group)
        self.counters["probed"] += 1
        self.ask(contact, "ping", attempts=1).add_done_callback(lambda probe: self._probed(group, contact, probe))

    def _probed(self, group: bytes, contact: Contact, probe: "asyncio.Future[Answer | None]") -> None:
        self.probing.discard(group)
        if not probe.cancelled() and probe.result() is not None:
            return
        self.paused[contact.address] = self.clock().mono + PROBE_PAUSE_SECONDS
        self.paused.move_to_end(contact.address)
        if len(self.paused) > MAX_PAUSED:
            self.paused.popitem(last=False)

    # Asking

    def ask(
        self, contact: Contact, method: str, *arguments: Value, attempts: int = 2
    ) -> "asyncio.Future[Answer | None]":
        """Send a request; the future yields the signed answer, or ``None`` when none came in 1.8 s.

        The table learns of either. The future may be cancelled or dropped at any time.
        """
        return self.call(Target(contact.ip, contact.port, contact.key, attempts), method, *arguments)

    def call(self, target: Target, method: str, *arguments: Value) -> "asyncio.Future[Answer | None]":
        """As ``ask``, to an address whose id need not be known."""
        own = b"" if self.client_mode else self.own
        answered: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        # RPCProtocol.__getattr__ makes a remote call of any name.
        outcome = getattr(self, method)(target, own, *arguments)
        outcome.add_done_callback(lambda done: self._settle(target, answered, *done.result()))
        return answered

    def _settle(self, target: Target, answered: "asyncio.Future[Answer | None]", arrived: bool, data: Value) -> None:
        now = self.clock().mono
        answer = None
        if arrived:
            answer = _read_answer(target, data)
            self.router.answered(answer.contact, now)
        elif target.key is not None:
            self.counters["unanswered"] += 1
            self.router.failed(target.key, target.ip, target.port, now)
        if not answered.done():
            answered.set_result(answer)


def _signed_by(peer: PeerId, body: bytes) -> bytes:
    # msgpack: an array of two, whose first element is a bin of 32 bytes.
    return b"\x92\xc4\x20" + peer + body


def _read_answer(target: Target, data: Value) -> Answer:
    match data:
        case [bytes(signer), [bytes(observed), result]]:
            peer = PeerId(signer)
            return Answer(Contact(node_key(peer), target.ip, target.port, peer), observed, result)
        case _:
            raise AssertionError("the guard lets no other form through")


def _body(sender: Sender, result: Value) -> list[Value]:
    return [encode_address(sender.ip, sender.port), result]


def _put_body(sender: Sender, status: PutStatus, key: bytes, expires: int, now: Now) -> list[Value]:
    return _body(sender, [int(status), key, expires, now.wall])
