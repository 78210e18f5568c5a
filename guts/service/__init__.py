"""The one decision maker: one event in, a list of effects out.

``Service.handle(event, now)`` never awaits, reads a clock, opens a file or draws global randomness. ``deadline`` says
when it wants a ``Woke``. The same events with the same clock readings and the same seed give the same effects, over
real sockets as over a simulated network.

``service`` is the dispatch. What happens then is in one module per subject: ``connections`` (who has come, who has
gone), ``news`` (gossip, announcements), ``repositories`` (what peers and workers say of them), ``serving`` (what others
ask of this node), ``seeding`` (what it takes on), ``commands`` (what its operator asks).

The service composes ``PeerManager``, ``GossipProtocol`` and ``RepoSync``, which know nothing of each other, and
``admission``: the order in which a message is checked before anything acts on it. A peer that breaks a rule raises
``PeerFault`` in here; ``handle`` turns it into a counted fault and a closed connection, and nothing else changes.

Not here: bytes, files, git, SQL. What is expensive is an effect, run by a worker, that comes back as one event.
"""
