"""``[limits]``: what this node grants its peers, and how much of it they use.

Every number here is the operator's choice: peers don't have to know it, for what is above a limit waits or is answered
"busy" and is never a fault. What peers must agree on is in ``guts/wire/limits.py``. ``LIMITS`` tells what there is,
``LimitLayers`` what the operator chose and where, ``Limits`` what a running node goes by, with a meter for each.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

from guts.errors import ExitStatus, UsageError
from guts.sizes import exact_size, parse_size, size_text

Unit = Literal["messages/s", "messages", "bytes/s", "bytes", "checks/s", "checks", "requests", "packs"]

KIB: Final = 1024
MIB: Final = 1024 * KIB

MAX_RATE: Final = 1_000_000.0
"""Per second: more than any machine takes, so whoever wants no limit writes this."""

MIN_RATE: Final = 0.1
MAX_PLACES: Final = 1000
"""Each place is a child of git, or a read of up to 4 MiB."""

MAX_BYTES: Final = 1 << 40
MIN_BYTES: Final = 64 * KIB
"""One message of the common largest size."""


class BadLimit(UsageError):
    """A limit is unknown, has a value that it can't have, or is set elsewhere."""

    code: ClassVar[str] = "BAD_LIMIT"
    exit_status: ClassVar[ExitStatus] = ExitStatus.USAGE


@dataclass(frozen=True, slots=True)
class Limit:
    """What is known of one limit.

    Attributes:
        default: an ``int`` where it has no fraction.
        why: what it is of, for people.
        highest: what it may be at the most.
    """

    default: float
    unit: Unit
    why: str
    highest: float = MAX_RATE

    @property
    def whole(self) -> bool:
        """Whether it has no fraction."""
        return isinstance(self.default, int)

    @property
    def lowest(self) -> float:
        """What it may be at the least."""
        return MIN_BYTES if self.sized else 1 if self.whole else MIN_RATE

    @property
    def sized(self) -> bool:
        """Whether it counts bytes."""
        return self.unit.startswith("bytes")

    def parse(self, name: str, value: object) -> float:
        """Return what ``value``, a number or a text, says. Raises: ``BadLimit``: it is none, or out of the range."""
        text = "" if isinstance(value, bool) or not isinstance(value, str | int | float) else str(value).strip()
        hint = f"guts limits set {name}={self.example}"
        try:
            number = parse_size(text.removesuffix("/s")) if self.sized else self._number(text)
        except ValueError as error:
            raise BadLimit(f"limits.{name}: {error if text else f'{value!r} is no value'}", hint=hint) from None
        if not self.lowest <= number <= self.highest:
            span = f"{self.shown(self.lowest)} to {self.shown(self.highest)}"
            raise BadLimit(f"limits.{name}: {value} is out of range: {span}", hint=hint)
        return number

    def _number(self, text: str) -> float:
        if not re.fullmatch(r"-?[0-9]{1,30}" if self.whole else r"-?[0-9]{1,30}(\.[0-9]{1,30})?", text):
            raise ValueError(f"{text!r} is not a {'whole ' if self.whole else ''}number")
        return int(text) if self.whole else float(text)

    def shown(self, value: float) -> str:
        """Return ``value`` as it may be written."""
        return exact_size(int(value)) if self.sized else f"{value:.12g}"

    def measured(self, value: float) -> str:
        """Return ``value``, which was measured, with as many digits as matter."""
        return size_text(value) if self.sized else f"{round(value, 2):.12g}"

    @property
    def example(self) -> str:
        """The default, as it may be written."""
        return self.shown(self.default)


LIMITS: Final[Mapping[str, Limit]] = {
    "control_rate": Limit(2.0, "messages/s", "Hello, Ping, Pong and what is unknown, per peer"),
    "control_burst": Limit(60, "messages", "so many control messages at once, per peer"),
    "gossip_rate": Limit(10.0, "messages/s", "news and Subscribe, per peer"),
    "gossip_burst": Limit(1024, "messages", "so much news at once, per peer"),
    "refs_rate": Limit(5.0, "messages/s", "GetRefs, GetReceipt and GetPeers, per peer"),
    "refs_burst": Limit(100, "messages", "so many questions at once, per peer"),
    "objects_rate": Limit(10.0, "messages/s", "GetObjects and GitService, per peer"),
    "objects_burst": Limit(100, "messages", "so many requests for packs and of git at once, per peer"),
    "answers_rate": Limit(100.0, "messages/s", "answers to this node, asked for or not, per peer"),
    "answers_burst": Limit(1000, "messages", "so many answers at once, per peer"),
    "bytes_rate": Limit(8 * MIB, "bytes/s", "messages, and what requests bring on their streams, per peer", MAX_BYTES),
    "bytes_burst": Limit(32 * MIB, "bytes", "so many bytes at once, per peer", MAX_BYTES),
    "total_bytes_rate": Limit(32 * MIB, "bytes/s", "messages and requests of all peers together", MAX_BYTES),
    "total_bytes_burst": Limit(64 * MIB, "bytes", "so many bytes at once, of all peers together", MAX_BYTES),
    "checks_rate": Limit(1000.0, "checks/s", "signatures that peers make this node check, 87 µs each"),
    "checks_burst": Limit(4000, "checks", "so many signatures at once: the long history of one repository"),
    "requests_per_peer": Limit(16, "requests", "requests of one peer being answered", MAX_PLACES),
    "serves": Limit(4, "packs", "packs being made for replicas, each by a git child that fills a core", MAX_PLACES),
    "serves_per_peer": Limit(2, "packs", "packs being made for one replica", MAX_PLACES),
    "serves_per_network": Limit(
        2, "packs", "packs being made for replicas of one /24 or /48 of the internet", MAX_PLACES
    ),
    "git": Limit(8, "requests", "requests of git being answered, each by a git child", MAX_PLACES),
    "git_per_peer": Limit(2, "requests", "requests of git of one peer being answered", MAX_PLACES),
    "git_per_network": Limit(
        4, "requests", "requests of git of one /24 or /48 of the internet being answered", MAX_PLACES
    ),
}
"""Every limit, in the order in which they are shown. A burst is what may be used at once; it comes back at the rate.

Radicle takes 5 messages/s with bursts of 1,024; an honest peer of this code asks two GetRefs, and fetches four
repositories, at a time. Requests of git have places of their own, so that people who clone don't keep other nodes from
replicating, nor the reverse; and both per network, for whoever makes up a key for each connection still has few
addresses.
"""

PARTS: Final = (
    ("bytes_rate", "total_bytes_rate"),
    ("bytes_burst", "total_bytes_burst"),
    ("serves_per_peer", "serves_per_network"),
    ("serves_per_peer", "serves"),
    ("serves_per_network", "serves"),
    ("git_per_peer", "git_per_network"),
    ("git_per_peer", "git"),
    ("git_per_network", "git"),
)
"""Limits of one peer, or network, and those of all together, which hold as well."""


def without_effect(values: Mapping[str, float]) -> list[str]:
    """Return, for people, which of ``values`` are never reached, because of another one."""
    return [
        f"limits.{part} ({LIMITS[part].shown(values[part])}) is above limits.{whole} "
        f"({LIMITS[whole].shown(values[whole])}), which holds as well"
        for part, whole in PARTS
        if part in values and whole in values and values[part] > values[whole]
    ]


DEFAULTS: Final[Mapping[str, float]] = {name: limit.default for name, limit in LIMITS.items()}


def known_limit(name: str) -> Limit:
    """Return the limit of that name. Raises: ``BadLimit``: there is none; the error names the nearest."""
    if name not in LIMITS:
        meant = name.lower().removeprefix("limits.").replace("-", "_")
        near = [meant] if meant in LIMITS else difflib.get_close_matches(meant, LIMITS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "docs/commands.md lists every limit, as does guts limits show"
        raise BadLimit(f"there is no limit {name!r}", hint=hint)
    return LIMITS[name]


Source = Literal["default", "config file", "limits set", "environment", "command line"]

ORDER: Final[tuple[Source, ...]] = ("config file", "limits set", "environment", "command line")
"""Where values come from; the later counts."""


@dataclass(frozen=True, slots=True)
class LimitLayers:
    """The values that each source has; what is in none is the default."""

    layers: Mapping[Source, Mapping[str, float]] = field(default_factory=dict)

    def values(self) -> dict[str, float]:
        """Return the values that count, of every limit."""
        values = dict(DEFAULTS)
        for source in ORDER:
            values.update(self.layers.get(source, {}))
        return values

    def source(self, name: str) -> Source:
        """Return where the value of ``name`` comes from."""
        found: Source = "default"
        for source in ORDER:
            if name in self.layers.get(source, {}):
                found = source
        return found

    def changed(self, changes: Mapping[str, float | None]) -> "LimitLayers":
        """Return the layers with ``changes`` set by command; ``None`` takes one back.

        Raises: ``BadLimit``: the environment or the command line says otherwise, and would again at the next start.
        """
        kept = dict(self.layers.get("limits set", {}))
        for name, value in changes.items():
            source = self.source(name)
            if source in ("environment", "command line"):
                raise BadLimit(
                    f"limits.{name} is set by the {source} of the node, which counts more than this command",
                    hint="change it there, and restart the node",
                )
            kept.pop(name, None)
            if value is not None:
                kept[name] = value
        return LimitLayers({**self.layers, "limits set": kept})


@dataclass(slots=True)
class Meter:
    """What came of one limit since the start.

    Attributes:
        peak: the most that was used at a time, by one peer where the limit is per peer.
        bit: how often it made somebody wait, or be refused.
    """

    peak: float = 0.0
    bit: int = 0


class Limits:
    """The limits that a running node goes by.

    Attributes:
        values: by name, of every limit; ``guts limits set`` replaces them.
        meters: by name.
    """

    def __init__(self, values: Mapping[str, float] = DEFAULTS) -> None:
        self.values = dict(values)
        self.meters: dict[str, Meter] = {name: Meter() for name in LIMITS}

    def used(self, name: str, amount: float) -> None:
        """Note that ``amount`` of a limit is in use."""
        meter = self.meters[name]
        meter.peak = max(meter.peak, amount)

    def bit(self, name: str) -> None:
        """Note that a limit made somebody wait, or be refused."""
        self.meters[name].bit += 1
