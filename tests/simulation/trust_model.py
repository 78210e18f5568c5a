"""A model of maintainers and replicas that lose, delay, reorder and repeat what they tell each other.

Four writers push, each at any of five replicas; replicas pass on single records or all they have, with documents and
headers missing at random; maintainers are removed (and go on signing), taken back and reaffirmed; a replica comes back
from a backup, and a writer does so and signs a second history, which some document may settle, or none. What replicas
decide is the product's code (``guts.node.acceptance.verify`` and all of ``guts.trust``); what is made up is the
transport, the clock and git's answers. In the end everybody hears everything.

    python -m tests.simulation.trust_model 20000 1        schedules, seed

A schedule depends on nothing but its own seed, which is printed where it fails.
"""

import itertools
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from guts.errors import Unavailable
from guts.identity import SigningKey
from guts.ids import AuthorId, ObjectId
from guts.node.acceptance import Verified, verify
from guts.trust.acceptance import past_limit, settles
from guts.trust.authoring import CannotPublish, own_moves, prepare_refs
from guts.trust.canonical_refs import counting
from guts.trust.chain import IdentityChain
from guts.trust.equivocation import EquivocationProof, InvalidProof
from guts.trust.identity_document import AuthorPoint
from guts.trust.ref_names import CONFLICTS
from guts.trust.signed_refs import SignedHeader, SignedRefs
from guts.trust.standing import counts
from guts.wire.messages import EncodedRefs
from tests.support.simulator.commits import Commits
from tests.support.simulator.replica import Replica
from tests.unit.trust.world import MAIN, NOW, chain, key, sign

WRITERS = tuple(key(f"writer {number}") for number in range(4))
BY_ID = {writer.author_id: writer for writer in WRITERS}
GENESIS = chain(*WRITERS, threshold=2)
REPLICAS = 5
REFS = (MAIN, "refs/heads/dev", "refs/heads/dev/x", "refs/tags/v1")
MAX_CHANGES = 3
"""Identity documents in one schedule, after genesis."""

STEPS = 40
STEP_MS = 1_000
SKEW_MS = 30_000
"""How far the clocks of writers are apart: half of them push with a clock behind what they have seen."""


class Diverged(AssertionError):
    """What may not be, was. The text says what."""


@dataclass
class CheckedReplica(Replica):
    """A replica that looks at what it commits: no honest writer, and no order of arrival, may make it break a rule."""

    superseded: set[tuple[AuthorId, str, int]] = field(default_factory=set)
    forked: set[AuthorId] = field(default_factory=set)
    """Writers with two histories, the same set for all: whoever has not met the proof sees what the others don't."""

    def copy(self) -> "CheckedReplica":
        return replace(
            self,
            newest=dict(self.newest),
            proofs=dict(self.proofs),
            archive=dict(self.archive),
            headers=dict(self.headers),
            superseded=set(self.superseded),
        )

    def known_of(self, author: AuthorId) -> tuple[int, bytes]:
        """Return (seq, hash) of what is told of the author to whom is asked."""
        record = self.newest.get(author)
        return (0, b"") if record is None else (record.seq, record.hash)

    def check_and_take(self, verified: Verified, commits: Commits) -> None:
        """Commit ``verified``. Raises: ``Diverged``."""
        chain, proofs = verified.chain, verified.proofs
        if any(not counts(chain, proofs.get(author), record.header) for author, record in self.newest.items()) or any(
            self._saw_what_was_cut_off(verified, new.record) for new in verified.new
        ):
            # What only a record that counts no longer had superseded comes back.
            self.superseded.clear()
        for new in verified.new:
            for change in new.changes():
                if not (change.allowed or (change.new is not None and (change.old, change.new) in commits)):
                    raise Diverged(f"an honest record moves {change.ref} without a mark")
            before = self.newest.get(new.record.author)
            valid = before is not None and counts(chain, proofs.get(new.record.author), before.header)
            if before is not None and valid and new.record.seq <= before.seq:
                raise Diverged("seq went down")
        self.take(verified)
        self._remember_superseded()

    def _went_back(self, author: AuthorId) -> None:
        self.superseded.clear()

    def _saw_what_was_cut_off(self, verified: Verified, record: SignedRefs) -> bool:
        """Tell whether the author may have dropped a tombstone because of a record that counts no longer."""
        for author, seq in record.entries.seen.pairs:
            limit, proof = verified.chain.last_limit(author), verified.proofs.get(author)
            if (limit is not None and seq > limit.seq) or (proof is not None and seq >= proof.split_seq):
                return True
        return False

    def _remember_superseded(self) -> None:
        counted = counting(self.chain, self.newest)
        now: set[tuple[AuthorId, str, int]] = set()
        claims: set[tuple[AuthorId, str, int]] = set()
        for record in counted:
            for ref, entry in record.entries.refs.items():
                claim = (record.author, ref, entry.seq)
                claims.add(claim)
                others = (other.entries.refs.get(ref) for other in counted if other is not record)
                if any(other is not None and other.seen.get(record.author) >= entry.seq for other in others):
                    now.add(claim)
        if not self.forked and (returned := (self.superseded & claims) - now):
            raise Diverged(f"superseded, and back: {[(ref, seq) for _, ref, seq in returned]}")
        self.superseded |= now


class Model:
    """One schedule.

    Args:
        splits: how often writers sign a second history, against 10 pushes.
    """

    def __init__(self, rng: random.Random, splits: int) -> None:
        self.rng = rng
        self.splits = splits
        self.git = Commits()
        self.forked: set[AuthorId] = set()
        self.replicas = [CheckedReplica(GENESIS, forked=self.forked) for _ in range(REPLICAS)]
        self.backups: dict[int, CheckedReplica] = {}
        self.chain = GENESIS
        self.now = NOW
        self.last: dict[AuthorId, SignedRefs] = {}
        self.every: dict[bytes, SignedHeader] = {}
        self.counts: dict[str, int] = {}

    @classmethod
    def seeded(cls, seed: int) -> Self:
        """Return the schedule of ``seed``; a third have writers with two histories, and the others stricter checks."""
        return cls(random.Random(seed), int(seed % 3 == 0))

    def run(self, steps: int = STEPS) -> None:
        """Run the schedule to its end.

        Raises:
            Diverged: a property does not hold.
            PeerFault: honest replicas found fault with each other.
        """
        actions = (
            self.push,
            self.tell,
            self.tell_all,
            self.change_identity,
            self.back_up,
            self.restore,
            self.rogue,
            self.split,
        )
        weights = (10, 20, 6, 2, 1, 1, 1, self.splits)
        for _ in range(steps):
            self.now += STEP_MS
            (action,) = self.rng.choices(actions, weights=weights)
            action()
        self.quiesce()
        self.check()

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # --- what happens ---------------------------------------------------------------------------------------

    def push(self) -> None:
        """A writer pushes at some replica; the one that comes with an old state there learns its newest first."""
        place = self.rng.randrange(REPLICAS)
        writer = self.rng.choice(WRITERS)
        replica = self.replicas[place]
        if not self._resynced(writer.author_id, replica):
            return
        record = self._sign(writer, replica, self._wanted(replica))
        if record is None:
            return
        self.count("pushes")
        self._offer(replica, (), [], [record])
        if replica.newest.get(writer.author_id) != record:
            raise Diverged("a replica refuses what was made from its own state")

    def split(self) -> None:
        """A writer who was restored from a backup pushes at a replica that has not heard of the newest record."""
        stale = [
            (writer, replica)
            for writer, replica in itertools.product(WRITERS, self.replicas)
            if (held := replica.newest.get(writer.author_id)) is not None
            and held != self.last.get(writer.author_id)
            and writer.author_id not in replica.proofs
        ]
        if not stale:
            return
        writer, replica = self.rng.choice(stale)
        record = self._sign(writer, replica, self._wanted(replica))
        if record is not None:
            self.count("second histories")
            self.forked.add(writer.author_id)
            self._offer(replica, (), [], [record])

    def _resynced(self, author: AuthorId, replica: CheckedReplica) -> bool:
        last = self.last.get(author)
        if author in replica.proofs:
            return False
        if last is None or past_limit(replica.chain, last.header):
            return True
        if author in self.forked and replica.chain.limit(author, last.header.epoch) is not None:
            # What was signed last may be on the branch that was given up.
            return True
        if replica.newest.get(author) != last:
            sources = [other for other in self.replicas if other.newest.get(author) == last]
            if not sources:
                return False
            self.count("resyncs")
            self._send(self.rng.choice(sources), replica)
        return past_limit(replica.chain, last.header) or replica.newest.get(author) == last

    def _wanted(self, replica: CheckedReplica) -> tuple[dict[str, ObjectId], str, frozenset[str]]:
        base = replica.canonical(self.git)
        shown = {ref: value for ref, value in base.refs.items() if not ref.startswith(CONFLICTS)}
        wanted, forced = dict(shown), set[str]()
        for ref in self.rng.sample(REFS, self.rng.randint(1, 2)):
            sides = [conflict.oid for conflict in base.conflicts if conflict.ref == ref]
            kind = self.rng.choice(("forward", "forward", "merge", "force", "delete"))
            if kind == "delete":
                wanted.pop(ref, None)
                continue
            for other in [o for o in wanted if (o + "/").startswith(ref + "/") or (ref + "/").startswith(o + "/")]:
                if other != ref:
                    del wanted[other]
            old = [shown[ref]] if ref in shown else []
            parents = {"forward": old, "merge": [*old, *sides], "force": []}[kind]
            wanted[ref] = self.git.commit(*parents)
        forced |= {ref for ref, old in shown.items() if ref in wanted and self._loses(old, wanted[ref])}
        return wanted, self.rng.choice((base.head, base.head, *REFS[:2])), frozenset(forced)

    def _loses(self, old: ObjectId, new: ObjectId) -> bool:
        return old != new and (old, new) not in self.git

    def _sign(
        self, writer: SigningKey, replica: CheckedReplica, push: tuple[dict[str, ObjectId], str, frozenset[str]]
    ) -> SignedRefs | None:
        wanted, head, forced = push
        author = writer.author_id
        previous = replica.newest.get(author)
        last = self.last.get(author)
        cut_off = last.seq if last is not None and past_limit(replica.chain, last.header) else 0
        losing = {ref for ref, old, new in own_moves(previous, wanted) if self._loses(old, new)}
        try:
            unsigned = prepare_refs(
                replica.chain,
                author,
                previous,
                wanted,
                head,
                # What was cut off is behind its author's clock: who saw it must not take the next record for it.
                max(self.now + self.rng.randint(-SKEW_MS, SKEW_MS), cut_off + 1),
                forced=forced | losing,
                others={other: record for other, record in replica.newest.items() if other != author},
                ancestors=self.git,
            )
        except CannotPublish:
            self.count("refused at the writer")
            return None
        if unsigned is None:
            return None
        record = sign(unsigned, writer)
        self.last[author] = record
        self.every[record.hash] = record.signed_header
        return record

    def tell(self) -> None:
        """News: one record, and perhaps what it needs."""
        source, target = self.rng.sample(self.replicas, 2)
        if not source.newest:
            return
        record = self.rng.choice(list(source.newest.values()))
        documents = source.chain.documents if self.rng.random() < 0.3 else ()
        bridge = source.bridge(record)
        bridge = bridge[self.rng.randint(0, len(bridge)) :]
        proofs = list(source.proofs.values()) if self.rng.random() < 0.3 else []
        self._offer(target, documents, bridge, [record], proofs)

    def tell_all(self) -> None:
        """Anti-entropy, of which some records are lost."""
        source, target = self.rng.sample(self.replicas, 2)
        self._send(source, target, lost=0.2)

    def _send(self, source: CheckedReplica, target: CheckedReplica, lost: float = 0.0) -> None:
        records = [
            record
            for author, record in source.newest.items()
            if target.newest.get(author) != record and self.rng.random() >= lost
        ]
        if not records and not source.proofs and source.chain.epoch <= target.chain.epoch:
            return
        self.rng.shuffle(records)
        bridge = [header for record in records for header in source.bridge(record, target.known_of(record.author))]
        self._offer(target, source.chain.documents, bridge, records, list(source.proofs.values()))

    def _offer(
        self,
        target: CheckedReplica,
        documents: tuple[bytes, ...],
        bridge: list[bytes],
        records: list[SignedRefs],
        proofs: Sequence[EquivocationProof] = (),
    ) -> None:
        encoded = tuple(EncodedRefs(record.header_bytes, record.entries_bytes) for record in records)
        told = tuple(proof.encode() for proof in proofs)
        try:
            now = self.now + SKEW_MS
            verified = verify(GENESIS.repository, target.held(), documents, tuple(bridge), encoded, now, told)
        except Unavailable as error:
            self.count(error.code)
            return
        if verified is not None:
            target.check_and_take(verified, self.git)

    def change_identity(self) -> None:
        """A maintainer is removed, taken back, or what counts of one is reaffirmed; as some replica sees it."""
        replica = self.rng.choice(self.replicas)
        if replica.chain.epoch != self.chain.epoch or self.chain.epoch >= MAX_CHANGES:
            return
        current = self.chain.current.maintainers
        gone = [writer.author_id for writer in WRITERS if writer.author_id not in current]
        kind = self.rng.choice(("remove", "return", "reaffirm"))
        chosen = self.rng.choice(current)
        record = replica.newest.get(chosen)
        if (proof := replica.proofs.get(chosen)) is not None and kind == "reaffirm" and self.rng.random() < 0.7:
            # One side of a split, rather than what was before it.
            sides = [r for r in replica.archive.values() if r.author == chosen and r.seq >= proof.split_seq]
            record = self.rng.choice(sides) if sides else record
        point = AuthorPoint(chosen, record.seq if record else 0, record.hash if record else b"")
        nonce = self.rng.randbytes(16)
        if kind == "remove" and len(current) > 2:
            left = tuple(author for author in current if author != chosen)
            document = self.chain.successor(
                created_ms=self.now, nonce=nonce, maintainers=left, threshold=2, removed=(point,)
            )
        elif kind == "return" and gone:
            document = self.chain.successor(
                created_ms=self.now, nonce=nonce, maintainers=(*current, self.rng.choice(gone)), threshold=2
            )
        elif kind == "reaffirm" and record is not None:
            document = self.chain.successor(created_ms=self.now, nonce=nonce, reaffirmed=(point,))
        else:
            return
        self.count(kind)
        signers = {*current[:2], *(set(document.maintainers) - set(current))}
        signed = document.sign(*(BY_ID[author] for author in signers))
        self.chain = self.chain.extend(signed)
        self._offer(replica, (signed,), [], [])

    def rogue(self) -> None:
        """One who was removed goes on signing under the documents of before, and tells a replica."""
        gone = [writer for writer in WRITERS if writer.author_id not in self.chain.current.maintainers]
        if not gone:
            return
        writer = self.rng.choice(gone)
        epochs = [e for e, d in enumerate(self.chain.history) if writer.author_id in d.maintainers]
        before = IdentityChain(
            self.chain.documents[: epochs[-1] + 1], self.chain.history[: epochs[-1] + 1], GENESIS.repository
        )
        replica = self.rng.choice(self.replicas)
        last = self.last.get(writer.author_id)
        if last is None or replica.chain.epoch < self.chain.epoch:
            return
        own = replica.copy()
        own.chain, own.newest[writer.author_id] = before, last
        record = self._sign(writer, own, ({MAIN: self.git.commit()}, MAIN, frozenset({MAIN})))
        if record is not None:
            self.count("signed after removal")
            shown = replica.canonical(self.git)
            self._offer(replica, (), own.bridge(record), [record])
            if replica.canonical(self.git) != shown:
                raise Diverged("a removed maintainer moved a ref")

    def back_up(self) -> None:
        """A copy of a replica is put aside."""
        place = self.rng.randrange(REPLICAS)
        self.backups[place] = self.replicas[place].copy()

    def restore(self) -> None:
        """A replica loses what it got since it was copied."""
        if self.backups:
            place = self.rng.choice(list(self.backups))
            lost = self.replicas[place]
            # Not where that loses the last copy of a record: no resync can bring it back.
            others = [other for position, other in enumerate(self.replicas) if position != place]
            if all(any(hash_ in other.archive for other in others) for hash_ in lost.archive) and any(
                other.chain.epoch >= lost.chain.epoch for other in others
            ):
                self.count("restores")
                self.replicas[place] = self.backups[place].copy()

    # --- the end --------------------------------------------------------------------------------------------

    def quiesce(self) -> None:
        """Everybody hears everything that counts, in any order: also the records that documents name."""
        self.now += 10 * 60 * 1000
        for _ in range(3 + 3 * len(self.forked)):
            for source, target in self.rng.sample(list(itertools.permutations(self.replicas, 2)), REPLICAS * 4):
                self._send(source, target)
                for point in (p for d in self.chain.history for p in (*d.removed, *d.reaffirmed)):
                    record = source.archive.get(point.hash)
                    if record is not None and point.hash not in target.archive:
                        self._offer(target, (), source.bridge(record), [record])

    def check(self) -> None:
        """Raises: ``Diverged``."""
        states = [(replica.chain.hash, replica.canonical(self.git)) for replica in self.replicas]
        if any(state != states[0] for state in states):
            raise Diverged("replicas that heard everything show different refs")
        splits = [{author: proof.split_seq for author, proof in r.proofs.items()} for r in self.replicas]
        if any(known != splits[0] for known in splits):
            raise Diverged("replicas that heard everything know different splits")
        held = [counting(replica.chain, replica.newest) for replica in self.replicas]
        if any(records != held[0] for records in held):
            raise Diverged("replicas that heard everything hold different records")
        self._check_no_proof()
        self._check_one_survivor()

    def _check_no_proof(self) -> None:
        """No two headers that an author signed are a proof, but where a document had cut one of them off.

        Those of writers who did sign two histories are left out.
        """
        honest = [signed for signed in self.every.values() if signed.header.author not in self.forked]
        for a, b in itertools.combinations(honest, 2):
            first, second = sorted((a, b), key=lambda signed: signed.header.seq)
            try:
                proof = EquivocationProof.of(first, second, self.every.get(second.header.previous))
            except InvalidProof:
                continue
            if not settles(self.chain, proof):
                raise Diverged("an honest history is a proof of equivocation")

    def _check_one_survivor(self) -> None:
        """After everybody has heard everything, pushes one after the other leave one value for each ref."""
        replica = self.replicas[0]
        able = [author for author in self.chain.current.maintainers if author not in replica.proofs]
        # At least two pushes: the first may delete a ref of which others hold directories, and bring these back.
        pushes = able if len(able) > 1 else able * 2
        for place, author in enumerate(pushes, 1):
            base = replica.canonical(self.git)
            # A commit that contains none of the others: it wins because it has seen them, or not at all.
            wanted = {MAIN: self.git.commit()}
            record = self._sign(BY_ID[author], replica, (wanted, MAIN, frozenset(base.refs)))
            if record is None:
                raise Diverged("a maintainer could not push")
            self.now += SKEW_MS
            self._offer(replica, (), [], [record])
            shown = replica.canonical(self.git)
            if shown.conflicts and place == len(pushes):
                raise Diverged("conflicts are left after everybody pushed")
            if shown.refs.get(MAIN) != wanted[MAIN]:
                raise Diverged("a push that saw everything is not what is shown")


def run(schedules: int, seed: int) -> dict[str, int]:
    """Run ``schedules`` from ``seed`` on; return what happened in them, counted.

    Raises:
        Diverged, PeerFault: with a note that says which schedule it was.
    """
    total: dict[str, int] = {}
    for number in range(seed, seed + schedules):
        model = Model.seeded(number)
        try:
            model.run()
        except Exception as error:
            error.add_note(f"replay it: python -m tests.simulation.trust_model 1 {number}")
            raise
        for what, count in model.counts.items():
            total[what] = total.get(what, 0) + count
    return total


def main() -> None:
    """Run from the command line."""
    schedules, seed = (int(word) for word in sys.argv[1:3])
    begun = time.monotonic()
    print(f"{schedules} schedules, seed {seed}", flush=True)
    total = run(schedules, seed)
    print(", ".join(f"{count} {what}" for what, count in sorted(total.items())))
    print(f"0 of {schedules} diverged; {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
