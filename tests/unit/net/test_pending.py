"""Messages that wait: in order, packed, and passed by those outside credit where they are withheld."""

from hypothesis import given
from hypothesis import strategies as st

from guts.net.pending import Pending
from guts.wire.connection import MessageReceived


def message(number: int, size: int = 3) -> MessageReceived:
    return MessageReceived(bytes([number % 256]) * size, number, control=False)


def control(number: int) -> MessageReceived:
    return MessageReceived(bytes([number % 256]), 0, control=True)


@given(st.lists(st.one_of(st.none(), st.tuples(st.booleans(), st.integers(0, 30_000))), max_size=80))
def test_messages_come_out_as_they_went_in(steps: list[tuple[bool, int] | None]) -> None:
    pending = Pending()
    expected: list[MessageReceived] = []
    for number, step in enumerate(steps):
        if step is None:
            assert pending.take(withheld=False) == (expected.pop(0) if expected else None)
        else:
            event = control(number) if step[0] else message(number, step[1])
            pending.put(event)
            expected.append(event)
        assert len(pending) == len(expected)
    assert [pending.take(withheld=False) for _ in expected] == expected
    assert pending.take(withheld=False) is None


def test_what_is_outside_credit_passes_what_is_withheld_and_nothing_else_does() -> None:
    pending = Pending()
    for event in (message(1), control(2), message(3), control(4)):
        pending.put(event)
    assert pending.outside_credit == 2
    assert [pending.take(withheld=True) for _ in range(3)] == [control(2), control(4), None]
    assert [pending.take(withheld=False) for _ in range(3)] == [message(1), message(3), None]


def test_many_small_messages_take_little_more_than_their_bytes() -> None:
    pending = Pending()
    for number in range(80_000):
        pending.put(message(number % 256, 9))
    assert len(pending._packed) == 80_000 * 17
    for _ in range(79_999):
        assert pending.take(withheld=False) is not None
    assert len(pending._packed) < 70_000
