"""``Inbox``: the bytes of stream 0, in any pieces -> whole messages."""

from typing import Final, final

from guts.wire import codec
from guts.wire.codec import BadMessage
from guts.wire.limits import MAX_MESSAGE_BYTES, MAX_REFS_BYTES, MESSAGE_LENGTH_BYTES

_TYPE_BYTES: Final = 2
"""A message's first two bytes tell its type, and with it how long it may be."""


@final
class Inbox:
    """Puts messages together, each no longer than its type allows, known before it is waited for.

    A Refs may be longer than the credit of stream 0, so its sender needs more credit before the message is
    complete. That is granted only for the one message being put together and only when no complete one waits
    to be handled: at most one window and one Refs are ever held.
    """

    __slots__ = ("_buffer", "_length", "_paid", "_waiting")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._length: int | None = None  # of the message at the start of the buffer, once known
        self._paid = 0  # bytes of it for which credit was granted already
        self._waiting = 0  # charges of complete messages that were not handled yet

    def receive(self, data: bytes) -> list[tuple[bytes, int]]:
        """Take bytes and return the messages complete with them, each with what it is charged for.

        Raises:
            BadMessage: a length that no message has.
        """
        self._buffer += data
        messages: list[tuple[bytes, int]] = []
        at = 0
        while (length := self._next_length(at)) is not None:
            start = at + MESSAGE_LENGTH_BYTES
            if len(self._buffer) - start < length:
                break
            at = start + length
            charge = MESSAGE_LENGTH_BYTES + length - self._paid
            messages.append((bytes(self._buffer[start:at]), charge))
            self._length, self._paid = None, 0
            self._waiting += charge
        del self._buffer[:at]
        return messages

    def _next_length(self, at: int) -> int | None:
        """Return the length of the message at ``at``; ``None`` until it is known and allowed."""
        if self._length is None:
            start = at + MESSAGE_LENGTH_BYTES
            if len(self._buffer) < start:
                return None
            length = int.from_bytes(self._buffer[at:start], "big")
            if not _TYPE_BYTES <= length <= MAX_REFS_BYTES:
                raise BadMessage(f"a message of {length} bytes")
            if length > MAX_MESSAGE_BYTES:
                if len(self._buffer) < start + _TYPE_BYTES:
                    return None
                number = codec.type_of(self._buffer[start : start + _TYPE_BYTES])
                if length > codec.max_bytes(number):
                    raise BadMessage(f"{length} bytes in a message of type {number}")
            self._length = length
        return self._length

    def handled(self, charge: int) -> None:
        """Say that a message with this charge was handled."""
        self._waiting -= charge

    def prepayable(self) -> int:
        """Return for how many bytes of a long incomplete message to grant credit now; counts as done."""
        if self._length is None or self._length <= MAX_MESSAGE_BYTES or self._waiting:
            return 0
        part = len(self._buffer) - self._paid
        self._paid += part
        return part
