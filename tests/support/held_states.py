"""A watch over what ``Repositories`` keeps in memory: after every commit it is compared with the database."""

from collections.abc import Iterator
from typing import Any

import pytest

from guts.events import Accepted
from guts.node.acceptance import Held
from guts.node.repositories import Repositories
from guts.trust.chain import IdentityChain


@pytest.fixture(autouse=True)
def states_are_those_of_the_database(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in which a commit leaves a state in memory that is not the one in the database."""
    commit = Repositories.commit
    wrong: list[object] = []

    async def watched(self: Repositories, *args: Any, **kwargs: Any) -> Accepted:
        accepted = await commit(self, *args, **kwargs)
        for repository in list(self._states._states):
            kept = self._states.get(repository, None)
            stored = await self.stored(repository)
            if kept is None or stored is None or kept.generation != stored.summary.generation:
                continue
            if parts(kept) != parts(Held.of(stored)):
                wrong.append(repository)
        return accepted

    monkeypatch.setattr(Repositories, "commit", watched)
    yield
    assert not wrong, "what is in memory is not what is in the database"


def parts(held: Held) -> tuple[object, ...]:
    """Return what makes ``held`` what it is."""
    return chain_parts(held.chain), dict(held.records), dict(held.proofs), held.generation, held.fork


def chain_parts(chain: IdentityChain) -> tuple[object, ...]:
    return tuple(chain.documents), tuple(state.hash for state in chain.history)
