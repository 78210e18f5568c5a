"""Canonical msgpack: the one byte form of every signed body and every message.

A value is made of ``int``, ``bytes``, ``str``, ``bool``, ``None`` and ``list``: no maps, floats or extension
types. Bytes are canonical when encoding what they decode to gives the same bytes again, so a value has one
encoding and a signature has one meaning. Decoding always takes bounds: nothing is allocated past them.
"""

from dataclasses import dataclass
from typing import Final

import msgpack

from guts.errors import PeerFault

_SCALARS: Final = (int, bytes, str, bool, type(None))

Value = int | bytes | str | bool | None | list["Value"]


class NotCanonical(PeerFault):
    """Bytes are not the canonical encoding of a value inside the bounds."""

    code = "NOT_CANONICAL"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a decoder accepts.

    Attributes:
        max_bytes: length of the whole encoding.
        max_list: elements of any one list.
        max_str: UTF-8 bytes of any one string.
        max_bin: length of any one byte string.
        max_depth: nested lists; 1 is a flat list.
        max_items: values in all, lists and their elements: each costs memory far above its byte on the wire.
    """

    max_bytes: int
    max_list: int = 1024
    max_str: int = 1024
    max_bin: int = 65_536
    max_depth: int = 8
    max_items: int = 16_384


def encode(value: Value) -> bytes:
    """Return the canonical encoding of ``value``."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def decode(data: bytes, bounds: Bounds) -> Value:
    """Return the value that ``data`` encodes.

    Raises:
        NotCanonical: too long, not msgpack, trailing bytes, a type or size outside the bounds, or another
            encoding of a value that has a shorter one.
    """
    if len(data) > bounds.max_bytes:
        raise NotCanonical(f"{len(data)} bytes where {bounds.max_bytes} are allowed")
    left = bounds.max_items

    def count(elements: list[Value]) -> list[Value]:
        nonlocal left
        left -= 1 + len(elements)
        if left < 0:
            raise NotCanonical(f"more than {bounds.max_items} values")
        return elements

    try:
        value: Value = msgpack.unpackb(
            data,
            raw=False,
            use_list=True,
            list_hook=count,
            strict_map_key=True,
            max_array_len=bounds.max_list,
            max_str_len=bounds.max_str,
            max_bin_len=bounds.max_bin,
            max_map_len=0,
            max_ext_len=0,
        )
    # msgpack raises ValueError and its children, UnpackException and RecursionError-like StackError.
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise NotCanonical(f"not msgpack inside the bounds: {type(error).__name__}") from None
    _check_types(value, bounds.max_depth)
    if encode(value) != data:
        raise NotCanonical("not the canonical encoding of its value")
    return value


def _check_types(value: Value, depth: int) -> None:
    if isinstance(value, list):
        if depth == 0:
            raise NotCanonical("lists nested too deep")
        for element in value:
            _check_types(element, depth - 1)
    elif type(value) not in _SCALARS:
        raise NotCanonical(f"a {type(value).__name__} is not allowed")
