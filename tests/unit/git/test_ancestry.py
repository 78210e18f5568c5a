"""Which commits contain which, compared with what is known of how they were made."""

import random
from pathlib import Path

import pytest

from guts.git.ancestry import MAX_SINGLE
from guts.git.command import Git
from guts.git.repository import BareRepository
from guts.ids import ObjectId
from tests.support.repositories import git

SEED = 20_261_122


def commits(path: Path, parents_of: list[list[int]], dates: list[int]) -> list[ObjectId]:
    """Make commits with these parents and dates in the repository at ``path``; return their ids."""
    stream = []
    for number, (parents, date) in enumerate(zip(parents_of, dates, strict=True), start=1):
        stream.append(
            f"commit refs/heads/c{number}\nmark :{number}\ncommitter A <a@example.org> {date} +0000\ndata 0\n"
        )
        if not parents:
            stream.append(f"M 100644 inline f\ndata {len(str(number))}\n{number}\n")
        stream += [f"{'merge' if place else 'from'} :{parent + 1}\n" for place, parent in enumerate(parents)]
        stream.append("\n")
    git(path, "fast-import", "--quiet", "--force", f"--export-marks={path / 'marks'}", data="".join(stream).encode())
    marks = dict(line.split(" ") for line in (path / "marks").read_text().splitlines())
    return [ObjectId(bytes.fromhex(marks[f":{number}"])) for number in range(1, len(parents_of) + 1)]


async def made(tmp_path: Path, git_program: Git) -> BareRepository:
    return await BareRepository.create(tmp_path / "r.git", git_program)


@pytest.fixture
def children(tmp_path: Path) -> tuple[Git, Path]:
    """A git that writes a line for each time it is started, and where."""
    log, program = tmp_path / "log", tmp_path / "git"
    log.touch()
    program.write_text(f'#!/bin/sh\nfor word; do case "$word" in rev-list) echo >> {log};; esac; done\nexec git "$@"\n')
    program.chmod(0o755)
    return Git(executable=str(program)), log


@pytest.mark.parametrize("width", [3, 4_096])
async def test_many_pairs_are_answered_by_few_children(
    tmp_path: Path, children: tuple[Git, Path], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr("guts.git.ancestry.WALK_WIDTH", width)
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    repository = await made(tmp_path, children[0])
    parents_of: list[list[int]] = []
    for number in range(60):
        parents_of.append(sorted(rng.sample(range(number), min(number, rng.choice([0, 1, 1, 1, 2, 3])))))
    # Dates are what the committer says, and mean nothing.
    made_ids = commits(repository.path, parents_of, [rng.randrange(2**31) for _ in parents_of])
    contains: list[set[int]] = []
    for number, parents in enumerate(parents_of):
        contains.append({number}.union(*(contains[parent] for parent in parents)))
    pairs = [(old, new) for old in range(60) for new in range(60)]
    children[1].write_text("")
    answers = await repository.are_ancestors([(made_ids[old], made_ids[new]) for old, new in pairs])
    assert answers == [old in contains[new] for old, new in pairs]
    assert len(children[1].read_text()) == -(-60 // width)
    # What a few pairs are told is the same.
    for start in range(0, len(pairs), 700):
        few = pairs[start : start + MAX_SINGLE]
        told = await repository.are_ancestors([(made_ids[old], made_ids[new]) for old, new in few])
        assert told == answers[start : start + MAX_SINGLE]


@pytest.mark.parametrize("more", [0, 1])
async def test_a_few_pairs_get_a_child_each_and_one_more_a_walk_for_all(
    tmp_path: Path, children: tuple[Git, Path], more: int
) -> None:
    repository = await made(tmp_path, children[0])
    ids = commits(repository.path, [[]] + [[number] for number in range(MAX_SINGLE + 1)], [1_600_000_000] * 18)
    children[1].write_text("")
    assert all(await repository.are_ancestors([(ids[0], new) for new in ids[: 1 + MAX_SINGLE + more]]))
    assert len(children[1].read_text()) == (1 if more else MAX_SINGLE)


async def test_commits_with_dates_long_before_their_parents_contain_them(tmp_path: Path) -> None:
    repository = await made(tmp_path, Git())
    # Twenty commits by a machine whose clock stood at 1970, on top of one from 2020.
    dates = [1_600_000_000] + [number for number in range(20)] + [1_600_000_100]
    ids = commits(repository.path, [[]] + [[number] for number in range(20)] + [[]], dates)
    assert await repository.are_ancestors([(ids[0], ids[20]), (ids[20], ids[0]), (ids[21], ids[20])]) == [
        True,
        False,
        False,
    ]
