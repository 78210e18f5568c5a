"""Who is connected, who could be, and who may not: decisions only.

``PeerManager`` holds one ``PeerState`` for every peer it has met in this run and one ``PeerConnection`` for every
authenticated connection. It answers with effects: it dials, greets (Hello, HelloAck), keeps alive (Ping, Pong),
notices the dead, settles duplicates, backs off, and counts faults. What it knows survives a restart because
every meeting and every fault is also a ``Persist`` effect.

Whom to dial, and how long to wait before that, is ``Dialling``'s: a target that was reached and hung up at once is a
failure like any other, so that a door that is full, or greets and leaves, is dialled less and less often.

Promised: at most one ready connection per peer; never more than ``max_connections`` in all, with room kept for
those that we dial; a peer is only ever punished for what an honest peer cannot do (``score``); every timer runs on
the monotonic clock, so a jump of the wall clock disconnects and bans nobody.

Not promised: diversity of prefixes, peer exchange, feelers, rates per peer, a guard against banning everybody when
this node's own disk is what is broken, bans that grow with each repeat. A peer's own words (its PeerRecord, its
capabilities) are believed only as far as they concern itself.
"""
