"""One network of nodes on a WAN for all of these tests: it takes a while to start."""

import random
from collections.abc import Iterator

import pytest

from tests.support import wan as wans
from tests.wan.network import NODES, WanNetwork

DELAY = 0.05
"""Seconds, one way: across a continent."""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WanNetwork]:
    """Twenty nodes, up, 50 ms from each other."""
    if (reason := wans.missing()) is not None:
        pytest.skip(reason)
    seed = random.SystemRandom().getrandbits(32)
    print(f"WAN of {NODES} hosts, {1000 * DELAY:.0f} ms one way, seed {seed}")
    with wans.wan(NODES, seed=seed, delay=DELAY) as wan:
        network = WanNetwork(wan, tmp_path_factory.mktemp("wan"))
        network.start()
        yield network
