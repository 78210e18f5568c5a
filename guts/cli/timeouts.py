"""The value of ``--timeout``."""

import re
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    _ParamType = click.ParamType[float]
else:  # of click 8.2 it takes no type
    _ParamType = click.ParamType

LONGEST: Final = 86_400
_UNITS: Final = {"s": 1, "m": 60, "h": 3600}


class _Timeout(_ParamType):
    """Seconds, or a number with a unit."""

    name = "seconds"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds. Raises: ``click.BadParameter``."""
        match = re.fullmatch(r"(-?[0-9]{1,30}(?:\.[0-9]{1,30})?)([smh]?)", str(value))
        if match is None:
            self.fail(f"{value!r} is not a number of seconds, or one with s, m or h, such as 90 or 5m.", param, ctx)
        seconds = float(match[1]) * _UNITS[match[2] or "s"]
        if not 0 < seconds <= LONGEST:
            self.fail(f"{value} is out of range: more than 0 and at most {LONGEST} seconds.", param, ctx)
        return seconds


TIMEOUT: Final = _Timeout()
