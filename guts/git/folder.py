"""``guts/`` inside a bare repository: the signed records next to the objects they speak of.

The database is the truth while it lives; from these files it can be rebuilt. The bytes are opaque here: whoever
reads them back verifies them again.

Layout: ``identity/<epoch>``, ``refs/<author>`` (the signed header and entries as one canonical pair),
``proofs/<author>`` (that the author signed two histories), ``fork`` (a second document of an epoch), ``seeding``,
``mended`` (the folder was once found damaged). Every write is atomic and durable.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from guts import canonical
from guts.canonical import Bounds, NotCanonical
from guts.crash import crash_point
from guts.git.files import disk_faults, remove_files, sync_directory, write_files
from guts.ids import AuthorId, BadId

NAME: Final = "guts"

_FORK: Final = "fork"
_MENDED: Final = "mended"
_SEEDING: Final = "seeding"
_SEED: Final = b"seed\n"
_KEEP: Final = b"keep\n"

# A header of a few hundred bytes and entries of at most 4 MiB (docs/protocol.md §5).
_REFS_BOUNDS: Final = Bounds(max_bytes=4 * 1024 * 1024 + 65_536, max_list=2, max_bin=4 * 1024 * 1024, max_depth=1)


class RecordsFolder:
    """The records of one repository.

    Args:
        path: the folder; its parent exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity = path / "identity"
        self._refs = path / "refs"
        self._proofs = path / "proofs"

    def create(self) -> None:
        """Make the folder; whole or not is all the same, it can be made again."""
        with disk_faults():
            for directory in (self.path, self._identity, self._refs, self._proofs):
                directory.mkdir(exist_ok=True)
            sync_directory(self.path)
            sync_directory(self.path.parent)

    async def keep(
        self,
        *,
        identities: Mapping[int, bytes],
        proofs: Mapping[AuthorId, bytes],
        fork: bytes | None,
        refs: Mapping[AuthorId, tuple[bytes, bytes]],
        seeding: bool,
    ) -> None:
        """Keep what one acceptance changes; durable on return.

        Args:
            identities: documents by epoch, besides those that are kept.
            proofs: of equivocation, by author; no others are kept.
            fork: a second document of an epoch.
            refs: the newest signed refs of authors, (header, entries) each, besides those of others.
            seeding: this node's choice about seeding the repository.

        Raises:
            DiskFault: part of it may be kept.
        """
        await asyncio.to_thread(self._keep, identities, proofs, fork, refs, _SEED if seeding else _KEEP)

    def _keep(
        self,
        identities: Mapping[int, bytes],
        proofs: Mapping[AuthorId, bytes],
        fork: bytes | None,
        refs: Mapping[AuthorId, tuple[bytes, bytes]],
        choice: bytes,
    ) -> None:
        if identities:
            write_files(self._identity, {f"{epoch:08}": data for epoch, data in sorted(identities.items())})
        crash_point("identities-kept")
        self._write_proofs({str(author): proof for author, proof in proofs.items()})
        if fork is not None and _read_all(self.path).get(_FORK) != fork:
            write_files(self.path, {_FORK: fork})
        crash_point("proofs-kept")
        if refs:
            write_files(
                self._refs,
                {str(author): canonical.encode([header, entries]) for author, (header, entries) in refs.items()},
            )
        crash_point("signed-refs-kept")
        self._write_seeding(choice)
        crash_point("seeding-kept")

    async def identities(self) -> list[bytes]:
        """Return the identity documents in order of epoch. Raises: ``DiskFault``."""
        return list((await asyncio.to_thread(_read_all, self._identity)).values())

    def _write_proofs(self, files: Mapping[str, bytes]) -> None:
        kept = _read_all(self._proofs) if self._proofs.exists() else {}
        if kept == files:
            return
        with disk_faults():
            self._proofs.mkdir(exist_ok=True)
        write_files(self._proofs, files)
        remove_files(self._proofs, sorted(kept.keys() - files.keys()))

    async def proofs(self) -> list[bytes]:
        """Return the proofs. Raises: ``DiskFault``."""
        if not await asyncio.to_thread(self._proofs.exists):
            return []
        return list((await asyncio.to_thread(_read_all, self._proofs)).values())

    async def fork(self) -> list[bytes]:
        """Return it, where there is one. Raises: ``DiskFault``."""
        found = (await asyncio.to_thread(_read_all, self.path)).get(_FORK)
        return [] if found is None else [found]

    async def refs(self) -> dict[AuthorId, tuple[bytes, bytes]]:
        """Return (header, entries) by author; files that are none are passed over. Raises: ``DiskFault``."""
        found = {}
        for name, data in (await asyncio.to_thread(_read_all, self._refs)).items():
            try:
                author = AuthorId.parse(name)
                value = canonical.decode(data, _REFS_BOUNDS)
            except (BadId, NotCanonical):
                continue
            match value:
                case [bytes(header), bytes(entries)]:
                    found[author] = (header, entries)
        return found

    def mark_mended(self) -> None:
        """Note, before it is repaired, that the repository was found damaged. Raises: ``DiskFault``."""
        with disk_faults():
            self.path.mkdir(exist_ok=True)
        write_files(self.path, {_MENDED: b""})

    def is_mended(self) -> bool:
        """Tell whether the repository was ever found damaged; a single look at the disk. Raises: ``DiskFault``."""
        with disk_faults():
            return (self.path / _MENDED).exists()

    async def write_seeding(self, *, seeding: bool) -> None:
        """Keep this node's choice about seeding the repository. Raises: ``DiskFault``."""
        await asyncio.to_thread(self._write_seeding, _SEED if seeding else _KEEP)

    def _write_seeding(self, choice: bytes) -> None:
        # What is there was synced when it came, and a commit mostly changes nothing about it.
        with disk_faults(), contextlib.suppress(FileNotFoundError):
            if (self.path / _SEEDING).read_bytes() == choice:
                return
        write_files(self.path, {_SEEDING: choice})

    async def seeding(self) -> bool:
        """Return the kept choice; where none was made, the repository is seeded. Raises: ``DiskFault``."""
        return (await asyncio.to_thread(_read_all, self.path)).get(_SEEDING) != _KEEP


def has_refs(git_dir: Path) -> bool:
    """Tell whether the repository in ``git_dir`` keeps signed refs of anybody."""
    return any((git_dir / NAME / "refs").glob("auth1*"))


def _read_all(directory: Path) -> dict[str, bytes]:
    with disk_faults():
        return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()}
