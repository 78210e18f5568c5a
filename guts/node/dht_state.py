"""What the DHT knew when the node stopped, kept in SQL: contacts to join by, and the records held for others."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection

from guts.clock import Now
from guts.discovery.contact import DhtContact
from guts.discovery.server import Discovery
from guts.discovery.store import StoredRecord, record_key
from guts.errors import PeerFault, StorageFault
from guts.records import PeerRecord, ProviderRecord
from guts.store import discovery as table
from guts.store.database import Database

log = logging.getLogger(__name__)

SAVE_INTERVAL: Final = 300.0
"""Seconds between two savings: a crash loses what others publish again anyway."""


async def restore(discovery: Discovery, database: Database, now_ms: int) -> list[DhtContact]:
    """Give ``discovery`` its records back, and return the contacts to join by. Raises: ``StorageFault``."""
    rows = await database.read(table.load_records, now_ms)
    records = [record for row in rows if (record := _verified(row, now_ms)) is not None]
    discovery.restore(records)
    return [DhtContact(row.ip, row.port, row.peer) for row in await database.read(table.load_contacts)]


def _verified(row: table.HeldRecord, now_ms: int) -> StoredRecord | None:
    for verify in (ProviderRecord.verify, PeerRecord.verify):
        try:
            return StoredRecord(verify(row.encoded, now_ms), row.source)
        except PeerFault:
            continue
    return None


async def save(discovery: Discovery, database: Database, now_ms: int) -> None:
    """Keep what ``discovery`` knows. Raises: ``StorageFault``."""
    records = [
        table.HeldRecord(
            record_key(stored.record),
            stored.record.peer,
            stored.record.seq,
            stored.record.expires,
            stored.record.encoded,
            stored.source,
        )
        for stored in discovery.records()
    ]
    contacts = [
        table.HeldContact(contact.peer, contact.ip, contact.port, now_ms)
        for contact in discovery.contacts()
        if contact.peer is not None
    ]
    await database.write(_replace, records, contacts)


def _replace(connection: Connection, records: list[table.HeldRecord], contacts: list[table.HeldContact]) -> None:
    table.replace_records(connection, records)
    table.replace_contacts(connection, contacts)


async def keep(discovery: Discovery, database: Database, clock: Callable[[], Now]) -> None:
    """Save every few minutes until cancelled."""
    while True:
        await asyncio.sleep(SAVE_INTERVAL)
        try:
            await save(discovery, database, clock().wall)
        except StorageFault as error:
            log.warning("can't keep the state of the DHT: %s", error)
