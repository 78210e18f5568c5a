"""Which ref names may be published, compared with git itself."""

import os
import random
import subprocess

import pytest

from guts.trust.ref_names import MAX_REF_BYTES, has_control, is_branch, is_ref_name, parents

SEED = 20_261_122
PIECES = ["a", "b", ".", "..", "/", "//", "@", "{", "@{", "~", "^", ":", "?", "*", "[", "]", "\\", " ", "-"]
PIECES += [".lock", "lock", "é", "名", "\x01", "\x7f", "\t", "}", "!", "#", "$", "HEAD", "+", "refs"]


def _git_allows(names: list[str]) -> list[bool]:
    script = 'while IFS= read -r -d "" name; do git check-ref-format "$name" && echo y || echo n; done'
    data = b"".join(name.encode() + b"\0" for name in names)
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["bash", "-c", script], input=data, capture_output=True, check=True, env=environment)
    return [line == b"y" for line in done.stdout.split()]


def test_names_are_allowed_where_git_allows_them() -> None:
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    names = ["refs/heads/" + "".join(rng.choices(PIECES, k=rng.randint(1, 5))) for _ in range(500)]
    names += ["refs/heads/main", "refs/tags/v1.0", "refs/notes/commits", "refs/heads/", "refs/heads/@"]
    names += ["refs/heads/a.lock/b", "refs/heads/a.lockb", "refs/heads/.a", "refs/heads/a/.b", "refs/heads/a."]
    allowed = _git_allows(names)
    assert sum(allowed) > 50
    assert sum(allowed) < len(names) - 50
    ours = [is_ref_name(name) for name in names]
    assert [n for n, git, guts in zip(names, allowed, ours, strict=True) if git != guts] == []


@pytest.mark.parametrize("name", ["HEAD", "main", "refs/heads", "refs/guts/conflict/x", "refs/remotes/o/x", ""])
def test_other_namespaces_are_refused(name: str) -> None:
    assert not is_ref_name(name)


@pytest.mark.parametrize("character", ["\x00", "\x1f", "\x7f", "\x80", "\x9f", "\u2028", "\u202e", "\u2066", "\udcff"])
def test_controls_and_text_that_reorders_are_refused(character: str) -> None:
    assert has_control(f"a{character}b")
    assert not is_ref_name(f"refs/heads/a{character}b")


def test_length_is_counted_in_bytes() -> None:
    prefix = "refs/heads/"
    assert is_ref_name(prefix + "é" * ((MAX_REF_BYTES - len(prefix)) // 2))
    assert is_ref_name(prefix + "a" * (MAX_REF_BYTES - len(prefix)))
    assert not is_ref_name(prefix + "a" * (MAX_REF_BYTES - len(prefix) + 1))
    assert not is_ref_name(prefix + "é" * ((MAX_REF_BYTES - len(prefix)) // 2 + 1))


def test_a_branch_is_under_heads() -> None:
    assert is_branch("refs/heads/main")
    assert not is_branch("refs/tags/main")
    assert not is_branch("refs/heads/")


def test_parents_are_the_directories_that_could_be_refs() -> None:
    assert parents("refs/heads/main") == []
    assert parents("refs/heads/a/b/c") == ["refs/heads/a", "refs/heads/a/b"]
