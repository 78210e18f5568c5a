"""Why repositories are seeded, when they are to be removed, who is followed, what is blocked."""

from guts.store import repositories, seeding
from guts.store.database import Database
from guts.store.seeding import DECLINED, DROPPED, EXPLICIT, StoredSeeding
from tests.unit.store.states import ALICE, BOB, OTHER, REPOSITORY, first_state


async def known(database: Database) -> list[StoredSeeding]:
    return await database.read(seeding.load)


async def test_explicit_wish_has_no_row_and_takes_every_other_away(database: Database) -> None:
    await database.write(seeding.keep, REPOSITORY, "topic", 1_000)
    await database.write(seeding.keep, REPOSITORY, "topic", 2_000)
    assert await known(database) == [StoredSeeding(REPOSITORY, "topic", 1_000, None)]
    await database.write(seeding.keep, REPOSITORY, "owner", 3_000)
    assert await known(database) == [StoredSeeding(REPOSITORY, "owner", 3_000, None)]
    await database.write(seeding.keep, REPOSITORY, EXPLICIT, 4_000)
    assert await known(database) == []


async def test_what_is_dropped_is_not_seeded_and_goes_at_the_earlier_of_two_times(database: Database) -> None:
    await database.write(repositories.commit, first_state())
    await database.write(seeding.drop, REPOSITORY, DROPPED, 1_000, 9_000)
    assert not (await database.read(repositories.load_summary, REPOSITORY)).seeding
    assert await database.read(seeding.is_to_be_removed, REPOSITORY)
    await database.write(seeding.drop, REPOSITORY, DECLINED, 2_000, 8_000)
    await database.write(seeding.drop, REPOSITORY, DROPPED, 3_000, 9_500)
    assert await known(database) == [StoredSeeding(REPOSITORY, DECLINED, 3_000, 8_000)]


async def test_what_is_seeded_again_is_not_removed(database: Database) -> None:
    await database.write(repositories.commit, first_state())
    for reason in ("topic", EXPLICIT):
        await database.write(seeding.drop, REPOSITORY, DECLINED, 1_000, 2_000)
        await database.write(lambda c, r: repositories.set_seeding(c, REPOSITORY, seeding=True, reason=r), reason)
        assert not await database.read(seeding.is_to_be_removed, REPOSITORY)
        assert (await database.read(repositories.load_summary, REPOSITORY)).seeding


async def test_removal_forgets_all_but_that_it_was_declined(database: Database) -> None:
    await database.write(repositories.commit, first_state())
    await database.write(seeding.drop, REPOSITORY, DECLINED, 1_000, 2_000)
    await database.write(seeding.drop, OTHER, DROPPED, 1_000, 2_000)
    await database.write(seeding.removed, REPOSITORY)
    await database.write(seeding.removed, OTHER)
    assert await database.read(repositories.load_summaries) == []
    assert await known(database) == [StoredSeeding(REPOSITORY, DECLINED, 1_000, None)]


async def test_lists_say_what_is_new_and_keep_the_first_time(database: Database) -> None:
    assert await database.write(seeding.follow, ALICE, 1_000)
    assert not await database.write(seeding.follow, ALICE, 2_000)
    assert await database.write(seeding.follow, BOB, 3_000)
    assert await database.read(seeding.load_followed) == {ALICE: 1_000, BOB: 3_000}
    assert await database.write(seeding.unfollow, ALICE)
    assert not await database.write(seeding.unfollow, ALICE)

    for who in (REPOSITORY, ALICE):
        assert await database.write(seeding.block, who, 1_000)
        assert not await database.write(seeding.block, who, 2_000)
    assert await database.read(seeding.load_blocked) == {ALICE: 1_000, REPOSITORY: 1_000}
    assert [type(who) for who in await database.read(seeding.load_blocked)] == [type(ALICE), type(REPOSITORY)]
    assert await database.write(seeding.unblock, ALICE)
    assert not await database.write(seeding.unblock, ALICE)
