"""``git push -o``."""

import pytest

from guts.remote_helper.push_options import (
    DEFAULT_TIMEOUT,
    MAX_REPLICAS,
    MAX_TIMEOUT,
    BadPushOption,
    PushOptions,
)


def test_push_without_options_waits_for_the_usual_number() -> None:
    options = PushOptions.parse([])
    assert (options.replicas, options.timeout, options.strict, options.sync) == (None, DEFAULT_TIMEOUT, False, True)
    assert (options.head, options.force, options.unknown) == (None, False, ())


def test_every_option_is_read() -> None:
    options = PushOptions.parse(
        ["guts.replicas=2", "guts.timeout=1.5m", "guts.strict", "guts.head=trunk", "guts.force"]
    )
    assert (options.replicas, options.timeout, options.strict) == (2, 90.0, True)
    assert (options.head, options.force) == ("refs/heads/trunk", True)
    assert not PushOptions.parse(["guts.no-sync"]).sync
    assert PushOptions.parse(["guts.head=refs/heads/a/b"]).head == "refs/heads/a/b"


def test_options_of_other_servers_are_told_apart() -> None:
    assert PushOptions.parse(["ci.skip", "merge_request.create=1"]).unknown == ("ci.skip", "merge_request.create")


@pytest.mark.parametrize("option", ["guts.replica=1", "guts.", "guts.no_sync", "gut.replicas=2"])
def test_misspelt_option_names_the_nearest(option: str) -> None:
    with pytest.raises(BadPushOption, match=r"did you mean 'guts\."):
        PushOptions.parse([option])


@pytest.mark.parametrize(
    "option",
    [
        f"guts.replicas={MAX_REPLICAS + 1}",
        "guts.replicas=-1",
        "guts.replicas=",
        "guts.replicas",
        "guts.replicas=²",
        "guts.timeout=0",
        "guts.timeout=-1s",
        "guts.timeout=1d",
        f"guts.timeout={MAX_TIMEOUT + 1:.0f}",
        "guts.strict=yes",
        "guts.no-sync=1",
        "guts.head",
        "guts.head=refs/tags/v1",
    ],
)
def test_impossible_value_is_refused(option: str) -> None:
    with pytest.raises(BadPushOption):
        PushOptions.parse([option])


@pytest.mark.parametrize(
    "option", [f"guts.replicas={MAX_REPLICAS}", "guts.replicas=0", f"guts.timeout={MAX_TIMEOUT:.0f}"]
)
def test_extreme_value_passes(option: str) -> None:
    PushOptions.parse([option])


def test_waiting_for_nobody_goes_with_no_number() -> None:
    with pytest.raises(BadPushOption, match="no-sync"):
        PushOptions.parse(["guts.no-sync", "guts.strict"])
