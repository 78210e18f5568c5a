"""``Encoder``: the bytes of messages, made once for each object: the same goes to many."""

from typing import Final

from guts.wire import codec
from guts.wire.messages import Message

KEPT: Final = 4_096


class Encoder:
    """A cache by identity; what is in it is kept alive, so no identity comes twice."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Message, bytes]] = {}

    def encoded(self, message: Message) -> bytes:
        """Return the bytes of ``message``."""
        found = self._kept.get(id(message))
        if found is None:
            if len(self._kept) >= KEPT:
                self._kept.clear()
            found = self._kept[id(message)] = message, codec.encode(message)
        return found[1]
