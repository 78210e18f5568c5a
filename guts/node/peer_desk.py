"""``PeerDesk``: what the operator sees of peers, and whom the operator lets in."""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from guts.addresses import BanSubject, subject_text
from guts.clock import Now
from guts.errors import ExitStatus, UsageError
from guts.events import Ban, Unban, WantedBan
from guts.ids import PeerId
from guts.node.driver import Driver
from guts.node.persistence import Persistence
from guts.peers.score import HALF_LIFE, Bar, Standing
from guts.peers.state import PeerConnection
from guts.peers.usefulness import Usefulness
from guts.store import scores as score_table
from guts.store.database import Database

Json = dict[str, object]

BLAMELESS: Final = "ok"
GREY: Final = "grey"
TRUSTED: Final = "trusted"


class UnknownPeer(UsageError):
    """This node knows nothing of the peer that a command names."""

    code: ClassVar[str] = "UNKNOWN_PEER"
    exit_status: ClassVar[ExitStatus] = ExitStatus.NOT_FOUND

    def __init__(self, peer: PeerId) -> None:
        super().__init__(f"nothing is known of {peer}", hint="guts peer ls")


class PeerDesk:
    """Answers the operator's questions about peers, ready for JSON; bans are carried out by the service."""

    def __init__(self, driver: Driver, database: Database, persistence: Persistence, clock: Callable[[], Now]) -> None:
        self._driver = driver
        self._peers = driver.service.peers
        self._scores = driver.service.peers.scores
        self._database = database
        self._persistence = persistence
        self._clock = clock

    def connected(self) -> list[Json]:
        """Return the connections."""
        now = self._clock()
        return [
            {"peer": str(connection.peer), **self._connection(connection, now), **self._summary(connection.peer, now)}
            for connection in self._peers.connections.values()
        ]

    async def show(self, peer: PeerId) -> Json:
        """Return all that is known of ``peer``. Raises: ``UnknownPeer``, ``StorageFault``."""
        await self._persistence.drain()
        ledger = await self._database.read(score_table.load_ledger, peer)
        now = self._clock()
        state = self._peers.peers.get(peer)
        standing = self._scores.standing(peer, now.mono)
        if state is None and not ledger and standing.bar is None and not standing.trusted:
            raise UnknownPeer(peer)
        ban = self._scores.bans.get(peer, now.mono)
        connections = [c for c in self._peers.connections.values() if c.peer == peer]
        return {
            "peer": str(peer),
            **(self._connection(connections[-1], now) if connections else {"state": "not connected"}),
            **self._summary(peer, now),
            "addresses": [str(address) for address in state.addresses] if state is not None else [],
            "last_seen_ms": state.last_seen or None if state is not None else None,
            "usefulness": _useful(state.usefulness) if state is not None else None,
            "shut_outs": standing.shut_outs,
            "bans": standing.bans,
            "reason": ban.reason if ban is not None else None,
            "half_life_s": HALF_LIFE,
            "ledger": self._ledger(ledger, now),
        }

    def bans(self) -> list[Json]:
        """Return whom this node does not let in, the one whose ban ends first first."""
        now = self._clock()
        rows = [
            self._ban(ban.subject, Bar.BY_OPERATOR, ban.until - now.mono, ban.reason, now)
            for ban in self._scores.bans
            if ban.until > now.mono
        ]
        rows += [self._ban(peer, bar, left, "faults", now) for peer, bar, left in self._scores.barred(now.mono)]
        rows.sort(key=_ends)
        return rows

    async def ban(self, bans: Sequence[WantedBan], *, merge: bool) -> Json:
        """Let nobody of ``bans`` in from now on. Raises: as ``Banning.ban``."""
        result = await self._driver.execute(Ban(tuple(bans), merge))
        await self._persistence.drain()
        return dict(result)

    async def unban(self, subject: BanSubject) -> Json:
        """Let ``subject`` in again. Raises: as ``Banning.unban``."""
        result = await self._driver.execute(Unban(subject))
        await self._persistence.drain()
        return dict(result)

    def suspended(self) -> Json | None:
        """Return why bans for faults are suspended; ``None``: they are not."""
        guard, now = self._scores.guard, self._clock().mono
        if not guard.up(now):
            return None
        return {"sign": guard.sign, "faulty": guard.faulty, "of": guard.of, "since_s": round(now - guard.since, 1)}

    def _connection(self, connection: PeerConnection, now: Now) -> Json:
        return {
            "address": str(connection.address),
            "direction": connection.direction.name.lower(),
            "state": "ready" if connection.ready else "greeting",
            "since_s": round(now.mono - connection.opened_at, 1),
            "last_seen_s": round(now.mono - connection.last_heard, 1),
            "rtt_ms": round(connection.rtt * 1000, 1) if connection.rtt is not None else None,
            "software": connection.software,
        }

    def _summary(self, peer: PeerId, now: Now) -> Json:
        state, standing = self._peers.peers.get(peer), self._scores.standing(peer, now.mono)
        return {
            "capabilities": list(state.capabilities) if state is not None else [],
            "repositories": len(state.repositories) if state is not None else 0,
            "score": round(standing.fault, 3),
            "standing": _word(standing),
            "left_s": _left(standing.left),
        }

    def _ledger(self, ledger: Sequence[score_table.ScoreChange], now: Now) -> list[Json]:
        ran = self._scores.ran(now.mono)
        return [
            {
                "at_ms": change.at,
                "ago_s": round((ran - change.ran) / 1000, 3),
                "change": change.change,
                "total": change.total,
                "reason": change.reason,
                "barred_s": change.barred_ms / 1000,
            }
            for change in ledger
        ]

    @staticmethod
    def _ban(subject: BanSubject, bar: Bar, left: float, reason: str, now: Now) -> Json:
        return {
            "subject": subject_text(subject),
            "kind": bar,
            "left_s": _left(left),
            "until_ms": None if left == math.inf else now.wall + round(left * 1000),
            "reason": reason,
        }


def _word(standing: Standing) -> str:
    if standing.trusted:
        return TRUSTED
    return standing.bar or (GREY if standing.grey else BLAMELESS)


def _left(seconds: float) -> float | None:
    return None if seconds == math.inf else round(seconds, 1)


def _ends(row: Json) -> tuple[float, str]:
    left = row["left_s"]
    return left if isinstance(left, float) else math.inf, str(row["subject"])


def _useful(useful: Usefulness) -> Json | None:
    """Return what was measured; ``None``: nothing was, and what the node reckons with is a guess."""
    if not useful.asked:
        return None
    return {"success": round(useful.success, 3), "bytes_per_s": round(useful.rate) if useful.measured else None}
