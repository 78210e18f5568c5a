"""Results of answers: bytes to values. The signature said who answered; here is checked what."""

from dataclasses import dataclass

from guts.canonical import Value
from guts.discovery.contact import Contact, decode_contacts
from guts.discovery.limits import MAX_RECORDS_PER_KEY
from guts.discovery.store import PutStatus
from guts.discovery.tokens import TOKEN_BYTES
from guts.errors import PeerFault
from guts.records import MAX_RECORD_BYTES


class InvalidAnswer(PeerFault):
    """A node signed an answer that has not the form of one."""

    code = "INVALID_ANSWER"


@dataclass(frozen=True, slots=True)
class Answer:
    """A signed answer to a request.

    Attributes:
        contact: who gave it, with its proven id.
        observed: this node's address as the answerer saw it: 6 or 18 bytes.
        result: not yet looked at.
    """

    contact: Contact
    observed: bytes
    result: Value


@dataclass(frozen=True, slots=True)
class Found:
    """What a node answers to ``find_node`` and ``get_records``.

    Attributes:
        token: allows to put there.
        total: records that it holds for the key; 0 for ``find_node``.
        records: encoded records, unverified.
    """

    contact: Contact
    token: bytes
    contacts: tuple[Contact, ...]
    total: int = 0
    records: tuple[bytes, ...] = ()


def read_found(answer: Answer) -> Found:
    """Return the result of ``find_node`` or ``get_records``.

    Raises:
        PeerFault: it has not that form.
    """
    records: list[Value]
    match answer.result:
        case [bytes(token), bytes(v4), bytes(v6)]:
            total, records = 0, []
        case [bytes(token), bytes(v4), bytes(v6), int(total), list(records)]:
            pass
        case _:
            raise InvalidAnswer("not a list of contacts")
    if len(token) != TOKEN_BYTES or not 0 <= total <= MAX_RECORDS_PER_KEY:
        raise InvalidAnswer("a token or a number that cannot be")
    blobs = tuple(r for r in records if isinstance(r, bytes) and len(r) <= MAX_RECORD_BYTES)
    if len(blobs) != len(records) or len(blobs) > total:
        raise InvalidAnswer("not a list of records")
    return Found(answer.contact, token, decode_contacts(v4, v6), total, blobs)


def read_put(answer: Answer) -> PutStatus:
    """Return what became of a record.

    Raises:
        PeerFault: the result has not that form.
    """
    match answer.result:
        case [int(status), bytes(), int(), int()] if status in PutStatus.__members__.values():
            return PutStatus(status)
        case _:
            raise InvalidAnswer("not the outcome of a put")
