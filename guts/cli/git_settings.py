"""What git needs to be told once, so that Guts URLs work everywhere.

- Without slashes git takes ``guts:repo1…`` for a host named ``guts`` and calls ssh. ``url.<base>.insteadOf`` puts the
  slashes in; since the longest match wins, a rule that leaves ``guts://`` as it is keeps whole URLs whole.
- Submodules behind a remote helper are refused, unless ``protocol.guts.allow`` says always (git-config(1)).
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import ClassVar, Final

from guts.errors import UsageError
from guts.git.source import OwnGit

HELPER: Final = "git-remote-guts"
SETTINGS: Final = (
    ("url.guts://.insteadOf", "guts:"),
    ("url.guts://.insteadOf", "guts://"),
    ("protocol.guts.allow", "always"),
)
SINGLE: Final = "protocol.guts.allow"
"""Of this one git takes the last value; the others are lists, to which the user may have added."""


class HelperNotFound(UsageError):
    """git does not find the program that speaks ``guts://``."""

    code: ClassVar[str] = "HELPER_NOT_FOUND"


async def find_helper() -> Path:
    """Return where git finds its helper for ``guts://``.

    Raises:
        HelperNotFound: nowhere; the hint is the line that mends it.
        GitMissing: no git here, or one that is too old.
    """
    git = OwnGit()
    await git.check_version()
    # As git does: its own programs first (git(1), --exec-path), then PATH.
    own = (await git.run(["--exec-path"])).decode(errors="surrogateescape").strip()
    found = shutil.which(HELPER, path=os.pathsep.join([own, os.environ.get("PATH", os.defpath)]))
    if found is not None:
        return Path(found)
    user = sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user"))
    for folder in (sysconfig.get_path("scripts"), os.path.dirname(sys.executable), user):
        if os.access(os.path.join(folder, HELPER), os.X_OK):
            raise HelperNotFound(f"{HELPER} is in {folder}, where git does not look", hint=_path_line(folder))
    raise HelperNotFound(f"there is no program {HELPER} here", hint="it comes with guts: install the package again")


async def missing_settings() -> list[tuple[str, str]]:
    """Return which of ``SETTINGS`` the user's global git config lacks."""
    git = OwnGit()
    values = {key: await _values(git, key) for key, _ in SETTINGS}
    return [
        (key, value) for key, value in SETTINGS if value not in (values[key][-1:] if key == SINGLE else values[key])
    ]


async def write_settings(settings: list[tuple[str, str]]) -> None:
    """Put ``settings`` into the user's global git config. Raises: ``GitFailed``: git can't write it."""
    git = OwnGit()
    for key, value in settings:
        await git.run(["config", "--global", "--replace-all" if key == SINGLE else "--add", key, value])


async def remove_settings(*, dry_run: bool) -> list[tuple[str, str]]:
    """Take ``SETTINGS`` out of the user's global git config; return which were there. Raises: ``GitFailed``."""
    git = OwnGit()
    there = [(key, value) for key, value in SETTINGS if value in await _values(git, key)]
    for key, value in () if dry_run else there:
        await git.run(["config", "--global", "--fixed-value", "--unset-all", key, value])
    return there


async def settings_file() -> str:
    """Return the file in which the settings are, as git tells it."""
    output = await OwnGit().run(["config", "--global", "--show-origin", "--null", "--get", SINGLE])
    return output.partition(b"\0")[0].decode(errors="surrogateescape").removeprefix("file:")


async def _values(git: OwnGit, key: str) -> list[str]:
    output = await git.run(["config", "--global", "--null", "--get-all", key], accept=(0, 1))
    return output.decode(errors="surrogateescape").split("\0")[:-1]


def _path_line(folder: str) -> str:
    """Return the line that adds ``folder`` to the path of the user's shell."""
    if os.path.basename(os.environ.get("SHELL", "")) == "fish":
        return f"fish_add_path '{folder}'"
    return f"add this line to ~/.profile: export PATH='{folder}':\"$PATH\""
