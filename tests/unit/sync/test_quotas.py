"""How much a node seeds, and how full its disk may get."""

import pytest

from guts.sync.quotas import MIN_FREE_BYTES, DiskLow, QuotaExceeded, Quotas, Space, Usage

GIB = 1 << 30
ROOMY = Space(1 << 40, 1 << 41)


@pytest.mark.parametrize("claimed", [False, True])
def test_as_much_as_a_quota_allows_may_come_and_not_a_byte_more(claimed: bool) -> None:
    quotas = Quotas(repo_max=1_000, disk=5_000)
    quotas.check(Usage(400, 400, ROOMY), 600, claimed=claimed)
    with pytest.raises(QuotaExceeded) as refused:
        quotas.check(Usage(400, 400, ROOMY), 601, claimed=claimed)
    assert (refused.value.limit, refused.value.value, refused.value.claimed) == ("seeding.repo_max", 1_000, claimed)
    quotas.check(Usage(0, 4_400, ROOMY), 600, claimed=claimed)
    with pytest.raises(QuotaExceeded) as refused:
        quotas.check(Usage(0, 4_400, ROOMY), 601, claimed=claimed)
    assert (refused.value.limit, refused.value.value) == ("seeding.disk", 5_000)
    said = ", and it takes 601 B, as its holder says" if claimed else ""
    assert str(refused.value) == (f"all repositories together take 4.3 KiB{said}, where seeding.disk allows 4.9 KiB")
    assert refused.value.hint is not None
    assert refused.value.hint.startswith('disk = "1MiB" or more under [seeding] in config.toml')
    text = str(QuotaExceeded("seeding.repo_max", 1_000_000, 1_808_904, claimed=True))
    assert text == "it takes 1.7 MiB, as its holder says, where seeding.repo_max allows 976.6 KiB"


def test_floor_is_a_gibibyte_or_a_twentieth_or_what_the_operator_says() -> None:
    quotas = Quotas(1 << 40, 1 << 40)
    assert quotas.floor(Space(0, 10 * GIB)) == MIN_FREE_BYTES
    assert quotas.floor(Space(0, 100 * GIB)) == 5 * GIB
    assert Quotas(1, 1, min_free=7).floor(Space(0, 100 * GIB)) == 7


def test_nothing_comes_below_the_floor_and_no_claim_may_lead_there() -> None:
    quotas = Quotas(1 << 40, 1 << 40, min_free=1_000)
    quotas.check(Usage(0, 0, Space(1_000, 9_999)), 0)
    with pytest.raises(DiskLow, match="999 B are free on the disk, and 1000 B are to stay free"):
        quotas.check(Usage(0, 0, Space(999, 9_999)), 0)
    quotas.check(Usage(0, 0, Space(1_500, 9_999)), 500, claimed=True)
    with pytest.raises(QuotaExceeded) as refused:
        quotas.check(Usage(0, 0, Space(1_500, 9_999)), 501, claimed=True)
    assert refused.value.limit == "seeding.min_free"


def test_limits_are_passed_by_a_byte_more_and_not_by_all_of_them() -> None:
    quotas = Quotas(repo_max=1_000, disk=5_000, min_free=1_000)
    assert quotas.passed(Usage(1_000, 5_000, Space(1_000, 9_999))) == ()
    passed = quotas.passed(Usage(1_001, 5_001, Space(999, 9_999)))
    assert [one.limit for one in passed] == ["seeding.repo_max", "seeding.disk", "seeding.min_free"]


@pytest.mark.parametrize("usage", [Usage(1_001, 0, ROOMY), Usage(0, 5_001, ROOMY), Usage(0, 0, Space(999, 9_999))])
def test_what_a_warning_says_is_true_of_what_comes_next(usage: Usage) -> None:
    """Whoever is told that nothing more is taken would be refused it."""
    quotas = Quotas(repo_max=1_000, disk=5_000, min_free=1_000)
    assert len(quotas.passed(usage)) == 1
    with pytest.raises((QuotaExceeded, DiskLow)):
        quotas.check(usage, 0)


def test_disk_that_is_low_is_told_in_units_that_people_read() -> None:
    """Also where a byte is missing, which no rounding shows."""
    assert str(DiskLow(900 << 20, GIB)).startswith("900.0 MiB are free on the disk, and 1.0 GiB are to stay free: ")
    assert str(DiskLow(GIB - 1, GIB)).startswith("1073741823B are free on the disk, and 1GiB are to stay free: ")
