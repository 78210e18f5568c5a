"""How the values of settings are read: from TOML, or from the text of a variable or a flag.

Each function raises ``ValueError``, or a ``GutsError`` of the value's own type, for what is no such value.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, TypeVar

from guts.addresses import Address, BadAddress, BootstrapAddress
from guts.ids import PeerId
from guts.sizes import exact_size, parse_size

MAX_NETWORK_NAME_BYTES: Final = 64
MAX_CONNECTIONS: Final = 10_000
MAX_REPOSITORIES: Final = 100_000
MIN_DURATION: Final = 0.1
MAX_DURATION: Final = 7 * 86_400.0
"""Seconds. A duration outside of 0.1 s … 7 days is a slip of a unit."""

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
MAX_SIZE: Final = 1 << 60
"""Bytes: no disk has as many, and a file system counts no more than eight times that."""

Role = Literal["node", "bootstrap"]
LogLevel = Literal["debug", "info", "warning", "error"]
T = TypeVar("T")


def duration(value: object) -> float:
    """Return seconds."""
    match = re.fullmatch(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*(ms|s|m|h|d)?", scalar(value))
    if match is None:
        raise ValueError(f"{value!r} is not a duration: a number with ms, s, m, h or d, such as '500ms', '10s' or '2h'")
    seconds = float(match[1]) * _UNITS[match[2] or "s"]
    if not MIN_DURATION <= seconds <= MAX_DURATION:
        raise ValueError(f"{value!r} is out of range: 0.1s to 7d")
    return seconds


def grace(value: object) -> float:
    """Return seconds, which may be 0."""
    try:
        return 0.0 if scalar(value) in ("0", "0s") else duration(value)
    except ValueError as error:
        raise ValueError(f"{error}; or 0: at once") from None


def switch(value: object) -> bool:
    """Return true or false."""
    match value:
        case True | "true":
            return True
        case False | "false":
            return False
        case _:
            raise ValueError(f"{value!r} is neither true nor false")


def repositories(value: object) -> int:
    """Return a number of repositories."""
    text = scalar(value)
    if not re.fullmatch(r"\d{1,9}", text) or int(text) > MAX_REPOSITORIES:
        raise ValueError(f"{value!r} is not a whole number from 0 to {MAX_REPOSITORIES}")
    return int(text)


def size(value: object) -> int:
    """Return bytes."""
    size = parse_size(scalar(value))
    if not 0 <= size <= MAX_SIZE:
        raise ValueError(f"{value!r} is out of range: 0 to {exact_size(MAX_SIZE)}")
    return size


def scalar(value: object) -> str:
    """Return a text or a number as a text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is not a text or a number")
    return str(value).strip()


def text(value: object) -> str:
    """Return a text that says something."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is not a text")
    return value.strip()


def path(value: object) -> Path:
    """Return an absolute path; ``~`` is a home."""
    return Path(text(value)).expanduser().absolute()


def address(value: object) -> Address:
    """Return an address."""
    return Address.parse(text(value))


def advertised(value: object) -> Address:
    """Return an address that others can dial."""
    found = address(value)
    if found.port == 0:
        raise BadAddress(f"{value!r}: others need to know the port")
    return found


def bootstrap(value: object) -> BootstrapAddress:
    """Return an address, which may name a peer."""
    return BootstrapAddress.parse(text(value))


def peers(value: object) -> frozenset[PeerId]:
    """Return ids of peers."""
    return frozenset(list_of(lambda item: PeerId.parse(text(item)))(value))


def list_of(parse: Callable[[object], T]) -> Callable[[object], tuple[T, ...]]:
    """Return what reads a list, or a text with commas, of what ``parse`` reads."""

    def parse_list(value: object) -> tuple[T, ...]:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list):
            raise ValueError(f"{value!r} is not a list")
        return tuple(parse(item) for item in items if not (isinstance(item, str) and not item.strip()))

    return parse_list


def connections(value: object) -> int:
    """Return a number of connections."""
    text = scalar(value)
    if not re.fullmatch(r"\d{1,9}", text) or not 1 <= int(text) <= MAX_CONNECTIONS:
        raise ValueError(f"{value!r} is not a whole number from 1 to {MAX_CONNECTIONS}")
    return int(text)


def network_name(value: object) -> str:
    """Return the name of a network."""
    name = text(value)
    if not name.isprintable() or len(name.encode()) > MAX_NETWORK_NAME_BYTES:
        raise ValueError(f"a network name has 1 to {MAX_NETWORK_NAME_BYTES} printable bytes")
    return name


def role(value: object) -> Role:
    """Return what the node is there for."""
    match value:
        case "node" | "bootstrap":
            return value
        case _:
            raise ValueError(f"{value!r} is neither 'node' nor 'bootstrap'")


def log_level(value: object) -> LogLevel:
    """Return how much is logged."""
    match value:
        case "debug" | "info" | "warning" | "error":
            return value
        case _:
            raise ValueError(f"{value!r} is not one of debug, info, warning, error")
