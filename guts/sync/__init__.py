"""Following repositories, and reading the refs of others: who holds them, what is newer, from whom to get it.

``RepoSync`` keeps one ``Goal`` for every repository that this node follows, and turns what happens into questions
(GetRefs), lookups, dials and transfers. One goal goes round like this::

    find peers (DHT lookup, hints, whoever subscribes) -> ask them (GetRefs) -> is something newer?
        no  -> settled; ask again at a jittered interval
        yes -> Fetch: one transfer per repository at a time, a few in all -> committed -> announce
                 failed -> the peer waits, the next one is tried

``Search`` looks peers up and dials them, few at a time. ``Questions`` holds what each peer is being asked: few GetRefs
under way, the rest in line here, and one repository at most once. An overdue question stays open, so that a slow
peer's answer is used and not taken for an unasked one; a peer that owes two is asked nothing more. When no transfer
can start, only the fact is kept that a peer has something newer, and it is asked again when there is room.
``Pages`` puts an answer together that was cut. Whose news came to nothing is not listened to for a while.
``Invitations`` has those asked again, ``Setbacks`` says for how long a peer that failed is left alone.

``Readings`` ends in an answer instead of a copy: what holders tell of a repository that is not followed is verified
without its objects, until two of them have been compared. The lookups, dials, questions and transfers of both are the
same (``Inquiries``, on ``Asking``); each has its own.

``Receipts`` keeps who has confirmed which record, and what is owed to whom; it knows of no goal, and decides nothing.

What an author signs builds on what holders have: ``SyncNow(every=True)`` ends when nobody's answer is awaited any more.

A *wanted* goal has somebody waiting (``guts seed``) and nothing on disk yet; it ends in success or in a reason
(no providers, none reachable, none holds it, time), and leaves no trace where it failed.

Promised: every connected holder is asked on connect and at a jittered interval, so that news arrives even where all
gossip is lost; one peer that lies, stalls or knows nothing costs one attempt. What arrives is judged by
``guts.trust`` in the worker that runs the Fetch: nothing here believes a peer.

``Policy`` says what is seeded and why; what a peer tells of and nobody asked for is a *prospect*: a goal like others,
of which nobody is told until its identity documents have decided that it stays. ``Refusals`` keeps why one did not.

Not promised: slices from several providers at once; that every repository of a followed author is found.
"""
