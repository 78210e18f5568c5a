"""The node that a command of git speaks to: the one that is running, or one for as long as the command takes."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from guts.addresses import RepositoryUrl
from guts.api.errors import ReportedError
from guts.cli.answer import Answer
from guts.cli.client import ControlClient, NodeDown
from guts.cli.session import Session
from guts.remote_helper.talk import Talk

SYNC_TIMEOUT: Final = 10.0
"""Seconds for replicas to tell what is new, before a push goes on without them."""

NOT_FOLLOWED: Final = "NOT_SEEDED"
"""The code of ``guts.service.commands.NotFollowed``."""

READ_TIMEOUT: Final = 120.0
"""Seconds for the refs of a repository that has to be found first."""

TURN_TIMEOUT: Final = 60.0
"""Seconds until another push from this home, which runs the node too, must have ended."""

TURN_INTERVAL: Final = 0.2
RUNNING: Final = "through your running node"
"""What is said where one runs; where none does, what runs in its place."""

SEED_TIMEOUT: Final = 3600.0
"""Seconds for a node to get a repository before the first push to it."""


@contextlib.contextmanager
def reached(session: Session, url: RepositoryUrl, talk: Talk) -> Iterator[ControlClient]:
    """Enter with a client of a node that can read the repository of ``url``.

    Raises:
        UnsafeSocket: somebody else could have put the control socket there.
        GutsError: no node runs, and none could be made.
    """
    client = session.client()
    if _answers(client):
        talk.note(RUNNING)
        yield client
        return
    talk.note("no node is running: a throw-away client fetches it")
    from guts.app import client_node, in_thread

    doors = () if url.hint is None else (url.hint,)
    with in_thread(client_node(session.config(), doors=doors)) as control_socket:
        yield ControlClient(control_socket)


def _answers(client: ControlClient) -> bool:
    try:
        client.get("/v1/status")
    except NodeDown:
        return False
    return True


@dataclass(frozen=True, slots=True)
class PushTarget:
    """A node that takes pushes to a repository, once it follows it.

    Attributes:
        state: the repository's refs and identity, as the node tells them; read from others where it holds none.
        stays: the node goes on when the push is done.
        replicas: nodes that are known to hold the repository, at least.
    """

    client: ControlClient
    url: RepositoryUrl
    state: Answer
    stays: bool
    replicas: int = 0

    def followed(self, talk: Talk) -> Answer:
        """Return the state with the node following the repository, which it may have to get first.

        Raises:
            GutsError: it can't be had.
        """
        if self.state.flag("followed"):
            return self.state
        talk.note("your node gets the repository first, and seeds it from now on")
        hints = [str(self.url.hint)] if self.url.hint is not None else []
        path = f"/v1/repositories/{self.url.repository}/seeding"
        self.client.send("PUT", path, {"hints": hints, "timeout": SEED_TIMEOUT}, SEED_TIMEOUT)
        return _state(self.client, self.url)


@contextlib.contextmanager
def reached_for_push(session: Session, url: RepositoryUrl, talk: Talk) -> Iterator[PushTarget]:
    """Enter with a node that takes pushes to the repository of ``url``, and what it knows of it; it gets nothing yet.

    Where this user's node does not run, this process runs it, with its key and its data, for as long as the push takes.

    Raises:
        UnsafeSocket: somebody else could have put the control socket there.
        AlreadyRunning: another process has the node's data, and does not give it back.
        GutsError: the node can't be run, or can't read the repository.
    """
    client = session.client()
    if _answers(client):
        talk.note(RUNNING)
        yield PushTarget(client, url, _state(client, url), stays=True)
        return
    talk.note("no node is running: the node runs for this push")
    with _own_node(session, url) as own:
        answered = _sync(own, url, talk)
        # Whoever answered has not said yet that it wants the news.
        yield PushTarget(own, url, _state(own, url), stays=False, replicas=int(answered))


@contextlib.contextmanager
def _own_node(session: Session, url: RepositoryUrl) -> Iterator[ControlClient]:
    """Enter with a client of this user's node, run by this process; another push may have to end first."""
    from guts.app import in_thread, push_node
    from guts.node.lock import AlreadyRunning

    deadline = time.monotonic() + TURN_TIMEOUT
    config = session.config()
    doors = () if url.hint is None else (url.hint,)
    with contextlib.ExitStack() as stack:
        while True:
            try:
                control_socket = stack.enter_context(in_thread(push_node(config, doors=doors)))
                break
            except AlreadyRunning:
                if time.monotonic() > deadline:
                    raise
                time.sleep(TURN_INTERVAL)
        yield ControlClient(control_socket)


def _state(client: ControlClient, url: RepositoryUrl) -> Answer:
    """Return what the node shows of the repository; where it does not hold it, others are asked."""
    hint = f"&hint={quote(str(url.hint))}" if url.hint is not None else ""
    refs = f"/v1/repositories/{url.repository}/refs?timeout={READ_TIMEOUT:g}{hint}"
    return Answer.of(client.get(refs, READ_TIMEOUT))


def _sync(client: ControlClient, url: RepositoryUrl, talk: Talk) -> bool:
    """Have a node that was away learn what others have pushed since; tell whether anybody answered."""
    try:
        client.send("POST", f"/v1/repositories/{url.repository}/sync", {"timeout": SYNC_TIMEOUT}, SYNC_TIMEOUT)
    except ReportedError as error:
        if error.told.code != NOT_FOLLOWED:
            talk.warning(f"no replica could be asked for news: {error}")
        return False
    return True
