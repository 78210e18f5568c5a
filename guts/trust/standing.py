"""Which record of an author counts, where a newer one does not: it was removed, or its history split.

Acceptance keeps the newest record of each author. A new identity document, or a proof that the author signed two
histories, may say afterwards that an older one is to count, or one on the branch that was given up. ``standing`` finds
it among those that a replica has kept.
"""

from collections.abc import Mapping, Set

from guts.ids import AuthorId
from guts.trust.acceptance import past_limit, suspended
from guts.trust.chain import IdentityChain
from guts.trust.equivocation import EquivocationProof
from guts.trust.signed_refs import Header


def counts(chain: IdentityChain, proof: EquivocationProof | None, header: Header) -> bool:
    """Tell whether a record counts: before the split of its author's history, and not cut off by a document."""
    return not suspended(chain, proof, header) and not past_limit(chain, header)


def standing(
    chain: IdentityChain,
    proof: EquivocationProof | None,
    author: AuthorId,
    current: Header | None,
    kept: Mapping[bytes, Header],
    whole: Set[bytes],
) -> bytes | None:
    """Return the hash of the author's record that counts; that of ``current``, if it does; ``None``: it is not here.

    Args:
        proof: of the author's equivocation, if one is held.
        current: of the record that counted until now.
        kept: the author's other headers that are held here, by hash.
        whole: which of them are held with their entries.
    """
    limit = chain.last_limit(author)
    decreed = None if limit is None or limit.hash not in whole else kept[limit.hash]
    reached = current.seq if current is not None and counts(chain, proof, current) else 0
    if decreed is not None and counts(chain, proof, decreed) and decreed.seq > reached:
        return decreed.hash
    header = current
    while header is not None:
        if counts(chain, proof, header) and (header is current or header.hash in whole):
            return header.hash
        header = kept.get(header.previous)
    return None
