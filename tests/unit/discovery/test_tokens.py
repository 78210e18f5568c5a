import random

from guts.discovery.tokens import ROTATE_SECONDS, TOKEN_BYTES, WriteTokens


def test_a_token_is_good_for_its_address_alone() -> None:
    tokens = WriteTokens(random.Random(1))
    token = tokens.issue("1.2.3.4", 9000, 10.0)
    assert len(token) == TOKEN_BYTES
    assert tokens.valid(token, "1.2.3.4", 9000, 11.0)
    assert not tokens.valid(token, "1.2.3.4", 9001, 11.0)
    assert not tokens.valid(token, "1.2.3.5", 9000, 11.0)
    assert not tokens.valid(b"", "1.2.3.4", 9000, 11.0)
    assert not tokens.valid(bytes(8), "1.2.3.4", 9000, 11.0)


def test_a_token_lives_for_this_period_and_the_next() -> None:
    tokens = WriteTokens(random.Random(1))
    token = tokens.issue("1.2.3.4", 9000, 0.0)
    assert tokens.valid(token, "1.2.3.4", 9000, 2 * ROTATE_SECONDS - 1)
    assert not tokens.valid(token, "1.2.3.4", 9000, 2 * ROTATE_SECONDS)


def test_a_silent_hour_ends_every_token() -> None:
    tokens = WriteTokens(random.Random(1))
    token = tokens.issue("1.2.3.4", 9000, 0.0)
    assert not tokens.valid(token, "1.2.3.4", 9000, 3600.0)


def test_nodes_do_not_share_secrets() -> None:
    one, other = WriteTokens(random.Random(1)), WriteTokens(random.Random(2))
    assert not other.valid(one.issue("1.2.3.4", 9000, 0.0), "1.2.3.4", 9000, 0.0)
