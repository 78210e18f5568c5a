"""What a node remembers: one SQL database per node.

SQLite (WAL, ``synchronous=FULL``) is the embedded default; a PostgreSQL URL is all that a large operator
changes. Where the two differ is in ``dialect``, and in ``lease``: one node per PostgreSQL database.

How it is used::

    database = await Database.open(path)
    generation = await database.write(repositories.commit, state)
    summaries = await database.read(repositories.load_summaries)

A *statement module* (``peers``, ``scores``, ``repositories``, ``history``, ``receipts``, ``objects``, ``discovery``)
has plain functions that take a connection first and speak in small frozen dataclasses of ids, bytes and integers. They
never begin or commit: ``Database`` does, so that any number of them compose into one transaction.

Promises:

- *Commit point.* When ``write`` returns, the transaction survives a crash of the process and of the machine
  (as far as the disk keeps its word about fsync). When it raises anything but ``CommitUnknown``, nothing of it is
  visible.
- *One writer.* Writes run one after another, in the order of the calls, on one thread, each in a transaction
  that takes the write lock at its start. Readers (4 threads) see committed states only, each read one state.
- *One node.* On PostgreSQL an advisory lock on a connection of its own keeps a second node out (``DatabaseInUse``);
  SQLite's file is behind the data directory's lock. A lock that was lost is held again before anything is
  written, and a node whose database another one took meanwhile neither writes nor reads any more.
- *A server that goes away* is called again for 20 s. What was not committed then is run again, what was is not:
  the outcome of a commit whose answer was lost is read from the database. Where nobody tells it, the caller gets
  ``CommitUnknown``, and never a wrong answer. So the functions handed over may be run more than once.
- *Compare and swap.* ``repositories.commit`` refuses with ``Conflict`` when an author's previous record is no
  longer the newest one, and when the identity chain has moved: of two racing commits exactly one wins.
- *Upgrades.* An older schema is copied (SQLite's online backup, which includes what only the WAL has), then
  migrated. On PostgreSQL no copy is made; the migration is one transaction on either. A schema that
  this version does not know is refused, unread and unchanged.
- *Damage is found at start.* A SQLite file is read through when it is opened; ``dialect.set_aside`` renames it.

Not promised:

- Nothing here judges: signatures, epochs and ancestry were verified before the rows came. The store holds
  bytes and gives them back.
- A cancelled ``write`` may have been committed all the same; ask the database.
- Object metadata (``objects``) is derived from the git repositories. It is written after the commit, in
  chunks, and may lag behind or be rebuilt.
- Two processes on one SQLite file are kept apart by the node's data-directory lock, not here: a second writer
  is only waited for (5 s).
"""
