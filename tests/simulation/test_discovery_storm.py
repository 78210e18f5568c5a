"""Fault 2: honest nodes of the package as shipped keep one another busy for ever, or worse."""

import asyncio
import random

import pytest

from tests.support.dht import joined, repository_id
from tests.support.sim_network import SimNetwork
from tests.support.virtual_time import run_virtual

NODES = 200
RECORDS = 60
UPKEEP_SECONDS = 1200


@pytest.mark.parametrize("seed", [1])
def test_fault_2_an_idle_network_is_quiet_and_then_only_maintains_itself(seed: int) -> None:
    print(f"seed {seed}")

    async def world() -> None:
        net = SimNetwork(random.Random(seed))
        nodes = await joined(net, NODES, seed=seed)
        rng = random.Random(seed)
        for _ in range(RECORDS):
            node = rng.choice(nodes)
            await node.discovery.provide(node.provider_record(repository_id(rng)))
        await asyncio.sleep(5)
        net.counters.clear()
        await asyncio.sleep(60)
        assert net.counters["datagrams"] == 0, "nobody does anything, and yet they talk"

        async with asyncio.TaskGroup() as tasks:
            upkeep = [tasks.create_task(node.discovery.run()) for node in nodes]
            await asyncio.sleep(UPKEEP_SECONDS)
            for task in upkeep:
                task.cancel()
        # Upkeep is one lookup and one ping per silent contact, every 15 minutes.
        assert net.counters["datagrams"] / NODES / UPKEEP_SECONDS < 0.3
        assert net.counters["bytes"] / NODES / UPKEEP_SECONDS < 200
        assert all(len(node.discovery.contacts()) >= 20 for node in nodes)

    run_virtual(world())
