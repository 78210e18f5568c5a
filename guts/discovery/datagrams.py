"""Datagrams: what is checked of one before the package sees it, and what an answer's signature covers.

A request is rpcudp's header, canonical msgpack ``[method, arguments]`` and zeros up to at least 384 bytes. An
answer is the header, canonical msgpack ``[observed address, result]``, and a trailer: the answering node's
public key and its signature over domain ‖ message id ‖ body. The message id is 160 random bits that the asker
chose, so an answer can't be made beforehand and no clock is needed.
"""

from dataclasses import dataclass
from typing import Final

import msgpack

from guts import canonical
from guts.canonical import Bounds, Value
from guts.discovery.keys import Key
from guts.discovery.limits import DATAGRAM_BYTES, HEADER_BYTES, REQUEST_BYTES, TRAILER_BYTES
from guts.discovery.store import RecordKind
from guts.discovery.tokens import TOKEN_BYTES
from guts.errors import PeerFault
from guts.identity import SigningKey, domain, signature_valid
from guts.ids import PeerId
from guts.records import MAX_RECORD_BYTES

REQUEST: Final = b"\x00"
ANSWER: Final = b"\x01"

MAX_SKIP: Final = 64
"""A key holds no more records than this, so no page starts later."""

_ANSWER_DOMAIN: Final = domain("dht-answer")
_KEY_BYTES: Final = 32
_BOUNDS: Final = Bounds(DATAGRAM_BYTES, max_list=MAX_SKIP, max_str=16, max_bin=DATAGRAM_BYTES, max_depth=4)


class BadDatagram(PeerFault):
    """A datagram that no node of this protocol sends."""

    code = "BAD_DATAGRAM"


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose method and arguments have the right shapes.

    Attributes:
        datagram: header and body without padding, as the package expects it.
        sender: the id that the sender claims; ``None`` for a client, which answers nothing.
        token: the write token that it shows; empty for none.
    """

    datagram: bytes
    method: str
    sender: Key | None
    token: bytes = b""


def _sender_ok(value: Value) -> bool:
    return isinstance(value, bytes) and len(value) in (0, Key.LENGTH)


def _key_ok(value: Value) -> bool:
    return isinstance(value, bytes) and len(value) == Key.LENGTH


def _skip_ok(value: Value) -> bool:
    return type(value) is int and 0 <= value <= MAX_SKIP


def _token_ok(value: Value) -> bool:
    return isinstance(value, bytes) and len(value) == TOKEN_BYTES


def _token_or_none_ok(value: Value) -> bool:
    return value == b"" or _token_ok(value)


def _kind_ok(value: Value) -> bool:
    return type(value) is int and value in RecordKind.__members__.values()


def _record_ok(value: Value) -> bool:
    return isinstance(value, bytes) and 0 < len(value) <= MAX_RECORD_BYTES


METHODS: Final = {
    "ping": (_sender_ok,),
    "find_node": (_sender_ok, _key_ok),
    "get_records": (_sender_ok, _key_ok, _skip_ok, _token_or_none_ok),
    "put_record": (_sender_ok, _token_ok, _kind_ok, _record_ok),
}
"""What a remote may call, and what each argument must be. Everything else is nobody's method."""


def _check_size(data: bytes) -> None:
    """Raises: ``BadDatagram``: shorter than any datagram or longer than all of them."""
    if not HEADER_BYTES < len(data) <= DATAGRAM_BYTES:
        raise BadDatagram(f"{len(data)} bytes")


def parse_request(data: bytes) -> Request:
    """Return the request in ``data``.

    Raises:
        BadDatagram, NotCanonical: too short, not canonical, no method of ours, an argument of the wrong shape.
    """
    _check_size(data)
    if len(data) < REQUEST_BYTES:
        raise BadDatagram(f"a request of {len(data)} bytes")
    end = HEADER_BYTES + _value_length(data[HEADER_BYTES:])
    if data[end:].strip(b"\0"):
        raise BadDatagram("padding that is not zeros")
    match canonical.decode(data[HEADER_BYTES:end], _BOUNDS):
        case [str(method), list(arguments)] if method in METHODS:
            pass
        case _:
            raise BadDatagram("not a method of ours")
    checks = METHODS[method]
    if len(arguments) != len(checks):
        raise BadDatagram(f"{method} with {len(arguments)} arguments")
    if not all(check(argument) for check, argument in zip(checks, arguments, strict=True)):
        raise BadDatagram(f"{method} with an argument of the wrong shape")
    match method, arguments:
        case "get_records", [bytes(sender), _, _, bytes(token)]:
            pass
        case "put_record", [bytes(sender), bytes(token), _, _]:
            pass
        case _, [bytes(sender), *_]:
            token = b""
        case _:
            raise AssertionError("the checks above let nothing else through")
    return Request(data[:end], method, Key(sender) if sender else None, token)


def _value_length(data: bytes) -> int:
    """Return how many bytes the first msgpack value in ``data`` takes; nothing is allocated for it.

    Raises:
        BadDatagram: there is none.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=DATAGRAM_BYTES)
    unpacker.feed(data)
    try:
        unpacker.skip()
    # msgpack raises ValueError and its children, UnpackException and RecursionError-like StackError.
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise BadDatagram(f"not msgpack: {type(error).__name__}") from None
    length: int = unpacker.tell()
    return length


def pad_request(data: bytes) -> bytes:
    """Return a request of the package with the zeros that protocol asks for."""
    return data.ljust(REQUEST_BYTES, b"\0")


def sign_answer(data: bytes, key: SigningKey) -> bytes:
    """Return an answer of the package (header and body) with the trailer that proves who gives it."""
    return data + key.public + key.sign(_ANSWER_DOMAIN, data[1:])


def open_answer(data: bytes) -> tuple[PeerId, bytes]:
    """Return who signed the answer in ``data``, and its body.

    Raises:
        BadDatagram, NotCanonical: no trailer, a signature that does not cover the rest, a body that is not
            canonical.
    """
    _check_size(data)
    if len(data) <= HEADER_BYTES + TRAILER_BYTES:
        raise BadDatagram("an answer without a trailer")
    signed, trailer = data[:-TRAILER_BYTES], data[-TRAILER_BYTES:]
    if not signature_valid(trailer[:_KEY_BYTES], _ANSWER_DOMAIN, signed[1:], trailer[_KEY_BYTES:]):
        raise BadDatagram("a signature that does not cover the answer")
    body = signed[HEADER_BYTES:]
    match canonical.decode(body, _BOUNDS):
        case [bytes(observed), _] if len(observed) in (6, 18):
            return PeerId(trailer[:_KEY_BYTES]), body
        case _:
            raise BadDatagram("not [observed address, result]")
