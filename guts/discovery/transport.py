"""The outgoing seam: what the package sends becomes what the protocol sends.

Requests are padded, remembered with whom they were meant for, and sent once more when no answer comes in time.
Answers are signed, and dropped when they exceed what their receiver may be sent.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from guts.discovery.contact import normal_ip
from guts.discovery.datagrams import REQUEST, pad_request, sign_answer
from guts.discovery.keys import Key
from guts.discovery.limits import GIVE_UP_SECONDS, HEADER_BYTES, RETRANSMIT_SECONDS
from guts.identity import SigningKey


class DatagramSender(Protocol):
    """What a transport must do: asyncio's and the simulated one both do."""

    def sendto(self, data: bytes, addr: tuple[str, int]) -> None:
        """Send one datagram, or lose it."""

    def is_closing(self) -> bool:
        """Tell whether ``close`` was called."""

    def close(self) -> None:
        """Send nothing more."""


class Target(NamedTuple):
    """Where a request goes: the address that the package passes through to ``sendto``.

    Attributes:
        key: who must answer; ``None`` takes whoever signs.
        attempts: datagrams to spend on it.
    """

    ip: str
    port: int
    key: Key | None
    attempts: int = 2


class Sender(NamedTuple):
    """Where a request came from: the address that the package passes through to ``sendto``.

    Attributes:
        allowance: bytes that an answer to it may have.
        proven: it has answered us, or showed a token that it was sent.
    """

    ip: str
    port: int
    allowance: int
    proven: bool


@dataclass(slots=True)
class _Pending:
    target: Target
    timer: asyncio.TimerHandle


class SignedTransport:
    """Wraps the socket (or the simulated network) that the package's protocol sends through."""

    def __init__(self, transport: DatagramSender, key: SigningKey, counters: Counter[str], *, mapped: bool) -> None:
        """``mapped``: the socket is IPv6 and reaches IPv4 by mapped addresses."""
        self._transport = transport
        self._key = key
        self._counters = counters
        self._mapped = mapped
        self._pending: dict[bytes, _Pending] = {}

    def sendto(self, data: bytes, address: Target | Sender) -> None:
        """Send what the package made."""
        if self._transport.is_closing():
            return
        match address:
            case Target():
                self._request(pad_request(data), address)
            case Sender():
                self._answer(sign_answer(data, self._key), address)

    def _request(self, data: bytes, target: Target) -> None:
        message_id = data[1:HEADER_BYTES]
        loop = asyncio.get_running_loop()
        if target.attempts > 1:
            timer = loop.call_later(RETRANSMIT_SECONDS, self._again, message_id, data)
        else:
            timer = loop.call_later(GIVE_UP_SECONDS, self._forget, message_id)
        self._pending[message_id] = _Pending(target, timer)
        self._send(data, target.ip, target.port)

    def _again(self, message_id: bytes, data: bytes) -> None:
        pending = self._pending[message_id]
        if self._transport.is_closing():
            return
        self._counters["retransmitted"] += 1
        self._send(data, pending.target.ip, pending.target.port)
        pending.timer = asyncio.get_running_loop().call_later(
            GIVE_UP_SECONDS - RETRANSMIT_SECONDS, self._forget, message_id
        )

    def _forget(self, message_id: bytes) -> None:
        del self._pending[message_id]

    def _answer(self, data: bytes, sender: Sender) -> None:
        if len(data) > sender.allowance:
            self._counters["answer_too_long"] += 1
            return
        self._send(data, sender.ip, sender.port)

    def _send(self, data: bytes, ip: str, port: int) -> None:
        self._counters["sent_request" if data[:1] == REQUEST else "sent_answer"] += 1
        self._counters["sent_bytes"] += len(data)
        self._transport.sendto(data, (f"::ffff:{ip}" if self._mapped and ":" not in ip else ip, port))

    def awaited_from(self, message_id: bytes, ip: str, port: int) -> Target | None:
        """Return whom an answer with this id from that address must come from; ``None``: nobody was asked."""
        pending = self._pending.get(message_id)
        if pending is None or (pending.target.ip, pending.target.port) != (ip, port):
            return None
        return pending.target

    def answered(self, message_id: bytes) -> None:
        """Stop waiting: a valid answer is here."""
        self._pending.pop(message_id).timer.cancel()

    def is_closing(self) -> bool:
        """Tell whether ``close`` was called."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Close the socket and forget what was asked."""
        for pending in self._pending.values():
            pending.timer.cancel()
        self._pending.clear()
        self._transport.close()


def received_from(address: tuple[str, int] | tuple[str, int, int, int]) -> tuple[str, int]:
    """Return the plain (ip, port) of an address that a socket reported."""
    return normal_ip(address[0]), address[1]
