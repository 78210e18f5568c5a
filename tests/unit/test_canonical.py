"""Canonical msgpack: one encoding of each value, and bounds before anything is believed."""

import math
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guts.canonical import Bounds, NotCanonical, Value, decode, encode
from guts.errors import PeerFault, Severity

BOUNDS = Bounds(100_000)
SCALARS: Any = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.binary(max_size=300), st.text(max_size=300), st.booleans(), st.none()
)
VALUES: Any = st.recursive(SCALARS, lambda children: st.lists(children, max_size=20), max_leaves=30)


@settings(max_examples=50)
@given(VALUES)
def test_any_value_reads_back(value: Value) -> None:
    data = encode(value)
    again = decode(data, Bounds(1_000_000, max_depth=100))
    assert repr(again) == repr(value)
    assert encode(again) == data


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_canonical(data: bytes) -> None:
    try:
        value = decode(data, BOUNDS)
    except PeerFault:
        return
    assert encode(value) == data


@settings(max_examples=50)
@given(VALUES, st.binary(min_size=1, max_size=5))
def test_trailing_bytes_are_refused(value: Value, trailing: bytes) -> None:
    with pytest.raises(NotCanonical):
        decode(encode(value) + trailing, BOUNDS)


@settings(max_examples=50)
@given(VALUES)
def test_every_cut_is_refused(value: Value) -> None:
    data = encode(value)
    for length in range(min(len(data), 50)):
        with pytest.raises(NotCanonical):
            decode(data[:length], BOUNDS)


@pytest.mark.parametrize(
    "data",
    [
        b"\xcc\x05",  # 5 in two bytes
        b"\xcd\x00\x05",
        b"\xd0\x05",
        b"\xd3" + bytes(7) + b"\x05",
        b"\xd9\x01a",  # a short string in the longer form
        b"\xda\x00\x01a",
        b"\xc5\x00\x01a",
        b"\xdc\x00\x01\xc0",  # a short list in the longer form
        b"\xdd\x00\x00\x00\x01\xc0",
    ],
)
def test_longer_encodings_of_a_value_are_refused(data: bytes) -> None:
    with pytest.raises(NotCanonical, match="not the canonical"):
        decode(data, BOUNDS)


@pytest.mark.parametrize(
    "value", [{}, {"a": 1}, [{}], 1.5, math.inf, [0.0], msgpack.ExtType(5, b""), msgpack.Timestamp(1)]
)
def test_maps_floats_and_extensions_are_refused(value: Any) -> None:
    with pytest.raises(NotCanonical):
        decode(msgpack.packb(value), BOUNDS)


def test_text_that_is_not_utf8_is_refused() -> None:
    for data in (b"\xa1\xff", b"\xa3\xed\xa0\x80"):
        with pytest.raises(NotCanonical):
            decode(data, BOUNDS)


def test_whole_length_is_bounded() -> None:
    data = encode(bytes(10))
    assert decode(data, Bounds(len(data))) == bytes(10)
    with pytest.raises(NotCanonical, match="12 bytes where 11"):
        decode(data, Bounds(len(data) - 1))


@pytest.mark.parametrize(
    ("bounds", "fits", "too_much"),
    [
        (Bounds(1000, max_list=3), [1, 2, 3], [1, 2, 3, 4]),
        (Bounds(1000, max_str=4), "éé", "ééa"),
        (Bounds(1000, max_bin=3), b"abc", b"abcd"),
        (Bounds(1000, max_depth=2), [[]], [[[]]]),
        (Bounds(1000, max_depth=1), [1], [[]]),
        (Bounds(1000, max_depth=0), 1, []),
    ],
)
def test_each_bound_holds_at_its_value_and_not_above(bounds: Bounds, fits: Value, too_much: Value) -> None:
    assert decode(encode(fits), bounds) == fits
    with pytest.raises(NotCanonical):
        decode(encode(too_much), bounds)


def test_deepest_nesting_is_refused_and_does_not_overflow() -> None:
    for depth in (9, 500, 5_000, 90_000):
        with pytest.raises(NotCanonical):
            decode(b"\x91" * depth + b"\xc0", BOUNDS)


def test_length_that_is_only_claimed_allocates_nothing() -> None:
    for data in (b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"):
        with pytest.raises(NotCanonical):
            decode(data, BOUNDS)


def test_it_is_a_fatal_fault_of_the_peer() -> None:
    assert NotCanonical.severity is Severity.FATAL


def test_decode_refuses_more_values_than_the_bound_before_they_fill_memory() -> None:
    bounds = Bounds(4 << 20, max_list=5000, max_items=1000)
    # A list counts one and each of its elements one more.
    assert decode(encode([0] * 999), bounds) == [0] * 999
    with pytest.raises(NotCanonical):
        decode(encode([0] * 1000), bounds)
    bomb = encode([[[]] * 900] * 4000)
    tracemalloc.start()
    with pytest.raises(NotCanonical):
        decode(bomb, bounds)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
