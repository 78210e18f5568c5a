"""The node that a command of git speaks to: the one that is running, or one for as long as the command takes."""

import contextlib
from collections.abc import Iterator

from guts.addresses import RepositoryUrl
from guts.cli.client import ControlClient, NodeDown
from guts.cli.session import Session
from guts.remote_helper.talk import Talk


@contextlib.contextmanager
def reached(session: Session, url: RepositoryUrl, talk: Talk) -> Iterator[ControlClient]:
    """Enter with a client of a node that can read the repository of ``url``.

    Raises:
        NodeDown, UnsafeSocket: there is none, and none could be made.
    """
    client = session.client()
    try:
        client.get("/v1/status")
    except NodeDown:
        raise
    yield client
