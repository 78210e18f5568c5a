"""``Presence``: what this node says of itself under its own key: to the DHT, again and again, where it is and what it
holds; to a peer, that it has committed a record."""

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from guts.addresses import Address
from guts.clock import Now
from guts.discovery.server import Discovery
from guts.events import Head
from guts.identity import SigningKey
from guts.ids import AuthorId, PeerId, RepositoryId
from guts.records import RECORD_LIFE_MS, CommitReceipt, PeerRecord, ProviderRecord

log = logging.getLogger(__name__)

LEAVING_MS: Final = 30_000
"""Life of the last record of what is not held any more: newer than the one before, it takes its place, and is gone."""

RETRY_SECONDS: Final = 15.0
"""Until a record that no other node took is offered again: nobody was there yet."""


class Presence:
    """Signs this node's own records, and publishes those that are for the DHT. ``discovery`` is for lookups.

    Args:
        addresses: what others can dial; empty: nothing is published.

    Attributes:
        joined: set when the doors have been knocked at once, whether or not anybody answered; lookups wait for it.
    """

    def __init__(
        self, discovery: Discovery, key: SigningKey, addresses: tuple[Address, ...], clock: Callable[[], Now]
    ) -> None:
        self.discovery = discovery
        self.joined = asyncio.Event()
        self._key = key
        self._addresses = addresses
        self._clock = clock
        self._due: dict[RepositoryId | None, float] = {}
        self._leaving: set[RepositoryId] = set()
        self._changed = asyncio.Event()
        self._joining = False
        self._published: dict[RepositoryId, asyncio.Future[int]] = {}

    async def met(self, address: Address, peer: PeerId) -> None:
        """Join the DHT through ``peer``, which was reached at ``address``, where no node of it is known here.

        So a node that was given nothing but a URL with an address finds others by themselves from then on.
        """
        if not self._joining and not self.discovery.contacts():
            self._joining = True
            await self.discovery.join([(address.ip, address.port, peer)])
            self._joining = False

    def provide(self, repository: RepositoryId) -> None:
        """Publish that this node holds ``repository``: now, and from then on before each record expires."""
        self._leaving.discard(repository)
        self._set_due(repository, self._clock().mono)

    def provide_all(self, repositories: Iterable[RepositoryId]) -> None:
        """Publish every one of ``repositories``, and where this node is."""
        now = self._clock().mono
        for repository in repositories:
            self._set_due(repository, now)
        self._set_due(None, now)

    def provided(self, repository: RepositoryId) -> Awaitable[int]:
        """Return what tells how many nodes took the next record, from now on, that says "``repository`` is here"."""
        published = self._published.get(repository)
        if published is None:
            published = self._published[repository] = asyncio.get_running_loop().create_future()
        return asyncio.shield(published)

    def withdraw(self, repository: RepositoryId) -> None:
        """Publish ``repository`` no longer; what is out there gives way to a record that expires in a moment."""
        if self._due.pop(repository, None) is not None:
            self._leaving.add(repository)
            self._set_due(repository, self._clock().mono)

    def peer_record(self, capabilities: tuple[str, ...]) -> PeerRecord:
        """Return a fresh record of this node."""
        wall = self._clock().wall
        return PeerRecord.sign(self._key, self._addresses, capabilities, wall, wall + RECORD_LIFE_MS)

    def receipt(self, repository: RepositoryId, author: AuthorId, head: Head) -> CommitReceipt:
        """Return this node's word that it has committed the record ``head`` of ``author``."""
        return CommitReceipt.sign(self._key, repository, author, head.seq, head.hash, self._clock().wall)

    async def run(self, capabilities: tuple[str, ...], renewed: Callable[[bytes], Awaitable[None]]) -> None:
        """Publish what is due until cancelled, one record at a time; ``renewed`` gets every new PeerRecord."""
        while True:
            self._changed.clear()
            repository, due = min(self._due.items(), key=lambda item: item[1], default=(None, math.inf))
            wait = due - self._clock().mono
            if wait <= 0 and self._addresses:
                await self._publish(repository, capabilities, renewed)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait if self._addresses and wait < math.inf else None):
                    await self._changed.wait()

    async def _publish(
        self,
        repository: RepositoryId | None,
        capabilities: tuple[str, ...],
        renewed: Callable[[bytes], Awaitable[None]],
    ) -> None:
        wall = self._clock().wall
        if repository is None:
            mine = self.peer_record(capabilities)
            await renewed(mine.encoded)
            stored = await self.discovery.announce(mine)
        else:
            leaving = repository in self._leaving
            expires = wall + (LEAVING_MS if leaving else RECORD_LIFE_MS)
            stored = await self.discovery.provide(
                ProviderRecord.sign(self._key, repository, self._addresses, wall, expires)
            )
            if leaving and repository in self._leaving:
                self._leaving.discard(repository)
                self._due.pop(repository, None)
            if (published := self._published.pop(repository, None)) is not None:
                published.set_result(stored)
        # One of them is this node itself, where it is near enough to the key.
        wait = self.discovery.republish_interval() if stored > 1 else RETRY_SECONDS
        # Not where it was withdrawn in the meantime.
        if repository in self._due:
            self._due[repository] = self._clock().mono + wait
        log.debug("published %s to %d nodes", repository.short if repository else "our addresses", stored)

    def _set_due(self, repository: RepositoryId | None, time: float) -> None:
        self._due[repository] = time
        self._changed.set()
