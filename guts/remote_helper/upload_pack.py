"""``git upload-pack``'s side of protocol v2 (gitprotocol-v2(5)), with refs that were verified."""

from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, ClassVar, Final
from urllib.parse import quote

import guts
from guts.addresses import RepositoryUrl
from guts.cli.answer import Answer
from guts.cli.client import ControlClient
from guts.cli.known_repositories import RolledBack, lacks_own_push, remember
from guts.cli.session import Session, age_text
from guts.errors import GutsError, UsageError
from guts.git.git_requests import MAX_FETCH_BYTES
from guts.git.pkt_line import Mark, Packet, encode, read_packet
from guts.remote_helper.talk import Talk

READ_TIMEOUT: Final = 120.0
"""Seconds for the refs of a repository that has to be found first."""

CONFLICTS: Final = "refs/guts/conflict/"
SHOWN: Final = 3
"""Refs in conflict that are named; of more, how many."""


class BadRequest(UsageError):
    """git asks for something that protocol v2 does not have, or that is too large."""

    code: ClassVar[str] = "BAD_GIT_REQUEST"


class UploadPack:
    """One conversation with ``git fetch``, ``clone`` or ``ls-remote``.

    Args:
        remote: the remote's name, or its URL where it has none.
    """

    def __init__(
        self,
        session: Session,
        client: ControlClient,
        remote: str,
        url: RepositoryUrl,
        git_in: BinaryIO,
        git_out: BinaryIO,
        talk: Talk,
    ) -> None:
        self._session = session
        self._client = client
        self._remote = remote
        self._url = url
        self._git_in = git_in
        self._git_out = git_out
        self._talk = talk

    def serve(self) -> None:
        """Answer git's requests until it has no more, or until git itself has been told why there are no refs.

        Raises:
            GutsError: why one can't be answered.
            BrokenPipeError: git went away.
        """
        self._write(
            encode(b"version 2\n"),
            encode(f"agent=guts/{guts.__version__}\n".encode()),
            encode(b"ls-refs=unborn\n"),
            encode(b"fetch=shallow wait-for-done filter\n"),
            encode(b"object-format=sha1\n"),
            Mark.FLUSH.value,
        )
        while request := _read_request(self._git_in):
            match request[0]:
                case b"command=ls-refs\n" | b"command=ls-refs":
                    try:
                        refs = self._refs()
                    except GutsError as error:
                        text = self._talk.through_git(error)
                        if text is None:
                            raise
                        # Without this packet (gitprotocol-pack(5)) git would add that it expected something else.
                        self._write(encode(f"ERR {text}".encode()))
                        return
                    self._write(*ls_refs(refs, request))
                case b"command=fetch\n" | b"command=fetch":
                    self._fetch(request)
                case other:
                    raise BadRequest(f"git sends {other!r}, which this remote does not understand")

    def _refs(self) -> Answer:
        """Return the verified refs, after having said what is to be said of them."""
        query = _query(self._url, READ_TIMEOUT)
        answer = Answer.of(self._client.get(f"/v1/repositories/{self._url.repository}/refs{query}", READ_TIMEOUT))
        for note in (*answer.texts("notes"), *self._remembered(answer)):
            self._talk.note(note)
        self._talk.detail(_provenance(answer))
        if conflicts := sorted(answer.texts("conflicts")):
            self._talk.note(_in_conflict(conflicts, self._remote))
        return answer

    def _remembered(self, answer: Answer) -> list[str]:
        """Compare with what was seen before. Raises: as ``remember``."""
        try:
            return remember(self._session.paths, answer)
        except RolledBack as error:
            # Nobody waited for replicas, or none could be reached: what is remembered stays.
            if not lacks_own_push(self._session.paths, error):
                raise
            return ["what you pushed last has not reached those who were asked: guts node start hands it on"]

    def _fetch(self, request: list[Packet]) -> None:
        path = f"/v1/repositories/{self._url.repository}/upload-pack{_query(self._url, READ_TIMEOUT)}"
        with self._client.stream(path, _encoded(request), READ_TIMEOUT) as answer:
            for note in answer.notes:
                self._talk.note(note)
            for piece in answer.pieces:
                self._git_out.write(piece)
        self._git_out.flush()

    def _write(self, *packets: bytes) -> None:
        self._git_out.write(b"".join(packets))
        self._git_out.flush()


def ls_refs(answer: Answer, request: Iterable[Packet]) -> Iterator[bytes]:
    """Yield the answer to ``ls-refs`` (gitprotocol-v2(5)): HEAD first, then the refs in order of their names."""
    arguments = [line.rstrip(b"\n") for line in request if isinstance(line, bytes)]
    prefixes = [line.removeprefix(b"ref-prefix ") for line in arguments if line.startswith(b"ref-prefix ")]
    peel, symrefs, unborn = (word in arguments for word in (b"peel", b"symrefs", b"unborn"))
    refs = {ref.text("ref"): ref for ref in answer.objects("refs")}
    head = answer.text("head")
    wanted = tuple(prefixes)
    if not wanted or b"HEAD".startswith(wanted):
        target = f" symref-target:{head}" if symrefs else ""
        if head in refs:
            yield encode(f"{refs[head].text('oid')} HEAD{target}\n".encode())
        elif unborn:
            yield encode(f"unborn HEAD{target}\n".encode())
    for name in sorted(refs, key=str.encode):
        if wanted and not name.encode().startswith(wanted):
            continue
        peeled = refs[name].text("peeled", "") if peel else ""
        yield encode(f"{refs[name].text('oid')} {name}{f' peeled:{peeled}' if peeled else ''}\n".encode())
    yield Mark.FLUSH.value


def serve_archive(client: ControlClient, url: RepositoryUrl, git_in: BinaryIO, git_out: BinaryIO) -> None:
    """Answer one ``git archive --remote``. Raises: as ``UploadPack.serve``."""
    request = _read_request(git_in)
    path = f"/v1/repositories/{url.repository}/upload-archive{_query(url, READ_TIMEOUT)}"
    with client.stream(path, _encoded(request), READ_TIMEOUT) as answer:
        for piece in answer.pieces:
            git_out.write(piece)
    git_out.flush()


def _in_conflict(conflicts: Sequence[str], remote: str) -> str:
    """Say which refs have other sides (``refs/guts/conflict/<author>/<ref>``), and how to get at those."""
    contested = sorted({conflict.removeprefix(CONFLICTS).partition("/")[2] for conflict in conflicts})
    shown = ", ".join(contested[:SHOWN]) + (f" and {len(contested) - SHOWN} more" if contested[SHOWN:] else "")
    if len(conflicts) == 1:
        return f"in conflict: {shown}; git fetch {remote} {conflicts[0]} && git merge FETCH_HEAD puts both together"
    return f"in conflict: {shown}; git fetch {remote} '+{CONFLICTS}*:{CONFLICTS}*' fetches all sides"


def _provenance(answer: Answer) -> str:
    """Say where the refs come from, and how old they are."""
    signed = max((head.number("signed_ms") for head in answer.objects("heads")), default=0)
    source = "held by the node" if answer.flag("held") else f"read from {answer.number('sources')} holders"
    return f"{len(answer.objects('refs'))} refs, {source}, epoch {answer.number('epoch')}, signed {age_text(signed)}"


def _query(url: RepositoryUrl, timeout: float) -> str:
    hint = f"&hint={quote(str(url.hint))}" if url.hint is not None else ""
    return f"?timeout={timeout:g}{hint}"


def _read_request(git_in: BinaryIO) -> list[Packet]:
    """Return git's next request without the flush at its end; an empty one: there are no more.

    Raises:
        BadRequest: it is too large.
        BadPacket: these are no pkt-lines.
    """
    packets: list[Packet] = []
    size = 0
    while (packet := read_packet(git_in.read)) not in (None, Mark.FLUSH):
        assert packet is not None
        packets.append(packet)
        size += len(packet) if isinstance(packet, bytes) else 0
        if size > MAX_FETCH_BYTES:
            raise BadRequest(f"git sends a request of more than {MAX_FETCH_BYTES} bytes")
    return packets


def _encoded(request: Iterable[Packet]) -> bytes:
    lines = (packet.value if isinstance(packet, Mark) else encode(packet) for packet in request)
    return b"".join(lines) + Mark.FLUSH.value
