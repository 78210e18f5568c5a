"""Sizes as people write them: ``64KiB``, ``1.5 GB``, ``4096``."""

import re
from decimal import Decimal
from typing import Final

_UNITS: Final = {
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)},
}
_LARGEST_FIRST: Final = sorted(_UNITS.items(), key=lambda unit: -unit[1])

ACCEPTED: Final = "a number of bytes, or one with KB, MB, GB, TB (of 1000) or KiB, MiB, GiB, TiB (of 1024)"


def parse_size(text: str) -> int:
    """Return the bytes that ``text`` says, less than a byte cut off; negative ones too, for whoever tells the range.

    Prefixes may be of either case, and the ``B`` may not: ``b`` is a bit to many.

    Raises:
        ValueError: it is no size; the text says what is one.
    """
    match = re.fullmatch(r"(-?[0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([kKmMgGtT]i?B|B)?", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size: {ACCEPTED}")
    unit = match[2] or "B"
    return int(Decimal(match[1]) * _UNITS[unit[0].upper() + unit[1:]])


def exact_size(size: int) -> str:
    """Return ``size`` as ``parse_size`` reads it back, in the largest unit that leaves no fraction."""
    unit, length = next(each for each in _LARGEST_FIRST if (size and size % each[1] == 0) or each[0] == "B")
    return f"{size // length}{unit}"


def size_text(size: float) -> str:
    """Return ``size`` as people read it, in the largest unit of 1024 that it fills: ``1.2 MiB``."""
    unit, length = next(each for each in _LARGEST_FIRST if each[0] == "B" or ("i" in each[0] and size >= each[1]))
    return f"{size / length:.1f} {unit}" if length > 1 else f"{size:.0f} {unit}"


def compared_sizes(size: int, other: int) -> tuple[str, str]:
    """Return both as ``size_text`` does; as ``exact_size`` where they are not equal and would read so."""
    texts = size_text(size), size_text(other)
    if size != other and parse_size(texts[0]) == parse_size(texts[1]):
        return exact_size(size), exact_size(other)
    return texts
