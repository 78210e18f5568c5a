"""The control API: how commands talk to a running node.

HTTP/1.1 over a Unix socket, JSON in and out. Whoever can open the socket controls the node, so the socket is
made 0600 in a 0700 folder of the user's own, and there is no other authentication. Nothing here is for the
network.

======  ==========================================  ======================================================
GET     ``/v1/status``                              the node in one object
POST    ``/v1/stop``                                begins a graceful stop
GET     ``/v1/repositories``                        what this node holds
GET     ``/v1/repositories/{id}``                   identity, signed refs, canonical refs
PUT     ``/v1/repositories/{id}/seeding``           ``{"hints": [address…], "timeout": s}``; waits
DELETE  ``/v1/repositories/{id}/seeding``           stops seeding
POST    ``/v1/repositories/{id}/sync``              ``{"timeout": s}``
POST    ``/v1/sync``                                the same for all repositories
GET     ``/v1/repositories/{id}/publication``       what a publisher needs to sign the next refs
POST    ``/v1/publications``                        a header and a pack (below); answers with what to sign
POST    ``/v1/publications/{session}/commit``       ``{"signature": hex}``
GET     ``/v1/peers``                               connections
POST    ``/v1/peers``                               ``{"address": "[node1…@]host:port", "timeout": s}``
GET     ``/v1/providers/{id}?timeout=s``            the DHT's answer to "who holds this?"
======  ==========================================  ======================================================

The body of ``POST /v1/publications`` is the length of a JSON header (4 bytes, big endian), the header, and
the pack, of which there is no limit here: it is handed on in pieces as they arrive, and reading waits for
whoever consumes them. Other bodies are JSON of at most 64 KiB.

An error is ``{"error": {"code", "message", "hint", "details", "exit_status"}}`` with a status code that
follows from the exit status (``guts.api.errors``). ``code`` is stable; ``exit_status`` is what a command
ends with.

Modules: ``errors`` (the error object; imports next to nothing, commands use it too), ``routes`` (requests
to methods of ``Control``), ``publication`` (the streamed body), ``server`` (the socket). aiohttp is
imported by the last three only, since it costs a command more time than its work does.

Not promised: compatibility between versions of node and command on one machine; rate limits, since the
caller is the operator.
"""
