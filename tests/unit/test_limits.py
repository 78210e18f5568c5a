"""What the operator may set, and what is refused."""

import pytest

from guts.limits import (
    DEFAULTS,
    LIMITS,
    MAX_BYTES,
    MAX_PLACES,
    MAX_RATE,
    MIN_BYTES,
    MIN_RATE,
    BadLimit,
    LimitLayers,
    Limits,
    known_limit,
    without_effect,
)


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_reads_its_own_default_back(name: str) -> None:
    limit = LIMITS[name]
    assert limit.parse(name, limit.example) == limit.default
    assert limit.parse(name, limit.default) == limit.default
    assert isinstance(limit.parse(name, limit.example), int) == limit.whole


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("gossip_rate", "2.5", 2.5),
        ("gossip_rate", 3, 3.0),
        ("gossip_burst", "7", 7),
        ("bytes_rate", "8MiB/s", 8 << 20),
        ("bytes_rate", "500 kB", 500_000),
        ("bytes_burst", 65_536, 65_536),
        ("total_bytes_burst", "2GiB", 2 << 30),
        ("bytes_rate", "64KiB", 64 << 10),
        ("bytes_rate", "500KB/s", 500_000),
        ("bytes_rate", "1.5mB", 1_500_000),
    ],
)
def test_values_may_be_written_as_people_write_them(name: str, text: object, value: float) -> None:
    assert LIMITS[name].parse(name, text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gossip_rate", "fast"),
        ("gossip_rate", True),
        ("gossip_rate", "1e3"),
        ("gossip_rate", None),
        ("gossip_burst", "2.5"),
        ("gossip_burst", 2.5),
        ("bytes_rate", "8 parsecs"),
        ("bytes_rate", "8Mb"),
        ("serves", ""),
        ("serves", [4]),
    ],
)
def test_what_is_no_value_is_refused_with_an_example(name: str, text: object) -> None:
    with pytest.raises(BadLimit, match=name) as refused:
        LIMITS[name].parse(name, text)
    assert refused.value.hint == f"guts limits set {name}={LIMITS[name].example}"


@pytest.mark.parametrize(
    ("name", "lowest", "below", "highest", "above"),
    [
        ("refs_rate", MIN_RATE, "0.09", MAX_RATE, MAX_RATE + 1),
        ("refs_burst", 1, 0, int(MAX_RATE), int(MAX_RATE) + 1),
        ("bytes_rate", MIN_BYTES, MIN_BYTES - 1, MAX_BYTES, MAX_BYTES + 1),
        ("serves", 1, 0, MAX_PLACES, MAX_PLACES + 1),
    ],
)
def test_each_range_holds_at_its_ends_and_not_beyond(
    name: str, lowest: float, below: object, highest: float, above: float
) -> None:
    limit = LIMITS[name]
    assert limit.parse(name, lowest) == lowest
    assert limit.parse(name, highest) == highest
    for value in (below, above):
        with pytest.raises(BadLimit, match="is out of range: "):
            limit.parse(name, value)


def test_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(BadLimit, match="'gosip_rate'") as refused:
        known_limit("gosip_rate")
    assert refused.value.hint == "did you mean gossip_rate?"
    with pytest.raises(BadLimit) as refused:
        known_limit("xyzzy")
    assert refused.value.hint == "docs/commands.md lists every limit, as does guts limits show"


@pytest.mark.parametrize("text", ["limits.git", "GIT", "LIMITS.GIT", "Git"])
def test_name_as_it_is_in_the_config_or_environment_is_near(text: str) -> None:
    with pytest.raises(BadLimit) as refused:
        known_limit(text)
    assert refused.value.hint == "did you mean git?"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("bytes_rate", "8 parsecs", "KB, MB, GB, TB (of 1000) or KiB, MiB, GiB, TiB (of 1024)"),
        ("bytes_rate", "10", "10 is out of range: 64KiB to 1TiB"),
        ("bytes_rate", "99999999999999999999", "is out of range: 64KiB to 1TiB"),
        ("gossip_rate", "-1", "-1 is out of range: 0.1 to 1000000"),
        ("gossip_burst", "2.5", "'2.5' is not a whole number"),
        ("serves", "99999999999", "is out of range: 1 to 1000"),
    ],
)
def test_reason_is_the_true_one(name: str, text: str, says: str) -> None:
    with pytest.raises(BadLimit) as refused:
        LIMITS[name].parse(name, text)
    assert says in str(refused.value)


@pytest.mark.parametrize("value", [MIN_BYTES, MIN_BYTES + 1, 500_000, 1_572_864, 8 << 20, MAX_BYTES - 1, MAX_BYTES])
def test_size_that_is_shown_can_be_typed_back(value: int) -> None:
    assert LIMITS["bytes_rate"].parse("bytes_rate", LIMITS["bytes_rate"].shown(value)) == value


def test_limit_that_is_never_reached_is_told() -> None:
    assert without_effect(DEFAULTS) == []
    assert without_effect({**DEFAULTS, "git_per_peer": 8, "git_per_network": 8}) == []
    assert without_effect({**DEFAULTS, "serves_per_peer": 5}) == [
        "limits.serves_per_peer (5) is above limits.serves_per_network (2), which holds as well",
        "limits.serves_per_peer (5) is above limits.serves (4), which holds as well",
    ]
    assert len(without_effect({**DEFAULTS, "git_per_peer": 9})) == 2


def test_later_sources_count_and_what_was_set_can_be_taken_back() -> None:
    layers = LimitLayers({"config file": {"serves": 5, "git": 9}, "environment": {"git": 7}})
    assert layers.values() == {**DEFAULTS, "serves": 5, "git": 7}
    assert [layers.source(name) for name in ("refs_rate", "serves", "git")] == ["default", "config file", "environment"]
    changed = layers.changed({"serves": 6, "refs_rate": 1.5})
    assert changed.values() == {**DEFAULTS, "serves": 6, "git": 7, "refs_rate": 1.5}
    assert changed.source("serves") == "limits set"
    assert changed.changed({"serves": None, "refs_rate": None}).values() == layers.values()


@pytest.mark.parametrize("source", ["environment", "command line"])
@pytest.mark.parametrize("value", [8, None])
def test_what_counts_more_is_not_set_in_vain(source: str, value: float | None) -> None:
    layers = (
        LimitLayers({"environment": {"git": 7}})
        if source == "environment"
        else LimitLayers({"command line": {"git": 7}})
    )
    with pytest.raises(BadLimit, match=source):
        layers.changed({"git": value})


def test_meters_keep_the_peak_and_count_what_bit() -> None:
    limits = Limits()
    for amount in (1, 3, 2):
        limits.used("serves", amount)
    limits.bit("serves")
    assert (limits.meters["serves"].peak, limits.meters["serves"].bit) == (3, 1)
