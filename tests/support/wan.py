"""A wide-area network in user space: hosts that are network namespaces, and a router between them (``wan_router``).

Needs root, iproute2 and ``/dev/net/tun``. The machine's own interfaces, routes and firewall are not touched. All that
is made is removed at the end, failed or not; what an earlier run left that was killed is removed at the next start.
"""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PREFIX: Final = "guts-wan"
NAMESPACES: Final = Path("/run/netns")
STOP_TIMEOUT: Final = 20.0


def missing() -> str | None:
    """Return what this machine lacks for a WAN, in words; ``None``: nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    if subprocess.run(["sh", "-c", "command -v ip"], stdout=subprocess.DEVNULL, check=False).returncode:
        return "there is no ip command (Debian: apt-get install iproute2)"
    return None


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _sweep() -> None:
    """Remove the namespaces of runs that are gone; processes in them went with those."""
    for path in NAMESPACES.glob(f"{PREFIX}-*") if NAMESPACES.exists() else ():
        if not Path(f"/proc/{path.name.split('-')[2]}").exists():
            _ip("netns", "del", path.name)


class Wan:
    """Hosts 0, 1, … and what is between them. Made by ``wan``."""

    def __init__(self, namespaces: Sequence[str], addresses: Sequence[str], router: "subprocess.Popen[str]") -> None:
        self.addresses = addresses
        self._namespaces = namespaces
        self._router = router
        self._processes: list[subprocess.Popen[bytes]] = []

    def weather(self, *, delay: float, jitter: float = 0.0, loss: float = 0.0) -> None:
        """Set how long a packet takes one way, what is added at random (both seconds), and the chance of its loss."""
        self._order({"delay": float(delay), "jitter": float(jitter), "loss": float(loss)})

    def link(self, one: int, other: int, delay: float) -> None:
        """Set how long a packet takes between two hosts, either way."""
        self._order({"link": [one, other], "delay": float(delay)})

    def partition(self, *groups: Iterable[int]) -> None:
        """Let packets pass within each group only; hosts of no group are one more."""
        self._order({"groups": [list(group) for group in groups]})

    def heal(self) -> None:
        """Let packets pass everywhere."""
        self._order({"groups": []})

    def counts(self) -> dict[str, int]:
        """Return packets and bytes that passed, and packets that were lost, or cut off by a partition."""
        return self._order({"counts": True})

    def _order(self, order: Mapping[str, object]) -> dict[str, int]:
        assert self._router.stdin is not None
        self._router.stdin.write(json.dumps(order) + "\n")
        self._router.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, int]:
        """Return the router's next answer; the first says that every device is up."""
        assert self._router.stdout is not None
        answer = self._router.stdout.readline()
        assert answer, "the router has ended"
        counts: dict[str, int] = json.loads(answer)
        return counts

    def start(
        self, host: int, command: Sequence[str], environ: Mapping[str, str], output: Path
    ) -> "subprocess.Popen[bytes]":
        """Run ``command`` on a host, until the end of the WAN at the latest; what it says goes to the end of a file."""
        with output.open("ab") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self._namespaces[host], *command],
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def stop(self) -> None:
        """End what was started and still runs."""
        running = [process for process in self._processes if process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


_runs = itertools.count()


@contextlib.contextmanager
def wan(hosts: int, *, seed: int, delay: float, loss: float = 0.0) -> Iterator[Wan]:
    """Enter with ``hosts`` hosts that reach each other; ``delay`` and ``loss`` as in ``Wan.weather``."""
    _sweep()
    run = f"{PREFIX}-{os.getpid()}-{next(_runs)}"
    namespaces = [f"{run}-{host}" for host in range(hosts)]
    addresses = [f"10.88.{host // 250}.{host % 250 + 1}" for host in range(hosts)]
    with contextlib.ExitStack() as stack:
        for namespace in namespaces:
            _ip("netns", "add", namespace)
            stack.callback(_ip, "netns", "del", namespace)
        pairs = [f"{namespace}={address}" for namespace, address in zip(namespaces, addresses, strict=True)]
        router = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "tests.support.wan_router", str(seed), *pairs],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )  # it ends with its standard input, which leaving the context closes
        made = Wan(namespaces, addresses, router)
        stack.callback(made.stop)
        made.answer()
        made.weather(delay=delay, loss=loss)
        yield made
