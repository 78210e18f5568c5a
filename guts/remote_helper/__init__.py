"""``git-remote-guts``: a Guts repository as an ordinary git remote.

git starts this program for every ``guts://`` URL. It offers the capability ``connect`` (gitremote-helpers(7)) and then
speaks the server's side of git's own protocols, so that progress, ``--depth``, ``--filter``, ``--atomic`` and
``push -o`` are git's:

- **fetch** (``upload_pack``): protocol v2. It answers ``ls-refs`` itself, from refs that the node has verified, and has
  each ``fetch``, which is complete in itself, answered by the node: from its own repository, or by a replica.
- **push** (``receive_pack``): the pack goes into the node's quarantine; what is signed is made here, from what git
  asked for, with the author key of this home.

Whatever is behind it, it speaks to a node through the control API only (``nodes``): the one that is running, or one
that it runs itself for as long as the command takes. On the way of a fetch only the standard library is imported, since
git starts this program several times in one command.

All that git shows of a failure is what stands on stderr here: ``fatal:`` or ``error:``, why, and ``hint:`` with the one
command that helps. git's exit status is 128 then, whatever this one's is.

Not promised: protocols v0 and v1 for fetches; git speaks v2 with this program whatever ``protocol.version`` says.
"""
