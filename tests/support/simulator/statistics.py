"""What is measured: traffic by host, and how news of one repository spreads."""

from collections import Counter

from guts.wire.messages import Message
from tests.support.simulator.observer import Observer


class Traffic(Observer):
    """Messages and bytes that were sent, in all, by kind and by host."""

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0
        self.by_kind: Counter[str] = Counter()
        self.messages_of: Counter[int] = Counter()
        self.bytes_of: Counter[int] = Counter()

    def sent(self, time: float, source: int, target: int, message: Message, size: int) -> None:
        self.messages += 1
        self.bytes += size
        self.by_kind[type(message).__name__] += 1
        self.messages_of[source] += 1
        self.bytes_of[source] += size
