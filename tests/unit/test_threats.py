"""docs/threats.md claims only what a test shows."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
ROWS: Final = {
    "A": 7, "B": 11, "C": 3, "D": 4, "E": 4, "F": 6, "G": 3, "H": 3, "W": 6,
}  # fmt: skip
"""Rows per kind of attacker; ids are never reused."""


def _rows() -> dict[str, list[str]]:
    lines = (ROOT / "docs" / "threats.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: row for row in cells if re.fullmatch(r"[A-Z]\d+", row[0])}


def _test_names() -> set[str]:
    return {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))
    }


def test_every_threat_has_a_row() -> None:
    assert list(_rows()) == [f"{kind}{number}" for kind, last in ROWS.items() for number in range(1, last + 1)]


def test_every_named_test_exists() -> None:
    existing = _test_names()
    missing = [
        (id, name)
        for id, row in _rows().items()
        for name in re.findall(r"`(test_\w+)`", row[3])
        if name not in existing
    ]
    assert missing == []


def test_every_test_of_scoring_exists() -> None:
    page = (ROOT / "docs" / "threats.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)`", page[page.index("## Scoring") :])
    assert {name[:7] for name in named} >= {f"test_s{number}" for number in range(2, 8)}
    assert set(named) <= _test_names()


def test_state_says_no_more_than_the_tests() -> None:
    for id, (_, _, _, tests, state) in _rows().items():
        assert re.fullmatch(r"done|(partly|later)(: .+)?", state), id
        assert ("`test_" in tests) == (not state.startswith("later")), id
