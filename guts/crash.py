"""Named points at which a test may have the process killed, as a power cut would.

``GUTS_CRASH_AT=name`` or ``GUTS_CRASH_AT=name:n`` in the environment, read once at start, arms one point: the process
ends with SIGKILL when it gets there for the first, or n-th, time. Nothing is flushed, closed or told. Without it a
point costs one comparison. The driver is ``tests/crash``.

Every point of the code is in ``POINTS``; pure packages have none, for they have nothing on a disk.
"""

import itertools
import os
import signal
from typing import Final

VARIABLE: Final = "GUTS_CRASH_AT"

POINTS: Final = frozenset(
    {
        # guts.git
        "repository-initialised",
        "quarantine-indexed",
        "quarantine-checked",
        "pack-renamed",
        "index-renamed",
        "packs-migrated",
        "files-written",
        "file-renamed",
        "refs-projecting",
        "refs-projected",
        # guts.node.repositories
        "commit-begun",
        "identities-kept",
        "proofs-kept",
        "signed-refs-kept",
        "seeding-kept",
        "commit-accepted",
        "commit-projected",
        "refs-synced",
        "commit-marked",
        "recovery-begun",
        "seeding-changing",
        "seeding-changed",
        "removal-begun",
        "removal-set-aside",
        "removal-committed",
        # guts.node.publishing
        "publication-prepared",
        "publication-signed",
        "publication-committed",
        # guts.node.identities
        "identity-extended",
        "identity-committed",
        # guts.node.rebuilding
        "database-set-aside",
        "repository-taken-in",
        # guts.store
        "transaction-written",
        "transaction-committed",
        "backup-written",
        "backup-renamed",
        "schema-migrated",
        "schema-committed",
    }
)


def _parse(value: str) -> tuple[str, int]:
    name, separator, count = value.partition(":")
    if name and (name not in POINTS or (separator and not (count.isdecimal() and int(count) > 0))):
        raise SystemExit(f"{VARIABLE}={value}: not a crash point")
    return name, int(count) if count else 1


_armed, _time = _parse(os.environ.get(VARIABLE, ""))
_hits = itertools.count(1)


def crash_point(name: str) -> None:
    """End this process at once if ``name`` is armed and its time has come; any thread may call this."""
    if name == _armed and next(_hits) == _time:
        os.kill(os.getpid(), signal.SIGKILL)
