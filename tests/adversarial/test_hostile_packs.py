"""Packs that explode, packs that trap whoever checks them out, names that look like options; on a running node."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from guts.git import inspection
from guts.ids import ObjectId
from tests.adversarial.test_bad_holder import MAIN, is_refused
from tests.support import packs
from tests.support.bad_peer import BadHolder, Offer, sign
from tests.support.nodes import World
from tests.support.repositories import git


def one_file(name: bytes, mode: str, content: bytes) -> tuple[bytes, ObjectId]:
    """Return the pack of a commit with one file, and the commit."""
    tree = packs.tree((mode, name, packs.object_id(packs.BLOB, content)))
    commit = packs.commit(packs.object_id(packs.TREE, tree))
    objects = [(packs.COMMIT, commit), (packs.TREE, tree), (packs.BLOB, content)]
    return packs.pack(objects), packs.object_id(packs.COMMIT, commit)


@pytest.mark.parametrize("kind", ["deltas that multiply", "a blob of zeros", "a carriage return"])
async def test_node_bans_the_sender_of(world: World, kind: str) -> None:
    maintainer = world.maintainer()
    tip, code = maintainer.tip(), "PACK_TOO_LARGE"
    match kind:
        case "deltas that multiply":
            pack = packs.delta_bomb()
        case "a blob of zeros":
            pack, tip = one_file(b"zeros", "100644", bytes(101 << 20))
        case _:
            text = b'[submodule "a"]\n\tpath = "a\r"\n\turl = ./a\n'
            (pack, tip), code = one_file(b".gitmodules", "100644", text), "UNSAFE_TREE"
    assert len(pack) < 200_000
    offer = Offer.honest(maintainer).with_record(sign(maintainer, refs={MAIN: tip}))
    await is_refused(world, maintainer, BadHolder(dataclasses.replace(offer, pack=pack)), code)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b".gitmodules", b'[submodule "a"]\n\tpath = a\n\turl = -u./x\n'),
        # Git before 2.38.4 takes it.
        (b".gitattributes", b"*.c " + b"a" * 3000 + b"\n"),
    ],
)
async def test_node_blames_no_holder_for_what_its_own_git_refuses(world: World, name: bytes, text: bytes) -> None:
    maintainer = world.maintainer()
    pack, tip = one_file(name, "100644", text)
    offer = Offer.honest(maintainer).with_record(sign(maintainer, refs={MAIN: tip}))
    await is_refused(world, maintainer, BadHolder(dataclasses.replace(offer, pack=pack)))


async def test_node_gives_git_no_argument_that_a_peer_chose(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every git child of two nodes and a client is listened to while a repository of such names goes through them."""
    # Of a small pack git is asked less.
    monkeypatch.setattr(inspection, "SMALL_BYTES", 0)
    real, log = shutil.which("git"), tmp_path / "arguments"
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "git"
    script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {log}\nexec {real} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=":")
    maintainer = world.maintainer()
    maintainer.commit("--upload-pack=evil")
    tip = maintainer.tip()
    git(maintainer.path, "update-ref", "refs/heads/--upload-pack=evil", str(tip))
    git(maintainer.path, "update-ref", "refs/tags/-c-evil", str(tip))
    replica, second = await world.node("replica"), await world.node("second")
    holder = BadHolder(Offer.honest(maintainer))
    log.unlink(missing_ok=True)
    async with holder.listening():
        await replica.seed(maintainer.repository, holder.hint)
    await second.seed(maintainer.repository, replica.hint)
    clone = await world.clone(dataclasses.replace(maintainer.url, hint=second.hint), "clone")
    assert git(clone, "rev-parse", "refs/remotes/origin/--upload-pack=evil") == str(tip)
    arguments = log.read_text()
    for node in (replica, second):
        await node.shows_what_it_says(maintainer.repository)
        assert len(await node.canonical(maintainer.repository)) == 3
    for command in ("index-pack", "rev-list", "pack-objects", "cat-file"):
        assert command in arguments
    for chosen in ("evil", str(tip), MAIN):
        assert chosen not in arguments
