"""News spreads: who hears of a new commit, and who is told twice (few).

The news of a repository travel along a tree among those who follow it (Plumtree: Leitão, Pereira, Rodrigues, "Epidemic
Broadcast Trees", 2007), one tree for each author. A link between two who follow the repository is *eager* at first: a
NewCommit crosses it with its record inside. Who gets a record that another link has brought already answers
``Prune``, and the link is *lazy* from then on: a NewCommit without the record crosses it, a moment after the teller
has committed (``Untold``). What is left of eager links is a tree of the fastest ones. Where it breaks, a lazy link
tells of what did not come; after a while (``MissingNews``) the link is grafted: it is eager again, and the record is
asked for by GetRefs.

``Trees`` keeps the two sets of links, ``MissingNews`` what was told of and has not come, ``SeenCache`` what came.
``GossipProtocol`` has one of each. Rules:

- *seen* and *relayed* are two things: what this node announces itself is marked seen by the same call that returns
  the sends, so it is sent once, and never dropped as an echo of itself;
- only what has been validated is relayed. A record goes on when its signatures, its author, its place in the history,
  its time and its names are found good, before its objects are here; a short NewCommit only when it is committed;
- nobody is told what it told, nor what it is known to have;
- news older than ``RELAY_WINDOW_MS`` go no further, and a record that was refused is not looked at again.

Not promised: delivery. Gossip is for speed; anti-entropy (``guts.sync``) is for certainty. Who lies about what it has,
or prunes links for no reason, harms its own links.
"""
