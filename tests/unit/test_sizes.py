"""Sizes as people read them."""

import pytest

from guts.sizes import compared_sizes

MIB = 1 << 20


@pytest.mark.parametrize(
    ("size", "other", "told"),
    [
        (3 * MIB, MIB, ("3MiB", "1MiB")),
        (1_808_904, 1_000_000, ("1.72511MiB", "976.562KiB")),
        (MIB, MIB, ("1MiB", "1MiB")),
        (100 * MIB + 1, 100 * MIB, ("104857601B", "100MiB")),
        # Rounded to six digits it would be 1024 of the smaller unit, which is one of the larger.
        ((1 << 30) - 1, 1 << 30, ("1073741823B", "1GiB")),
        (0, 1, ("0B", "1B")),
    ],
)
def test_sizes_that_differ_do_not_read_alike(size: int, other: int, told: tuple[str, str]) -> None:
    assert compared_sizes(size, other) == told
