"""Sizes as people read them."""

import pytest

from guts.sizes import compared_sizes, size_text

MIB = 1 << 20


@pytest.mark.parametrize(
    ("size", "other", "told"),
    [
        (3 * MIB, MIB, ("3.0 MiB", "1.0 MiB")),
        (1_808_904, 1_000_000, ("1.7 MiB", "976.6 KiB")),
        (MIB, MIB, ("1.0 MiB", "1.0 MiB")),
        (100 * MIB + 1, 100 * MIB, ("104857601B", "100MiB")),
        # Rounded it would be 1024 of the smaller unit, which is one of the larger.
        ((1 << 30) - 1, 1 << 30, ("1073741823B", "1GiB")),
        (0, 1, ("0 B", "1 B")),
    ],
)
def test_sizes_that_differ_do_not_read_alike(size: int, other: int, told: tuple[str, str]) -> None:
    assert compared_sizes(size, other) == told


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 20, "3.0 MiB"), (5 << 30, "5.0 GiB"), (1 << 41, "2.0 TiB")],
)
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert size_text(size) == text
