"""The program that git starts: git's side of the conversation, up to ``connect``."""

import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import BinaryIO, ClassVar, Final

from guts.addresses import RepositoryUrl
from guts.cli.session import Session
from guts.errors import ExitStatus, GutsError, UsageError
from guts.remote_helper.nodes import reached, reached_for_push
from guts.remote_helper.talk import Talk
from guts.remote_helper.upload_pack import UploadPack, serve_archive

GIT_FATAL: Final = 128
"""git's own exit status for a failure."""

INTERRUPTED: Final = 130
REPEATED_WITHIN: Final = 5.0
"""Seconds in which a second interrupt says what the first has said: Ctrl-C reaches the whole process group, and each
git in it hands it on to its child."""

MAX_LINE_BYTES: Final = 4096
"""A command or option of git is far shorter; a URL is never among them."""


class NotGit(UsageError):
    """This program was not started by git."""

    code: ClassVar[str] = "NOT_STARTED_BY_GIT"

    def __init__(self) -> None:
        super().__init__(
            "git-remote-guts is started by git, with a remote and its URL", hint="git clone guts://REPOSITORY"
        )


class Unsupported(UsageError):
    """git asks for a service that there is not."""

    code: ClassVar[str] = "UNSUPPORTED"


def main() -> int:
    """Serve the git process that started this one; return the exit status."""
    _interrupted_once()
    return run(sys.argv[1:], sys.stdin.buffer, sys.stdout.buffer)


def run(arguments: Sequence[str], git_in: BinaryIO, git_out: BinaryIO) -> int:
    """Serve git, which writes to ``git_in`` and reads from ``git_out``; ``arguments``: the remote's name, its URL."""
    talk = Talk()
    try:
        if len(arguments) != 2:
            raise NotGit
        remote, url = arguments
        return _converse(remote, RepositoryUrl.parse(url), git_in, git_out, talk)
    except GutsError as error:
        talk.fatal(error)
        return GIT_FATAL
    except BrokenPipeError:
        # git is gone, and says why itself. What is left in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), git_out.fileno())
        return ExitStatus.FAILED
    except OSError as error:
        if error.filename is None:
            raise
        from guts.git.files import DiskFault

        talk.fatal(DiskFault(f"{os.fsdecode(error.filename)}: {error.strerror}"))
        return GIT_FATAL
    except KeyboardInterrupt:
        return INTERRUPTED


def _interrupted_once() -> None:
    """Have SIGINT and SIGTERM, with which git ends its helpers, raise KeyboardInterrupt: once for those that belong
    together, as a second one would cut short what the first has begun to put in order.
    """
    interrupted = -math.inf

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        if time.monotonic() - interrupted >= REPEATED_WITHIN:
            interrupted = time.monotonic()
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    # A shell has what it runs in the background ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)


def _converse(remote: str, url: RepositoryUrl, git_in: BinaryIO, git_out: BinaryIO, talk: Talk) -> ExitStatus:
    """Answer git's commands (gitremote-helpers(7)) until it connects to a service, and then be that service.

    Returns: the exit status; git makes a failure of what is not ``OK``.
    """
    while line := git_in.readline(MAX_LINE_BYTES):
        match line.decode(errors="replace").split():
            case []:
                return ExitStatus.OK
            case ["capabilities"]:
                git_out.write(b"option\nconnect\n\n")
            case ["option", "verbosity", level] if level.lstrip("-").isdigit():
                talk.verbosity = int(level)
                git_out.write(b"ok\n")
            case ["option", *_]:
                git_out.write(b"unsupported\n")
            case ["connect", service]:
                git_out.write(b"\n")
                git_out.flush()
                return _serve(service, remote, url, git_in, git_out, talk)
            case _:
                raise NotGit
        git_out.flush()
    return ExitStatus.OK


def _serve(
    service: str, remote: str, url: RepositoryUrl, git_in: BinaryIO, git_out: BinaryIO, talk: Talk
) -> ExitStatus:
    session = Session(os.environ)
    match service:
        case "git-upload-pack":
            with reached(session, url, talk) as client:
                UploadPack(session, client, remote, url, git_in, git_out, talk).serve()
        case "git-upload-archive":
            with reached(session, url, talk) as client:
                serve_archive(client, url, git_in, git_out)
        case "git-receive-pack":
            from guts.remote_helper.push import serve_push

            with reached_for_push(session, url, talk) as target:
                return serve_push(session, target, remote, url, git_in, git_out, talk)
        case _:
            raise Unsupported(f"there is no service {service!r}")
    return ExitStatus.OK
