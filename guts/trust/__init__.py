"""Who may move a ref: identity documents, signed refs, and what follows (DESIGN §6, docs/protocol.md §5).

Nothing here does I/O, reads a clock or draws randomness: bytes and times come in, values and decisions go
out.

- ``ref_names``: which refs may be published.
- ``identity_document``, ``chain``: who the maintainers are, and how that changes (``IdentityChain``).
- ``entries``, ``signed_refs``: one maintainer's snapshot of refs, signed as a whole.
- ``acceptance``: what a replica does with a snapshot that it is offered (``accept``), and which ref changes
  need an ancestor check by git before they count.
- ``equivocation``: portable proof that an author signed two histories.
- ``standing``: which older record counts where the newest does not; ``deltas``: how older ones are kept.
- ``canonical_refs``: the refs of the repository, as a pure function of all snapshots.
- ``authoring``: the next snapshot of an author.

**Promised.** Bytes that break a rule raise a ``PeerFault`` and nothing else. What only a replica with an
older state can notice is a *decision*, or a fault of the least severity, so that the peer that relayed it is
not driven away. A record has one byte form. Replay, rollback, splicing header and entries of two records, and
reuse in another repository fail, because repository, author, seq, predecessor and the hash of the entries are
under one signature. Canonical refs do not depend on the order of arrival.

**Not promised.** Nothing here checks that objects exist, or that one commit contains another: that is git's
answer, given in as facts. Endorsements by ref rules are carried and not yet enforced. A replica that missed
more than ``acceptance.MAX_BRIDGE`` records of an author cannot tell a gap from a fork (``Gap``). A dropped
entry looks the same as a tombstone that was dropped later, so replicas do not judge drops: they are the
author's own word. What an author deleted stays deleted, unless a removal cuts off the very record because of which
the tombstone was dropped: who sets a limit names the newest record that counts. Two valid identity documents
of one epoch are told (``IdentityForked``), kept as proof and not resolved: the operator chooses.
"""
