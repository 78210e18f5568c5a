"""What comes from a real socket, piece by piece; time is virtual, so silence takes none."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from guts.net.reader import PeerSilent, SocketReader
from tests.support.virtual_time import run_virtual

SIZE = 100


@contextlib.contextmanager
def reading() -> Iterator[tuple[SocketReader, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as theirs:
        ours, _ = server.accept()
        with ours:
            ours.setblocking(False)
            reader = SocketReader(ours, SIZE, 90.0)
            try:
                yield reader, theirs
            finally:
                reader.close()


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run ``test`` in virtual time."""
    return lambda: run_virtual(test())


@virtual
async def test_reader_returns_what_is_there_and_what_comes() -> None:
    with reading() as (reader, theirs):
        theirs.send(bytes(SIZE + 1))
        assert [len(await reader.read()) for _ in range(2)] == [SIZE, 1]
        asyncio.get_running_loop().call_later(10.0, theirs.send, b"later")
        assert await reader.read() == b"later"
        theirs.shutdown(socket.SHUT_WR)
        assert await reader.read() == b""


@virtual
async def test_reader_gives_up_after_90_seconds_of_silence_and_not_before() -> None:
    loop = asyncio.get_running_loop()
    with reading() as (reader, theirs):
        for wait in (89.0, 89.0, 1.0):
            loop.call_later(wait, theirs.send, b"x")
            assert await reader.read() == b"x"
        begun = loop.time()
        with pytest.raises(PeerSilent):
            await reader.read()
        assert loop.time() - begun == pytest.approx(90.0)


@virtual
async def test_time_in_which_nobody_reads_is_not_silence() -> None:
    loop = asyncio.get_running_loop()
    with reading() as (reader, theirs):
        loop.call_later(1.0, theirs.send, b"x")
        assert await reader.read() == b"x"
        await asyncio.sleep(1000.0)
        loop.call_later(89.0, theirs.send, b"y")
        assert await reader.read() == b"y"


@virtual
async def test_socket_is_not_polled_while_its_reader_is_busy() -> None:
    """A peer that goes on sending to a reader that does not read would turn the loop round and round."""
    loop = asyncio.get_running_loop()
    with reading() as (reader, theirs):
        loop.call_soon(theirs.send, b"x")
        assert await reader.read() == b"x"
        theirs.send(b"more")
        for _ in range(3):
            await asyncio.sleep(0)
        assert not reader._watched
        assert await reader.read() == b"more"


@virtual
async def test_reset_is_an_error_of_the_network() -> None:
    loop = asyncio.get_running_loop()
    with reading() as (reader, theirs):

        def reset() -> None:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            theirs.close()

        loop.call_later(1.0, reset)
        with pytest.raises(ConnectionResetError):
            await reader.read()


@virtual
async def test_cancelled_read_leaves_the_next_one_all_bytes() -> None:
    loop = asyncio.get_running_loop()
    with reading() as (reader, theirs):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await reader.read()
        theirs.send(b"x")
        await asyncio.sleep(1.0)
        loop.call_later(1.0, theirs.send, b"y")
        assert await reader.read() + await reader.read() == b"xy"
