"""The shape of the code, enforced: who may import whom, and what pure code never touches.

Works on the syntax trees of the sources, so nothing is imported or run. Each rule is also shown to catch
a source that breaks it.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

PACKAGE: Final = Path(__file__).parents[2] / "guts"

_VALUES: Final = {"ids", "errors", "clock", "addresses", "canonical", "crash", "sizes"}
_KEYS: Final = {"identity", "records", "config", "keystore", "limits"}
_PURE_PACKAGES: Final = {"noise", "wire", "trust", "peers", "gossip", "sync", "service"}
_PURE: Final = _PURE_PACKAGES | {"events", "effects"}

LAYERS: Final[tuple[set[str], ...]] = (
    _VALUES,
    _KEYS,
    {"noise"},
    {"wire"},
    {"trust"},
    {"events", "effects"},
    {"peers", "gossip", "sync"},
    {"service"},
    {"node"},
    {"api"},
    {"app"},
    {"cli"},
    {"remote_helper"},
    {"__main__"},
)
"""From the inside out: a part imports from layers before its own, and from its own layer where FRIENDS says so."""

FRIENDS: Final = (_VALUES, _KEYS, {"events", "effects"})
"""Layers whose members may import each other; the others' never do."""

BESIDE: Final[dict[str, set[str]]] = {
    "store": _VALUES | _KEYS,
    "git": _VALUES | _KEYS,
    "discovery": _VALUES | _KEYS,
    "net": _VALUES | _KEYS | {"noise", "wire"},
}
"""The outside world, one package each, and what each may import besides itself."""

USERS_OF_BESIDE: Final = {"node", "api", "app", "cli", "remote_helper"}

IMPURE_MODULES: Final = {
    "aiohttp",
    "asyncio",
    "kademlia",
    "multiprocessing",
    "os",
    "rpcudp",
    "secrets",
    "select",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "sqlalchemy",
    "sqlite3",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "uuid",
}
IMPURE_CALLS: Final = {
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "nacl.utils.random",
    "open",
    "input",
    "print",
}
FACTORIES: Final = {("guts.noise.keys", "nacl.utils.random")}
"""``KeyPair.generate`` is itself the factory that the edge injects; nothing pure may name it."""

IO_METHODS: Final = {
    "exists", "is_dir", "is_file", "iterdir", "mkdir", "open", "read_bytes", "read_text", "rename", "rmdir",
    "stat", "touch", "unlink", "write_bytes", "write_text",
}  # fmt: skip
"""Methods of ``pathlib.Path`` that touch a disk; looked for where a module imports ``pathlib``."""

PICKLES: Final = {"pickle", "cPickle", "shelve", "marshal", "dill", "cloudpickle", "jsonpickle"}
STARTS_PROCESSES: Final = {
    "asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell", "os.execv", "os.execve", "os.execvp",
    "os.fork", "os.popen", "os.posix_spawn", "os.system", "subprocess.Popen", "subprocess.call",
    "subprocess.check_call", "subprocess.check_output", "subprocess.run",
}  # fmt: skip

MAY_START_PROCESSES: Final = {"git", "cli", "remote_helper"}
"""``git`` runs git; ``cli`` starts nodes (``cluster``, ``demo``, ``node start``)."""


@dataclass(frozen=True, slots=True)
class Source:
    """One module.

    Attributes:
        name: dotted, ``guts.wire.codec``.
        is_package: whether it is an ``__init__``.
    """

    name: str
    is_package: bool
    tree: ast.Module

    @property
    def part(self) -> str:
        """The part of Guts that it belongs to; empty for ``guts`` itself."""
        return [*self.name.split("."), ""][1]

    @classmethod
    def parse(cls, name: str, text: str, *, is_package: bool = False) -> "Source":
        return cls(name, is_package, ast.parse(text))

    def imports(self) -> Iterator[tuple[int, str]]:
        """Yield line and dotted name of everything imported anywhere in the module, relative names resolved."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parents = self.name.split(".")
                    parents = parents[: len(parents) - node.level + self.is_package]
                    base = ".".join([*parents, *([base] if base else [])])
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)

    def names(self) -> dict[str, str]:
        """Return what each imported name stands for."""
        found: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    found[alias.asname or alias.name.split(".")[0]] = (
                        alias.name if alias.asname else alias.name.split(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom) and not node.level:
                for alias in node.names:
                    found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        return found

    def uses(self) -> Iterator[tuple[int, str]]:
        """Yield line and full dotted name of every use of an imported or built-in name."""
        names = self.names()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute | ast.Name):
                dotted = _dotted(node)
                if dotted is not None:
                    first, _, rest = dotted.partition(".")
                    yield node.lineno, names.get(first, first) + (f".{rest}" if rest else "")


def _dotted(node: ast.expr) -> str | None:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attribute):
            before = _dotted(value)
            return None if before is None else f"{before}.{attribute}"
        case _:
            return None


def layer(part: str) -> int | None:
    """Return the number of the layer of ``part``, ``None`` if it stands beside them."""
    return next((number for number, parts in enumerate(LAYERS) if part in parts), None)


def may_import(part: str, other: str) -> bool:
    """Tell whether ``part`` of Guts may import ``other``."""
    if part == other:
        return True
    if part in BESIDE:
        return other in BESIDE[part]
    if other in BESIDE:
        return part in USERS_OF_BESIDE
    mine, others = layer(part), layer(other)
    if mine is None or others is None:
        return False
    return others < mine or any(part in friends and other in friends for friends in FRIENDS)


def order_faults(source: Source) -> list[str]:
    """Return the imports that go the wrong way."""
    return [
        f"{source.name}:{line} imports {name}"
        for line, name in source.imports()
        if name.startswith("guts.")
        and not may_import(source.part, name.split(".")[1])
        # guts.__version__ and guts.__file__ are no part.
        and not name.split(".")[1].startswith("__")
    ]


def purity_faults(source: Source) -> list[str]:
    """Return what a pure module must not touch: the world, clocks, global randomness."""
    faults = [
        f"{source.name}:{line} imports {name}"
        for line, name in source.imports()
        if name.split(".")[0] in IMPURE_MODULES
        or name in ("pathlib.PosixPath", "random.SystemRandom", "guts.crash.crash_point")
    ]
    for line, name in source.uses():
        if (source.name, name) in FACTORIES:
            continue
        if (
            name in IMPURE_CALLS
            or (name.startswith("random.") and name != "random.Random")
            or name.endswith(("KeyPair.generate", "SigningKey.generate"))
        ):
            faults.append(f"{source.name}:{line} uses {name}")
    if "pathlib" in {name.split(".")[0] for _, name in source.imports()}:
        faults += [
            f"{source.name}:{node.lineno} calls .{node.attr}"
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Attribute) and node.attr in IO_METHODS
        ]
    return faults


def broad_handlers(source: Source) -> list[str]:
    """Return the handlers that swallow bugs: bare ``except`` and ``except Exception``; and ``BaseException``
    where nothing is raised again."""
    faults = []
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        names = {"" if kind is None else _dotted(kind) for kind in caught}
        raises = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
        if names & {"", "Exception"} or ("BaseException" in names and not raises):
            faults.append(f"{source.name}:{node.lineno}")
    return faults


def pickles(source: Source) -> list[str]:
    """Return the imports of anything that runs code while it reads data."""
    return [f"{source.name}:{line}" for line, name in source.imports() if name.split(".")[0] in PICKLES]


def processes(source: Source) -> list[str]:
    """Return the places that start processes outside the parts that may."""
    if source.part in MAY_START_PROCESSES:
        return []
    return [f"{source.name}:{line} {name}" for line, name in source.uses() if name in STARTS_PROCESSES]


def names_git(source: Source) -> list[str]:
    """Return the places outside ``guts.git`` where an argument list begins with ``git``."""
    if source.part == "git":
        return []
    return [
        f"{source.name}:{node.lineno}"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.List | ast.Tuple)
        and node.elts
        and isinstance(node.elts[0], ast.Constant)
        and node.elts[0].value in ("git", "/usr/bin/git")
        and len(node.elts) > 1
    ] + [
        f"{source.name}:{node.lineno}"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and node.args[0].value == "git"
        and (_dotted(node.func) or "").rpartition(".")[2]
        in {"create_subprocess_exec", "run", "Popen", "check_output", "check_call", "call", "execvp"}
    ]


def _sources() -> list[Source]:
    sources = []
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE.parent).with_suffix("")
        is_package = inside.name == "__init__"
        parts = inside.parent.parts if is_package else inside.parts
        sources.append(Source.parse(".".join(parts), path.read_text(encoding="utf-8"), is_package=is_package))
    return sources


SOURCES: Final = _sources()


def test_every_part_has_its_place() -> None:
    known = set().union(*LAYERS) | set(BESIDE)
    unknown = {source.part for source in SOURCES} - known - {""}
    assert not unknown, "a new part of Guts needs a place in LAYERS or BESIDE"


def test_imports_go_one_way() -> None:
    assert [fault for source in SOURCES if source.part for fault in order_faults(source)] == []


def test_root_package_imports_nothing() -> None:
    assert [fault for source in SOURCES if source.name == "guts" for fault in source.imports()] == []


def test_pure_packages_touch_nothing_outside() -> None:
    assert [fault for source in SOURCES if source.part in _PURE for fault in purity_faults(source)] == []


def test_every_module_and_package_says_what_it_is() -> None:
    assert [source.name for source in SOURCES if not ast.get_docstring(source.tree)] == []


def test_no_handler_swallows_bugs() -> None:
    assert [fault for source in SOURCES for fault in broad_handlers(source)] == []


def test_nothing_unpickles() -> None:
    """Threat H3: reading state never runs code."""
    assert [fault for source in SOURCES for fault in pickles(source)] == []


def test_processes_are_started_where_they_may_be() -> None:
    assert [fault for source in SOURCES for fault in processes(source)] == []


def test_only_the_git_package_runs_git() -> None:
    """Threat B9: one place builds git's argument lists."""
    assert [fault for source in SOURCES for fault in names_git(source)] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("guts.wire.codec", "from guts.trust import acceptance"),
        ("guts.noise.state", "import guts.wire.limits"),
        ("guts.ids", "from guts.records import Signed"),
        ("guts.gossip.protocol", "from guts.peers.manager import PeerManager"),
        ("guts.store.peers", "from guts.trust.identity import IdentityDocument"),
        ("guts.store.peers", "from guts.git import repository"),
        ("guts.net.tcp", "def later():\n    from guts.service.node import Service"),
        ("guts.service.core", "from guts.store.database import Database"),
        ("guts.peers.manager", "from ..service import core"),
        ("guts.node.driver", "from guts.api import server"),
    ],
)
def test_import_against_the_order_is_caught(name: str, text: str) -> None:
    assert order_faults(Source.parse(name, text))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("guts.wire.codec", "from guts.noise.states import HandshakeState"),
        ("guts.ids", "from guts.errors import UsageError"),
        ("guts.net.tcp", "from guts.wire.connection import Connection"),
        ("guts.node.driver", "from guts.store.database import Database\nfrom guts.trust import acceptance"),
        ("guts.store.migration", "import guts\nfrom guts import __version__"),
        ("guts.peers.manager", "from . import state\nfrom .score import Score"),
    ],
)
def test_import_along_the_order_passes(name: str, text: str) -> None:
    assert order_faults(Source.parse(name, text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "import asyncio",
        "from time import monotonic",
        "from guts.crash import crash_point",
        "import os.path",
        "import random\nrandom.random()",
        "import random as r\nr.shuffle([])",
        "from random import choice\nchoice([1])",
        "import random\nrng = random.SystemRandom()",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime as moment\nmoment.now()",
        "from pathlib import Path\nPath('x').read_bytes()",
        "open('x')",
        "import nacl.utils\nnacl.utils.random(32)",
        "def later():\n    import socket",
        "from guts.noise.keys import KeyPair\nKeyPair.generate()",
        "from guts.identity import SigningKey as Key\nfactory = Key.generate",
    ],
)
def test_impurity_is_caught(text: str) -> None:
    assert purity_faults(Source.parse("guts.wire.codec", text))


@pytest.mark.parametrize(
    "text",
    [
        "import random\ndef draw(rng: random.Random) -> int:\n    return rng.randrange(3)",
        "from random import Random\ndef draw(rng: Random) -> int:\n    return rng.randrange(3)",
        "from pathlib import PurePosixPath\nPurePosixPath('a/b').name",
        "class Stream:\n    def open(self) -> None: ...\nStream().open()",
    ],
)
def test_injected_randomness_and_pure_paths_pass(text: str) -> None:
    assert purity_faults(Source.parse("guts.wire.codec", text)) == []


def test_broad_handlers_are_caught_and_others_pass() -> None:
    def handled(clause: str, body: str = "pass") -> list[str]:
        return broad_handlers(Source.parse("guts.x", f"try:\n    f()\n{clause}:\n    {body}"))

    assert handled("except Exception")
    assert handled("except (OSError, Exception) as error")
    assert handled("except")
    assert handled("except BaseException")
    assert not handled("except BaseException", "raise")
    assert not handled("except (OSError, TimeoutError)")


def test_pickles_and_processes_are_caught() -> None:
    assert pickles(Source.parse("guts.store.x", "def later():\n    from pickle import loads"))
    assert processes(Source.parse("guts.node.x", "import subprocess as s\ns.run(['true'])"))
    assert processes(Source.parse("guts.node.x", "from asyncio import create_subprocess_exec as go\ngo('x')"))
    assert not processes(Source.parse("guts.git.x", "import subprocess\nsubprocess.run(['true'])"))
    assert names_git(Source.parse("guts.cli.x", "import subprocess\nsubprocess.run(['git', 'status'])"))
    assert names_git(Source.parse("guts.cli.x", "import asyncio\nasyncio.create_subprocess_exec('git', 'status')"))
    assert not names_git(Source.parse("guts.git.x", "import subprocess\nsubprocess.run(['git', 'status'])"))
