"""How long a node waits for others."""

from dataclasses import dataclass
from typing import Final

from guts.store.transactions import PATIENCE


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a node waits for peers and for people.

    Attributes:
        first_byte: until a pack begins: the other side counts and compresses first.
        preparing: until the first byte of a pack, while the other side tells of its progress: it may count for minutes.
        busy: for a place at one of the nodes that have answered "busy".
        stall: for the next piece of a pack that has begun: of one that comes or goes, 1 KiB for each of these
            seconds; slow honest links survive. Also between any two signs of one that is
            being prepared for git: git's own server gives one every 5 seconds.
        contended: of a pack that goes while others wait for its place, 2 KiB for each of these seconds: a link of 64
            kbit/s that takes two packs moves twice that, in leaps of 128 KiB.
        transfer: for one git child with all that it sends or takes in; a gibibyte at 600 kB/s.
        signing: for a person to find and type the passphrase of the author key.
        sweep: between two looks for publications that nobody signed in time.
        database: for a database server that went away.
    """

    first_byte: float = 60.0
    preparing: float = 300.0
    busy: float = 60.0
    stall: float = 60.0
    contended: float = 40.0
    transfer: float = 1800.0
    signing: float = 300.0
    sweep: float = 30.0
    database: float = PATIENCE


DEFAULT_PATIENCE: Final = Patience()
