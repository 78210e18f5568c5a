"""What the operator chooses, and where a node keeps its things.

Only local choices live here; what peers must agree on is a constant in ``guts/wire/limits.py``. Settings come
from three places, each overriding the one before: the TOML file, the environment
(``GUTS_NETWORK__LISTEN_ADDR=…``, lists separated by commas), and flags; those of ``[limits]`` (``guts/limits.py``)
also from what ``guts limits set`` keeps, which overrides the TOML file. A key that does not exist is an error
with the nearest name: a misspelt limit must not silently be no limit.
"""

import difflib
import hashlib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Self, TypeVar

from guts import config_values as values
from guts.addresses import Address, BootstrapAddress
from guts.errors import ExitStatus, GutsError, UsageError
from guts.ids import PeerId
from guts.limits import LIMITS, BadLimit, LimitLayers, Source, known_limit

MAX_CONFIG_BYTES: Final = 1 << 20
"""A config file is a page of text; a larger one is some other file."""

MAX_SOCKET_PATH_BYTES: Final = 100
"""``sun_path`` has 104 bytes on BSD and macOS and 108 on Linux, its final NUL included."""

DEFAULT_LISTEN: Final = Address("0.0.0.0", 9000)  # noqa: S104

T = TypeVar("T")


class BadConfig(UsageError):
    """A setting is unknown or has a value that it can't have."""

    code: ClassVar[str] = "BAD_CONFIG"
    exit_status: ClassVar[ExitStatus] = ExitStatus.CONFIG


@dataclass(frozen=True, slots=True)
class Paths:
    """Where one node's files are: XDG directories, or all under ``GUTS_HOME``.

    Attributes:
        config_file: TOML; need not exist.
        data: keys, repositories, database: what a backup must hold.
        state: the log.
        runtime: the control socket, mode 0700.
    """

    config_file: Path
    data: Path
    state: Path
    runtime: Path

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Return the paths that ``GUTS_HOME``, ``GUTS_CONFIG`` and the ``XDG_*`` variables name."""
        home = environ.get("GUTS_HOME")
        if home:
            root = Path(home).expanduser().absolute()
            paths = cls(root / "config.toml", root / "data", root / "state", root / "run")
        else:
            state = xdg_folder(environ, "XDG_STATE_HOME", ".local/state") / "guts"
            paths = cls(
                xdg_folder(environ, "XDG_CONFIG_HOME", ".config") / "guts/config.toml",
                xdg_folder(environ, "XDG_DATA_HOME", ".local/share") / "guts",
                state,
                xdg_folder(environ, "XDG_RUNTIME_DIR", state / "run") / "guts",
            )
        config = environ.get("GUTS_CONFIG")
        if config:
            paths = cls(Path(config).expanduser().absolute(), paths.data, paths.state, paths.runtime)
        return paths

    @property
    def node_key(self) -> Path:
        """The node key's default place."""
        return self.data / "identity" / "node.key"

    @property
    def author_key(self) -> Path:
        """The author key: read by commands, never by the node."""
        return self.data / "identity" / "author.key"

    @property
    def repositories(self) -> Path:
        """The folder of bare repositories."""
        return self.data / "repos"

    @property
    def database(self) -> Path:
        """The SQLite database, where no ``storage.database_url`` is set."""
        return self.data / "guts.db"

    @property
    def limits_file(self) -> Path:
        """What ``guts limits set`` keeps; written by the node."""
        return self.data / "limits.toml"

    @property
    def log_file(self) -> Path:
        """Where ``guts node start`` sends the node's log."""
        return self.state / "node.log"

    @property
    def control_socket(self) -> Path:
        """The control API's Unix socket; where its path is too long, a hashed name in ``/tmp``."""
        path = self.runtime / "control.sock"
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
            return path
        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        # /tmp and not TMPDIR, which may be long too and may differ between the node and the command. The
        # folder is made 0700, and both ends check that it is the user's own.
        return Path(f"/tmp/guts-{os.geteuid()}") / f"{digest}.sock"  # noqa: S108


def xdg_folder(environ: Mapping[str, str], name: str, default: str | Path) -> Path:
    """Return the folder that an ``XDG_*`` variable names, else ``default``, which counts from the user's home."""
    value = environ.get(name, "")
    # The XDG Base Directory specification: a relative path is invalid and is ignored.
    return Path(value) if value.startswith("/") else Path(environ.get("HOME") or "~").expanduser() / default


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """``[network]``: how this node is reached and whom it calls first.

    Attributes:
        keypair: the node key's file; made at the first start.
        listen_addr: TCP and UDP; port 0 takes any free one.
        bootstrap_nodes: doors to the network; also any peer.
        max_connections: peers connected at a time, both directions.
        connection_timeout: seconds for connect, handshake and hello together.
        keepalive_interval: seconds of silence before a ping.
        advertise: addresses told to others; empty: those of the interfaces.
        trusted_peers: nodes of the operator's own, or of friends: their faults are counted and never shut them out.
        network_name: nodes of different names never talk to each other.
        role: ``bootstrap`` is a door only, and holds no repository.
    """

    keypair: Path
    listen_addr: Address = DEFAULT_LISTEN
    bootstrap_nodes: tuple[BootstrapAddress, ...] = ()
    max_connections: int = 50
    connection_timeout: float = 10.0
    keepalive_interval: float = 30.0
    advertise: tuple[Address, ...] = ()
    trusted_peers: frozenset[PeerId] = frozenset()
    network_name: str = "guts"
    role: values.Role = "node"


@dataclass(frozen=True, slots=True)
class SeedingConfig:
    """``[seeding]``: what this node takes on.

    Attributes:
        repo_max: bytes of one repository; what others have above that is refused.
        sync_interval: seconds between comparisons with other holders, before jitter.
        repositories: take on what anybody announces, as far as the quotas go.
        max_repositories: taken on at the most by that, or because their maintainer is followed. Each costs a folder,
            rows, and a question a minute.
        disk: bytes of all repositories together; nothing is fetched that would make it more.
        min_free: bytes of the file system that stay free; ``None``: 1 GiB or 5 %, whichever is more.
        grace: seconds from the end of the seeding of a repository to its removal.
    """

    repo_max: int = 2 * 1024**3
    sync_interval: float = 60.0
    repositories: bool = False
    max_repositories: int = 1_000
    disk: int = 50 * 1024**3
    min_free: int | None = None
    grace: float = 86_400.0


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """``[storage]``.

    Attributes:
        database_url: an SQLAlchemy URL.
    """

    database_url: str


@dataclass(frozen=True, slots=True)
class LogConfig:
    """``[log]``."""

    level: values.LogLevel = "info"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that the operator chose."""

    paths: Paths
    network: NetworkConfig
    seeding: SeedingConfig
    storage: StorageConfig
    log: LogConfig
    limits: LimitLayers = field(default_factory=LimitLayers)

    @classmethod
    def load(cls, flags: Mapping[str, str], environ: Mapping[str, str]) -> Self:
        """Return the settings of the file, overridden by ``environ``, overridden by ``flags``.

        Args:
            flags: dotted names to texts, ``{"network.listen_addr": "127.0.0.1:0"}``.
            environ: as ``os.environ``.

        Raises:
            BadConfig: an unknown key, a bad value, or a file that can't be read.
        """
        paths = Paths.from_environ(environ)
        settings = _Settings()
        settings.add_file(paths.config_file, required="GUTS_CONFIG" in environ)
        settings.set_limits_aside("config file")
        written = f"guts limits set wrote it; delete {paths.limits_file} to go by the other limits again"
        settings.add_file(paths.limits_file, required=False, hint=written)
        settings.set_limits_aside("limits set")
        settings.add_environ(environ)
        settings.set_limits_aside("environment")
        for key, value in flags.items():
            settings.values[key] = (value, "the command line")
        settings.set_limits_aside("command line")
        network = NetworkConfig(paths.node_key)
        seeding = SeedingConfig()
        log = LogConfig()
        take = settings.take
        config = cls(
            paths,
            NetworkConfig(
                keypair=take("network.keypair", values.path, network.keypair),
                listen_addr=take("network.listen_addr", values.address, network.listen_addr),
                bootstrap_nodes=take("network.bootstrap_nodes", values.list_of(values.bootstrap), ()),
                max_connections=take("network.max_connections", values.connections, network.max_connections),
                connection_timeout=take("network.connection_timeout", values.duration, network.connection_timeout),
                keepalive_interval=take("network.keepalive_interval", values.duration, network.keepalive_interval),
                advertise=take("network.advertise", values.list_of(values.advertised), ()),
                trusted_peers=take("network.trusted_peers", values.peers, network.trusted_peers),
                network_name=take("network.network_name", values.network_name, network.network_name),
                role=take("network.role", values.role, network.role),
            ),
            SeedingConfig(
                repo_max=take("seeding.repo_max", values.size, seeding.repo_max),
                sync_interval=take("seeding.sync_interval", values.duration, seeding.sync_interval),
                repositories=take("seeding.repositories", values.switch, seeding.repositories),
                max_repositories=take("seeding.max_repositories", values.repositories, seeding.max_repositories),
                disk=take("seeding.disk", values.size, seeding.disk),
                min_free=take("seeding.min_free", values.size, seeding.min_free),
                grace=take("seeding.grace", values.grace, seeding.grace),
            ),
            StorageConfig(take("storage.database_url", values.text, f"sqlite:///{paths.database}")),
            LogConfig(take("log.level", values.log_level, log.level)),
            LimitLayers(settings.limits),
        )
        settings.refuse_unknown()
        return config


class _Settings:
    """The layers merged: dotted key -> (value as found, where it was found)."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[object, str]] = {}
        self.limits: dict[Source, dict[str, float]] = {}
        self._known: list[str] = [f"limits.{name}" for name in LIMITS]
        self._texts: dict[str, str] = {}

    def add_file(self, path: Path, *, required: bool, hint: str | None = None) -> None:
        try:
            with path.open("rb") as file:
                data = file.read(MAX_CONFIG_BYTES + 1)
        except FileNotFoundError:
            if required:
                raise BadConfig(f"there is no config file {path}", hint="GUTS_CONFIG or --config names it") from None
            return
        except OSError as error:
            raise BadConfig(f"can't read {path}: {error.strerror}") from None
        if len(data) > MAX_CONFIG_BYTES:
            raise BadConfig(f"{path} is larger than {MAX_CONFIG_BYTES} bytes; is it a config file?")
        try:
            self._texts[str(path)] = text = data.decode()
            tables = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            why = error if isinstance(error, tomllib.TOMLDecodeError) else "it is not UTF-8 text"
            raise BadConfig(f"{path} is not TOML: {why}", hint=hint) from None
        for section, table in tables.items():
            if not isinstance(table, dict):
                self.values[section] = (table, str(path))
                continue
            if not table:
                # An empty section says nothing, but a misspelt one is still worth telling.
                self.values.setdefault(section + ".", (None, str(path)))
            for key, value in table.items():
                self.values[f"{section}.{key}"] = (value, str(path))

    def add_environ(self, environ: Mapping[str, str]) -> None:
        for name, value in environ.items():
            section, separator, key = name.removeprefix("GUTS_").partition("__")
            if name.startswith("GUTS_") and separator:
                self.values[f"{section}.{key}".lower()] = (value, f"environment variable {name}")

    def set_limits_aside(self, source: Source) -> None:
        """Keep what the layer that was just added says of ``[limits]``: they are told, and changed, by their source."""
        read: dict[str, float] = {}
        self.limits[source] = read
        for key in list(self.values):
            if not key.startswith("limits.") or key == "limits.":
                continue
            value, origin = self.values.pop(key)
            name = key.removeprefix("limits.")
            try:
                read[name] = known_limit(name).parse(name, value)
            except BadLimit as error:
                # None of the commands that error.hint may tell works where no node can start.
                hint = f"such as {LIMITS[name].example}" if name in LIMITS else error.hint
                if source == "limits set":
                    hint = f"delete {self._line_of(name, origin)} {origin}"
                raise BadConfig(f"{error} (in {origin})", hint=hint) from None

    def _line_of(self, name: str, origin: str) -> str:
        for number, line in enumerate(self._texts[origin].splitlines(), 1):
            if re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*=", line):
                return f"line {number} of"
        return f"{name} from"

    def take(self, key: str, parse: Callable[[object], T], default: T) -> T:
        """Return the parsed value of ``key``, or ``default`` where nobody set it."""
        self._known.append(key)
        if key not in self.values:
            return default
        value, origin = self.values[key]
        try:
            return parse(value)
        except (ValueError, GutsError) as error:
            raise BadConfig(f"{key} in {origin}: {error}") from None

    def refuse_unknown(self) -> None:
        sections = {key.partition(".")[0] + "." for key in self._known}
        for key, (_, origin) in self.values.items():
            if key in self._known or key in sections:
                continue
            near = difflib.get_close_matches(key, self._known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else "docs/commands.md lists every setting"
            raise BadConfig(f"there is no setting {key.rstrip('.')!r} (in {origin})", hint=hint)
