import json

import pytest
import umsgpack  # type: ignore[import-untyped]

from guts import canonical
from guts.canonical import Value
from guts.discovery.contact import Contact
from guts.discovery.datagrams import (
    MAX_SKIP,
    BadDatagram,
    open_answer,
    pad_request,
    parse_request,
    sign_answer,
)
from guts.discovery.keys import Key, node_key
from guts.discovery.limits import DATAGRAM_BYTES, REQUEST_BYTES
from guts.discovery.messages import Answer, Found, InvalidAnswer, read_found, read_put
from guts.discovery.store import PutStatus
from guts.errors import PeerFault
from guts.identity import SigningKey
from guts.records import MAX_RECORD_BYTES
from tests.support.dht import request_bytes
from tests.vectors import make_discovery

ID = bytes(range(20))
SENDER = b"s" * 20
TOKEN = b"12345678"
KEY = SigningKey(b"k" * 32)


def test_vectors_are_what_this_code_makes() -> None:
    assert make_discovery.PATH.read_text() == make_discovery.make()


def test_vectors_parse_and_the_package_reads_the_same_values() -> None:
    vectors = json.loads(make_discovery.PATH.read_text())
    for name, (method, arguments) in make_discovery.requests().items():
        data = bytes.fromhex(vectors["requests"][name])
        assert REQUEST_BYTES <= len(data) <= DATAGRAM_BYTES
        request = parse_request(data)
        assert request.method == method
        assert request.sender == (Key(bytes(arguments[0])) if arguments[0] else None)  # type: ignore[arg-type]
        assert umsgpack.unpackb(request.datagram[21:]) == [method, arguments]
        assert umsgpack.packb([method, tuple(arguments)]) == request.datagram[21:]
    for name, result in make_discovery.results().items():
        data = bytes.fromhex(vectors["answers"][name])
        peer, body = open_answer(data)
        assert node_key(peer).hex() == vectors["answerer_key"]
        assert umsgpack.unpackb(body) == [bytes.fromhex(vectors["observed"]), result]
        assert umsgpack.unpackb(data[21:]) == umsgpack.unpackb(body), "an unmodified node skips the trailer"


def request(method: str, *arguments: Value) -> bytes:
    return request_bytes(ID, method, *arguments)


@pytest.mark.parametrize(
    ("data", "fits"),
    [
        (request("ping", SENDER), True),
        (request("ping", b""), True),
        (request("ping", SENDER[1:]), False),
        (request("ping", SENDER, 1), False),
        (request("ping"), False),
        (request("stun"), False),
        (request("store", SENDER, bytes(20), b"value"), False),
        (request("find_value", SENDER, bytes(20)), False),
        (request("_accept_request", SENDER), False),
        (request("find_node", SENDER, bytes(20)), True),
        (request("find_node", SENDER, bytes(21)), False),
        (request("find_node", SENDER, "x" * 20), False),
        (request("get_records", SENDER, bytes(20), 0, b""), True),
        (request("get_records", SENDER, bytes(20), MAX_SKIP, TOKEN), True),
        (request("get_records", SENDER, bytes(20), MAX_SKIP + 1, TOKEN), False),
        (request("get_records", SENDER, bytes(20), -1, TOKEN), False),
        (request("get_records", SENDER, bytes(20), True, TOKEN), False),
        (request("get_records", SENDER, bytes(20), 0, TOKEN[1:]), False),
        (request("put_record", SENDER, TOKEN, 1, bytes(MAX_RECORD_BYTES)), True),
        (request("put_record", SENDER, TOKEN, 1, bytes(MAX_RECORD_BYTES + 1)), False),
        (request("put_record", SENDER, TOKEN, 2, b"r"), False),
        (request("put_record", SENDER, b"", 1, b"r"), False),
        (request("put_record", SENDER, TOKEN, 1, b""), False),
    ],
)
def test_only_the_methods_with_their_arguments_are_let_through(data: bytes, fits: bool) -> None:
    if fits:
        assert parse_request(data).datagram == data.rstrip(b"\0") or data.startswith(parse_request(data).datagram)
    else:
        with pytest.raises(PeerFault):
            parse_request(data)


def test_requests_are_384_to_1152_bytes_padded_with_zeros() -> None:
    good = request("ping", SENDER)
    assert len(good) == REQUEST_BYTES
    parse_request(good.ljust(DATAGRAM_BYTES, b"\0"))
    for bad in (good[:-1], good.ljust(DATAGRAM_BYTES + 1, b"\0"), good[:-1] + b"\1"):
        with pytest.raises(BadDatagram):
            parse_request(bad)


def test_another_encoding_of_the_same_request_is_refused() -> None:
    body = canonical.encode(["ping", [SENDER]])
    longer = body.replace(b"\xa4ping", b"\xd9\x04ping")
    assert umsgpack.unpackb(longer) == umsgpack.unpackb(body)
    with pytest.raises(PeerFault):
        parse_request(pad_request(b"\x00" + ID + longer))


def test_an_answer_opens_only_whole_and_unchanged() -> None:
    answer = sign_answer(b"\x01" + ID + canonical.encode([bytes(6), None]), KEY)
    assert open_answer(answer)[0] == KEY.peer_id
    for end in range(len(answer)):
        with pytest.raises(PeerFault):
            open_answer(answer[:end])
    for at in range(1, len(answer)):
        with pytest.raises(PeerFault):
            open_answer(answer[:at] + bytes([answer[at] ^ 1]) + answer[at + 1 :])
    with pytest.raises(PeerFault):
        open_answer(answer + b"\0")


@pytest.mark.parametrize("body", [[bytes(5), None], [bytes(6)], [bytes(6), None, None], bytes(6), [None, None]])
def test_an_answer_has_an_observed_address_and_a_result(body: Value) -> None:
    with pytest.raises(BadDatagram):
        open_answer(sign_answer(b"\x01" + ID + canonical.encode(body), KEY))


CONTACT = Contact(node_key(KEY.peer_id), "20.0.0.1", 9000, KEY.peer_id)


def test_results_are_read_or_are_a_fault() -> None:
    def answer(result: Value) -> Answer:
        return Answer(CONTACT, bytes(6), result)

    assert read_found(answer([TOKEN, b"", b""])) == Found(CONTACT, TOKEN, ())
    assert read_found(answer([TOKEN, b"", b"", 64, [b"r"]])) == Found(CONTACT, TOKEN, (), 64, (b"r",))
    assert read_put(answer([0, bytes(20), 1, 1])) is PutStatus.STORED
    not_found: list[Value] = [
        [TOKEN, b"", b"", 65, []],
        [TOKEN[1:], b"", b""],
        [TOKEN, b"", b"", 1, [b"x" * 513]],
        None,
    ]
    for bad in not_found:
        with pytest.raises(InvalidAnswer):
            read_found(answer(bad))
    not_put: list[Value] = [[5, b"", 0, 0], [0], None, [True, b"", 0]]
    for bad in not_put:
        with pytest.raises(InvalidAnswer):
            read_put(answer(bad))
