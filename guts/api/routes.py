"""Requests to methods of ``Control``, and their answers to JSON."""

# A timeout here is what the operator allows the node, not a way to cancel: the answer says how far it came.
# ruff: noqa: ASYNC109

import base64
import binascii
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from aiohttp import web

from guts.addresses import BanSubject, BootstrapAddress, parse_subject
from guts.api.bans import wanted_bans
from guts.api.errors import HTTP_STATUS, BadRequest, ErrorObject
from guts.api.git_answers import ARCHIVE_TYPE, FETCH_TYPE, read_request, streamed
from guts.api.publication import pack_bytes, read_header
from guts.api.requests import Json, addresses_of, body_of, repository_of, search_of, text_of, timeout_of
from guts.api.seeding import SeedingControl, SeedingHandlers
from guts.errors import ExitStatus, GutsError
from guts.events import WantedBan
from guts.git.git_requests import MAX_ARCHIVE_BYTES, MAX_FETCH_BYTES
from guts.identity import SIGNATURE_LENGTH
from guts.ids import AuthorId, ObjectId, PeerId, RepositoryId
from guts.node.git_answers import GitAnswer
from guts.records import MAX_SEQ

MAX_BODY_BYTES: Final = 128 << 10
"""Of a JSON body: the largest is an identity document, 64 KiB, which are 88 kB in base64."""

CLIENT_CLOSED_REQUEST: Final = 499
"""What servers call an answer that nobody is there to take."""

MAX_ASKED: Final = 256
"""Refs whose past is asked for at once: with names of 255 bytes they fit in a body."""

MAX_REPLICAS: Final = 64
"""Confirmations to wait for: a node keeps no more of one author."""

_log = logging.getLogger(__name__)


class Control(Protocol):
    """What a node lets its operator do. Results are ready for JSON; every method raises ``GutsError``.

    Fields that commands read (``?``: may be null or missing; ids and addresses as text, hashes as hex):

    - ``status``: ``id``, ``network``, ``role``, ``listen`` [address], ``uptime_s``, ``peers`` {``inbound``,
      ``outbound``}, ``repositories`` (count), ``dht_contacts``, ``disk`` {``used_bytes``, ``limit_bytes``,
      ``free_bytes``, ``floor_bytes``, ``low``}, ``version``, ``pid``, ``data`` (folder),
      ``bans_suspended``? {``sign``, ``faulty``, ``of``, ``since_s``}.
    - ``repositories``: ``id``, ``name``?, ``epoch``, ``seeding``, ``state``, ``head_seq``?, ``refs``,
      ``conflicts`` and ``suspended`` (counts), ``size_bytes``, ``replicas_seen``, ``last_sync_ms``?.
    - ``inspect``: as in ``repositories``, and ``description``, ``identity_hash``, ``default_branch``,
      ``maintainers`` [id], ``threshold``, ``head``, ``canonical_refs`` {name: oid}, ``signed_refs`` [{``author``,
      ``seq``, ``hash``, ``signed_ms``, ``age_s``}], ``objects`` {type: count}, ``holders`` [id].
    - ``refs``: ``repository``, ``name``, ``held``, ``head``, ``refs`` [{``ref``, ``oid``, ``peeled``?}], ``epoch``,
      ``identity_hash``, ``maintainers`` [id], ``documents`` [base64], ``heads`` [{``author``, ``seq``, ``hash``,
      ``signed_ms``}], ``proofs`` [base64], ``conflicts`` [name], ``sources`` (count), ``notes`` [line for a person].
    - ``evidence``: what vouches for ``refs``: ``repository``, ``name``, ``documents``, ``proofs`` [base64], ``records``
      [{``header``, ``entries``: base64}], ``ancestors`` [{``ancestor``, ``descendant``}], ``sources`` (count),
      ``notes``; ``past``: ``refs`` [{``ref``, ``oid``, ``author``, ``seq``, ``signed_ms``, ``header``: base64}] and
      ``contained`` [name].
    - ``receipts``: ``receipts`` [{``peer``, ``author``, ``seq``, ``hash``, ``signed_ms``, ``receipt``: base64}],
      ``known`` (count: connected peers that hold or follow it), ``records`` [{``author``, ``seq``, ``hash``,
      ``header``: base64}].
    - ``sync``: ``repository``, ``seconds``.
    - ``peers``: ``peer``, ``address``, ``direction``, ``state``, ``since_s``?, ``rtt_ms``?, ``repositories``
      (count), ``score``, ``standing``, ``left_s``? (until it is let in; null: never).
    - ``peer``: as in ``peers``, and ``addresses``, ``capabilities`` [text], ``last_seen_ms``?, ``usefulness``?
      {``success``, ``bytes_per_s``?}, ``shut_outs``, ``bans`` (counts), ``reason``?, ``half_life_s``, ``ledger``
      [{``at_ms``, ``ago_s``, ``change``, ``total``, ``reason``, ``barred_s``}].
    - ``bans``: ``subject``, ``kind``, ``left_s``?, ``until_ms``? (null: for good), ``reason``; ``ban``: ``changed``,
      ``unchanged``, ``skipped``, ``closed`` (counts); ``unban``: ``subject``, ``changed``.
    - ``connect``: ``peer``, ``seconds``.
    - ``limits``, ``set_limits``: ``name``, ``value``, ``unit``, ``source``, ``default``, ``used``?, ``peak``?, ``bit``
      (count), ``of``.
    - ``find_providers``: ``providers`` [{``peer``, ``addresses``, ``expires_ms``}], ``asked``, ``hops``, ``rpcs``,
      ``seconds``.
    - ``publication``: ``documents`` [base64], ``tips`` [oid]; ``prepare``: ``session``, ``body``
      and ``entries`` (base64: what the author signs, and what the author compares before), ``entries_hash``,
      ``seq``, ``unchanged``, ``records`` [{``header``, ``entries``: base64}] and ``ancestors`` [{``ancestor``,
      ``descendant``}] (what it was made from, so that the author can make it again);
      ``commit``: ``repository``, ``seq``, ``refs``, ``objects``, ``conflicts``, ``followers`` (counts),
      ``warnings`` [{``limit``, ``message``, ``hint``}] (limits of the node that it has led past), ``seconds``.
    - ``apply_identity``: ``repository``, ``epoch``, ``identity_hash``, ``maintainers`` [id], ``threshold``,
      ``unchanged``.
    """

    @property
    def seeding(self) -> SeedingControl: ...
    async def status(self) -> Json: ...
    async def stop(self) -> None: ...
    async def repositories(self) -> list[Json]: ...
    async def inspect(self, repository: RepositoryId) -> Json: ...
    async def refs(self, repository: RepositoryId, hints: Sequence[BootstrapAddress], timeout: float) -> Json: ...
    async def evidence(self, repository: RepositoryId, hints: Sequence[BootstrapAddress], timeout: float) -> Json: ...
    async def past(
        self,
        repository: RepositoryId,
        refs: Mapping[str, ObjectId],
        hints: Sequence[BootstrapAddress],
        timeout: float,
    ) -> Json: ...
    def upload_pack(
        self, repository: RepositoryId, request: bytes, hints: Sequence[BootstrapAddress], timeout: float
    ) -> AbstractAsyncContextManager[GitAnswer]: ...
    def upload_archive(
        self, repository: RepositoryId, request: bytes, hints: Sequence[BootstrapAddress], timeout: float
    ) -> AbstractAsyncContextManager[GitAnswer]: ...
    async def receipts(
        self, repository: RepositoryId, author: AuthorId | None, seq: int | None, replicas: int, timeout: float
    ) -> Json: ...
    async def sync(self, repository: RepositoryId, timeout: float) -> Json: ...
    async def peers(self) -> list[Json]: ...
    async def peer(self, peer: PeerId) -> Json: ...
    async def bans(self) -> list[Json]: ...
    async def ban(self, bans: Sequence[WantedBan], *, merge: bool) -> Json: ...
    async def unban(self, subject: BanSubject) -> Json: ...
    async def connect(self, address: BootstrapAddress, timeout: float) -> Json: ...
    async def limits(self) -> list[Json]: ...
    async def set_limits(self, changes: Mapping[str, object]) -> list[Json]: ...
    async def find_providers(self, repository: RepositoryId, timeout: float) -> Json: ...
    async def publication(self, repository: RepositoryId) -> Json: ...
    async def prepare(self, header: Json, pack: AsyncIterator[bytes]) -> Json: ...
    async def prepare_again(self, session: str) -> Json: ...
    async def commit(self, session: str, signature: bytes) -> Json: ...
    async def forget(self, session: str) -> Json: ...
    async def apply_identity(self, repository: RepositoryId, document: bytes) -> Json: ...


def application(control: Control) -> web.Application:
    """Return the control API of one node."""
    app = web.Application(middlewares=[_errors_to_json], client_max_size=MAX_BODY_BYTES)
    handlers = _Handlers(control)
    repository = "/v1/repositories/{repository}"
    app.add_routes(
        [
            web.get("/v1/status", handlers.status),
            web.post("/v1/stop", handlers.stop),
            web.get("/v1/repositories", handlers.repositories),
            web.get(repository, handlers.inspect),
            web.get(repository + "/refs", handlers.refs),
            web.get(repository + "/evidence", handlers.evidence),
            web.post(repository + "/past", handlers.past),
            web.post(repository + "/upload-pack", handlers.upload_pack),
            web.post(repository + "/upload-archive", handlers.upload_archive),
            web.get(repository + "/receipts", handlers.receipts),
            web.post(repository + "/sync", handlers.sync),
            web.get(repository + "/publication", handlers.publication),
            web.post(repository + "/identity", handlers.apply_identity),
            web.post("/v1/publications", handlers.prepare),
            web.post("/v1/publications/{session}/prepare", handlers.prepare_again),
            web.post("/v1/publications/{session}/commit", handlers.commit),
            web.delete("/v1/publications/{session}", handlers.forget),
            web.get("/v1/peers", handlers.peers),
            web.post("/v1/peers", handlers.connect),
            web.get("/v1/peers/{peer}", handlers.peer),
            web.get("/v1/bans", handlers.bans),
            web.post("/v1/bans", handlers.ban),
            web.delete("/v1/bans", handlers.unban),
            web.get("/v1/limits", handlers.limits),
            web.patch("/v1/limits", handlers.set_limits),
            web.get("/v1/providers/{repository}", handlers.find_providers),
            *SeedingHandlers(control.seeding).routes(),
        ]
    )
    return app


class _Handlers:
    """One method per route."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def status(self, request: web.Request) -> web.Response:
        return web.json_response(await self._control.status())

    async def stop(self, request: web.Request) -> web.Response:
        await self._control.stop()
        return web.json_response({"stopping": True})

    async def repositories(self, request: web.Request) -> web.Response:
        return web.json_response(await self._control.repositories())

    async def inspect(self, request: web.Request) -> web.Response:
        return web.json_response(await self._control.inspect(repository_of(request)))

    async def refs(self, request: web.Request) -> web.Response:
        return web.json_response(await self._control.refs(repository_of(request), *search_of(request)))

    async def evidence(self, request: web.Request) -> web.Response:
        hints = addresses_of(request.query.getall("hint", []))
        timeout = timeout_of(request.query.get("timeout"))
        return web.json_response(await self._control.evidence(repository_of(request), hints, timeout))

    async def past(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        asked = body.get("refs")
        if not isinstance(asked, dict) or len(asked) > MAX_ASKED:
            raise BadRequest(f"refs is not an object of at most {MAX_ASKED} refs")
        refs = {name: _oid(value) for name, value in asked.items()}
        hints, timeout = addresses_of(body.get("hints", [])), timeout_of(body.get("timeout"))
        return web.json_response(await self._control.past(repository_of(request), refs, hints, timeout))

    async def upload_pack(self, request: web.Request) -> web.StreamResponse:
        data = await read_request(request.content, MAX_FETCH_BYTES)
        async with self._control.upload_pack(repository_of(request), data, *search_of(request)) as answer:
            return await streamed(request, answer, FETCH_TYPE)

    async def upload_archive(self, request: web.Request) -> web.StreamResponse:
        data = await read_request(request.content, MAX_ARCHIVE_BYTES)
        async with self._control.upload_archive(repository_of(request), data, *search_of(request)) as answer:
            return await streamed(request, answer, ARCHIVE_TYPE)

    async def receipts(self, request: web.Request) -> web.Response:
        query = request.query
        author = AuthorId.parse(query["author"]) if "author" in query else None
        seq = _whole(query["seq"], "seq", MAX_SEQ) if "seq" in query else None
        replicas = _whole(query.get("replicas", "0"), "replicas", MAX_REPLICAS)
        if author is None and (seq is not None or replicas):
            raise BadRequest("seq and replicas are of an author, who is missing")
        told = await self._control.receipts(
            repository_of(request), author, seq, replicas, timeout_of(query.get("timeout"))
        )
        return web.json_response(told)

    async def sync(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        return web.json_response(await self._control.sync(repository_of(request), timeout_of(body.get("timeout"))))

    async def publication(self, request: web.Request) -> web.Response:
        return web.json_response(await self._control.publication(repository_of(request)))

    async def prepare(self, request: web.Request) -> web.Response:
        header = await read_header(request.content)
        prepared = await self._control.prepare(header, pack_bytes(request.content))
        session = prepared.get("session")
        if isinstance(session, str) and (request.transport is None or request.transport.is_closing()):
            # Whoever was to sign it has gone while its objects were checked.
            await self._control.forget(session)
        return web.json_response(prepared)

    async def prepare_again(self, request: web.Request) -> web.Response:
        return web.json_response(await self._control.prepare_again(request.match_info["session"]))

    async def forget(self, request: web.Request) -> web.Response:
        return web.json_response(await self._control.forget(request.match_info["session"]))

    async def commit(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        text = text_of(body.get("signature"), "signature")
        try:
            signature = bytes.fromhex(text)
        except ValueError:
            raise BadRequest("signature is not hex") from None
        if len(signature) != SIGNATURE_LENGTH:
            raise BadRequest(f"a signature has {SIGNATURE_LENGTH} bytes, not {len(signature)}")
        return web.json_response(await self._control.commit(request.match_info["session"], signature))

    async def apply_identity(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        try:
            document = base64.b64decode(text_of(body.get("document"), "document"), validate=True)
        except binascii.Error:
            raise BadRequest("document is not base64") from None
        return web.json_response(await self._control.apply_identity(repository_of(request), document))

    async def peers(self, request: web.Request) -> web.Response:
        return web.json_response(await self._control.peers())

    async def peer(self, request: web.Request) -> web.Response:
        return web.json_response(await self._control.peer(PeerId.parse(request.match_info["peer"])))

    async def bans(self, request: web.Request) -> web.Response:
        return web.json_response(await self._control.bans())

    async def ban(self, request: web.Request) -> web.Response:
        bans, merge = wanted_bans(await body_of(request))
        return web.json_response(await self._control.ban(bans, merge=merge))

    async def unban(self, request: web.Request) -> web.Response:
        return web.json_response(await self._control.unban(parse_subject(request.query.get("subject", ""))))

    async def connect(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        address = BootstrapAddress.parse(text_of(body.get("address"), "address"))
        return web.json_response(await self._control.connect(address, timeout_of(body.get("timeout"))))

    async def limits(self, request: web.Request) -> web.Response:
        return web.json_response(await self._control.limits())

    async def set_limits(self, request: web.Request) -> web.Response:
        return web.json_response(await self._control.set_limits(await body_of(request)))

    async def find_providers(self, request: web.Request) -> web.Response:
        timeout = timeout_of(request.query.get("timeout"))
        return web.json_response(await self._control.find_providers(repository_of(request), timeout))


@web.middleware
async def _errors_to_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except GutsError as error:
        told = ErrorObject.of(error)
        _log.debug("%s %s: %s", request.method, request.path, told.code)
        return web.json_response(told.to_json(), status=HTTP_STATUS[told.exit_status])
    except ConnectionError as error:
        # Whoever asked is gone; aiohttp would log it as a failure of ours.
        _log.debug("%s %s: %s", request.method, request.path, error)
        return web.Response(status=CLIENT_CLOSED_REQUEST)
    except web.HTTPException as error:
        # aiohttp's own refusals: no such route, wrong method, body too large.
        status = ExitStatus.NOT_FOUND if error.status == 404 else ExitStatus.USAGE
        told = ErrorObject("BAD_REQUEST", f"{error.status} {error.reason}", exit_status=status)
        return web.json_response(told.to_json(), status=error.status)


def _oid(value: object) -> ObjectId:
    try:
        return ObjectId(bytes.fromhex(text_of(value, "oid")))
    except ValueError:
        raise BadRequest("an oid is not 40 hex digits") from None


def _whole(text: str, name: str, highest: int) -> int:
    value = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(highest)) else highest + 1
    if value > highest:
        raise BadRequest(f"{name} is not a whole number up to {highest}")
    return value
