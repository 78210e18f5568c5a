"""The author key of whoever gives a command: made when it is first needed, opened with the passphrase."""

from typing import TYPE_CHECKING

from guts.cli.session import Session, say

if TYPE_CHECKING:  # PyNaCl is loaded by the command, not by --help
    from guts.identity import SigningKey
    from guts.ids import AuthorId


def own_author(session: Session) -> "AuthorId | None":
    """Return who the author key of this home is; ``None``: there is none. Raises: ``BadKeyFile``, ``KeyMode``."""
    from guts.ids import AuthorId
    from guts.keystore import KeyKind, NoKey, read_key_file

    try:
        return AuthorId.parse(read_key_file(session.paths.author_key, KeyKind.AUTHOR).public)
    except NoKey:
        return None


def author_key(session: Session) -> "SigningKey":
    """Return the author key of this home. Raises: ``BadKeyFile``, ``KeyLocked``, ``WrongPassphrase``."""
    from guts.identity import SigningKey
    from guts.keystore import KeyFile, KeyKind, load_key, passphrase_source, write_key_file

    path = session.paths.author_key
    if not path.exists():
        file = KeyFile.of(KeyKind.AUTHOR, SigningKey.generate(), None)
        write_key_file(path, file)
        say(f"made your author key {file.public}")
        say("hint: guts id export FILE keeps a copy; who loses the key can't publish here again")
    return load_key(path, KeyKind.AUTHOR, passphrase_source(session.environ))
