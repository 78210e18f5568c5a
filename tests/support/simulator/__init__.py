"""A thousand nodes in one process: the real ``Service`` of each, in virtual time, on a network that is made up.

Real: ``Service`` and all that it decides with; the codec, which gives every message its size and the run its digest;
identity documents, signed records, ``guts.node.acceptance.verify``, ``guts.trust.canonical_refs``. Made up: links
(``links``), git (``commits``: a graph of commits; ``transfers``: what Fetch and Serve do with it), the database
(``disk``: dicts), the DHT (``providers``: a table and a delay; its own simulation is tests/simulation/test_discovery*).

``World`` is what tests use. Whatever takes part is a ``Host`` with a ``Program``: a ``Service``, or something hostile
with the same two methods. A seed is a run: the same seed gives the same ``digest``.
"""
