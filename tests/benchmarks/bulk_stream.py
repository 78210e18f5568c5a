"""How fast bulk bytes pass between two processes, next to a plain asyncio TCP copy of the same bytes.

    python -m tests.benchmarks.bulk_stream [MiB] [runs]

Runs of the two alternate; no stream is encrypted or authenticated but ours.
"""

import asyncio
import contextlib
import multiprocessing
import multiprocessing.connection
import statistics
import sys
import time

from guts.addresses import Address
from guts.identity import SigningKey
from guts.net.dial import dial
from guts.net.listener import Listener
from guts.net.tcp import TcpConnection
from guts.noise.keys import KeyPair
from tests.benchmarks.figure import Figure, ratios, show

MIB = 512
RUNS = 7
PIECE = b"\x5a" * 65_536
NETWORK = "bench"
ANYWHERE = Address("127.0.0.1", 0)

Pipe = multiprocessing.connection.Connection


async def _plain_sender(port_to: Pipe, total: int) -> None:
    async def send(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _i in range(total // len(PIECE)):
            writer.write(PIECE)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
        done.set()

    done = asyncio.Event()
    server = await asyncio.start_server(send, "127.0.0.1", 0)
    port_to.send(server.sockets[0].getsockname()[1])
    await done.wait()
    server.close()


async def _plain_receiver(port: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while data := await reader.read(262_144):
        count += len(data)
    writer.close()
    await writer.wait_closed()
    return count


async def _guts_sender(port_to: Pipe, total: int) -> None:
    async def serve(connection: TcpConnection) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(connection.run(lambda _: None))
            stream = connection.stream(1)
            await stream.readexactly(1)
            for _ in range(total // len(PIECE)):
                await stream.write(PIECE)
            await stream.end()
        listener.close()

    listener = await Listener.start(
        ANYWHERE,
        key=SigningKey.generate(),
        network=NETWORK,
        static=KeyPair.generate(),
        on_connection=serve,
    )
    port_to.send(listener.port)
    await listener.run()


async def _guts_receiver(port: int) -> int:
    connection = await dial(
        Address("127.0.0.1", port), key=SigningKey.generate(), network=NETWORK, static=KeyPair.generate()
    )
    count = 0
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(connection.run(lambda _: None))
        stream = connection.open_stream()
        await stream.write(b"?")
        while data := await stream.read(262_144):
            count += len(data)
        await connection.close()
    return count


def _send(kind: str, port_to: Pipe, total: int) -> None:
    asyncio.run((_guts_sender if kind == "guts" else _plain_sender)(port_to, total))


def speed(kind: str, total: int) -> float:
    """Return MB/s of one run of ``kind`` (``plain`` or ``guts``) with ``total`` bytes."""
    context = multiprocessing.get_context("spawn")
    port_from, port_to = context.Pipe()
    process = context.Process(target=_send, args=(kind, port_to, total))
    process.start()
    with contextlib.closing(port_from):
        port = port_from.recv()
        started = time.perf_counter()
        count = asyncio.run((_guts_receiver if kind == "guts" else _plain_receiver)(port))
        seconds = time.perf_counter() - started
    process.join()
    if count != total:
        raise AssertionError(f"{count} of {total} bytes came")
    return total / seconds / 1e6


def measure(mib: int = MIB, runs: int = RUNS) -> list[Figure]:
    """Alternate both kinds; return the figure."""
    total = mib * 1024 * 1024
    speeds: dict[str, list[float]] = {"plain": [], "guts": []}
    for _ in range(runs):
        for kind, measured in speeds.items():
            measured.append(speed(kind, total))
    for kind, measured in speeds.items():
        print(f"bulk stream: {kind:6} {statistics.median(measured):5.0f} MB/s")
    return [Figure("bulk stream / plain TCP", "x", ratios(speeds["guts"], speeds["plain"]), 0.25, "at least")]


def main() -> None:
    """Run from the command line."""
    show(measure(*map(int, sys.argv[1:])))


if __name__ == "__main__":
    main()
