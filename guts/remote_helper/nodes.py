"""The node that a command of git speaks to: the one that is running, or one for as long as the command takes."""

import contextlib
from collections.abc import Iterator
from typing import Final

from guts.addresses import RepositoryUrl
from guts.api.errors import ReportedError
from guts.cli.answer import Answer
from guts.cli.client import ControlClient, NodeDown
from guts.cli.session import Session
from guts.errors import ExitStatus
from guts.remote_helper.talk import Talk

SEED_TIMEOUT: Final = 3600.0
"""Seconds for a node to get a repository before the first push to it."""


@contextlib.contextmanager
def reached(session: Session, url: RepositoryUrl, talk: Talk) -> Iterator[ControlClient]:
    """Enter with a client of a node that can read the repository of ``url``: the running one, or a throw-away one.

    Raises:
        UnsafeSocket: the control socket is where others could have put it.
        UsageError, StorageFault: no throw-away one can be made.
    """
    client = session.client()
    if _answers(client):
        yield client
        return
    talk.note("no node is running: a throw-away client fetches it")
    # Imported late: a running node spares all of this.
    from guts.app import client_thread

    doors = () if url.hint is None else (url.hint,)
    with client_thread(session.config(), doors=doors) as control_socket:
        yield ControlClient(control_socket)


def _answers(client: ControlClient) -> bool:
    try:
        client.get("/v1/status")
    except NodeDown:
        return False
    return True


@contextlib.contextmanager
def reached_for_push(session: Session, url: RepositoryUrl, talk: Talk) -> Iterator[ControlClient]:
    """Enter with a client of a node that holds the repository of ``url`` and takes pushes to it.

    Raises:
        NodeDown, UnsafeSocket: there is none, and none could be made.
        GutsError: the node does not hold the repository, and can't get it.
    """
    client = session.client()
    client.get("/v1/status")
    _have_it_held(client, url, talk)
    yield client


def _have_it_held(client: ControlClient, url: RepositoryUrl, talk: Talk) -> None:
    """Let the node hold the repository, as a maintainer's new node does not."""
    path = f"/v1/repositories/{url.repository}"
    try:
        if Answer.of(client.get(path)).flag("seeding"):
            return
    except ReportedError as error:
        if error.told.exit_status is not ExitStatus.NOT_FOUND:
            raise
    talk.note("your node gets the repository first, and seeds it from now on")
    hints = [str(url.hint)] if url.hint is not None else []
    client.send("PUT", f"{path}/seeding", {"hints": hints, "timeout": SEED_TIMEOUT}, SEED_TIMEOUT)
