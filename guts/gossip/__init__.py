"""News spreads: who hears of a new commit, and who is told twice (nobody).

``GossipProtocol`` wraps news in a Gossip envelope, remembers by its id what was seen, and names whom to tell. The
id is SHA-256(topic ‖ 0 ‖ data), so the same news has one id wherever it starts. Two rules make it work:

- *seen* and *relayed* are two things: what this node announces itself is marked seen by the same call that returns
  the sends, so it is sent once, and never dropped as an echo of itself;
- only what has been validated is relayed: a NewCommit after its record was accepted and committed here. The sender,
  and whoever is known to have it, is not told again.

Not promised: delivery. Gossip is for speed; anti-entropy (``guts.sync``) is for certainty.
"""
