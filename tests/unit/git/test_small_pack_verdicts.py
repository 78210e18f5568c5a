"""What is found without a child is what git finds: random small packs, right and wrong, are judged both ways."""

import random
from collections import Counter
from pathlib import Path

from guts.errors import GutsError
from guts.git.quarantine import Checked
from guts.git.repository import BareRepository
from guts.ids import ObjectId
from tests.support import packs
from tests.support.packs import BLOB, COMMIT, TAG, TREE, chunks, object_id
from tests.support.repositories import git

CASES = 60
WRONG = 0.04
"""Share of links that lead to whatever there is, or to nothing."""

MODES = {BLOB: ("100644", "100755"), TREE: ("40000",), COMMIT: ("160000",)}


class Graph:
    """Random objects by kind; those of ``held`` name only each other, and are of the kinds that they should be."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.wrong = 0.0
        self.made: dict[ObjectId, tuple[int, bytes]] = {}
        for number in range(3):
            self.blob(b"held %d" % number)
            self.tree()
            self.commit()
            self.tag()
        self.held = dict(self.made)
        self.wrong = WRONG

    def grow(self) -> None:
        for number in range(self.rng.randrange(4)):
            self.blob(b"new %d" % number)
        for _ in range(self.rng.randrange(1, 4)):
            self.tree()
        for _ in range(self.rng.randrange(1, 4)):
            self.commit()
        for _ in range(self.rng.randrange(3)):
            self.tag()

    def blob(self, data: bytes) -> None:
        self._add(BLOB, data)

    def tree(self) -> None:
        entries = []
        for number in range(self.rng.randrange(1, 4)):
            kind = self.rng.choice([BLOB, BLOB, TREE, COMMIT])
            if (link := self._link(kind)) is not None:
                entries.append((self.rng.choice(MODES[kind]), b"f%d" % number, link))
        self._add(TREE, packs.tree(*entries))

    def commit(self) -> None:
        tree = self._link(TREE)
        parents = {link for _ in range(self.rng.randrange(3)) if (link := self._link(COMMIT)) is not None}
        if tree is not None:
            message = b"%d\n" % self.rng.randrange(1000)
            self._add(COMMIT, packs.commit(tree, *sorted(parents)) + message)

    def tag(self) -> None:
        kind = self.rng.choice([COMMIT, COMMIT, TREE, BLOB, TAG])
        if (link := self._link(kind)) is not None:
            name = {BLOB: b"blob", TREE: b"tree", COMMIT: b"commit", TAG: b"tag"}[kind]
            who = b"tagger A <a@example.org> 1600000000 +0000"
            number = self.rng.randrange(1000)
            self._add(TAG, b"object %s\ntype %s\ntag t%d\n%s\n\nm\n" % (str(link).encode(), name, number, who))

    def tips(self) -> set[ObjectId]:
        """Return what refs may point at: mostly the heads, so that most packs have nothing to spare."""
        new = [id_ for id_ in self.made if id_ not in self.held]
        named = b"".join(data for _, data in self.made.values())
        heads = {id_ for id_ in new if bytes(id_) not in named and str(id_).encode() not in named}
        if self.rng.random() < 0.1:
            heads.add(self.rng.choice(list(self.made)))
        if self.rng.random() < 0.05:
            heads.add(ObjectId(self.rng.randbytes(20)))
        if heads and self.rng.random() < 0.1:
            heads.remove(self.rng.choice(sorted(heads)))
        return heads

    def pack(self) -> bytes:
        objects = [self.made[id_] for id_ in self.made if id_ not in self.held]
        if objects and self.rng.random() < 0.1:
            objects.remove(self.rng.choice(objects))
        if self.rng.random() < 0.1:
            objects.append(self.rng.choice(list(self.held.values())))
        return packs.pack(objects)

    def _add(self, kind: int, data: bytes) -> None:
        self.made[object_id(kind, data)] = (kind, data)

    def _link(self, kind: int) -> ObjectId | None:
        if self.rng.random() < self.wrong:
            return self.rng.choice([*self.made, ObjectId(self.rng.randbytes(20))])
        able = [id_ for id_, (its, _) in self.made.items() if its == kind]
        return self.rng.choice(able) if able else None


async def verdict(repository: BareRepository, data: bytes, tips: set[ObjectId], *, is_whole: bool) -> str | Checked:
    async with repository.quarantine(is_whole=is_whole) as quarantine:
        try:
            await quarantine.index(chunks(data))
            return await quarantine.check(tips)
        except GutsError as error:
            return f"{error.code}: {error}"


async def test_small_packs_are_judged_as_git_judges_them(tmp_path: Path) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    outcomes: Counter[str] = Counter()
    for case in range(CASES):
        graph = Graph(random.Random(f"{seed} {case}"))
        repository = await BareRepository.create(tmp_path / f"{case}.git")
        git(repository.path, "index-pack", "--stdin", data=packs.pack(list(graph.held.values())))
        heads = {id_ for id_, (kind, _) in graph.held.items() if kind in (COMMIT, TAG)}
        refs = {
            f"refs/heads/b{n}" if graph.held[id_][0] == COMMIT else f"refs/tags/t{n}": id_
            for n, id_ in enumerate(sorted(heads))
        }
        await repository.project(refs, next(iter(refs)))
        graph.grow()
        data, tips = graph.pack(), graph.tips()
        one = await verdict(repository, data, tips, is_whole=True)
        other = await verdict(repository, data, tips, is_whole=False)
        outcomes["taken" if isinstance(one, Checked) else one.partition(":")[0]] += 1
        if isinstance(one, Checked) and isinstance(other, str):
            raise AssertionError(f"case {case}: taken, where git says {other}; tips {sorted(map(str, tips))}")
        assert one == other, f"case {case}"
    print(dict(outcomes))
    assert outcomes["taken"] > CASES / 10
    assert outcomes.total() - outcomes["taken"] > CASES / 20
