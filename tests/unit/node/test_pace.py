"""How fast packs have to come, where two things happen at once."""

import asyncio

import pytest

from guts.net.stream import Stream
from guts.node.limits import Patience
from guts.node.pace import Pace, TransferStalled, received
from guts.wire.connection import Connection
from tests.support.channels import dialler


async def test_b7_to_hurry_a_transfer_that_is_being_given_up_just_then_is_nothing() -> None:
    stream = Stream(1, Connection(dialler()), lambda: None)
    pace = Pace(Patience(first_byte=0.0))
    hurried: list[bool] = []

    def hurry() -> None:
        pace.hurry(3.0)
        hurried.append(True)

    async def read() -> None:
        async for _ in received(stream, pace):
            raise AssertionError("nothing comes")

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    # Between the end of its time and the moment in which who reads learns of it.
    asyncio.get_running_loop().call_soon(hurry)
    with pytest.raises(TransferStalled):
        await reading
    assert hurried
