"""Messages for tests: one fixed example of each, for vectors, and a hypothesis strategy for all of them."""

from typing import Final

from hypothesis import strategies as st

from guts.ids import AuthorId, RepositoryId
from guts.wire import limits
from guts.wire.messages import (
    UPLOAD_PACK,
    EncodedRefs,
    Error,
    ErrorCode,
    GetObjects,
    GetPeers,
    GetReceipt,
    GetRefs,
    GitService,
    Goodbye,
    GoodbyeCode,
    Gossip,
    Graft,
    Hello,
    HelloAck,
    KnownHead,
    KnownSplit,
    Message,
    NewCommit,
    NewProof,
    NewRepository,
    Objects,
    ObjectsStatus,
    Peers,
    Ping,
    Pong,
    Prune,
    Receipt,
    RecordQuery,
    Refs,
    RefsAnswer,
    RefsQuery,
    RefsStatus,
    Subscribe,
)

REPOSITORY: Final = RepositoryId(bytes(range(32)))
OTHER_REPOSITORY: Final = RepositoryId(bytes(range(32, 64)))
AUTHOR: Final = AuthorId(bytes(range(64, 96)))
HASH: Final = bytes(range(96, 128))
TIME_MS: Final = 1_790_000_000_000
RECORD: Final = EncodedRefs(b"header", b"entries")

EXAMPLES: Final[dict[str, Message]] = {
    "Hello": Hello(1, 1, "guts/0.1.0", ("seed", "bootstrap"), b"peer record", TIME_MS, b"nonce--8"),
    "Hello, nothing said": Hello(1, 65_535, "", (), b"", 0, bytes(8)),
    "HelloAck": HelloAck(1, "guts/0.1.0", ("seed",), b"peer record", TIME_MS, b"nonce--8"),
    "Ping": Ping(7),
    "Ping, largest nonce": Ping(2**64 - 1),
    "Pong": Pong(7),
    "GetRefs": GetRefs(
        1,
        (
            RefsQuery(REPOSITORY, 2, HASH, (KnownHead(AUTHOR, TIME_MS, HASH),), (KnownSplit(AUTHOR, TIME_MS),), 1),
            RecordQuery(OTHER_REPOSITORY, AUTHOR, TIME_MS),
        ),
        b"cursor",
    ),
    "GetRefs, nothing known": GetRefs(1, (RefsQuery(REPOSITORY, 0, b"", ()),)),
    "Refs": Refs(
        1,
        (
            RefsAnswer(REPOSITORY, RefsStatus.HELD, (b"document",), (b"bridge",), (RECORD,), (b"proof",)),
            RefsAnswer(OTHER_REPOSITORY, RefsStatus.NOT_HELD),
        ),
        b"cursor",
    ),
    "GetObjects": GetObjects(2, REPOSITORY, 1, b"\xff" * 8, "", 3, 200_000),
    "Objects": Objects(2, ObjectsStatus.BUSY, 30),
    "GitService": GitService(3, REPOSITORY, 5, UPLOAD_PACK),
    "GetReceipt": GetReceipt(3, REPOSITORY, AUTHOR, TIME_MS),
    "Receipt": Receipt(3, b"receipt"),
    "Receipt, not asked for": Receipt(0, b"receipt"),
    "GetPeers": GetPeers(3),
    "Peers": Peers(3, (b"peer record", b"another peer record")),
    "Peers, nobody": Peers(3, ()),
    "NewCommit": NewCommit(REPOSITORY, AUTHOR, TIME_MS, HASH, RECORD),
    "NewCommit, without the record": NewCommit(REPOSITORY, AUTHOR, TIME_MS, HASH),
    "NewRepository": NewRepository(REPOSITORY, 3, HASH, b"peer record"),
    "NewProof": NewProof(REPOSITORY, AUTHOR, TIME_MS, b"proof"),
    "Prune": Prune(REPOSITORY, AUTHOR),
    "Graft": Graft(REPOSITORY, AUTHOR),
    "Gossip": Gossip("repositories", b"an encoded NewRepository"),
    "Subscribe": Subscribe((REPOSITORY,), (OTHER_REPOSITORY,)),
    "Goodbye": Goodbye(GoodbyeCode.FULL, "all 50 places are taken", 60),
    "Error": Error(2, ErrorCode.NOT_FOUND, "no such repository", 0),
}

_uint32 = st.integers(0, limits.MAX_UINT32)
_request = st.integers(1, limits.MAX_UINT32)
_seq = st.integers(0, limits.MAX_SEQ)
_hash = st.binary(min_size=32, max_size=32)
_repository = _hash.map(RepositoryId)
_author = _hash.map(AuthorId)
_nonce = st.binary(min_size=8, max_size=8)
_peer_record = st.binary(max_size=limits.MAX_PEER_RECORD_BYTES)
_cursor = st.binary(max_size=limits.MAX_CURSOR_BYTES)
_retry = st.integers(0, limits.MAX_RETRY_AFTER_S)
_version = st.integers(1, limits.MAX_VERSION)


def _text(high: int, low: int = 0) -> st.SearchStrategy[str]:
    printable = st.characters(codec="utf-8").filter(str.isprintable)
    texts = st.text(printable, min_size=low, max_size=high)
    return texts.filter(lambda text: len(text.encode()) <= high)


_capabilities = st.lists(_text(32, 1), max_size=8).map(tuple)
_records = st.builds(EncodedRefs, st.binary(min_size=1, max_size=1024), st.binary(min_size=1, max_size=2048))
_heads = st.lists(st.builds(KnownHead, _author, _seq, _hash), max_size=4).map(tuple)
_splits = st.lists(st.builds(KnownSplit, _author, _seq), max_size=4).map(tuple)
_queries = st.builds(
    RefsQuery, _repository, _uint32, st.one_of(st.just(b""), _hash), _heads, _splits, _uint32
) | st.builds(RecordQuery, _repository, _author, _seq)
_blobs = st.lists(st.binary(min_size=1, max_size=1024), max_size=4).map(tuple)
_answers = st.builds(
    RefsAnswer,
    _repository,
    st.sampled_from(RefsStatus),
    _blobs,
    _blobs,
    st.lists(_records, max_size=3).map(tuple),
    _blobs,
)
_hello = st.tuples(_version, _version).flatmap(
    lambda pair: st.builds(
        Hello, st.just(min(pair)), st.just(max(pair)), _text(64), _capabilities, _peer_record, _seq, _nonce
    )
)
_repositories = st.lists(_repository, max_size=20).map(tuple)

MESSAGES: Final[st.SearchStrategy[Message]] = st.one_of(
    _hello,
    st.builds(HelloAck, _version, _text(64), _capabilities, _peer_record, _seq, _nonce),
    st.builds(Ping, st.integers(0, limits.MAX_UINT64)),
    st.builds(Pong, st.integers(0, limits.MAX_UINT64)),
    st.builds(GetRefs, _request, st.lists(_queries, max_size=4).map(tuple), _cursor),
    st.builds(Refs, _request, st.lists(_answers, max_size=4).map(tuple), _cursor),
    st.builds(
        GetObjects,
        _request,
        _repository,
        _request,
        _nonce,
        _text(64),
        st.integers(0, limits.MAX_OBJECT_IDS),
        st.integers(0, limits.MAX_OBJECT_IDS),
    ),
    st.builds(Objects, _request, st.sampled_from(ObjectsStatus), _retry),
    st.builds(GitService, _request, _repository, _request, st.integers(1, limits.MAX_GIT_SERVICE)),
    st.builds(GetReceipt, _request, _repository, _author, _seq),
    st.builds(Receipt, _uint32, st.binary(min_size=1, max_size=limits.MAX_RECEIPT_BYTES)),
    st.builds(GetPeers, _request),
    st.builds(Peers, _request, st.lists(st.binary(min_size=1, max_size=512), max_size=32).map(tuple)),
    st.builds(NewCommit, _repository, _author, _seq, _hash, st.none() | _records),
    st.builds(NewRepository, _repository, _uint32, _hash, _peer_record),
    st.builds(Prune, _repository, _author),
    st.builds(Graft, _repository, _author),
    st.builds(NewProof, _repository, _author, _seq, st.binary(min_size=1, max_size=limits.MAX_PROOF_BYTES)),
    st.builds(Gossip, _text(80, 1), st.binary(min_size=1, max_size=limits.MAX_GOSSIP_BYTES)),
    st.builds(Subscribe, _repositories, _repositories),
    st.builds(Goodbye, st.sampled_from(GoodbyeCode), _text(256), _retry),
    st.builds(Error, _uint32, st.sampled_from(ErrorCode), _text(256), _retry),
)
