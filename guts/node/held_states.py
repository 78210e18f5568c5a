"""``HeldStates``: the accepted states that were last worked with, decoded.

A push of a few refs comes to a repository that another came to a moment ago: to read all of it from the database and
to check it anew is a sixth of what a replica has to do until the push is shown.

Not promised: that a state is here. What is here is what the database says, as this node is its only writer.
"""

from collections import OrderedDict
from dataclasses import replace
from typing import Final

from guts.ids import RepositoryId
from guts.node.acceptance import Held, Verified

MAX_BYTES: Final = 1024 * 1024
"""Documents, records and proofs as they were signed, of all states together; decoded 25 times as much at the most.
It is room for some hundred repositories of usual size, and one that is larger is read from the database each time."""


class HeldStates:
    """States by repository; what was not asked for the longest goes first. Nothing here blocks."""

    def __init__(self) -> None:
        self._states: OrderedDict[RepositoryId, tuple[Held, int]] = OrderedDict()
        self._bytes = 0

    def get(self, repository: RepositoryId, generation: int | None) -> Held | None:
        """Return the state of ``repository``, if it is here; it must not be changed.

        Args:
            generation: of which it has to be; ``None``: of any.
        """
        held, _ = self._states.get(repository, (None, 0))
        if held is None or (generation is not None and held.generation != generation):
            return None
        self._states.move_to_end(repository)
        return held

    def keep(self, held: Held) -> None:
        """Keep ``held``, in the place of another state of its repository."""
        repository, size = held.chain.repository, _size(held)
        self.take(repository)
        if size > MAX_BYTES:
            return
        self._states[repository] = held, size
        self._bytes += size
        while self._bytes > MAX_BYTES:
            self.take(next(iter(self._states)))

    def take(self, repository: RepositoryId) -> Held | None:
        """Forget the state of ``repository``; return it, if it was here."""
        held, size = self._states.pop(repository, (None, 0))
        self._bytes -= size
        return held


def following(before: Held | None, verified: Verified, generation: int) -> Held | None:
    """Return the state that the commit of ``verified`` has made; ``None``: only the database knows all of it.

    Args:
        before: a state that was accepted earlier, if there is one.
        generation: that the commit has made.
    """
    held = Held(verified.chain, verified.records, verified.proofs, generation, verified.fork)
    if verified.generation == 0:
        return held
    if before is None or before.generation != verified.generation:
        return None
    return replace(held, fork=verified.fork or before.fork)


def _size(held: Held) -> int:
    records = sum(len(record.header_bytes) + len(record.entries_bytes) for record in held.records.values())
    proofs = sum(len(proof.encode()) for proof in held.proofs.values())
    fork = len(held.fork.encoded) if held.fork is not None else 0
    return sum(map(len, held.chain.documents)) + records + proofs + fork
