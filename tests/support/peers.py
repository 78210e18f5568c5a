"""Node keys, records, hellos and clock readings for tests of the packages that decide."""

from typing import Final

from guts.addresses import Address, BootstrapAddress
from guts.clock import Now
from guts.effects import KeptScore, Persist, ScoreChanged
from guts.events import Connected, ConnectionId
from guts.identity import SigningKey
from guts.ids import AuthorId, PeerId, RepositoryId
from guts.peers.score import BAN_SECONDS, REPEATS_KEPT
from guts.records import PeerRecord
from guts.wire.messages import Hello, HelloAck
from guts.wire.secure import Direction

WALL: Final = 1_790_000_000_000
HOUR_MS: Final = 3_600_000
KEYS: Final = sorted((SigningKey(bytes([number]) * 32) for number in range(1, 13)), key=lambda key: key.peer_id)
"""Node keys, the smallest id first: who dials decides between duplicates by that order."""

IDS: Final = [key.peer_id for key in KEYS]
START: Final = Now(0.0, WALL)
OLD, NEW = b"start--1", b"start--2"


def at(seconds: float) -> Now:
    """Return both clocks ``seconds`` after the start of the test."""
    return Now(seconds, WALL + int(seconds * 1000))


def repository(number: int) -> RepositoryId:
    """Return a repository id that sorts as ``number`` does."""
    return RepositoryId(number.to_bytes(32, "big"))


def author(number: int) -> AuthorId:
    """Return an author's key."""
    return AuthorId(number.to_bytes(32, "big"))


def address(number: int) -> Address:
    """Return where node ``number`` listens."""
    return Address(f"192.0.2.{number}", 9000)


def target(number: int, peer: PeerId | None = None) -> BootstrapAddress:
    """Return the target at ``address(number)``."""
    return BootstrapAddress(f"192.0.2.{number}", 9000, peer)


def record_of(number: int, *, expires: int = WALL + HOUR_MS) -> bytes:
    """Return the PeerRecord that node ``number`` signs for its one address."""
    return PeerRecord.sign(KEYS[number], (address(number),), ("seed",), 1, expires).encoded


def hello_of(
    number: int,
    *,
    nonce: bytes = OLD,
    record: bytes | None = None,
    versions: tuple[int, int] = (1, 1),
    capabilities: tuple[str, ...] = ("seed",),
) -> Hello:
    """Return the Hello of node ``number``."""
    return Hello(*versions, "guts/0.1.0", capabilities, record_of(number) if record is None else record, WALL, nonce)


def ack_of(number: int, *, nonce: bytes = OLD, record: bytes | None = None, version: int = 1) -> HelloAck:
    """Return the HelloAck of node ``number``."""
    return HelloAck(version, "guts/0.1.0", ("seed",), record_of(number) if record is None else record, WALL, nonce)


def inbound(connection: int, number: int) -> Connected:
    """Return the event that node ``number`` has dialled us, from a network of its own."""
    where = Address(f"198.51.{100 + number}.7", 40_000)
    return Connected(ConnectionId(connection), Direction.INBOUND, IDS[number], where, None)


def outbound(connection: int, number: int, dialled: BootstrapAddress | None = None) -> Connected:
    """Return the event that we have dialled node ``number``."""
    where = dialled or target(number, IDS[number])
    return Connected(ConnectionId(connection), Direction.OUTBOUND, IDS[number], address(number), where)


def score_changed(
    number: int, value: float, change: float, code: str, now: Now = START, *, barred: float = 0
) -> Persist:
    """Return what is kept of a first fault of node ``number``, which bars it for ``barred`` seconds."""
    ran, banned = round(now.mono * 1000), barred >= BAN_SECONDS
    barred_ms = round(barred * 1000)
    kept = KeptScore(IDS[number], value, ran)
    if barred:
        until = ran + barred_ms
        kept = KeptScore(
            IDS[number], value, ran, until, banned, int(not banned), int(banned), until + round(REPEATS_KEPT * 1000)
        )
    return Persist(ScoreChanged(kept, change, code, barred_ms, now.wall))
