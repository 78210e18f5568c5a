"""The scan of trees by whole answers finds what the scan of one tree at a time finds."""

import random

import pytest

from guts.git.trees import PLAIN_ANSWERS, TreeScan

SEED = 11
PLAIN = [
    ("100644", b"a"),
    ("100755", b"run.sh"),
    ("40000", b"src"),
    ("160000", b"module"),
    ("100664", b".g"),
    ("100644", b"Gitlab"),
    ("100644", "näme".encode()),
    ("100644", b".gitignore"),
    ("100644", b"git"),
]
ODD = [
    ("120000", b"link"),
    ("120777", b"link"),
    ("100644", b".gitmodules"),
    ("100644", b".GITmodules"),
    ("100644", b"gitmod~1"),
    ("100644", b"GI7eba~1"),
    ("100644", ".git\u200cmodules".encode()),
    ("100644", b"\xef\xbb\xbf.gitmodules"),
    ("100644", b"a\rb"),
    ("100644", b"a\x7f"),
    ("100644", b"\x01"),
    ("100600", b"mode"),
]


def tree(rng: random.Random, *entries: tuple[str, bytes]) -> bytes:
    return b"".join(b"%s %s\0%s" % (mode.encode(), name, rng.randbytes(20)) for mode, name in entries)


def answer(rng: random.Random, data: bytes) -> bytes:
    return b"tree %d %s\n%s\n" % (len(data), rng.randbytes(20).hex().encode(), data)


def end_of_plain(answers: bytes) -> int:
    run = PLAIN_ANSWERS.match(answers)
    assert run is not None
    return run.end()


def test_passes_over_plain_trees() -> None:
    rng = random.Random(SEED)
    answers = [answer(rng, tree(rng, *rng.sample(PLAIN, rng.randrange(len(PLAIN))))) for _ in range(200)]
    assert end_of_plain(b"".join(answers)) == sum(map(len, answers))


@pytest.mark.parametrize(("mode", "name"), ODD)
def test_stops_before_a_tree_with_anything_odd(mode: str, name: bytes) -> None:
    rng = random.Random(SEED)
    for at in range(3):
        entries = [PLAIN[0], PLAIN[5]]
        entries.insert(at, (mode, name))
        before = answer(rng, tree(rng, *PLAIN)) * 2
        answers = before + answer(rng, tree(rng, *entries)) + before
        assert end_of_plain(answers) == len(before)


def test_stops_before_an_answer_that_is_cut() -> None:
    rng = random.Random(SEED)
    answers = [answer(rng, tree(rng, *PLAIN)), answer(rng, b""), answer(rng, tree(rng, PLAIN[0]))]
    whole = b"".join(answers)
    ends = [sum(map(len, answers[:count])) for count in range(4)]
    for cut in range(len(whole) + 1):
        assert end_of_plain(whole[:cut]) == max(end for end in ends if end <= cut)


@pytest.mark.parametrize("other", [b"blob 1 %s\nx\n", b"%s missing\n", b"commit 0 %s\n\n"])
def test_stops_before_answers_that_are_no_trees(other: bytes) -> None:
    rng = random.Random(SEED)
    before = answer(rng, tree(rng, *PLAIN))
    assert end_of_plain(before + other % (b"0" * 40) + before) == len(before)


@pytest.mark.parametrize(("mode", "name"), ODD[:7])
def test_collects_what_needs_a_look(mode: str, name: bytes) -> None:
    scan = TreeScan()
    scan.scan("id", b"100644 a\0" + bytes(20) + b"%s %s\0" % (mode.encode(), name) + b"x" * 20)
    assert scan.links | scan.modules == {b"x" * 20}
