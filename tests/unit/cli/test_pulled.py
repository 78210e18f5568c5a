"""A pack on its way from git, through the event loop, to a thread: it can be broken off at any moment."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator

from guts.cli.publish import _pulled


async def pieces(waits: threading.Event, closed: list[str]) -> AsyncGenerator[bytes, None]:
    try:
        yield b"first"
        waits.set()
        await asyncio.Event().wait()
    finally:
        closed.append("closed")


async def test_thread_that_waits_for_a_piece_is_let_go_and_the_source_closed() -> None:
    waits, closed, got, ended = threading.Event(), list[str](), list[bytes](), threading.Event()

    async def upload() -> None:
        source = pieces(waits, closed)
        async with contextlib.aclosing(source), _pulled(source) as pulled:

            def work() -> None:
                try:
                    got.extend(pulled)
                finally:
                    ended.set()

            await asyncio.to_thread(work)

    uploading = asyncio.create_task(upload())
    await asyncio.to_thread(waits.wait, 30)
    uploading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await uploading
    assert uploading.cancelled()
    assert await asyncio.to_thread(ended.wait, 30)
    assert closed == ["closed"]


async def test_pieces_come_in_order_and_end() -> None:
    async def three() -> AsyncGenerator[bytes, None]:
        for piece in (b"1", b"2", b"3"):
            yield piece

    async with _pulled(three()) as pulled:
        assert await asyncio.to_thread(list, pulled) == [b"1", b"2", b"3"]
