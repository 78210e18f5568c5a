"""Asking for a passphrase while git has stdin and stdout: on the terminal itself, as ssh does."""

import getpass
import os
from collections.abc import Mapping

from guts.keystore import Ask, KeyLocked
from guts.keystore import passphrase_source as usual_source

TERMINAL = "/dev/tty"


def passphrase_source(environ: Mapping[str, str]) -> Ask:
    """Return what asks for a passphrase: the file that ``GUTS_PASSPHRASE_FILE`` names, else the terminal.

    As with git, ``GIT_TERMINAL_PROMPT=0`` says that nobody is there.
    """
    if environ.get("GUTS_PASSPHRASE_FILE"):
        return usual_source(environ)

    def ask(what: str) -> str:
        if environ.get("GIT_TERMINAL_PROMPT") in ("0", "false", "no", "off"):
            raise _locked(what, "GIT_TERMINAL_PROMPT is 0")
        try:
            os.close(os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
        except OSError:
            raise _locked(what, "there is no terminal to ask for its passphrase") from None
        return getpass.getpass(f"Passphrase for {what}: ")  # on the terminal, which is there

    return ask


def _locked(what: str, why: str) -> KeyLocked:
    return KeyLocked(
        f"the {what} is locked and {why}", hint="set GUTS_PASSPHRASE_FILE to a file that holds the passphrase"
    )
