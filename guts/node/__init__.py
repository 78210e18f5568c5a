"""One running node: where decisions meet the world.

::

    connections, discovery, control API, workers ──events──> Driver ──> Service.handle ──effects──> Driver
                                                                                             │
              git, database, packs <── Workers (transfers, publishing) <─────────────────────┘

- ``Driver`` owns the one bounded queue of events and its one consumer, reads the clocks, runs effects, arms the one
  timer. It is the only caller of the service.
- ``Repositories`` is where git, the database and trust meet: the commit protocol. ``recovery`` brings them together
  again at the start of a node.
- ``history``: what counts of an author after a removal, or where two histories were signed with one key.
- ``rebuilding``: a damaged database is set aside; what a new one does not know is accepted again from the folders.
- ``git_service`` is both ends of a GitService; ``git_answers`` answers git at the control socket, from what is held
  here or, through ``git_relay``, from several who hold it.
- ``transfers`` answers Fetch and Serve, ``refs_reader`` LoadRefs; ``publishing`` takes what a maintainer signs here,
  where ``signing`` finds the node fit for it.
  Pack bytes go between a connection's stream and git, and never through the driver.
- ``receipts``: what is told of who has confirmed which record.
- ``Control`` is what the operator may ask for; ``guts.api`` puts it on a socket.
- ``Node`` starts these in order and stops them in the reverse.

One root ``TaskGroup`` owns every task. A connection's task ends in exactly one ``Disconnected``, a worker's in exactly
one finished event, whatever went wrong; anything that is not an error on purpose (``GutsError``) stops the node.

Commit protocol (DESIGN §7): quarantine, checks, rename the pack, records into the repository's folder, SQL transaction
(the commit point), HEAD and ``packed-refs`` by one rename each, mark as projected, announce. A crash before the
transaction leaves the old state and leftovers that the next start removes; after it, the next start projects again. Of
a repository that was new the next start takes in what its folder has, if the records were written: all of it.
"""
