"""Signing proposals as happens at another home, which knows nothing of what was signed at this one."""

from pathlib import Path

from guts.cli.proposal import Proposal
from guts.config import Paths
from guts.identity import SigningKey
from guts.keystore import KeyKind, load_key, passphrase_source


def sign_elsewhere(file: Path, *keys: SigningKey) -> None:
    """Put the signatures of ``keys`` into the proposal."""
    for key in keys:
        Proposal.read(file).signed(key).rewrite(file)


def author_of(home: Path) -> SigningKey:
    """Return the author key of a home, as a copy of it elsewhere."""
    return load_key(Paths.from_environ({"GUTS_HOME": str(home)}).author_key, KeyKind.AUTHOR, passphrase_source({}))
