"""One network of nodes on a WAN for all of these tests: it takes a while to start."""

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import wan as wans
from tests.wan.network import NODES, WanNetwork

DELAY = 0.05
"""Seconds, one way: across a continent."""

MEMORY = Path("/dev/shm")
MEMORY_BYTES = 1 << 30
"""What has to be free there."""


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the nodes keep their files: in memory, where there is room.

    Eighteen replicas that commit at once wait for each other's fsyncs on one disk; elsewhere each has its own.
    """
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES:
        with tempfile.TemporaryDirectory(prefix="guts-wan-", dir=MEMORY) as folder:
            yield Path(folder)
    else:
        yield tmp_path_factory.mktemp("wan")


@pytest.fixture(scope="module")
def network(homes: Path) -> Iterator[WanNetwork]:
    """Twenty nodes, up, 50 ms from each other."""
    if (reason := wans.missing()) is not None:
        pytest.skip(reason)
    seed = random.SystemRandom().getrandbits(32)
    print(f"WAN of {NODES} hosts, {1000 * DELAY:.0f} ms one way, seed {seed}, files in {homes.parent}")
    with wans.wan(NODES, seed=seed, delay=DELAY) as wan:
        network = WanNetwork(wan, homes)
        network.start()
        yield network
