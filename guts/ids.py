"""Ids: what they are in memory, and how people read and type them.

In memory an id is its bytes, in a type of its own so that mypy tells them apart. For people it is bech32
(BIP 173): lower case, a prefix that says what kind of thing it names, and six check characters, so that a
mistyped id and an id of the wrong kind are told apart. ``repo1…`` has 63 characters: one DNS label.
"""

import functools
from typing import ClassVar, Final, Self, final

from guts.errors import UsageError

_CHARSET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM_LENGTH: Final = 6
MAX_BECH32_LENGTH: Final = 90
"""BIP 173: up to here the check characters find every slip in at most four characters."""


class BadId(UsageError):
    """A text that should be an id is not one; ``problem`` says which of the possible slips it is."""

    code: ClassVar[str] = "BAD_ID"

    def __init__(self, text: str, problem: str, *, hint: str | None = None) -> None:
        shown = text if len(text) <= 80 else text[:77] + "..."
        super().__init__(f"{shown!r} {problem}", hint=hint)
        self.text = text
        self.problem = problem


def _polymod(values: list[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATOR):
            checksum ^= generator if top >> bit & 1 else 0
    return checksum


def _expand(prefix: str) -> list[int]:
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def bech32_encode(prefix: str, data: bytes) -> str:
    """Return ``data`` as bech32 (BIP 173) text under ``prefix``."""
    bits = int.from_bytes(data, "big")
    length = (len(data) * 8 + 4) // 5
    bits <<= length * 5 - len(data) * 8
    words = [bits >> 5 * (length - 1 - i) & 31 for i in range(length)]
    polymod = _polymod([*_expand(prefix), *words, *[0] * _CHECKSUM_LENGTH]) ^ 1
    check = [polymod >> 5 * (_CHECKSUM_LENGTH - 1 - i) & 31 for i in range(_CHECKSUM_LENGTH)]
    return prefix + "1" + "".join(_CHARSET[word] for word in [*words, *check])


def bech32_decode(text: str) -> tuple[str, bytes]:
    """Return the prefix and the data of bech32 ``text`` (BIP 173; mixed case is refused, as there).

    Raises:
        BadId: ``text`` is not bech32; the error says where it went wrong, if that can be known.
    """
    if text.lower() != text and text.upper() != text:
        raise BadId(text, "mixes upper and lower case")
    lowered = text.lower()
    prefix, separator, encoded = lowered.rpartition("1")
    if len(text) > MAX_BECH32_LENGTH:
        raise BadId(text, f"is not an id: one has at most {MAX_BECH32_LENGTH} characters")
    if not separator or not prefix or len(encoded) < _CHECKSUM_LENGTH:
        raise BadId(text, "is not an id: one looks like repo1…, node1… or auth1…")
    for position, character in enumerate(encoded, start=len(prefix) + 2):
        if character not in _CHARSET:
            raise BadId(text, f"has {character!r} at position {position}, which no id contains")
    words = [_CHARSET.index(character) for character in encoded]
    if _polymod([*_expand(prefix), *words]) != 1:
        raise BadId(text, "is mistyped or cut short: its check characters do not match")
    words = words[:-_CHECKSUM_LENGTH]
    bits = 0
    for word in words:
        bits = bits << 5 | word
    length, padding = divmod(len(words) * 5, 8)
    if padding > 4 or bits & (1 << padding) - 1:
        raise BadId(text, "is not an id: its last characters carry stray bits")
    return prefix, (bits >> padding).to_bytes(length, "big")


KEPT_TEXTS: Final = 4_096
"""Ids whose text is remembered, 1 MiB: a piece of news names its topic by that text, which takes 0.1 ms to make."""


@functools.lru_cache(maxsize=KEPT_TEXTS)
def _text(prefix: str, data: bytes) -> str:
    return bech32_encode(prefix, data)


_KINDS: Final = {"node": "a node id", "auth": "an author key", "repo": "a repository id"}


class _Id(bytes):
    """A fixed-length id whose text form is bech32 under ``prefix``."""

    prefix: ClassVar[str]
    LENGTH: ClassVar[int] = 32

    def __new__(cls, data: bytes) -> Self:
        """Raises: ``ValueError``: ``data`` is not exactly ``LENGTH`` bytes."""
        if len(data) != cls.LENGTH:
            raise ValueError(f"{cls.__name__} takes {cls.LENGTH} bytes, not {len(data)}")
        return super().__new__(cls, data)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the id that ``text`` spells.

        Raises:
            BadId: mistyped, cut short, or an id of another kind; each has a text of its own.
        """
        prefix, data = bech32_decode(text.strip())
        if prefix != cls.prefix:
            found = _KINDS.get(prefix, f"an id of the unknown kind {prefix!r}")
            raise BadId(text, f"is {found}; {_KINDS[cls.prefix]} ({cls.prefix}1…) is needed here")
        if len(data) != cls.LENGTH:
            raise BadId(text, f"has {len(data)} bytes; {_KINDS[cls.prefix]} has {cls.LENGTH}")
        return cls(data)

    @property
    def short(self) -> str:
        """The first 12 characters of the text form, for logs and tables."""
        return str(self)[:12]

    def __str__(self) -> str:
        return _text(self.prefix, self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.short}…)"


@final
class PeerId(_Id):
    """The Ed25519 public key of a node; ``node1…``."""

    prefix = "node"


@final
class AuthorId(_Id):
    """The Ed25519 public key that signs for a maintainer; ``auth1…``. One per device of a person."""

    prefix = "auth"


@final
class RepositoryId(_Id):
    """SHA-256 of a repository's genesis document; ``repo1…``."""

    prefix = "repo"


@final
class ObjectId(bytes):
    """A git object's SHA-1 hash, 20 bytes; for people, its 40 hex digits."""

    LENGTH: ClassVar[int] = 20

    def __new__(cls, data: bytes) -> Self:
        """Raises: ``ValueError``: ``data`` is not exactly 20 bytes."""
        if len(data) != cls.LENGTH:
            raise ValueError(f"ObjectId takes {cls.LENGTH} bytes, not {len(data)}")
        return super().__new__(cls, data)

    def __str__(self) -> str:
        return self.hex()

    def __repr__(self) -> str:
        return f"ObjectId({self.hex()[:12]})"
