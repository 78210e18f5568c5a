"""A GetRefs fits its message, however many maintainers the repositories have."""

from guts.effects import Send
from guts.events import ConnectionId
from guts.ids import AuthorId, PeerId, RepositoryId
from guts.sync.questions import HEAD_BYTES, QUERY_BYTES, Questions, RequestIds
from guts.wire import codec
from guts.wire.limits import MAX_KNOWN_HEADS, MAX_MESSAGE_BYTES, MAX_QUERIES, MAX_SEQ
from guts.wire.messages import GetRefs, KnownHead, RefsQuery

PEER = PeerId(b"p" * 32)


def _repository(number: int) -> RepositoryId:
    return RepositoryId(number.to_bytes(32, "big"))


def _asked(heads: int, repositories: int) -> list[GetRefs]:
    known = tuple(KnownHead(AuthorId(bytes([n]) * 32), MAX_SEQ, b"h" * 32) for n in range(heads))
    questions = Questions(lambda _, repository: RefsQuery(repository, 1000, b"i" * 32, known), RequestIds().next)
    questions.begin(PEER, ConnectionId(1))
    for number in range(repositories):
        assert questions.add(PEER, _repository(number))
    messages = []
    while sends := questions.send(PEER, 0.0):
        for send in sends:
            assert isinstance(send, Send)
            assert isinstance(send.message, GetRefs)
            messages.append(send.message)
            questions.close(PEER, send.message.request)
    return messages


def test_asks_about_many_maintainers_in_several_messages() -> None:
    for heads in (0, 1, 10, 11, MAX_KNOWN_HEADS):
        messages = _asked(heads, 3 * MAX_QUERIES)
        asked = [query.repository for message in messages for query in message.queries]
        assert asked == [_repository(number) for number in range(3 * MAX_QUERIES)]
        assert all(len(codec.encode(message)) <= MAX_MESSAGE_BYTES for message in messages)
        # None is split before it must be.
        assert all(len(message.queries) == MAX_QUERIES for message in messages) == (
            MAX_QUERIES * (QUERY_BYTES + HEAD_BYTES * heads) <= MAX_MESSAGE_BYTES - 128
        )
