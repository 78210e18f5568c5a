"""What ``--timeout`` takes."""

import click
import pytest

from guts.cli.timeouts import LONGEST, TIMEOUT


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("0.5", 0.5), ("30s", 30.0), ("1.5m", 90.0), ("24h", 86_400.0), (15, 15.0)]
)
def test_timeout_is_seconds_or_has_a_unit(text: object, seconds: float) -> None:
    assert TIMEOUT.convert(text, None, None) == seconds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("soon", "'soon' is not a number of seconds"),
        ("1d", "with s, m or h"),
        ("nan", "is not a number"),
        ("0", "0 is out of range: more than 0 and at most 86400 seconds"),
        ("-1", "-1 is out of range"),
        (str(LONGEST + 1), "86401 is out of range"),
        ("25h", "25h is out of range"),
    ],
)
def test_reason_why_it_is_refused_is_the_true_one(text: str, says: str) -> None:
    with pytest.raises(click.BadParameter, match=says):
        TIMEOUT.convert(text, None, None)
