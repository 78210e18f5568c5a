"""Ports for nodes on this machine that are still free at the next start."""

import random
import socket
from collections.abc import Container
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import ClassVar, Final

from guts.errors import GutsError

HOST: Final = "127.0.0.1"
FIRST_PORT: Final = 10_000
"""Below are the ports of well-known services, 9000 of a node of the person's own among them."""

LAST_PORT: Final = 65_535
PORT_ATTEMPTS: Final = 2_000
EPHEMERAL_FILE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
USUAL_EPHEMERAL: Final = range(32_768, LAST_PORT + 1)
"""Linux begins at 32,768 (ip(7)), other systems at 49,152 (RFC 6335 §6)."""


class NoFreePorts(GutsError):
    """No ports are free for TCP and UDP."""

    code: ClassVar[str] = "NO_FREE_PORTS"


def ephemeral_ports(file: Path = EPHEMERAL_FILE) -> range:
    """Return the ports that the kernel gives to connections that go out."""
    with suppress(OSError, ValueError):
        first, last = map(int, file.read_text().split())
        return range(first, last + 1)
    return USUAL_EPHEMERAL


def free_ports(count: int, besides: Container[int] = (), file: Path = EPHEMERAL_FILE) -> list[int]:
    """Return ports that are free for TCP and UDP now, none of ``besides``; all are held until the last is found.

    They are not ephemeral ones: such a port is taken, at any moment and for a minute after that, by a connection that
    goes out, and a node whose port it is can't start.

    Raises: ``NoFreePorts``.
    """
    ephemeral = ephemeral_ports(file)
    # Where nearly every port was made ephemeral there is nothing to choose among.
    candidates = [port for port in range(FIRST_PORT, LAST_PORT + 1) if port not in ephemeral and port not in besides]
    if len(candidates) < PORT_ATTEMPTS:
        candidates = [port for port in range(FIRST_PORT, LAST_PORT + 1) if port not in besides]
    ports: list[int] = []
    with ExitStack() as held:
        for port in random.sample(candidates, min(PORT_ATTEMPTS, len(candidates))):
            try:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    held.enter_context(socket.socket(socket.AF_INET, kind)).bind((HOST, port))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == count:
                return ports
    raise NoFreePorts(f"found no {count} ports that are free for TCP and UDP")
