"""``Pending``: the messages of one connection that wait for their handler."""

import struct
from collections import deque
from typing import Final, final

from guts.wire.connection import MessageReceived

_HEAD: Final = struct.Struct(">II")
_COMPACT_BYTES: Final = 64 * 1024
"""Bytes that were taken before what is left is moved to the front."""


@final
class Pending:
    """Messages in the order in which they came; those outside credit may pass the others.

    The others are kept as bytes until they are taken: a window of 1 MiB holds eighty thousand messages of the
    smallest kind, which as objects would be ten times as large.
    """

    __slots__ = ("_at", "_control", "_packed", "_put", "_taken")

    def __init__(self) -> None:
        self._packed = bytearray()
        self._at = 0
        self._put = 0
        self._taken = 0
        self._control: deque[tuple[int, MessageReceived]] = deque()

    def __len__(self) -> int:
        """Return how many wait."""
        return self._put - self._taken + len(self._control)

    @property
    def outside_credit(self) -> int:
        """How many wait that came outside credit."""
        return len(self._control)

    def put(self, event: MessageReceived) -> None:
        """Add a message."""
        if event.control:
            self._control.append((self._put, event))
            return
        self._put += 1
        self._packed += _HEAD.pack(len(event.data), event.charge)
        self._packed += event.data

    def take(self, *, withheld: bool) -> MessageReceived | None:
        """Take the next message out; where messages are ``withheld``, the next that came outside credit."""
        if self._control and (withheld or self._control[0][0] <= self._taken):
            return self._control.popleft()[1]
        if withheld or self._put == self._taken:
            return None
        self._taken += 1
        size, charge = _HEAD.unpack_from(self._packed, self._at)
        start = self._at + _HEAD.size
        self._at = start + size
        data = bytes(self._packed[start : self._at])
        if self._at >= _COMPACT_BYTES or self._put == self._taken:
            del self._packed[: self._at]
            self._at = 0
        return MessageReceived(data, charge)
