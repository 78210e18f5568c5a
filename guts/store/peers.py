"""Peers and their addresses, so that a restarted node knows whom to dial."""

from dataclasses import dataclass
from typing import Final, final

from sqlalchemy import ColumnElement, Connection, and_, delete, select, update

from guts.addresses import Address
from guts.ids import PeerId
from guts.store.dialect import insert_or_ignore, insert_or_update
from guts.store.schema import addresses, peers

KEPT_PEERS: Final = 10_000
"""Peers remembered: identities cost nothing to make, so the least recently seen ones go, and those first that only
ever came to us: where they say they can be dialled nobody has tried."""

KEPT_ADDRESSES: Final = 16
"""Addresses per peer: the 8 that a record may name, and as many at which it was reached."""


@final
@dataclass(frozen=True, slots=True)
class StoredPeer:
    """What is known of one peer.

    Attributes:
        last_seen: when it was last connected, Unix milliseconds.
        reached: one of its addresses has worked; read only, see ``mark_good``.
        record: its newest signed PeerRecord.
    """

    id: PeerId
    last_seen: int
    capabilities: tuple[str, ...]
    addresses: tuple[Address, ...]
    record: bytes | None = None
    reached: bool = False


@final
@dataclass(frozen=True, slots=True)
class GoodAddress:
    """An address at which a peer was reached.

    Attributes:
        last_good: when, Unix milliseconds.
        failures: dials that failed since.
    """

    peer: PeerId
    address: Address
    last_good: int
    failures: int


def save_peer(connection: Connection, peer: StoredPeer) -> None:
    """Store ``peer`` in the place of what was known of it.

    Addresses that it no longer names go, but for those at which it was once reached.
    """
    row = {
        "id": peer.id,
        "last_seen": peer.last_seen,
        "capabilities": " ".join(peer.capabilities),
        "record": peer.record,
    }
    insert_or_update(connection, peers, [row])
    never_good = connection.execute(
        select(addresses.c.ip, addresses.c.port, addresses.c.transport).where(
            addresses.c.peer == peer.id, addresses.c.last_good.is_(None)
        )
    ).all()
    for ip, port, transport in never_good:
        if Address(ip, port, transport) not in peer.addresses:
            connection.execute(delete(addresses).where(_is(peer.id, Address(ip, port, transport))))
    insert_or_ignore(connection, addresses, [_row(peer.id, address, None) for address in peer.addresses])
    _prune_addresses(connection, peer.id)


def mark_good(connection: Connection, peer: PeerId, address: Address, now_ms: int) -> None:
    """Note that ``peer``, which is stored, was reached at ``address``, whether or not it names that itself."""
    insert_or_update(connection, addresses, [_row(peer, address, now_ms)])
    _prune_addresses(connection, peer)


def _row(peer: PeerId, address: Address, last_good: int | None) -> dict[str, object]:
    return {
        "peer": peer,
        "ip": address.ip,
        "port": address.port,
        "transport": address.transport,
        "last_good": last_good,
        "failures": 0,
    }


def _prune_addresses(connection: Connection, peer: PeerId) -> None:
    going = connection.execute(
        select(addresses.c.ip, addresses.c.port, addresses.c.transport)
        .where(addresses.c.peer == peer)
        .order_by(addresses.c.last_good.is_(None), addresses.c.last_good.desc(), addresses.c.ip)
        .offset(KEPT_ADDRESSES)
    ).all()
    for ip, port, transport in going:
        connection.execute(delete(addresses).where(_is(peer, Address(ip, port, transport))))


def mark_failed(connection: Connection, peer: PeerId, address: Address) -> None:
    """Note that a dial of ``address`` failed."""
    connection.execute(update(addresses).where(_is(peer, address)).values(failures=addresses.c.failures + 1))


def load_peers(connection: Connection, limit: int = KEPT_PEERS) -> list[StoredPeer]:
    """Return at most ``limit`` peers: those that were reached, then the others; the most recently seen first."""
    reached = _was_reached()
    rows = connection.execute(
        select(peers.c.id, peers.c.last_seen, peers.c.capabilities, peers.c.record, reached)
        .order_by(reached.desc(), peers.c.last_seen.desc(), peers.c.id)
        .limit(limit)
    ).all()
    where: dict[bytes, list[Address]] = {}
    for peer, ip, port, transport in connection.execute(
        select(addresses.c.peer, addresses.c.ip, addresses.c.port, addresses.c.transport).order_by(
            addresses.c.peer, addresses.c.last_good.is_(None), addresses.c.last_good.desc(), addresses.c.ip
        )
    ):
        where.setdefault(peer, []).append(Address(ip, port, transport))
    return [
        StoredPeer(
            PeerId(peer), last_seen, tuple(capabilities.split()), tuple(where.get(peer, ())), record, bool(was_reached)
        )
        for peer, last_seen, capabilities, record, was_reached in rows
    ]


def load_good_addresses(connection: Connection, limit: int = KEPT_PEERS) -> list[GoodAddress]:
    """Return at most ``limit`` addresses that once worked, the most recent first."""
    rows = connection.execute(
        select(
            addresses.c.peer,
            addresses.c.ip,
            addresses.c.port,
            addresses.c.transport,
            addresses.c.last_good,
            addresses.c.failures,
        )
        .where(addresses.c.last_good.is_not(None))
        .order_by(addresses.c.last_good.desc(), addresses.c.peer)
        .limit(limit)
    )
    return [
        GoodAddress(PeerId(peer), Address(ip, port, transport), last_good, failures)
        for peer, ip, port, transport, last_good, failures in rows
        if last_good is not None
    ]


def prune_peers(connection: Connection, keep: int = KEPT_PEERS) -> int:
    """Forget all but the first ``keep`` peers in the order of ``load_peers``; return how many went."""
    going = select(peers.c.id).order_by(_was_reached().desc(), peers.c.last_seen.desc(), peers.c.id).offset(keep)
    return connection.execute(delete(peers).where(peers.c.id.in_(going))).rowcount


def _was_reached() -> ColumnElement[bool]:
    return peers.c.id.in_(select(addresses.c.peer).where(addresses.c.last_good.is_not(None)))


def _is(peer: PeerId, address: Address) -> ColumnElement[bool]:
    return and_(
        addresses.c.peer == peer,
        addresses.c.ip == address.ip,
        addresses.c.port == address.port,
        addresses.c.transport == address.transport,
    )
