"""Full handshakes per second, both sides in one process and one thread, and encrypted bytes through the pair.

Seconds are CPU time: nothing here waits, and a busy machine then says nearly the same as an idle one.

    python -m tests.benchmarks.handshake [runs]

Keys come from the operating system, as in the product; nothing is seeded.
"""

import sys
import time
from collections.abc import Callable

from guts.identity import SigningKey
from guts.noise.keys import KeyPair
from guts.wire.limits import MAX_PLAINTEXT
from guts.wire.secure import Direction, SecureChannel
from tests.benchmarks.figure import Figure, show

RUNS = 5
SECONDS = 1.0


def pair(dialler: Callable[[], SecureChannel], listener: Callable[[], SecureChannel]) -> list[SecureChannel]:
    """Return both ends of a new connection, all three messages carried."""
    alice, bob = dialler(), listener()
    bob.receive(alice.take())
    alice.receive(bob.take())
    bob.receive(alice.take())
    return [alice, bob]


def rate(work: Callable[[], int], seconds: float) -> float:
    """Return how much ``work`` gets done per second of CPU time, measured for ``seconds`` of it."""
    done, start = 0, time.process_time()
    while (elapsed := time.process_time() - start) < seconds:
        done += work()
    return done / elapsed


def measure(runs: int = RUNS) -> list[Figure]:
    """Run everything; return the figures."""
    alice_key, bob_key = SigningKey.generate(), SigningKey.generate()
    alice_static, bob_static = KeyPair.generate(), KeyPair.generate()

    def dialler() -> SecureChannel:
        return SecureChannel(
            direction=Direction.OUTBOUND,
            network="benchmark",
            key=alice_key,
            static=alice_static,
            ephemeral=KeyPair.generate,
            expected=bob_key.peer_id,
        )

    def listener() -> SecureChannel:
        return SecureChannel(
            direction=Direction.INBOUND,
            network="benchmark",
            key=bob_key,
            static=bob_static,
            ephemeral=KeyPair.generate,
        )

    def handshake() -> int:
        return len(pair(dialler, listener)) // 2

    alice, bob = pair(dialler, listener)
    chunk = bytes(MAX_PLAINTEXT)

    def transfer() -> int:
        alice.send(chunk)
        return len(bob.receive(alice.take())[0])

    print(f"encrypted channel, both sides in one thread: {rate(transfer, SECONDS) / 2**20:.0f} MiB/s")
    rates = [rate(handshake, SECONDS) for _ in range(runs)]
    return [Figure("full handshakes, both sides", "1/s", rates, 800, "at least", 0)]


def main() -> None:
    """Run from the command line."""
    show(measure(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS))


if __name__ == "__main__":
    main()
