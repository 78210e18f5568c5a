"""What the rounds begin with: nodes with repositories, to be copied and killed, and one that stays."""

import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guts.cli.proposal import Proposal
from tests.crash.nursery import Nursery
from tests.crash.state import State
from tests.crash.victim import Victim
from tests.support.proposals import author_of, sign_elsewhere
from tests.support.repositories import git

REPOSITORIES: Final = 3
"""Held by the node that rounds copy; one of them is no longer seeded."""


@dataclass(frozen=True, slots=True)
class Change:
    """A proposal with all its signatures.

    Attributes:
        identity: hash of its document, hexadecimal.
    """

    file: Path
    identity: str


class World:
    """The nodes of a campaign, which end with it.

    Attributes:
        rng: what is drawn from now on.
        steady: a node that is never killed, with ``repository``, published from ``steady_work``.
        template: a node at rest, with what ``held`` says, published from ``works``.
        replica: a node at rest that seeds ``repository``; ``replicated`` is what it has.
        follower: a node at rest that seeds ``shared``, of ``template``; ``followed`` is what it has.
        changes: what the identity of ``shared`` may become.
    """

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder = folder
        self.rng = rng
        self._made = 0
        self._victims: list[Victim] = []
        self._nursery = Nursery()
        self.steady = self._started("steady")
        self.steady_work = self.work()
        self.repository = self.publish(self.steady, self.steady_work)
        self.template = self._started("template")
        self.works = {}
        for _ in range(REPOSITORIES):
            work = self.work()
            self.works[self.publish(self.template, work)] = work
        unseeded, self.shared, *_ = sorted(self.works)
        assert self.template.guts("unseed", unseeded).status == 0
        self.held = self.template.states(quiet=True, settled=True)
        self.changes = self._proposals()
        self.replica, self.replicated = self._replica(self.repository, self.steady)
        self.follower, self.followed = self._replica(self.shared, self.template)
        self.template.stop()

    def _started(self, name: str) -> Victim:
        victim = self.victim(name)
        victim.spawn()
        assert victim.ready()
        return victim

    def _replica(self, repository: str, holder: Victim) -> tuple[Victim, Mapping[str, State]]:
        victim = self._started("replica")
        seeded = victim.guts("seed", repository, "--from", holder.address)
        assert seeded.status == 0, seeded.err
        states = victim.states(quiet=False)
        victim.stop()
        return victim, states

    def _proposals(self) -> list[Change]:
        other = self.victim("other-author")
        key = other.guts("id", "new", "--json").json["id"]
        options = (("--description", "changed"), ("--add", key), ("--default-branch", "next"), ("--name", "renamed"))
        changes = []
        for number, option in enumerate(options):
            file = self.folder / f"change{number}.json"
            assert self.template.guts("identity", "propose", *option, self.shared, file).status == 0
            # Of one epoch all of them: `guts identity sign` would sign but the first.
            authors = (self.template, other) if option[0] == "--add" else (self.template,)
            sign_elsewhere(file, *(author_of(author.home) for author in authors))
            changes.append(Change(file, Proposal.read(file).document.hash.hex()))
        return changes

    def victim(self, name: str, *, fresh: bool = False, **settings: str) -> Victim:
        """Return a node that was never started."""
        victim = Victim(self._nursery, self.new(name), fresh=fresh, **settings)
        self._victims.append(victim)
        return victim

    def copy(self, original: Victim, *, fresh: bool = False, **settings: str) -> Victim:
        """Return a node with a copy of what ``original``, which is at rest, has on its disk."""
        victim = self.victim("copy", fresh=fresh, **settings)
        shutil.copytree(original.home, victim.home)
        return victim

    def new(self, name: str) -> Path:
        """Return a path that nothing else has."""
        self._made += 1
        return self.folder / f"{self._made:05}-{name}"

    def work(self) -> Path:
        """Return a new working repository with two commits and a tag."""
        path = self.new("work")
        path.mkdir()
        git(path, "init", "-q", "-b", "main")
        for _ in range(2):
            self.commit(path)
        git(path, "tag", "-a", "v1", "-m", "v1")
        return path

    def commit(self, work: Path) -> None:
        """Commit a file."""
        (work / f"file{self.rng.randrange(20)}").write_bytes(self.rng.randbytes(self.rng.randint(1, 5_000)))
        git(work, "add", ".")
        git(work, "commit", "-q", "-m", f"change {self.rng.random()}")

    def change(self, work: Path) -> None:
        """Do to the refs what people do."""
        self.commit(work)
        name = f"topic{self.rng.randrange(4)}"
        match self.rng.randrange(4):
            case 0:
                git(work, "branch", "-f", name)
            case 1:
                git(work, "tag", "-f", "-a", f"v{self.rng.randrange(5)}", "-m", "tag")
            case 2 if name in git(work, "branch", "--format=%(refname:short)").split():
                git(work, "branch", "-D", name)

    def publish(self, node: Victim, work: Path) -> str:
        """Publish ``work`` at ``node`` and return its id."""
        repository = node.guts("publish", work, "--force", "--prune", "--json").json["repository"]
        assert isinstance(repository, str)
        return repository

    def clear(self) -> None:
        """Kill what a round that failed left running; what stays is as it was."""
        for victim in self._victims:
            if victim is not self.steady:
                victim.kill()
        self._victims = [self.steady]

    def close(self) -> None:
        """Stop what runs."""
        try:
            self.steady.stop()
        finally:
            self._nursery.close()


def refs(work: Path) -> dict[str, str]:
    """Return the refs of a working repository that are published: hexadecimal ids by name."""
    lines = git(work, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags").splitlines()
    return dict((line.split(" ")[0], line.split(" ")[1]) for line in lines)
