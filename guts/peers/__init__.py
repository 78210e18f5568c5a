"""Who is connected, who could be, and who may not: decisions only.

``PeerManager`` holds one ``PeerConnection`` for every authenticated connection, and knows one ``PeerState`` of every
peer in its ``AddressBook``. It answers with effects: it greets (``greeting``), keeps alive and notices the dead
(``keepalive``), settles duplicates, backs off, and counts faults. Who comes in gets one of the ``slots``; whom to dial
of its own accord ``upkeep`` says, when and at which of its addresses ``dialling``. What it knows survives a restart
because every meeting, every good address that fails and every fault is also a ``Persist`` effect.

Promised: at most one ready connection per peer; never more than ``max_connections`` that are not being closed, with
room kept for those that we dial; no network has more than its share of the others, and whoever comes last pushes out
nobody who is near, useful or has been here long; no peer that was reached is forgotten for one that is only claimed;
no address that means something else here is dialled on another's word; a peer is only ever punished for what an honest
peer cannot do (``score``); every timer runs on the monotonic clock, so a jump of the wall clock disconnects and bans
nobody.

Faults fade and bans end (``score``); what the operator bans is apart from that (``bans``); where most peers seem
faulty this node bans nobody (``mass_fault``). How much a peer may ask, and how fast, is apart from that (``rates``):
what is above it waits, and is no fault. Who comes anew from where somebody was banned is served more slowly
(``penalties``); who served well is asked first (``usefulness``).

Not promised: a peer's own words (its PeerRecord, its capabilities) are believed only as far as they concern itself.
Which of two addresses that answer with one key is the better one is not known: the last one that worked is taken.
"""
