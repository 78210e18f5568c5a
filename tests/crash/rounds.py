"""What a node does when it is killed: one class per operation."""

import random
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import ClassVar, Final

from alembic.config import Config
from alembic.script import ScriptDirectory

import guts
from guts.store.migration import scripts_directory
from tests.crash.state import State
from tests.crash.victim import Victim
from tests.support.repositories import git

COMMIT: Final = (
    "quarantine-indexed", "quarantine-checked", "commit-begun", "pack-renamed", "index-renamed", "packs-migrated",
    "identities-kept", "signed-refs-kept", "seeding-kept", "commit-accepted", "refs-projecting", "refs-projected",
    "commit-projected", "commit-marked", "files-written", "file-renamed", "transaction-written",
    "transaction-committed",
)  # fmt: skip
PUBLISH: Final = ("publication-prepared", "publication-signed", "publication-committed")
REPEATED: Final = {"files-written": 4, "file-renamed": 6, "transaction-written": 4, "transaction-committed": 4}
"""Points that one operation passes several times, and up to how many of them."""

LATER: Final = '''"""A later revision."""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = {head!r}


def upgrade() -> None:
    op.create_table("later", sa.Column("id", sa.Integer(), primary_key=True))
    op.add_column("repositories", sa.Column("later", sa.Integer(), nullable=True))
'''

OPERATION_TIMEOUT: Final = 60.0


class World:
    """One node that is never killed, with a repository; and those that are."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder = folder
        self.rng = rng
        self._made = 0
        self.steady = Victim(self.new("steady"))
        self.steady.spawn()
        assert self.steady.ready()
        self.steady_work = self.work()
        self.repository = self.publish(self.steady, self.steady_work)
        status = self.steady.guts("node", "status", "--json").json
        (self.address,) = _texts(status["listen"])
        # What rounds begin with, copied for each: a node at rest that holds three repositories, and a replica.
        self.template = Victim(self.new("template"))
        self.template.spawn()
        assert self.template.ready()
        self.works = {}
        for _ in range(3):
            work = self.work()
            self.works[self.publish(self.template, work)] = work
        assert self.template.guts("unseed", min(self.works)).status == 0
        self.held = self.template.states(quiet=True)
        self.template.stop()
        self.replica = Victim(self.new("replica"))
        self.replica.spawn()
        assert self.replica.ready()
        assert self.replica.guts("seed", self.repository, "--from", self.address).status == 0
        self.replicated = self.replica.states(quiet=False)
        self.replica.stop()

    def copy(self, original: Victim, **settings: str) -> Victim:
        """Return a node with a copy of what ``original``, which is at rest, has on its disk."""
        victim = Victim(self.new("copy"), **settings)
        shutil.copytree(original.guts.home, victim.guts.home)
        return victim

    def new(self, name: str) -> Path:
        """Return a path that nothing else has."""
        self._made += 1
        return self.folder / f"{self._made:04}-{name}"

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
        repository = node.guts("publish", work, "--force", "--json").json["repository"]
        assert isinstance(repository, str)
        return repository

    def close(self) -> None:
        """Stop what runs."""
        self.steady.stop()


def refs(work: Path) -> dict[str, str]:
    """Return the refs of a working repository that are published: hexadecimal ids by name."""
    lines = git(work, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags").splitlines()
    return dict((line.split(" ")[0], line.split(" ")[1]) for line in lines)


class Round:
    """One operation of one node, which is killed in it.

    Attributes:
        already: code of the error that the command ends in where it was done before.
        points: crash points that it passes.
        quiet: nobody else speaks to the node.
        victim: the node.
    """

    points: ClassVar[tuple[str, ...]]
    quiet: ClassVar[bool] = True
    already: ClassVar[str] = ""
    victim: Victim

    def __init__(self, world: World) -> None:
        self.world = world
        self.prepare()

    def prepare(self) -> None:
        """Make what the operation begins with."""
        raise NotImplementedError

    def command(self) -> tuple[object, ...]:
        """Return the arguments of the command that is the operation; empty: the start of the node itself."""
        raise NotImplementedError

    def check(self, found: dict[str, State], *, done: bool) -> None:
        """Raises: ``AssertionError``: ``found`` is neither the old state nor, at the latest when ``done``, the new."""
        raise NotImplementedError

    def run(self, point: str | None) -> str:
        """Do the operation, kill the node in it, look, and do it again; return where it ended.

        Args:
            point: a crash point with its number; ``None``: at a random moment.
        """
        victim, command = self.victim, self.command()
        victim.spawn(point or "")
        if not command and point is None:
            time.sleep(self.world.rng.uniform(0.0, 1.2))
            victim.kill()
            told = "in its start"
        elif not victim.ready():
            told = f"at {point} in its start"
        else:
            told = self._kill_in_operation(command, point)
        victim.spawn()
        assert victim.ready(), "the node starts again"
        self.check(victim.states(quiet=self.quiet), done=False)
        if command:
            again = victim.guts(*command, "--json")
            well = again.status == 0 or again.error["code"] == self.already
            assert well, f"the operation, done again: {again.err}\n{victim.log}"
        self.check(victim.states(quiet=self.quiet), done=True)
        victim.check_log()
        victim.stop()
        shutil.rmtree(victim.guts.home)
        return told

    def _kill_in_operation(self, command: tuple[object, ...], point: str | None) -> str:
        victim = self.victim
        operation = victim.begin(*command)
        if point is None:
            # A command takes 0.4 s to reach the node.
            moment = self.world.rng.uniform(0.2, 1.2)
            time.sleep(moment)
            victim.kill()
            told = f"after {moment:.3f} s"
        else:
            operation.wait(OPERATION_TIMEOUT)
            told = f"at {point}" if victim.wait_killed(0.3) else f"{point} not reached, when it was done"
            victim.kill()
        operation.communicate(timeout=OPERATION_TIMEOUT)
        return told


class FirstPublication(Round):
    """A repository is published for the first time, on a new node."""

    points = ("repository-initialised", "schema-migrated", "schema-committed", "recovery-begun", *COMMIT, *PUBLISH)

    def prepare(self) -> None:
        self.victim = Victim(self.world.new("first"))
        self.work = self.world.work()

    def command(self) -> tuple[object, ...]:
        return ("publish", self.work)

    def check(self, found: dict[str, State], *, done: bool) -> None:
        expected = [refs(self.work)]
        shown = [state.refs for state in found.values()]
        assert shown == expected or (not done and not shown), f"{len(shown)} repositories after one publication"


class Publication(Round):
    """A repository is published again, on a node that holds others too."""

    points = (*COMMIT, *PUBLISH)

    def prepare(self) -> None:
        world = self.world
        self.victim = world.copy(world.template)
        self.repository = max(world.works)
        self.before = world.held[self.repository]
        self.work = world.new("work")
        shutil.copytree(world.works[self.repository], self.work)
        world.change(self.work)
        self.after = refs(self.work)

    def command(self) -> tuple[object, ...]:
        return ("publish", self.work, "--force")

    def check(self, found: dict[str, State], *, done: bool) -> None:
        state = found[self.repository]
        if state.seq > self.before.seq:
            assert state.refs == self.after
        else:
            assert state == self.before
            assert not done


class Seeding(Round):
    """A repository is fetched for the first time."""

    points = ("repository-initialised", *COMMIT)
    quiet = False

    def prepare(self) -> None:
        self.victim = Victim(self.world.new("replica"))

    def command(self) -> tuple[object, ...]:
        return ("seed", self.world.repository, "--from", self.world.address, "--timeout", 30)

    def check(self, found: dict[str, State], *, done: bool) -> None:
        expected = {self.world.repository: refs(self.world.steady_work)}
        shown = {repository: state.refs for repository, state in found.items()}
        assert shown == expected or (not done and not shown)


class Sync(Round):
    """A replica that was away fetches what is new."""

    points = COMMIT
    quiet = False

    def prepare(self) -> None:
        world = self.world
        self.victim = world.copy(world.replica, GUTS_NETWORK__BOOTSTRAP_NODES=world.address)
        self.before = world.replicated[world.repository]
        world.change(world.steady_work)
        world.publish(world.steady, world.steady_work)
        self.after = refs(world.steady_work)

    def command(self) -> tuple[object, ...]:
        return ("seed", self.world.repository, "--from", self.world.address, "--timeout", 30)

    def check(self, found: dict[str, State], *, done: bool) -> None:
        assert found.keys() == {self.world.repository}
        deadline = time.monotonic() + 20
        while done and found[self.world.repository].refs != self.after and time.monotonic() < deadline:
            self.victim.guts("sync", self.world.repository)
            found = self.victim.states(quiet=False)
        state = found[self.world.repository]
        if state.seq > self.before.seq:
            assert state.refs == self.after
        else:
            assert state == self.before
            assert not done


class Unseeding(Round):
    """A repository is no longer seeded; its objects and records stay."""

    already = "NOT_SEEDED"
    points = ("seeding-changing", "seeding-changed", "files-written", "file-renamed", "transaction-written",
              "transaction-committed")  # fmt: skip

    def prepare(self) -> None:
        world = self.world
        self.victim = world.copy(world.template)
        self.repository = world.rng.choice(sorted(id_ for id_, state in world.held.items() if state.seeding))

    def command(self) -> tuple[object, ...]:
        return ("unseed", self.repository)

    def check(self, found: dict[str, State], *, done: bool) -> None:
        before = self.world.held
        seeding = found[self.repository].seeding
        assert not (done and seeding)
        after = State(before[self.repository].seq, before[self.repository].refs, seeding)
        assert found == {**before, self.repository: after}


class Migration(Round):
    """The node starts with a database of an earlier version."""

    points = ("backup-written", "backup-renamed", "schema-migrated", "schema-committed", "recovery-begun")

    def prepare(self) -> None:
        world = self.world
        overlay = world.folder / "later"
        if not overlay.exists():
            overlay.mkdir()
            (overlay / "guts").symlink_to(Path(guts.__file__).parent)
            shutil.copytree(scripts_directory(), overlay / "migrations")
            config = Config()
            config.set_main_option("script_location", str(scripts_directory()))
            head = ScriptDirectory.from_config(config).get_current_head()
            (overlay / "migrations" / "versions" / "9999_later.py").write_text(LATER.format(head=head))
        self.victim = world.copy(world.template, PYTHONPATH=str(overlay), PYTHONSAFEPATH="1")

    def command(self) -> tuple[object, ...]:
        return ()

    def check(self, found: dict[str, State], *, done: bool) -> None:
        assert found == self.world.held
        database = self.victim.paths.database
        for path, revision in ((database, "9999"), (database.with_name("guts.db.before-9999"), None)):
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                ((version,),) = connection.execute("SELECT version_num FROM alembic_version")
            assert (version == "9999") == (revision == "9999")


class Rebuilding(Round):
    """The node starts with a database that is damaged or gone."""

    points = ("database-set-aside", "repository-taken-in", "recovery-begun", "schema-migrated", "schema-committed",
              "quarantine-checked", "commit-begun", "identities-kept", "signed-refs-kept", "seeding-kept",
              "transaction-written", "transaction-committed", "commit-accepted", "refs-projecting", "file-renamed",
              "commit-projected", "commit-marked")  # fmt: skip

    def prepare(self) -> None:
        world = self.world
        self.victim = world.copy(world.template)
        database = self.victim.paths.database
        data = database.read_bytes()
        match world.rng.randrange(4):
            case 0:
                database.unlink()
            case 1:
                database.write_bytes(data[: world.rng.randrange(len(data))])
            case 2:
                database.write_bytes(world.rng.randbytes(len(data)))
            case _:
                database.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))

    def command(self) -> tuple[object, ...]:
        return ()

    def check(self, found: dict[str, State], *, done: bool) -> None:
        assert found == self.world.held


KINDS: Final[tuple[type[Round], ...]] = (
    FirstPublication, Publication, Seeding, Sync, Unseeding, Migration, Rebuilding,
)  # fmt: skip


def _texts(value: object) -> list[str]:
    assert isinstance(value, list)
    return [str(item) for item in value]
