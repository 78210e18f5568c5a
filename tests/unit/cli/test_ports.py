"""Ports that are free, and stay so until a node takes them."""

import socket
from pathlib import Path

import pytest

from guts.cli.ports import USUAL_EPHEMERAL, NoFreePorts, ephemeral_ports, free_ports


def test_ports_are_not_those_of_connections_that_go_out() -> None:
    ports = free_ports(64)
    assert len(set(ports)) == 64
    assert not set(ports) & set(ephemeral_ports())


def test_range_of_the_kernel_is_read_where_there_is_one(tmp_path: Path) -> None:
    file = tmp_path / "range"
    assert ephemeral_ports(file) == USUAL_EPHEMERAL
    file.write_text("10000\t60000\n")
    assert ephemeral_ports(file) == range(10_000, 60_001)
    assert all(port > 60_000 for port in free_ports(16, file=file))
    file.write_text("1024\t65535\n")  # nothing is left outside
    assert len(free_ports(16, file=file)) == 16


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_port_that_is_taken_for_either_is_passed_over(kind: socket.SocketKind, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    everything_else = set(range(1, 65_536)) - {port}
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", port))
        assert port not in free_ports(500)
        with pytest.raises(NoFreePorts):
            free_ports(1, everything_else)
    assert free_ports(1, everything_else) == [port]
