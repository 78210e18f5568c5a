"""Discovery: a Kademlia DHT that finds who holds a repository, and where a peer is.

It runs on the ``kademlia`` package (with ``rpcudp``), which supplies the wire and the matching of answers, the
life cycle of the server, the dispatch of methods, ``Node`` and the storage interface. As shipped that package
must never face a network; it is subclassed here at two public seams and nowhere forked or overridden in private:

- **in**: ``DiscoveryProtocol.datagram_received`` hands the package only what ``datagrams`` has parsed;
- **out**: ``transport.sendto`` is ``SignedTransport``'s, which pads and repeats requests and signs answers.

What travels between the two with a datagram (how much an answer may weigh, who must answer) travels in the
address: ``Sender`` and ``Target`` are tuples that the package passes through.

=================  ============================================================================================
``keys``           positions: nodes where their key hashes to, records where their repository or peer does
``contact``        contacts in 26 or 38 bytes; which addresses are contacted at all
``datagrams``      what is checked of a datagram before anything else happens; signatures of answers
``limiter``        a token bucket per source, before any signature is made
``tokens``         write tokens: who puts a record has shown that it receives at its address
``routing``        the table: proven contacts, exact k nearest, limits per network
``store``          the records kept for others: quotas, expiry, newest seq
``protocol``       one node's half of every RPC; strangers are probed, never believed
``lookup``         iterative search on disjoint paths, bounded in requests and time
``endpoint``       the package's ``Server``, reduced to a socket with a protocol on it
``server``         ``Discovery``: join, provide, announce, find_providers, find_peer, upkeep
=================  ============================================================================================

Promised:

- Every answer is signed by the node it is believed to come from, over the asker's own random message id. A node
  enters the table only after it has answered so; its position follows from its key.
- An address that has not shown that it receives what is sent to it is sent at most three times what came from
  it, a probe included. No datagram exceeds 1,152 bytes.
- What ``find_providers`` and ``find_peer`` return is signed by the peer it speaks of and has not expired.
- A lookup sends at most 130 requests and ends after 15 s, whatever it is told. Nothing received, from whomever,
  raises into the event loop, closes the socket, or logs above DEBUG.
- Stored records are bounded per key, per key and network, and in all.
- Time, randomness and transport are injected (message ids come from ``os.urandom`` in the package); nothing is
  pickled.

Not promised:

- Completeness against ids ground to lie next to one key: 20 of those hide it. Storing and searching in the
  whole region around a key mends that and is not built yet; ``Lookup`` decides in one place whom to ask next.
- Secrecy. Who looks for what is visible on the wire and to the nodes asked.
- That a provider can be reached: only a dial shows it, so the caller ends a search, not this package.
- Detection of a relay that passes an honest node's answers on from its own address. It can't alter them, and
  does not take a working contact's place; the observed address in each answer is there to expose it.
- Fairness under a flood from many forged sources: the rate limit is per source.
- A host with several addresses, listening on all of them, answers from the address that its routes choose;
  where that is not the one that was asked, the asker drops the answer. Listen on one address there.
- IPv6 needs ``::`` (which serves IPv4 too) or an IPv6 address to listen on; ``0.0.0.0`` is IPv4 only.
"""
