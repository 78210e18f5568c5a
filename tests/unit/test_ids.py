"""Ids: bech32 as published, and a text of its own for every slip."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guts.errors import UsageError
from guts.ids import AuthorId, BadId, ObjectId, PeerId, RepositoryId, bech32_decode, bech32_encode

RAW = bytes(range(32))
REPOSITORY = RepositoryId(RAW)

# BIP 173, "Test vectors": valid strings whose data part is whole bytes. The first two have none at all.
VALID = [
    "A12UEL5L",
    "a12uel5l",
    "an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1tt5tgs",
    "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw",
    "11" + "q" * 82 + "c8247j",
    "split1checkupstagehandshakeupstreamerranterredcaperred2y9e3w",
    "?1ezyfcl",
]
# And the strings that BIP 173 calls invalid.
INVALID = [
    "\x201nwldj5",
    "\x7f1axkwrx",
    "\x801eym55h",
    "an84characterslonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1569pvx",
    "pzry9x0s0muk",
    "1pzry9x0s0muk",
    "x1b4n0q5v",
    "li1dgmt3",
    "de1lg7wt\xff",
    "A1G7SGD8",
    "10a06t8",
    "1qzzfhee",
]


@pytest.mark.parametrize("text", VALID)
def test_published_strings_read_back(text: str) -> None:
    prefix, data = bech32_decode(text)
    assert bech32_encode(prefix, data) == text.lower()


def test_published_data_is_what_the_string_says() -> None:
    assert bech32_decode(VALID[3]) == ("abcdef", bytes.fromhex("00443214c74254b635cf84653a56d7c675be77df"))


@pytest.mark.parametrize("text", INVALID)
def test_published_invalid_strings_are_no_ids(text: str) -> None:
    for kind in (PeerId, AuthorId, RepositoryId):
        with pytest.raises(BadId):
            kind.parse(text)


def test_text_forms_have_their_prefix_and_63_characters() -> None:
    for kind, prefix in ((PeerId, "node1"), (AuthorId, "auth1"), (RepositoryId, "repo1")):
        text = str(kind(RAW))
        assert text.startswith(prefix)
        assert len(text) == 63
        assert kind.parse(text) == RAW
        assert kind.parse(f"  {text.upper()}\n") == RAW
        assert kind(RAW).short == text[:12]
        assert repr(kind(RAW)) == f"{kind.__name__}({text[:12]}…)"


def test_id_of_another_kind_is_named() -> None:
    with pytest.raises(BadId, match=r"is a node id; a repository id \(repo1…\) is needed here"):
        RepositoryId.parse(str(PeerId(RAW)))
    with pytest.raises(BadId, match="is an author key; a node id"):
        PeerId.parse(str(AuthorId(RAW)))
    with pytest.raises(BadId, match="is a repository id; an author key"):
        AuthorId.parse(str(REPOSITORY))
    with pytest.raises(BadId, match="unknown kind 'bc'"):
        RepositoryId.parse(bech32_encode("bc", RAW))


def test_every_single_mistyped_character_is_noticed() -> None:
    text = str(REPOSITORY)
    for position in range(5, len(text)):
        for other in "qpzry9x8":
            if text[position] == other:
                continue
            with pytest.raises(BadId, match="mistyped or cut short"):
                RepositoryId.parse(text[:position] + other + text[position + 1 :])


def test_every_swap_of_neighbours_is_noticed() -> None:
    text = str(REPOSITORY)
    for position in range(5, len(text) - 1):
        swapped = text[:position] + text[position + 1] + text[position] + text[position + 2 :]
        if swapped != text:
            with pytest.raises(BadId):
                RepositoryId.parse(swapped)


def test_every_cut_is_noticed() -> None:
    text = str(REPOSITORY)
    for length in range(len(text)):
        with pytest.raises(BadId):
            RepositoryId.parse(text[:length])


def test_character_that_no_id_contains_is_named_with_its_position() -> None:
    text = str(REPOSITORY)
    with pytest.raises(BadId, match="has 'b' at position 11"):
        RepositoryId.parse(text[:10] + "b" + text[11:])


def test_mixed_case_is_told() -> None:
    text = str(REPOSITORY)
    with pytest.raises(BadId, match="mixes upper and lower case"):
        RepositoryId.parse(text[:20] + text[20:].upper())


def test_text_that_is_nothing_like_an_id_is_told_what_one_looks_like() -> None:
    for text in ("", "1", "hello", "repo", "repo1", "1qqqqqqq", "repo1qqqqq"):
        with pytest.raises(BadId, match="looks like repo1…"):
            RepositoryId.parse(text)


def test_other_lengths_are_told() -> None:
    with pytest.raises(BadId, match="has 20 bytes; a repository id has 32"):
        RepositoryId.parse(bech32_encode("repo", bytes(20)))


@pytest.mark.parametrize("words", ["qqq", "qp"])
def test_stray_bits_at_the_end_are_told(words: str) -> None:
    # 15 bits leave 7 over, one word too many; "qp" leaves 2, of which one is set.
    from guts import ids

    values = [ids._CHARSET.index(character) for character in words]
    polymod = ids._polymod([*ids._expand("repo"), *values, *[0] * 6]) ^ 1
    check = "".join(ids._CHARSET[polymod >> 5 * (5 - i) & 31] for i in range(6))
    with pytest.raises(BadId, match="stray bits"):
        bech32_decode("repo1" + words + check)


def test_long_text_is_shortened_in_the_error() -> None:
    with pytest.raises(BadId) as refused:
        RepositoryId.parse("x" * 1000)
    assert len(str(refused.value)) < 200
    assert refused.value.text == "x" * 1000
    assert isinstance(refused.value, UsageError)


@pytest.mark.parametrize("kind", [PeerId, AuthorId, RepositoryId])
def test_ids_have_32_bytes(kind: type[PeerId | AuthorId | RepositoryId]) -> None:
    for length in (0, 31, 33):
        with pytest.raises(ValueError, match=f"32 bytes, not {length}"):
            kind(bytes(length))


def test_object_id_is_shown_as_hex() -> None:
    oid = ObjectId(bytes(range(20)))
    assert str(oid) == "000102030405060708090a0b0c0d0e0f10111213"
    assert repr(oid) == "ObjectId(000102030405)"
    for length in (19, 21, 32):
        with pytest.raises(ValueError, match="20 bytes"):
            ObjectId(bytes(length))


@given(st.binary(max_size=60), st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8))
def test_any_data_reads_back(data: bytes, prefix: str) -> None:
    assert bech32_decode(bech32_encode(prefix, data)) == (prefix, data)


@given(st.text(max_size=100))
def test_garbage_is_told_to_the_person(text: str) -> None:
    with pytest.raises(BadId):
        RepositoryId.parse(text)


def test_text_longer_than_bech32_allows_is_refused() -> None:
    assert bech32_decode(bech32_encode("repo", bytes(49)))[1] == bytes(49)  # 90 characters
    with pytest.raises(BadId, match="at most 90"):
        bech32_decode(bech32_encode("auth0", bytes(49)))
