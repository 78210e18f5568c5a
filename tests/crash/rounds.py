"""What a node does when it is killed: one class per operation."""

import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from alembic.config import Config
from alembic.script import ScriptDirectory

import guts
from guts.store.migration import scripts_directory
from tests.crash.round import Round
from tests.crash.state import State
from tests.crash.world import refs

ACCEPTANCE: Final = (
    "quarantine-checked", "commit-begun", "packs-migrated", "identities-kept", "proofs-kept", "signed-refs-kept",
    "seeding-kept", "commit-accepted", "refs-projecting", "refs-projected", "commit-projected", "refs-synced",
    "commit-marked", "files-written", "file-renamed", "transaction-written", "transaction-committed",
)  # fmt: skip
COMMIT: Final = ("quarantine-indexed", "pack-renamed", "index-renamed", *ACCEPTANCE)
PUBLISH: Final = ("publication-prepared", "publication-signed", "publication-committed")
IDENTITY: Final = ("identity-extended", "identity-committed")
NEW: Final = MappingProxyType(
    {"files-written": 5, "file-renamed": 5, "transaction-written": 3, "transaction-committed": 3}
)
"""How often the first acceptance of a repository passes some points."""

DOCUMENT_ALONE: Final = MappingProxyType(
    {"files-written": 4, "file-renamed": 3, "transaction-written": 2, "transaction-committed": 2}
)
ARRIVAL_TIMEOUT: Final = 20.0

LATER: Final = '''"""A later revision."""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = {head!r}


def upgrade() -> None:
    op.create_table("later", sa.Column("id", sa.Integer(), primary_key=True))
    op.add_column("repositories", sa.Column("later", sa.Integer(), nullable=True))
'''


class FirstPublication(Round):
    """A repository is published for the first time, on a new node."""

    points = ("repository-initialised", "schema-migrated", "schema-committed", "recovery-begun", *COMMIT, *PUBLISH)
    repeated = NEW

    def prepare(self) -> None:
        self.victim = self.world.victim("first")
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
        return ("publish", self.work, "--force", "--prune")

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
    repeated = NEW

    def prepare(self) -> None:
        self.victim = self.world.victim("replica")

    def command(self) -> tuple[object, ...]:
        return ("seed", self.world.repository, "--from", self.world.steady.address, "--timeout", 30)

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
        self.victim = world.copy(world.replica, GUTS_NETWORK__BOOTSTRAP_NODES=world.steady.address)
        self.before = world.replicated[world.repository]
        world.change(world.steady_work)
        world.publish(world.steady, world.steady_work)
        self.after = refs(world.steady_work)

    def command(self) -> tuple[object, ...]:
        return ("seed", self.world.repository, "--from", self.world.steady.address, "--timeout", 30)

    def check(self, found: dict[str, State], *, done: bool) -> None:
        assert found.keys() == {self.world.repository}
        deadline = time.monotonic() + ARRIVAL_TIMEOUT
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
    repeated = MappingProxyType({})
    longest = 0.1
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
        assert found == {**before, self.repository: replace(before[self.repository], seeding=seeding)}


class Removing(Round):
    """A repository is no longer seeded, and goes at once: it is here, seeded or not, or nothing of it is."""

    already = "NOT_SEEDED"
    repeated = MappingProxyType({"transaction-written": 3, "transaction-committed": 3})
    longest = 0.1
    points = ("removal-begun", "removal-set-aside", "removal-committed", "seeding-changed", "transaction-written",
              "transaction-committed")  # fmt: skip

    def prepare(self) -> None:
        world = self.world
        self.victim = world.copy(world.template)
        self.repository = world.rng.choice(sorted(world.held))

    def command(self) -> tuple[object, ...]:
        return ("unseed", self.repository, "--now")

    def check(self, found: dict[str, State], *, done: bool) -> None:
        left = dict(self.world.held)
        before = left.pop(self.repository)
        if self.repository in found:
            assert not done
            left[self.repository] = replace(before, seeding=found[self.repository].seeding)
        assert found == left
        root = self.victim.home / "data" / "repos"
        assert sorted(path.name for path in root.iterdir()) == sorted(f"{id_}.git" for id_ in found)


class IdentityChange(Round):
    """A new identity document is applied, on a node whose replica is connected."""

    points = (*ACCEPTANCE, *IDENTITY)
    repeated = DOCUMENT_ALONE
    longest = 0.15

    def prepare(self) -> None:
        world = self.world
        self.change = world.rng.choice(world.changes)
        self.follower = self.other(world.copy(world.follower))
        self.victim = world.copy(world.template, GUTS_NETWORK__BOOTSTRAP_NODES=self.follower.address)

    def command(self) -> tuple[object, ...]:
        return ("identity", "apply", self.change.file)

    def check(self, found: dict[str, State], *, done: bool) -> None:
        world = self.world
        after = replace(world.held[world.shared], identity=self.change.identity)
        assert found in ({**world.held, world.shared: after}, *(() if done else (world.held,)))
        followed = self.follower.states(quiet=False)
        deadline = time.monotonic() + ARRIVAL_TIMEOUT
        while done and followed == world.followed and time.monotonic() < deadline:
            self.follower.guts("sync", world.shared)
            followed = self.follower.states(quiet=False)
        arrived = followed == {world.shared: after}
        assert arrived or (not done and followed == world.followed)
        assert not (arrived and found == world.held), "what was told to another is forgotten"


class IdentityArrival(Round):
    """A replica that was away fetches a new identity document."""

    points = ACCEPTANCE
    quiet = False
    repeated = DOCUMENT_ALONE
    longest = 0.15

    def prepare(self) -> None:
        world = self.world
        self.change = world.rng.choice(world.changes)
        self.holder = self.other(world.copy(world.template))
        assert self.holder.guts("identity", "apply", self.change.file).status == 0
        self.victim = world.copy(world.follower, GUTS_NETWORK__BOOTSTRAP_NODES=self.holder.address)

    def command(self) -> tuple[object, ...]:
        return ("seed", self.world.shared, "--from", self.holder.address, "--timeout", 30)

    def check(self, found: dict[str, State], *, done: bool) -> None:
        world = self.world
        before = world.followed[world.shared]
        deadline = time.monotonic() + ARRIVAL_TIMEOUT
        while done and found[world.shared] == before and time.monotonic() < deadline:
            self.victim.guts("sync", world.shared)
            found = self.victim.states(quiet=False)
        after = replace(before, identity=self.change.identity)
        assert found in ({world.shared: after}, *(() if done else (world.followed,)))


class Migration(Round):
    """The node starts with a database of an earlier version."""

    longest = 1.5

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
        self.victim = world.copy(world.template, fresh=True, PYTHONPATH=str(overlay), PYTHONSAFEPATH="1")

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
              "quarantine-checked", "commit-begun", "identities-kept", "proofs-kept", "signed-refs-kept",
              "seeding-kept", "transaction-written", "transaction-committed", "commit-accepted", "refs-projecting",
              "file-renamed", "commit-projected", "refs-synced", "commit-marked")  # fmt: skip

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
    FirstPublication, Publication, Seeding, Sync, Unseeding, Removing, IdentityChange, IdentityArrival, Migration,
    Rebuilding,
)  # fmt: skip
