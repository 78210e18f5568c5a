"""Key files: who may read them, what is in them, and every way in which one is refused."""

import os
import pty
import stat
from pathlib import Path

import nacl.pwhash
import pytest

from guts.errors import ExitStatus
from guts.identity import SigningKey
from guts.keystore import (
    MAX_KEY_FILE_BYTES,
    MAX_MEMORY,
    MAX_OPERATIONS,
    MAX_PASSPHRASE_BYTES,
    BadKeyFile,
    KdfCost,
    KeyExists,
    KeyFile,
    KeyKind,
    KeyLocked,
    KeyMode,
    NoKey,
    WrongPassphrase,
    export_key,
    import_key,
    load_key,
    load_or_create_node_key,
    passphrase_source,
    read_key_file,
    write_key_file,
)

CHEAP = KdfCost(nacl.pwhash.argon2id.OPSLIMIT_MIN, nacl.pwhash.argon2id.MEMLIMIT_MIN)
KEY = SigningKey(bytes(range(32)))


def saying(passphrase: str) -> "AskOnce":
    return AskOnce(passphrase)


class AskOnce:
    """Answers with a passphrase and remembers what for."""

    def __init__(self, passphrase: str) -> None:
        self.passphrase = passphrase
        self.asked: list[str] = []

    def __call__(self, what: str) -> str:
        self.asked.append(what)
        return self.passphrase


def test_node_key_is_made_once_private_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "data" / "identity" / "node.key"

    key = load_or_create_node_key(path, {})

    assert load_or_create_node_key(path, {}).public == key.public
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == ["node.key"]


def test_key_file_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "author.key"
    write_key_file(path, KeyFile.of(KeyKind.AUTHOR, KEY, None))

    assert path.read_text() == (
        f"guts-key 1\nkind: author\npublic: {KEY.author_id}\nsecret: {bytes(range(32)).hex()}\n"
    )


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_key_comes_back_from_its_file(tmp_path: Path, passphrase: str | None) -> None:
    path = tmp_path / "author.key"
    write_key_file(path, KeyFile.of(KeyKind.AUTHOR, KEY, passphrase, CHEAP))
    ask = saying("correct horse")

    assert read_key_file(path, KeyKind.AUTHOR).public == str(KEY.author_id)
    assert load_key(path, KeyKind.AUTHOR, ask).seed == KEY.seed
    assert ask.asked == ([f"author key {KEY.author_id}"] if passphrase else [])
    assert (bytes(range(32)).hex() in path.read_text()) == (passphrase is None)


def test_sealed_key_takes_the_cost_of_the_real_parameters(tmp_path: Path) -> None:
    file = KeyFile.of(KeyKind.AUTHOR, KEY, "p")

    assert f"argon2id: 3 {256 << 20} " in file.format()
    assert file.unlock(saying("p"), "here").seed == KEY.seed


def test_wrong_passphrase_is_named_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    write_key_file(path, KeyFile.of(KeyKind.NODE, KEY, "right", CHEAP))
    before = path.read_bytes()

    with pytest.raises(WrongPassphrase, match=r"does not open the key in .*node\.key"):
        load_key(path, KeyKind.NODE, saying("wrong"))
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o620])
def test_key_that_others_may_touch_is_refused_as_ssh_does(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "node.key"
    write_key_file(path, KeyFile.of(KeyKind.NODE, KEY, None))
    path.chmod(mode)

    with pytest.raises(KeyMode) as caught:
        load_or_create_node_key(path, {})
    assert caught.value.hint == f"chmod 600 {path}"


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_key_of_its_owner_alone_is_taken(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "node.key"
    write_key_file(path, KeyFile.of(KeyKind.NODE, KEY, None))
    path.chmod(mode)

    assert load_or_create_node_key(path, {}).public == KEY.public


def test_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "author.key"
    write_key_file(path, KeyFile.of(KeyKind.AUTHOR, KEY, None))
    before = path.read_bytes()

    with pytest.raises(KeyExists):
        write_key_file(path, KeyFile.of(KeyKind.AUTHOR, SigningKey.generate(), None))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["author.key"]


def test_missing_key_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NoKey) as caught:
        read_key_file(tmp_path / "author.key", KeyKind.AUTHOR)
    assert caught.value.hint == "guts id new --author"
    assert caught.value.exit_status is ExitStatus.NOT_FOUND


def test_key_of_the_other_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "author.key"
    write_key_file(path, KeyFile.of(KeyKind.NODE, KEY, None))

    with pytest.raises(BadKeyFile, match="holds a key of kind node; author is needed here"):
        read_key_file(path, KeyKind.AUTHOR)


CLEAR = KeyFile.of(KeyKind.AUTHOR, KEY, None).format()
SEALED = KeyFile.of(KeyKind.AUTHOR, KEY, "p", CHEAP).format()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a Guts key file"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "not a Guts key file"),
        (CLEAR.replace("guts-key 1", "guts-key 2"), "newer format"),
        (CLEAR.replace("author\n", "wizard\n"), "unknown kind 'wizard'"),
        (CLEAR + "more: lines\n", "damaged"),
        (CLEAR.replace("secret: 00", "secret: 0g"), "damaged"),
        (CLEAR.replace("secret: 00", "secret: "), "damaged"),
        (CLEAR.replace("secret: 00", "secret: 01"), "not the one that the file names"),
        (CLEAR.replace(str(KEY.author_id), str(SigningKey(bytes(32)).author_id)), "not the one"),
        (SEALED.replace("argon2id: 1 ", f"argon2id: {MAX_OPERATIONS + 1} "), "more work"),
        (SEALED.replace("argon2id: 1 8192", f"argon2id: 1 {MAX_MEMORY + 1}"), "more work"),
        (SEALED.replace("argon2id: 1 8192", "argon2id: 1 8191"), "more work"),
        (SEALED.replace("argon2id: 1 ", "argon2id: x "), "damaged"),
        ("é" + CLEAR, "not a Guts key file"),
    ],
)
def test_damaged_key_file_is_refused_with_its_reason(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "author.key"
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(BadKeyFile, match=says):
        load_key(path, KeyKind.AUTHOR, saying("p"))


def test_every_flipped_bit_of_a_sealed_key_is_noticed(tmp_path: Path) -> None:
    sealed = bytes.fromhex(SEALED.rpartition("sealed: ")[2].strip())
    for position in range(len(sealed)):
        flipped = bytearray(sealed)
        flipped[position] ^= 1
        file = KeyFile.parse(SEALED.replace(sealed.hex(), flipped.hex()), "here")
        with pytest.raises(WrongPassphrase):
            file.unlock(saying("p"), "here")


def test_key_file_of_the_largest_size_is_read_and_no_larger(tmp_path: Path) -> None:
    path = tmp_path / "author.key"
    path.write_text("x" * MAX_KEY_FILE_BYTES)
    path.chmod(0o600)
    with pytest.raises(BadKeyFile):
        read_key_file(path, KeyKind.AUTHOR)

    path.write_text(CLEAR + "\n" * (MAX_KEY_FILE_BYTES + 1 - len(CLEAR)))
    with pytest.raises(BadKeyFile, match="not a Guts key file"):
        read_key_file(path, KeyKind.AUTHOR)


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "node.key"
    if kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path, 0o600)

    with pytest.raises(BadKeyFile, match="not a file"):
        read_key_file(path, KeyKind.NODE)


def test_locked_key_without_a_terminal_says_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "node.key"
    write_key_file(path, KeyFile.of(KeyKind.NODE, KEY, "p", CHEAP))
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        with pytest.raises(KeyLocked, match=str(KEY.peer_id)) as caught:
            load_or_create_node_key(path, {})
    assert "GUTS_PASSPHRASE_FILE" in str(caught.value.hint)


def test_passphrase_comes_from_the_named_file(tmp_path: Path) -> None:
    path, secret = tmp_path / "node.key", tmp_path / "passphrase"
    write_key_file(path, KeyFile.of(KeyKind.NODE, KEY, "pass phrase", CHEAP))
    secret.write_text("pass phrase\n")

    key = load_or_create_node_key(path, {"GUTS_PASSPHRASE_FILE": str(secret)})
    assert key.public == KEY.public


def test_passphrase_is_asked_for_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r") as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        monkeypatch.setattr("getpass.getpass", lambda prompt: f"typed at {prompt}")
        assert passphrase_source({})("node key node1…") == "typed at Passphrase for node key node1…: "
    os.close(ours)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "empty"), (b"\n", "empty"), (b"\xff", "UTF-8"), (b"p" * (MAX_PASSPHRASE_BYTES + 1), "longer")],
)
def test_bad_passphrase_file_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    secret = tmp_path / "passphrase"
    secret.write_bytes(content)
    with pytest.raises(KeyLocked, match=says):
        passphrase_source({"GUTS_PASSPHRASE_FILE": str(secret)})("key")
    secret.unlink()
    with pytest.raises(KeyLocked, match="No such file"):
        passphrase_source({"GUTS_PASSPHRASE_FILE": str(secret)})("key")


def test_passphrase_of_the_largest_size_is_taken(tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_bytes(b"p" * MAX_PASSPHRASE_BYTES + b"\n")
    assert len(passphrase_source({"GUTS_PASSPHRASE_FILE": str(secret)})("key")) == MAX_PASSPHRASE_BYTES


def test_export_is_sealed_and_its_import_is_the_same_key(tmp_path: Path) -> None:
    stored = KeyFile.of(KeyKind.AUTHOR, KEY, None)
    text = export_key(stored, KEY, "moving", CHEAP)
    path = tmp_path / "new" / "author.key"

    assert KEY.seed.hex() not in text
    assert import_key(text.encode(), "export", path, KeyKind.AUTHOR, saying("moving")) == str(KEY.author_id)
    assert load_key(path, KeyKind.AUTHOR, saying("moving")).seed == KEY.seed


def test_import_refuses_to_overwrite_and_to_take_what_it_cannot_open(tmp_path: Path) -> None:
    text = export_key(KeyFile.of(KeyKind.AUTHOR, KEY, None), KEY, "moving", CHEAP).encode()
    path = tmp_path / "author.key"

    with pytest.raises(WrongPassphrase):
        import_key(text, "export", path, KeyKind.AUTHOR, saying("staying"))
    with pytest.raises(BadKeyFile, match="kind author; node is needed"):
        import_key(text, "export", path, KeyKind.NODE, saying("moving"))
    assert not path.exists()

    path.write_text("mine")
    with pytest.raises(KeyExists):
        import_key(text, "export", path, KeyKind.AUTHOR, saying("moving"))
    assert path.read_text() == "mine"
