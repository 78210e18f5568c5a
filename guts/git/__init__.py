"""Git on this machine: the only package that runs git. It knows nothing of peers, trust or SQL.

- ``command``: the one door for git children: argument lists, scrubbed environment, limits, no child left behind.
- ``repository``: a bare repository: what it has, the pack between wants and haves, ancestry, projection, recovery.
- ``quarantine``, ``inspection``, ``trees``: a received pack, from untrusted bytes to checked objects.
- ``packed_refs``, ``files``: the projection of refs, and files that survive a crash.
- ``pkt_line``, ``git_requests``, ``fetch_responses``: git's own protocol, judged before it is passed on. Sans-IO.
- ``upload_pack``: git's own servers over a bare repository, one child for one request.
- ``folder``: signed records kept beside the objects.
- ``locks``: pack lock and commit mutex.
- ``source``: the repository of the person who publishes; ``mirror``: refs of a clone, or of a stranger's mirror.

Promised: after any failure or cancellation of a quarantine the repository is as it was and nothing of the
quarantine is left (after a crash: once ``recover`` ran); what ``migrate`` moved has passed git's fsck, our scan and
a complete link check; no pack is ever held in memory; nothing that a peer sent is ever an argument of git.

Not promised: that ``migrate`` and a projection are one step (the SQL transaction between them is the commit
point); protection against who can write to the repository directory; limits of memory and processor time where
the system has no ``prlimit`` (other than Linux). ``GitLimits`` bounds each child, not how many there are. A pack's
deltas are bounded one by one while git indexes it (allocation limit, processor time); their sum is only known, and
checked, once it has.

Errors: ``guts.git.faults`` are the peer's; ``GitFailed``, ``DiskFault`` and the like are ours; ``guts.git.source``
raises ``UsageError``.
"""
