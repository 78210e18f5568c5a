"""Graphs of hosts: who is connected to whom."""

from collections.abc import Iterable

from tests.support.simulator.host import Host
from tests.support.simulator.wires import Wires


def components(wires: Wires, hosts: Iterable[Host]) -> list[set[Host]]:
    """Return the parts of ``hosts`` that are connected among themselves, by connections open at both ends."""
    left = set(hosts)
    neighbours: dict[Host, list[Host]] = {host: [] for host in left}
    for link in wires.links.values():
        one, other = link.hosts
        if one in left and other in left and link.ids[0] in one.links and link.ids[1] in other.links:
            neighbours[one].append(other)
            neighbours[other].append(one)
    found: list[set[Host]] = []
    while left:
        part, queue = set[Host](), [left.pop()]
        while queue:
            host = queue.pop()
            part.add(host)
            for other in neighbours[host]:
                if other in left:
                    left.discard(other)
                    queue.append(other)
        found.append(part)
    return found
