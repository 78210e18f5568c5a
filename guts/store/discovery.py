"""What the DHT keeps over a restart: the records it holds for others, and the contacts it had proven."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from sqlalchemy import Connection, delete, select

from guts.ids import PeerId
from guts.store.schema import dht_contacts, provider_records


@final
@dataclass(frozen=True, slots=True)
class HeldRecord:
    """A signed record under a key of the DHT.

    Attributes:
        key: 20 bytes.
        expires: Unix milliseconds.
        encoded: the signed bytes.
        source: IP of who brought it; empty for this node's own.
    """

    key: bytes
    publisher: PeerId
    seq: int
    expires: int
    encoded: bytes
    source: str


@final
@dataclass(frozen=True, slots=True)
class HeldContact:
    """A node of the routing table.

    Attributes:
        last_seen: of its newest signed answer, Unix milliseconds.
    """

    peer: PeerId
    ip: str
    port: int
    last_seen: int


def load_records(connection: Connection, now_ms: int) -> list[HeldRecord]:
    """Return the records that have not expired, in order of key and publisher."""
    rows = connection.execute(
        select(
            provider_records.c.key,
            provider_records.c.publisher,
            provider_records.c.seq,
            provider_records.c.expires,
            provider_records.c.encoded,
            provider_records.c.source,
        )
        .where(provider_records.c.expires > now_ms)
        .order_by(provider_records.c.key, provider_records.c.publisher)
    )
    return [HeldRecord(key, PeerId(peer), seq, expires, raw, source) for key, peer, seq, expires, raw, source in rows]


def replace_records(connection: Connection, records: Iterable[HeldRecord]) -> None:
    """Store ``records``, at most one per key and publisher, in the place of all that were there."""
    connection.execute(delete(provider_records))
    rows = [
        {
            "key": r.key,
            "publisher": r.publisher,
            "seq": r.seq,
            "expires": r.expires,
            "encoded": r.encoded,
            "source": r.source,
        }
        for r in records
    ]
    if rows:
        connection.execute(provider_records.insert(), rows)


def load_contacts(connection: Connection) -> list[HeldContact]:
    """Return the contacts, the most recently seen first."""
    rows = connection.execute(
        select(dht_contacts.c.peer, dht_contacts.c.ip, dht_contacts.c.port, dht_contacts.c.last_seen).order_by(
            dht_contacts.c.last_seen.desc(), dht_contacts.c.peer
        )
    )
    return [HeldContact(PeerId(peer), ip, port, last_seen) for peer, ip, port, last_seen in rows]


def replace_contacts(connection: Connection, contacts: Iterable[HeldContact]) -> None:
    """Store ``contacts`` in the place of all that were there."""
    connection.execute(delete(dht_contacts))
    rows = [{"peer": c.peer, "ip": c.ip, "port": c.port, "last_seen": c.last_seen} for c in contacts]
    if rows:
        connection.execute(dht_contacts.insert(), rows)
