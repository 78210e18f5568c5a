"""``LimitSettings``: the limits as the operator sees and changes them, kept over restarts in ``limits.toml``."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from guts.clock import Now
from guts.events import SetLimits
from guts.git.files import remove_files, write_files
from guts.limits import LIMITS, LimitLayers, known_limit
from guts.node.driver import Driver

TAKEN_BACK: Final = "default"
"""What is written in the place of a value to take back what was set."""

HEADER: Final = "# Written by guts limits set, which also takes it back: NAME=default.\n[limits]\n"

Json = dict[str, object]


class LimitSettings:
    """What ``guts limits`` shows and sets.

    Args:
        file: where it is kept what was set.
        layers: what each source says, as the node was started.
    """

    def __init__(self, file: Path, layers: LimitLayers, driver: Driver) -> None:
        self._file = file
        self._layers = layers
        self._driver = driver
        self._lock = asyncio.Lock()

    def show(self, now: Now) -> list[Json]:
        """Return every limit: its value, where that comes from, and what came of it since the start."""
        service = self._driver.service
        used = service.admission.used(now.mono)
        return [
            {
                "name": name,
                "value": service.limits.values[name],
                "unit": limit.unit,
                "source": self._layers.source(name),
                "default": limit.default,
                "used": used.get(name),
                "peak": service.limits.meters[name].peak if name in used else None,
                "bit": service.limits.meters[name].bit,
                "of": limit.why,
            }
            for name, limit in LIMITS.items()
        ]

    async def set(self, changes: Mapping[str, object], now: Now) -> list[Json]:
        """Go by ``changes`` from now on, all or none of them; return what ``show`` then tells of them.

        Raises:
            BadLimit: a name or a value that is none, or one that the environment or the command line sets.
            StorageFault: it can't be kept; nothing has changed.
        """
        values: dict[str, float | None] = {}
        for name, value in changes.items():
            limit = known_limit(name)
            values[name] = None if value == TAKEN_BACK else limit.parse(name, value)
        async with self._lock:
            layers = self._layers.changed(values)
            await asyncio.to_thread(self._keep, layers.layers["limits set"])
            self._layers = layers
            await self._driver.execute(SetLimits(layers.values()))
        return [row for row in self.show(now) if row["name"] in values]

    def _keep(self, values: Mapping[str, float]) -> None:
        if values:
            lines = "".join(f"{name} = {value}\n" for name, value in values.items())
            write_files(self._file.parent, {self._file.name: (HEADER + lines).encode()})
        else:
            remove_files(self._file.parent, [self._file.name])
