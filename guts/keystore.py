"""Key files: the only place where a private key meets the disk.

The node key and the author key live in separate files, each readable by its owner alone: a node has no use
for the author key, so a stolen server can't sign refs. A file is a few lines of text that say what it is::

    guts-key 1
    kind: author
    public: auth1…
    secret: <64 hex digits>

or, under a passphrase, instead of ``secret``::

    argon2id: <operations> <memory in bytes> <salt, hex>
    sealed: <hex>

``sealed`` is a SecretBox (XSalsa20-Poly1305) of the 32-byte seed, under the key that argon2id makes of the
passphrase. What this does not promise: a passphrase doesn't protect a key while a process uses it, and a file
in the clear is as safe as the disk and the account it lies in.
"""

import contextlib
import getpass
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import ClassVar, Final, Self

import nacl.exceptions
import nacl.pwhash
import nacl.secret
import nacl.utils

from guts.errors import ExitStatus, GutsError, UsageError
from guts.identity import SEED_LENGTH, SigningKey

MAX_KEY_FILE_BYTES: Final = 4096
"""A key file has some 300 bytes; more is another file."""

MAX_PASSPHRASE_BYTES: Final = 1024

MAX_OPERATIONS: Final = 16
MAX_MEMORY: Final = 1 << 30
"""Of argon2id, in a file that is read: an imported file must not make this process ask for more."""

_VERSION_LINE: Final = "guts-key 1"


class KeyKind(Enum):
    """What a key is for; its text is the ``kind`` line."""

    NODE = "node"
    AUTHOR = "author"

    def public_text(self, key: SigningKey) -> str:
        """Return the id that ``key`` has in this use."""
        return str(key.peer_id if self is KeyKind.NODE else key.author_id)


@dataclass(frozen=True, slots=True)
class KdfCost:
    """Cost of argon2id: passes and bytes of memory."""

    operations: int
    memory: int


# libsodium's "moderate": about a second and 256 MiB, for a guess as for the owner.
MODERATE: Final = KdfCost(nacl.pwhash.argon2id.OPSLIMIT_MODERATE, nacl.pwhash.argon2id.MEMLIMIT_MODERATE)


class KeyMode(UsageError):
    """A key file, or its folder, is open to others than its owner."""

    code: ClassVar[str] = "KEY_MODE"


class BadKeyFile(UsageError):
    """A file is not a key file, is damaged, or holds the other kind of key."""

    code: ClassVar[str] = "BAD_KEY_FILE"


class NoKey(UsageError):
    """There is no key file where one is needed."""

    code: ClassVar[str] = "NO_KEY"
    exit_status: ClassVar[ExitStatus] = ExitStatus.NOT_FOUND


class KeyExists(UsageError):
    """A key file is there already; a key is never overwritten."""

    code: ClassVar[str] = "KEY_EXISTS"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED


class KeyLocked(UsageError):
    """A key is under a passphrase, and nobody is there to ask."""

    code: ClassVar[str] = "KEY_LOCKED"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED


class WrongPassphrase(UsageError):
    """The passphrase does not open the key."""

    code: ClassVar[str] = "WRONG_PASSPHRASE"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED


class KeyUnwritable(GutsError):
    """A key file or its folder can't be written or read."""

    code: ClassVar[str] = "KEY_FILE"


Ask = Callable[[str], str]
"""Returns the passphrase for what the argument names; raises ``KeyLocked``."""


@dataclass(frozen=True, slots=True)
class _Sealed:
    cost: KdfCost
    salt: bytes
    box: bytes


@dataclass(frozen=True, slots=True)
class KeyFile:
    """What a key file says.

    Attributes:
        public: the key's id, known without the passphrase.
    """

    kind: KeyKind
    public: str
    _secret: bytes | _Sealed

    @classmethod
    def of(cls, kind: KeyKind, key: SigningKey, passphrase: str | None, cost: KdfCost = MODERATE) -> Self:
        """Return the file for ``key``, sealed where there is a passphrase."""
        public = kind.public_text(key)
        if passphrase is None:
            return cls(kind, public, key.seed)
        salt = nacl.utils.random(nacl.pwhash.argon2id.SALTBYTES)
        box = nacl.secret.SecretBox(_derive(passphrase, salt, cost)).encrypt(key.seed)
        return cls(kind, public, _Sealed(cost, salt, bytes(box)))

    @classmethod
    def parse(cls, text: str, where: str) -> Self:
        """Return what ``text`` says.

        Raises:
            BadKeyFile: not a key file, or of a version that this program does not know.
        """
        lines = text.splitlines()
        if not lines or not re.fullmatch(r"guts-key \d+", lines[0]):
            raise BadKeyFile(f"{where} is not a Guts key file")
        if lines[0] != _VERSION_LINE:
            raise BadKeyFile(f"{where} is a key file of a newer format ({lines[0]})", hint="upgrade Guts")
        match [line.partition(": ")[::2] for line in lines[1:]]:
            case [("kind", kind), ("public", public), ("secret", secret)] if _hex(secret, SEED_LENGTH):
                return cls(_kind(kind, where), public, bytes.fromhex(secret))
            case [("kind", kind), ("public", public), ("argon2id", parameters), ("sealed", box)] if _hex(box):
                return cls(_kind(kind, where), public, _sealed(parameters, box, where))
            case _:
                raise BadKeyFile(f"{where} is a damaged key file")

    def format(self) -> str:
        """Return the text of the file."""
        lines = [_VERSION_LINE, f"kind: {self.kind.value}", f"public: {self.public}"]
        match self._secret:
            case _Sealed(cost, salt, box):
                lines += [f"argon2id: {cost.operations} {cost.memory} {salt.hex()}", f"sealed: {box.hex()}"]
            case seed:
                lines.append(f"secret: {seed.hex()}")
        return "\n".join(lines) + "\n"

    @property
    def locked(self) -> bool:
        """Whether a passphrase is needed."""
        return isinstance(self._secret, _Sealed)

    def unlock(self, ask: Ask, where: str) -> SigningKey:
        """Return the key.

        Raises:
            KeyLocked: a passphrase is needed and ``ask`` can't get one.
            WrongPassphrase: it does not open the key.
            BadKeyFile: the key is not the one that the file names.
        """
        match self._secret:
            case _Sealed(cost, salt, box):
                passphrase = ask(f"{self.kind.value} key {self.public}")
                try:
                    seed = nacl.secret.SecretBox(_derive(passphrase, salt, cost)).decrypt(box)
                except nacl.exceptions.CryptoError:
                    raise WrongPassphrase(f"the passphrase does not open the key in {where}") from None
            case seed:
                pass
        if len(seed) != SEED_LENGTH or self.kind.public_text(key := SigningKey(seed)) != self.public:
            raise BadKeyFile(f"the key in {where} is not the one that the file names: it was damaged or altered")
        return key


def _derive(passphrase: str, salt: bytes, cost: KdfCost) -> bytes:
    derived: bytes = nacl.pwhash.argon2id.kdf(
        nacl.secret.SecretBox.KEY_SIZE, passphrase.encode(), salt, cost.operations, cost.memory
    )
    return derived


def _hex(text: str, length: int | None = None) -> bool:
    return bool(re.fullmatch(r"(?:[0-9a-f]{2})+", text)) and length in (None, len(text) // 2)


def _kind(text: str, where: str) -> KeyKind:
    try:
        return KeyKind(text)
    except ValueError:
        raise BadKeyFile(f"{where} holds a key of the unknown kind {text!r}") from None


def _sealed(parameters: str, box: str, where: str) -> _Sealed:
    match = re.fullmatch(r"(\d{1,10}) (\d{1,12}) ([0-9a-f]{32})", parameters)
    if match is None:
        raise BadKeyFile(f"{where} is a damaged key file")
    cost = KdfCost(int(match[1]), int(match[2]))
    argon2id = nacl.pwhash.argon2id
    if not (
        argon2id.OPSLIMIT_MIN <= cost.operations <= MAX_OPERATIONS
        and argon2id.MEMLIMIT_MIN <= cost.memory <= MAX_MEMORY
    ):
        raise BadKeyFile(f"{where} asks for more work or memory than a key file may")
    return _Sealed(cost, bytes.fromhex(match[3]), bytes.fromhex(box))


def read_key_file(path: Path, kind: KeyKind) -> KeyFile:
    """Return the key file at ``path``.

    Raises:
        NoKey: there is none.
        KeyMode: others may read or write it.
        BadKeyFile: it is not a key file, or holds the other kind of key.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NoKey(f"there is no {kind.value} key in {path}", hint=f"guts id new --{kind.value}") from None
    except OSError as error:
        raise KeyUnwritable(f"can't read {path}: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadKeyFile(f"{path} is not a file")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise KeyMode(f"the key file {path} is open to others (mode {mode:04o})", hint=f"chmod 600 {path}")
        data = os.read(descriptor, MAX_KEY_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    return _parse(data, str(path), kind)


def _parse(data: bytes, where: str, kind: KeyKind) -> KeyFile:
    if len(data) > MAX_KEY_FILE_BYTES or not data.isascii():
        raise BadKeyFile(f"{where} is not a Guts key file")
    file = KeyFile.parse(data.decode("ascii"), where)
    if file.kind is not kind:
        raise BadKeyFile(f"{where} holds a key of kind {file.kind.value}; {kind.value} is needed here")
    return file


def write_key_file(path: Path, file: KeyFile) -> None:
    """Write ``file`` to a new file at ``path``, mode 0600 in a folder of mode 0700, whole or not at all.

    Raises:
        KeyExists: there is one already; it is left as it is.
        KeyUnwritable: the file system refuses.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        # Each by itself: ``parents`` would make those in between, of which the data folder is one, for all to read.
        for folder in reversed([folder for folder in path.parents if not folder.exists()]):
            folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as out:
                out.write(file.format().encode("ascii"))
                out.flush()
                os.fsync(out.fileno())
            # A hard link, unlike a rename, fails when somebody else's key got there first.
            os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except FileExistsError:
        raise KeyExists(f"there is a key in {path} already", hint="a key is never overwritten") from None
    except OSError as error:
        raise KeyUnwritable(f"can't write {path}: {error.strerror}") from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_key(path: Path, kind: KeyKind, ask: Ask) -> SigningKey:
    """Return the key at ``path``.

    Raises: what ``read_key_file`` and ``KeyFile.unlock`` raise.
    """
    return read_key_file(path, kind).unlock(ask, str(path))


def load_or_create_node_key(path: Path, environ: Mapping[str, str] | None = None) -> SigningKey:
    """Return the node key at ``path``; where there is none, a new one without a passphrase.

    Raises: what ``load_key`` and ``write_key_file`` raise.
    """
    ask = passphrase_source(os.environ if environ is None else environ)
    if not path.exists():
        # Where another process was first, its key is the key.
        with contextlib.suppress(KeyExists):
            write_key_file(path, KeyFile.of(KeyKind.NODE, SigningKey.generate(), None))
    return load_key(path, KeyKind.NODE, ask)


def export_key(file: KeyFile, key: SigningKey, passphrase: str, cost: KdfCost = MODERATE) -> str:
    """Return the text of an export of ``key``: a key file that is always under a passphrase."""
    return KeyFile.of(file.kind, key, passphrase, cost).format()


def import_key(text: bytes, where: str, path: Path, kind: KeyKind, ask: Ask) -> str:
    """Check the exported key in ``text``, write it to ``path`` as it is, and return its id.

    Raises: what ``KeyFile.unlock`` raises, and ``KeyExists``: a key is never overwritten.
    """
    if path.exists():
        raise KeyExists(f"there is a key in {path} already", hint="move it away first, if you mean it")
    file = _parse(text, where, kind)
    file.unlock(ask, where)
    write_key_file(path, file)
    return file.public


def passphrase_source(environ: Mapping[str, str]) -> Ask:
    """Return what asks for a passphrase: the file that ``GUTS_PASSPHRASE_FILE`` names, else the terminal."""
    named = environ.get("GUTS_PASSPHRASE_FILE")

    def ask(what: str) -> str:
        if named:
            return _read_passphrase(Path(named))
        if not sys.stdin.isatty():
            raise KeyLocked(
                f"the {what} is locked and there is no terminal to ask for its passphrase",
                hint="set GUTS_PASSPHRASE_FILE to a file that holds the passphrase",
            )
        return getpass.getpass(f"Passphrase for {what}: ")

    return ask


def _read_passphrase(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PASSPHRASE_BYTES + 2)
    except OSError as error:
        raise KeyLocked(f"can't read GUTS_PASSPHRASE_FILE {path}: {error.strerror}") from None
    try:
        passphrase = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise KeyLocked(f"GUTS_PASSPHRASE_FILE {path} is not UTF-8 text") from None
    if not passphrase or len(passphrase.encode()) > MAX_PASSPHRASE_BYTES:
        raise KeyLocked(f"GUTS_PASSPHRASE_FILE {path} is empty, or longer than {MAX_PASSPHRASE_BYTES} bytes")
    return passphrase
