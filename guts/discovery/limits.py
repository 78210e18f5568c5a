"""What all nodes of one DHT agree on, each number with its reason (measurements: Kademlia notes in docs)."""

from typing import Final

BUCKET_SIZE: Final = 20
"""k: contacts per bucket and replicas per record. 8 is fine without churn and loses records with it."""

ALPHA: Final = 6
"""Requests of one lookup that are in flight at a time (Kademlia §2.3)."""

PATHS: Final = 4
"""Disjoint paths of a lookup (S/Kademlia §4.4): one liar spoils one path."""

PATH_WIDTH: Final = 8
"""Closest nodes that must answer before a path ends: k / PATHS + 3; narrower paths find less than one path."""

MAX_LOOKUP_RPCS: Final = 130
"""Requests one lookup may send; an honest one at 10,000 nodes takes about 60."""

MAX_LOOKUP_SECONDS: Final = 15.0
MAX_LOOKUP_PER_GROUP: Final = 10
"""Contacts of one /24 (/48) that one lookup asks: a liar can't aim a lookup's requests at one network."""

RETRANSMIT_SECONDS: Final = 0.6
"""A request unanswered for so long is sent once more."""

GIVE_UP_SECONDS: Final = 1.8
SOFT_SECONDS: Final = 0.5
"""A request unanswered for so long no longer holds one of the ``ALPHA`` places, though it still counts."""

REQUEST_BYTES: Final = 384
"""Least size of a request; shorter ones are not answered."""

AMPLIFICATION: Final = 3
"""No address is sent more than so many times what came from it, until it has proven that it is there."""

DATAGRAM_BYTES: Final = AMPLIFICATION * REQUEST_BYTES
"""Most bytes of any datagram: no fragmentation on any path, and the amplification bound for answers."""

HEADER_BYTES: Final = 21
"""rpcudp's header: kind (0 request, 1 answer) and a 20-byte message id."""

TRAILER_BYTES: Final = 96
"""The answering node's public key and its signature."""

CONTACTS_WITH_RECORDS: Final = 12
"""Contacts in an answer that also brings records, so that records have room."""

MIN_GLOBAL_PORT: Final = 1024
"""Contacts heard of at lower ports of global addresses are other people's services."""

MAX_RECORDS_PER_KEY: Final = 64
MAX_RECORDS_PER_KEY_AND_GROUP: Final = 8
MAX_RECORDS: Final = 20_000
"""About 21 MB in memory (1,071 B each, measured)."""

MAX_PER_BUCKET_AND_GROUP: Final = 2
MAX_PER_TABLE_AND_GROUP: Final = 10
MAX_FAILURES: Final = 2
"""Failures in a row before a contact loses its place: one lost datagram is not a death."""

MAX_PROBES: Final = 4
"""Probes of strangers under way at a time."""
