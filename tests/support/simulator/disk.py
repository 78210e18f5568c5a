"""``Disk``: what of a host survives a restart: repositories, peers, faults; dicts in the place of tables and files."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from guts.addresses import BanSubject
from guts.effects import BanKept, BanLifted, KeptScore, PeerMissed, PeerSeen, ReceiptKept, ScoreChanged, SeedingStopped
from guts.events import Known
from guts.ids import AuthorId, PeerId, RepositoryId
from guts.node.persistence import Change
from guts.peers.book import StoredPeer
from guts.records import PeerRecord
from guts.trust.signed_refs import SignedRefs
from guts.wire.messages import EncodedRefs, RecordQuery, RefsAnswer, RefsQuery, RefsStatus
from tests.support.simulator.replica import Replica


@dataclass(slots=True)
class Copy:
    """A repository that is held.

    Attributes:
        commits: those that are here, a bit for each.
    """

    replica: Replica
    commits: int
    seeding: bool = True


@dataclass(slots=True)
class Disk:
    """One per host.

    Attributes:
        ledger: every fault that was counted: against whom, why, what it cost, and the fault then.
    """

    copies: dict[RepositoryId, Copy] = field(default_factory=dict)
    peers: dict[PeerId, StoredPeer] = field(default_factory=dict)
    faults: dict[PeerId, KeptScore] = field(default_factory=dict)
    bans: dict[BanSubject, BanKept] = field(default_factory=dict)
    ledger: list[tuple[PeerId, str, float, float]] = field(default_factory=list)
    receipts: set[tuple[RepositoryId, PeerId, int]] = field(default_factory=set)

    def held(self) -> dict[RepositoryId, Known]:
        """Return what is followed."""
        return {repository: copy.replica.known() for repository, copy in self.copies.items() if copy.seeding}

    def keep(self, change: Change) -> None:
        """Do what ``guts.node.persistence`` does."""
        match change:
            case PeerSeen(peer=peer, address=address, wall=wall):
                before = self.peers.get(peer)
                told = PeerRecord.decode(change.peer_record).addresses
                addresses = tuple(dict.fromkeys((address, *told) if address is not None else told))
                good = wall if address is not None else before.last_good if before is not None else 0
                if before is not None and before.reached and address is None:
                    addresses = tuple(dict.fromkeys((*before.addresses[:1], *addresses)))
                self.peers[peer] = StoredPeer(
                    peer, addresses, wall, good > 0, good, 0, change.peer_record, change.capabilities
                )
            case PeerMissed(peer=peer):
                if (missed := self.peers.get(peer)) is not None:
                    self.peers[peer] = replace(missed, failures=missed.failures + 1)
            case ScoreChanged(score=score):
                self.ledger.append((score.peer, change.reason, change.change, score.value))
                self.faults[score.peer] = score
            case BanKept(subject=subject):
                self.bans[subject] = change
            case BanLifted(subject=subject):
                self.bans.pop(subject, None)
            case SeedingStopped(repository=repository):
                if repository in self.copies:
                    self.copies[repository] = replace(self.copies[repository], seeding=False)
            case ReceiptKept(receipt=receipt):
                self.receipts.add((receipt.claim.repository, receipt.claim.peer, receipt.claim.seq))

    def answer(self, query: RefsQuery | RecordQuery) -> RefsAnswer:
        """Return the whole answer to one query of a GetRefs, as ``guts.node.refs_reader`` does.

        It always fits one message here, so no cursor is needed.
        """
        copy = self.copies.get(query.repository)
        if copy is None or not copy.seeding:
            return RefsAnswer(query.repository, RefsStatus.NOT_HELD)
        replica = copy.replica
        if isinstance(query, RecordQuery):
            found = [r for r in replica.archive.values() if (r.author, r.seq) == (query.author, query.seq)]
            records = tuple(EncodedRefs(record.header_bytes, record.entries_bytes) for record in found)
            return RefsAnswer(query.repository, RefsStatus.HELD, (), (), records)
        known = {head.author: (head.seq, head.hash) for head in query.known}
        newer = [
            record
            for author, record in sorted(replica.newest.items())
            if author not in known
            or record.seq > known[author][0]
            or (record.seq == known[author][0] and record.hash != known[author][1])
        ]
        headers = [header for record in newer if record.author in known for header in _bridge(replica, record, known)]
        return RefsAnswer(
            query.repository,
            RefsStatus.HELD,
            self._documents(replica, query),
            tuple(headers),
            tuple(EncodedRefs(record.header_bytes, record.entries_bytes) for record in newer),
            self._proofs(replica, query),
        )

    @staticmethod
    def _documents(replica: Replica, query: RefsQuery) -> tuple[bytes, ...]:
        documents = replica.chain.documents
        if not query.documents:
            return documents
        if query.fork:
            return ()
        last = query.documents - 1
        if last < len(documents) and replica.chain.history[last].hash != query.identity_hash:
            return documents[1:]
        return documents[query.documents :]

    @staticmethod
    def _proofs(replica: Replica, query: RefsQuery) -> tuple[bytes, ...]:
        known = {split.author: split.seq for split in query.splits}
        proofs = [
            proof.encode()
            for author, proof in sorted(replica.proofs.items())
            if author not in known or proof.split_seq < known[author]
        ]
        if replica.fork is not None and not query.fork:
            proofs.insert(0, replica.fork.encoded)
        return tuple(proofs)


def _bridge(replica: Replica, record: SignedRefs, known: Mapping[AuthorId, tuple[int, bytes]]) -> list[bytes]:
    return replica.bridge(record, known[record.author])
