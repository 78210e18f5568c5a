"""Windows, queues, and which stream ids may be used."""

import random

import pytest

from guts.wire.limits import INITIAL_WINDOW, MAX_OPEN_STREAMS, MAX_STREAM_ID, MAX_WINDOW, MIB
from guts.wire.secure import Direction
from guts.wire.streams import (
    BadStream,
    CreditExceeded,
    NoFreeStream,
    ReceiveWindow,
    SendQueue,
    StreamTable,
)

PLENTY = 1 << 40


def test_window_takes_what_it_allows_and_not_a_byte_more() -> None:
    window = ReceiveWindow()
    window.receive(INITIAL_WINDOW)
    with pytest.raises(CreditExceeded):
        window.receive(1)
    fresh = ReceiveWindow()
    with pytest.raises(CreditExceeded):
        fresh.receive(INITIAL_WINDOW + 1)


def test_window_grants_half_a_window_at_a_time() -> None:
    window = ReceiveWindow()
    window.receive(INITIAL_WINDOW)
    assert window.consume(INITIAL_WINDOW // 2 - 1, growth=0) == 0
    assert window.consume(1, growth=0) == INITIAL_WINDOW // 2
    assert window.credit == INITIAL_WINDOW // 2


def test_window_doubles_to_16_mib_for_a_reader_that_keeps_up() -> None:
    window = ReceiveWindow()
    sizes = [window.size]
    while window.size < MAX_WINDOW:
        window.receive(window.size // 2)
        assert window.consume(window.size // 2, growth=PLENTY) > 0
        sizes.append(window.size)
    assert sizes == [1 * MIB, 2 * MIB, 4 * MIB, 8 * MIB, 16 * MIB]
    window.receive(window.size // 2)
    assert window.consume(window.size // 2, growth=PLENTY) == MAX_WINDOW // 2
    assert window.size == MAX_WINDOW


def test_window_does_not_grow_for_a_reader_that_lags_or_past_what_may_grow() -> None:
    lagging = ReceiveWindow()
    lagging.receive(INITIAL_WINDOW)
    assert lagging.consume(INITIAL_WINDOW // 2, growth=PLENTY) == INITIAL_WINDOW // 2
    assert lagging.size == INITIAL_WINDOW
    tight = ReceiveWindow()
    tight.receive(INITIAL_WINDOW)
    assert tight.consume(INITIAL_WINDOW, growth=INITIAL_WINDOW - 1) == INITIAL_WINDOW
    assert tight.size == INITIAL_WINDOW


@pytest.mark.parametrize("seed", range(5))
def test_window_never_holds_more_than_its_size(seed: int) -> None:
    rng = random.Random(seed)
    window = ReceiveWindow()
    sender_credit = INITIAL_WINDOW
    for _ in range(2000):
        if rng.random() < 0.5:
            count = rng.randint(0, sender_credit)
            window.receive(count)
            sender_credit -= count
        else:
            sender_credit += window.consume(rng.randint(0, window.unread), growth=PLENTY)
        assert window.credit == sender_credit
        assert sender_credit + window.unread <= window.size <= MAX_WINDOW


def test_consuming_more_than_arrived_is_a_bug() -> None:
    window = ReceiveWindow()
    window.receive(5)
    for count in (6, -1):
        with pytest.raises(AssertionError):
            window.consume(count, growth=0)


def test_queue_gives_back_its_bytes_in_any_portions() -> None:
    rng = random.Random(7)
    data = rng.randbytes(10_000)
    queue = SendQueue()
    cuts = sorted(rng.sample(range(10_000), 30))
    for start, end in zip([0, *cuts], [*cuts, 10_000], strict=True):
        queue.put(data[start:end])
    queue.put(b"")
    assert (queue.size, len(queue)) == (10_000, 31)
    taken = b""
    while queue.size:
        taken += b"".join(queue.take(rng.randint(1, queue.size)))
    assert taken == data
    assert queue.credit == INITIAL_WINDOW - 10_000


def test_queue_sends_no_more_than_it_has_credit_for() -> None:
    queue = SendQueue()
    queue.put(bytes(INITIAL_WINDOW + 10))
    assert queue.sendable == INITIAL_WINDOW
    assert len(b"".join(queue.take(INITIAL_WINDOW))) == INITIAL_WINDOW
    assert (queue.sendable, queue.size) == (0, 10)
    queue.allow(4)
    assert queue.sendable == 4


def test_queue_refuses_more_credit_than_any_window() -> None:
    queue = SendQueue()
    queue.allow(MAX_WINDOW - INITIAL_WINDOW)
    with pytest.raises(CreditExceeded):
        queue.allow(1)


def test_table_gives_odd_ids_to_the_dialler_and_even_ones_to_the_other() -> None:
    assert [StreamTable(Direction.OUTBOUND).open() for _ in range(2)] == [1, 1]
    table = StreamTable(Direction.OUTBOUND)
    assert [table.open() for _ in range(3)] == [1, 3, 5]
    table = StreamTable(Direction.INBOUND)
    assert [table.open() for _ in range(3)] == [2, 4, 6]


def test_table_opens_64_of_ours_and_not_65() -> None:
    table = StreamTable(Direction.OUTBOUND)
    ids = [table.open() for _ in range(MAX_OPEN_STREAMS)]
    with pytest.raises(NoFreeStream):
        table.open()
    table.close(ids[5])
    assert table.open() == ids[-1] + 2


def test_table_opens_64_of_theirs_and_not_65_beside_64_of_ours() -> None:
    table = StreamTable(Direction.OUTBOUND)
    for _ in range(MAX_OPEN_STREAMS):
        table.open()
    for each in range(2, 2 * MAX_OPEN_STREAMS + 1, 2):
        assert table.opened_by_peer(each) is not None
    with pytest.raises(BadStream):
        table.opened_by_peer(130)
    table.close(2)
    assert table.opened_by_peer(130) is not None
    assert table.opened_by_peer(2) is None


def test_table_opens_skipped_ids_too() -> None:
    table = StreamTable(Direction.INBOUND)
    assert table.opened_by_peer(5) is not None
    assert table.of(3) is not None
    assert table.of(7) is None
    fresh = StreamTable(Direction.INBOUND)
    assert fresh.opened_by_peer(2 * MAX_OPEN_STREAMS - 1) is not None
    with pytest.raises(BadStream):
        StreamTable(Direction.INBOUND).opened_by_peer(2 * MAX_OPEN_STREAMS + 1)


def test_table_refuses_an_enormous_id_at_once() -> None:
    for stream in (MAX_STREAM_ID, MAX_STREAM_ID - 1):
        with pytest.raises(BadStream):
            StreamTable(Direction.INBOUND).opened_by_peer(stream)


def test_table_refuses_ids_of_ours_that_we_never_opened() -> None:
    table = StreamTable(Direction.OUTBOUND)
    table.open()
    assert table.opened_by_peer(1) is not None
    with pytest.raises(BadStream):
        table.opened_by_peer(3)
    table.close(1)
    assert table.opened_by_peer(1) is None
    assert table.close(1) is None
