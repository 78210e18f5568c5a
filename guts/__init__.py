"""Guts: git hosting without a host.

A node keeps git repositories alive together with its peers. The packages, from the inside out (imports go
one way only, see ``tests/unit/test_imports.py``):

- ``ids``, ``errors``, ``addresses``, ``canonical``, ``clock``: values that everything speaks of.
- ``identity``, ``records``, ``config``: keys, signed records, the operator's choices.
- ``noise``, ``wire``: bytes <-> authenticated plaintext <-> messages. Pure.
- ``trust``: who may move a ref. Pure.
- ``events``, ``effects``, ``peers``, ``gossip``, ``sync``, ``service``:
  one event in, a list of effects out. Pure.
- ``discovery``, ``git``, ``store``, ``net``: the parts of the outside world, one package each.
- ``node``, ``api``, ``app``, ``cli``: the driver that connects decisions to the world, and its doors.
"""

__version__ = "0.1.0"
