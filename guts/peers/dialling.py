"""Whom to dial, and when: last-good addresses, doors and claims, each with a waiting time of its own.

At most 8 dials are under way at a time; what a component asks for beyond that waits. What the operator names goes
first, and what others claimed has no more than half, of which no network has more than 2: claims cost nothing to make,
and a dial of nobody takes as long as it may. An address where nobody answered is left alone for a while, whoever is
said to be there.

Of its own accord a node dials anchors, then peers that it has reached before, then doors, then claims, and no more than
2 of one network; doors come before all but anchors while hardly anybody is connected. Holders of what is followed have
connections of their own, so that saying "I hold it" takes nobody's place.
"""

import math
import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Container, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Final

from guts.addresses import Address, BanSubject, BootstrapAddress, is_ip
from guts.effects import Dial
from guts.errors import Unavailable
from guts.ids import PeerId, RepositoryId
from guts.peers.backoff import MAX_DELAY, MAX_DELAY_FOR_HOLDER, Backoff
from guts.peers.bans import ALL_BITS, network_around
from guts.peers.book import DOOR, AddressBook
from guts.peers.networks import Surroundings, diversely, prefix, public_prefix
from guts.peers.state import PeerState

STABLE_AFTER: Final = 60.0
"""Seconds that a connection lasts before the failures ahead of it are forgotten: who greets and hangs up at once,
again and again, is dialled less and less often."""

MAX_DIALS: Final = 8
"""Dials under way at a time: a restarting node neither floods its own line nor looks like a scanner."""

MAX_CLAIMED_DIALS: Final = 4
"""Of them at addresses that others claimed to hold something at: the other half is for those whom we choose."""

MAX_CLAIMED_PER_PLACE: Final = 2
"""Dials of one /24 or /48 under way past which no claim adds one."""

MAX_WAITING_CLAIMS: Final = 1_024
"""Claims that wait to be dialled, of all goals together; more are refused."""

MAX_UNANSWERED: Final = 4_096
"""Addresses remembered where nobody answered; the one that was dialled the longest ago is forgotten first."""

MAX_RACED: Final = 4
"""Addresses of one peer that one dial tries: both families, twice. A record that names eight strangers makes nobody
knock at all of them at once."""

MAX_OUTBOUND_PER_PLACE: Final = 2
"""Of one /24 or /48, of those that are dialled of our own accord."""

LONELY_BELOW: Final = 4
"""Ready connections below which doors are dialled ahead of last-good addresses."""

DOOR_SPREAD: Final = 30.0
"""Seconds over which doors are dialled first by nodes that know others to dial: a door that all nodes of a restarted
data centre call at once would be no door."""

ASKED_JITTER: Final = 0.5
"""How much later, as a share, who was asked to wait comes again at the most."""

RESTART_WINDOW: Final = 8.0
"""Seconds at least over which the peers of a node that restarts come back."""


class Purpose(Enum):
    """What a dial is for."""

    PEER = "peer"
    NAMED = "named"
    """Like ``PEER``, and by the operator."""
    HOLDER = "holder"
    HINT = "hint"
    """Like ``HOLDER``, and by the operator."""
    FEELER = "feeler"


OF_OUR_OWN_ACCORD: Final = (Purpose.PEER, Purpose.NAMED)
BY_THE_OPERATOR: Final = (Purpose.NAMED, Purpose.HINT)


class NotDialled(Unavailable):
    """What a stranger named is not dialled, or not now."""

    code: ClassVar[str] = "NOT_DIALLED"


@dataclass(frozen=True, slots=True)
class Around:
    """What counts when it is decided whom to dial.

    Attributes:
        connected: who is, ourselves included.
        open_targets: what the open connections were dialled at.
        places: of the connections that we dialled.
        refused: tells who is banned.
        shut: tells from and to which addresses nobody is let in, of the peers that are not trusted.
        scarce: followed repositories with too few connected holders.
        lonely: hardly anybody is connected.
    """

    connected: Container[PeerId]
    open_targets: Container[BootstrapAddress | None]
    places: Counter[str]
    refused: Callable[[PeerId], bool]
    shut: Callable[[PeerId | None, Address], bool]
    scarce: Collection[RepositoryId]
    lonely: bool


class Dialling:
    """The dials under way, and the waiting time of every target.

    A *door* is an address from the config. Where it came without an id, the id that answered last is remembered, so
    that a door whose node is connected some other way is left alone.

    Attributes:
        under_way: what each running dial is for.
    """

    def __init__(
        self, doors: tuple[BootstrapAddress, ...], book: AddressBook, surroundings: Surroundings, rng: random.Random
    ) -> None:
        self._doors = doors
        self._door_places = {(door.host, door.port) for door in doors}
        self._book = book
        self._surroundings = surroundings
        self._rng = rng
        self._behind: dict[BootstrapAddress, PeerId] = {}
        self._backoffs = {door: Backoff() for door in doors}
        self._doors_spread = not any(state.reached for state in book.peers.values())
        self._purposes: dict[BootstrapAddress, Purpose] = {}
        self._waiting: dict[BootstrapAddress, Dial] = {}
        self._claims: dict[BootstrapAddress, Dial] = {}
        self._unanswered: OrderedDict[tuple[str, int], Backoff] = OrderedDict()
        self.under_way: dict[BootstrapAddress, Purpose] = {}

    @property
    def has_doors(self) -> bool:
        """Whether the config names any."""
        return bool(self._doors)

    def is_door(self, state: PeerState) -> bool:
        """Tell whether everybody dials ``state``: it is there for that, or the config names it."""
        return DOOR in state.capabilities or self._named(state)

    def _named(self, state: PeerState) -> bool:
        if any((address.ip, address.port) in self._door_places for address in state.addresses):
            return True
        return any(state.id in (door.peer, self._behind.get(door)) for door in self._doors)

    @property
    def room(self) -> int:
        """How many more dials may be begun of our own accord; what waits goes first, but for claims."""
        return max(0, MAX_DIALS - len(self.under_way) - len(self._waiting))

    @property
    def room_for_claims(self) -> int:
        """How many more may be begun because of what others claimed."""
        return max(0, min(self.room, MAX_CLAIMED_DIALS - len(self._claimed()) - len(self._claims)))

    def _claimed(self) -> list[BootstrapAddress]:
        return [target for target, purpose in self.under_way.items() if purpose is Purpose.HOLDER]

    def plan(self, target: BootstrapAddress, purpose: Purpose) -> None:
        """Note what the next dial of ``target`` is for; without that it is for a holder."""
        self._purposes[target] = purpose

    def begin(self, dial: Dial) -> list[Dial]:
        """Return ``dial`` where it begins now; nothing where its target is being dialled already, or has to wait."""
        target = dial.target
        purpose = self._purposes.pop(target, Purpose.HINT if dial.hinted else Purpose.HOLDER)
        if target in self.under_way:
            if self.under_way[target] is Purpose.FEELER or purpose is Purpose.NAMED:
                self.under_way[target] = purpose
            return []
        if purpose is Purpose.HOLDER and target not in self._waiting:
            self._claims.setdefault(target, dial)
        elif target not in self._waiting or purpose in BY_THE_OPERATOR:
            self._claims.pop(target, None)
            self._waiting[target] = dial
        if target in self._waiting:
            self._purposes[target] = purpose
        begun = self._next()
        for each in begun:
            self._waiting.pop(each.target, None)
            self._claims.pop(each.target, None)
            self.under_way[each.target] = self._purposes.pop(each.target, Purpose.HOLDER)
        return begun

    def refusal(self, dial: Dial, now: float) -> NotDialled | None:
        """Tell why ``dial``, which a stranger's word leads to, is not begun: of others nothing is refused.

        It is the one place where addresses of strangers are looked at, wherever they were told.
        """
        if dial.hinted or dial.target in self._purposes or dial.target in self._claims:
            return None
        host, port = dial.target.host, dial.target.port
        if not is_ip(host):
            # Records hold no names.
            return None
        if not self._surroundings.may_dial(Address(host, port)):
            return NotDialled("means something else here, or is another service's")
        if (host, port) in self._unanswered and now < self._unanswered[host, port].not_before:
            return NotDialled("nobody answered there lately")
        if len(self._claims) >= MAX_WAITING_CLAIMS:
            return NotDialled("too many dials wait")
        return None

    def unanswered(self, target: BootstrapAddress, now: float) -> None:
        """Leave the address of ``target`` alone for a while, whoever is said to be there: nobody answered."""
        where = (target.host, target.port)
        backoff = self._unanswered.setdefault(where, Backoff())
        backoff.failed(now, self._rng)
        self._unanswered.move_to_end(where)
        if len(self._unanswered) > MAX_UNANSWERED:
            self._unanswered.popitem(last=False)

    def _next(self) -> list[Dial]:
        """Return what waits and may begin now."""
        left = MAX_DIALS - len(self.under_way)
        order = sorted(self._waiting, key=lambda target: self._purposes[target] not in BY_THE_OPERATOR)
        chosen = [self._waiting[target] for target in order[: max(0, left)]]
        left = min(left - len(chosen), MAX_CLAIMED_DIALS - len(self._claimed()))
        places = Counter(self._place(target) for target in self.under_way)
        for target, dial in self._claims.items():
            if left <= 0:
                break
            place = self._place(target)
            if not place or places[place] < MAX_CLAIMED_PER_PLACE:
                left -= 1
                places[place] += 1
                chosen.append(dial)
        return chosen

    def _place(self, target: BootstrapAddress) -> str:
        """Return the network of the internet that ``target`` is in; "": a name, or nearby."""
        return public_prefix(target.host)

    def end(self, target: BootstrapAddress) -> tuple[Purpose, list[Dial]]:
        """Note that a dial of ``target`` has ended, one way or the other.

        Returns: what it was for, and the dials that may ``begin`` in its place.
        """
        purpose = self.under_way.pop(target, Purpose.HOLDER)
        return purpose, self._next()

    def greeted(self, target: BootstrapAddress, peer: PeerId) -> None:
        """Note who answered at ``target``."""
        self._unanswered.pop((target.host, target.port), None)
        if target in self._backoffs:
            self._behind[target] = peer

    def failed(
        self,
        target: BootstrapAddress | None,
        state: PeerState | None,
        now: float,
        *,
        worthy: bool = False,
        lasted: float = 0.0,
        at_least: float = 0.0,
    ) -> None:
        """Put off the next dial of ``target``, where it is a door, and of the peer of ``state``.

        Args:
            worthy: the peer was reached before, and holds something that is followed.
            lasted: seconds that there was a connection.
            at_least: seconds that the peer asked to be left alone for.
        """
        for backoff, cap in self._waits(target, state, worthy=worthy):
            if lasted >= STABLE_AFTER:
                backoff.succeeded()
            backoff.failed(now, self._rng, cap)
            # Many may have been asked to at one moment.
            asked = min(at_least, MAX_DELAY) * self._rng.uniform(1.0, 1 + ASKED_JITTER)
            backoff.not_before = max(backoff.not_before, now + asked)

    def restarting(self, target: BootstrapAddress | None, state: PeerState | None, now: float, window: float) -> None:
        """Let the next dial be due at any moment of ``window`` seconds, ``RESTART_WINDOW`` at least: it comes back."""
        for backoff, _ in self._waits(target, state, worthy=False):
            backoff.succeeded()
            backoff.spread(now, self._rng, min(max(window, RESTART_WINDOW), MAX_DELAY))

    def let_in(self, subject: BanSubject) -> None:
        """Let the dials of everybody whom a ban of ``subject`` concerned be due at once: it has ended."""
        for state in self._book.peers.values():
            if subject == state.id or any(_is_in(address.ip, subject) for address in state.addresses):
                state.backoff.succeeded()
        for door, backoff in self._backoffs.items():
            if subject in (door.peer, self._behind.get(door)) or _is_in(door.host, subject):
                backoff.succeeded()

    def _waits(
        self, target: BootstrapAddress | None, state: PeerState | None, *, worthy: bool
    ) -> list[tuple[Backoff, float]]:
        waits = [] if state is None else [(state.backoff, MAX_DELAY_FOR_HOLDER if worthy else MAX_DELAY)]
        if target is not None and target in self._backoffs:
            waits.append((self._backoffs[target], MAX_DELAY_FOR_HOLDER))
        return waits

    # --- whom -----------------------------------------------------------------------------------------------

    def due(self, around: Around, peers: int, holders: int, now: float) -> tuple[list[Dial], float]:
        """Return whom to dial now, and when somebody else is due next (monotonic seconds).

        Args:
            peers: how many to dial of our own accord, at most.
            holders: how many more for what they hold, at most.
        """
        if not self._doors_spread:
            self._doors_spread = True
            for backoff in self._backoffs.values():
                backoff.spread(now, self._rng, DOOR_SPREAD)
        dials: list[Dial] = []
        if peers <= 0 and holders <= 0:
            return dials, math.inf
        idle, following = self._idle(around, now)
        doors = []
        for door in self._closed_doors(around):
            if (not_before := self._backoffs[door].not_before) <= now:
                doors.append(door)
            else:
                following = min(following, not_before)
        places = around.places.copy()
        for purpose, place, dial in self._candidates(around, idle, doors, holders > 0):
            left = holders if purpose is Purpose.HOLDER else peers
            if left <= 0 or (place and places[place] >= MAX_OUTBOUND_PER_PLACE):
                continue
            if dial.target in self.under_way or dial.target in self._waiting:
                continue
            places[place] += 1
            if purpose is Purpose.HOLDER:
                holders -= 1
            else:
                peers -= 1
            self.plan(dial.target, purpose)
            dials.append(dial)
            if peers <= 0 and holders <= 0:
                break
        return dials, following

    def feeler(self, around: Around, now: float) -> list[Dial]:
        """Return the dial of a claim that nobody here has reached yet, of whichever source, where there is one."""
        claims = [state for state in self._idle(around, now)[0] if not state.reached]
        if not claims:
            return []
        source = self._rng.choice(sorted({state.source for state in claims}))
        dial = self._dial(self._rng.choice([state for state in claims if state.source == source]), around)
        if dial is None or dial.target in self.under_way or dial.target in self._waiting:
            return []
        self.plan(dial.target, Purpose.FEELER)
        return [dial]

    def _candidates(
        self, around: Around, idle: list[PeerState], doors: list[BootstrapAddress], holders: bool
    ) -> Iterable[tuple[Purpose, str, Dial]]:
        """Yield whom we could dial, the most wanted first: purpose, network ("" where it doesn't count), dial."""
        if holders:
            for state in idle:
                if not state.repositories.isdisjoint(around.scarce) and (dial := self._dial(state, around)):
                    yield Purpose.HOLDER, "", dial
        knocks = [(Purpose.PEER, "", Dial(door)) for door in doors]
        # A door that the config names has its own time; of the others the nodes that everybody dials come last.
        reached = [state for state in idle if state.reached and not self._named(state)]
        reached.sort(key=lambda s: (s.misses, DOOR in s.capabilities, -s.last_seen))
        anchors = [state for anchor in self._book.anchors for state in reached if state.id == anchor]
        yield from self._peers(anchors, around)
        if around.lonely:
            yield from knocks
        yield from self._peers(
            diversely((state for state in reached if state not in anchors), self._book.place), around
        )
        if not around.lonely:
            yield from knocks
        claims = [state for state in idle if not (state.reached or self._named(state))]
        self._rng.shuffle(claims)
        yield from self._peers(diversely(claims, lambda state: state.source), around)

    def _peers(self, states: Iterable[PeerState], around: Around) -> Iterable[tuple[Purpose, str, Dial]]:
        for state in states:
            dial = self._dial(state, around)
            if dial is not None:
                ip = dial.target.host
                yield Purpose.PEER, "" if self._surroundings.is_local(ip) else prefix(ip), dial

    def _idle(self, around: Around, now: float) -> tuple[list[PeerState], float]:
        """Return who may be dialled now, and when the next one has waited long enough (monotonic seconds)."""
        dialled = {target.peer for target in (*self.under_way, *self._waiting)}
        idle, following = [], math.inf
        for state in self._book.peers.values():
            # What costs least first: a book has a thousand peers, and most have to wait.
            if state.backoff.not_before > now:
                following = min(following, state.backoff.not_before)
            elif state.addresses and state.id not in dialled and not _taken(state.id, around):
                idle.append(state)
        return idle, following

    def _closed_doors(self, around: Around) -> list[BootstrapAddress]:
        """Return the doors behind which nobody is connected."""
        return [
            door
            for door in self._doors
            if door not in around.open_targets
            and not _taken(door.peer or self._behind.get(door), around)
            and not self._is_shut(door, around)
        ]

    def _is_shut(self, door: BootstrapAddress, around: Around) -> bool:
        """Tell whether it would be in vain; behind a name may be any address."""
        peer = door.peer or self._behind.get(door)
        return is_ip(door.host) and around.shut(peer, Address(door.host, door.port))

    def _dial(self, state: PeerState, around: Around) -> Dial | None:
        where = [address for address in self._book.dialable(state) if not around.shut(state.id, address)]
        if not where:
            return None
        # The best first; of more than one dial tries, each failure brings others to the front.
        turn = state.misses % len(where)
        raced = (where[turn:] + where[:turn])[:MAX_RACED]
        first, *others = raced
        return Dial(BootstrapAddress(first.ip, first.port, state.id), tuple(others))


def _taken(peer: PeerId | None, around: Around) -> bool:
    return peer is not None and (peer in around.connected or around.refused(peer))


def _is_in(host: str, subject: BanSubject) -> bool:
    """Tell whether ``host`` is in the network ``subject``; a name may be."""
    if isinstance(subject, PeerId):
        return False
    if not is_ip(host):
        return True
    ip = network_around(host, ALL_BITS).network_address
    return ip in subject
