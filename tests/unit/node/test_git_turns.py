"""Whose turn it is to answer a request that is repeated."""

from guts.node.git_turns import MAX_REMEMBERED, Turns
from tests.unit.node.test_git_relay import Scripted

ONE, TWO, THREE = Scripted("one", []), Scripted("two", []), Scripted("three", [])


def test_each_source_has_its_turn_and_then_it_begins_anew() -> None:
    turns = Turns()
    assert turns.in_order(b"x", [ONE, TWO, THREE]) == [ONE, TWO, THREE]
    turns.note(b"x", ONE)
    assert turns.in_order(b"x", [ONE, TWO, THREE]) == [TWO, THREE, ONE]
    assert turns.in_order(b"y", [ONE, TWO, THREE]) == [ONE, TWO, THREE]
    turns.note(b"x", TWO)
    assert turns.in_order(b"x", [ONE, TWO, THREE]) == [THREE, ONE, TWO]
    turns.note(b"x", THREE)
    assert turns.in_order(b"x", [ONE, TWO, THREE]) == [ONE, TWO, THREE]
    turns.note(b"x", ONE)
    assert turns.in_order(b"x", [ONE]) == [ONE]


def test_so_many_requests_are_remembered() -> None:
    turns = Turns()
    for number in range(MAX_REMEMBERED):
        turns.note(b"%d" % number, ONE)
    assert turns.in_order(b"0", [ONE, TWO]) == [TWO, ONE]
    turns.note(b"one more", ONE)
    assert turns.in_order(b"0", [ONE, TWO]) == [ONE, TWO]
    assert turns.in_order(b"1", [ONE, TWO]) == [TWO, ONE]
