"""What peers must agree on: each number is part of the protocol (docs/protocol.md §2–§4)."""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

PROTOCOL_VERSION: Final = 1
"""The newest version of the messages that this code speaks, and so far the oldest too."""

# Frames and streams (docs/protocol.md §3)

MAX_PLAINTEXT: Final = 65_519
"""One Noise transport message (Noise rev 34 §3: 65,535 bytes) without its 16-byte tag."""

FRAME_HEADER_BYTES: Final = 7
"""Type (1), stream (4), length (2)."""

MAX_FRAME_PAYLOAD: Final = MAX_PLAINTEXT - FRAME_HEADER_BYTES
"""A frame never spans transport messages, so no frame is ever reassembled."""

MAX_OPEN_STREAMS: Final = 64
"""Streams open at a time, for each side that opens them: counted per opener, so that both sides always agree.
Far above what one peer is served at once (2 fetches), few enough that 64 initial windows fit in memory."""

MAX_STREAM_ID: Final = 2**32 - 1

INITIAL_WINDOW: Final = 1 * MIB
"""Credit of a new stream: a round trip of 50 ms already carries 20 MiB/s."""

MAX_WINDOW: Final = 16 * MIB
"""Most credit outstanding on one stream: 1 Gbit/s over a round trip of 130 ms."""

MESSAGE_LENGTH_BYTES: Final = 4

# Messages (docs/protocol.md §4)

MAX_MESSAGE_BYTES: Final = 64 * KIB
"""Any message but Refs: decoded in one step on the event loop, so it must be small."""

MAX_ENTRIES_BYTES: Final = 4 * MIB
"""The entries of one signed refs record: 5,000 refs with their vectors, with room to spare."""

MAX_REFS_BYTES: Final = MAX_ENTRIES_BYTES + 64 * KIB
"""A Refs answer: one record of the largest size always fits, with its header and envelope."""

MAX_NEW_COMMIT_BYTES: Final = 8 * KIB
"""A NewCommit with the record in it; larger records are fetched by those who want them."""

MAX_ITEMS: Final = 16_384
"""Values in one message, lists counted too: bounds time and memory of decoding 4 MiB of tiny values."""

MAX_HASH_BYTES: Final = 32
"""SHA-256."""

MAX_SEQ: Final = 2**63 - 1
MAX_SIZE: Final = 2**63 - 1
"""Bytes of a repository; what SQL can hold."""

"""Sequence numbers and times fit a signed 64-bit integer, which is what databases store."""

MAX_UINT32: Final = 2**32 - 1
MAX_UINT64: Final = 2**64 - 1

MAX_VERSION: Final = 65_535
MAX_SOFTWARE_BYTES: Final = 64
"""Name and version, as in ``guts/0.1.0``."""

MAX_CAPABILITIES: Final = 32
"""Names in one Hello: unknown ones are ignored, so there is room for those of later versions."""

MAX_CAPABILITY_BYTES: Final = 32
MAX_PEER_RECORD_BYTES: Final = 512
"""As in ``guts.records``; here the record is opaque."""

MAX_PEER_RECORDS: Final = 32
"""Records in one Peers: four times what a node wants to be connected to, and 3 ms of checking signatures."""

MAX_RECEIPT_BYTES: Final = 260
"""As in ``guts.records``; here the receipt is opaque."""

START_NONCE_BYTES: Final = 8
"""Random per start of a node: 64 bits tell any two starts apart."""

MAX_QUERIES: Final = 64
"""Repositories asked about in one GetRefs."""

MAX_KNOWN_HEADS: Final = 64
"""Authors in one query: 32 maintainers and 32 removed ones."""

MAX_CURSOR_BYTES: Final = 64
MAX_DOCUMENT_BYTES: Final = 64 * KIB
"""One signed identity document."""

MAX_DOCUMENTS: Final = 1_024
"""Identity documents in one answer; chains are no longer than 1,000."""

MAX_HEADER_BYTES: Final = 1 * KIB
"""One signed refs header: about 600 bytes with the longest ref name."""

MAX_HEADERS: Final = 1_024
"""Bridging headers in one answer; replicas keep 1,000 per author."""

MAX_RECORDS: Final = 64
"""Full records in one answer: 32 maintainers and 32 removed ones."""

MAX_SPLITS: Final = MAX_KNOWN_HEADS
"""Authors in one query whose history split."""

MAX_PROOFS: Final = MAX_SPLITS + 1
"""Proofs in one answer: one for each author, and one about the identity."""

MAX_PROOF_BYTES: Final = 3 * MAX_HEADER_BYTES + 64
"""Proof that an author signed two histories: three signed headers. It always fits the data of one Gossip."""

SLICES_BYTES: Final = 8
"""One bit for each of the 64 slices."""

MAX_FILTER_BYTES: Final = 64
MAX_OBJECT_IDS: Final = 200_000
"""Wants, and haves, of one GetObjects: 4 MB of ids, which pass over a stream and are never one message."""

MAX_GIT_SERVICE: Final = 255
"""Services of git that have, or may get, a number; one that a node doesn't offer is answered "unsupported"."""

MAX_TOPIC_BYTES: Final = 80
"""``repo/`` and a repository id are 68."""

MAX_GOSSIP_BYTES: Final = 10 * KIB
"""The data of one Gossip: a NewCommit of the largest size and some room for later kinds of news."""

MAX_SUBSCRIPTIONS: Final = 1_024
"""Repositories in one Subscribe, added and removed together: 34 bytes each, so it fits a message."""

MAX_TEXT_BYTES: Final = 256
"""The text of Goodbye and Error, for the log of whoever reads it."""

MAX_RETRY_AFTER_S: Final = 7 * 24 * 3600
"""A peer can't ask to be left alone for longer than a week."""
