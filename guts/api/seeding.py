"""The part of the control API that is about what a node seeds, and why."""

# ruff: noqa: ASYNC109 (told to the service)

from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from guts.addresses import BootstrapAddress
from guts.api.errors import BadRequest
from guts.api.requests import Json, addresses_of, body_of, bytes_of, repository_of, search_of, timeout_of
from guts.ids import AuthorId, RepositoryId


class SeedingControl(Protocol):
    """What a node lets its operator say about what it seeds. As for ``guts.api.routes.Control``:

    - ``seed``: ``repository``, ``seconds``, ``copied`` (false: it was here already).
    - ``dry_run``: ``repository``, ``here``, ``size_bytes``?, ``claimed`` (it is what holders say), ``sources`` (count),
      ``free_bytes``, ``free_after_bytes``, ``used_bytes``, ``used_after_bytes``, ``disk_bytes``, ``allowed``,
      ``refusal``?, ``hint``?; ``?besides=BYTES`` are of others that would have come before it.
    - ``unseed``: ``repository``, ``removed``, ``removed_in_s``?.
    - ``follow``: ``author``, ``new``; ``unfollow``: ``author``, ``was_followed``, ``stopped`` [id].
    - ``block``: ``blocked``, ``new``, ``repositories`` [as ``unseed``]; ``unblock``: ``unblocked``, ``was_blocked``,
      ``repositories`` [id].
    - With ``?dry_run=true`` these change nothing, and tell ``free_bytes`` to ``disk_bytes`` as ``dry_run`` does;
      ``unseed`` and ``block`` tell ``repositories`` [{``repository``, ``size_bytes``, ``removed_in_s``}].
    - ``policy``: ``topic``, ``taken``, ``max_repositories``, ``refused`` (counts), ``repo_max_bytes``, ``grace_s``,
      ``disk`` (as in ``status``), ``owners`` [{``author``, ``since_ms``}], ``blocked`` [{``id``, ``since_ms``}],
      ``declined`` [id], ``refusals`` [{``repository``, ``reason``, ``owners`` [id], ``error``, ``message``, ``hint``?,
      ``at_ms``}] (what was not taken, the newest first), ``repositories`` [{``id``, ``name``, ``reason``, ``owners``
      [id], ``size_bytes``, ``lost`` (its folder is gone or damaged), ``removed_in_s``?}].
    """

    async def seed(self, repository: RepositoryId, hints: Sequence[BootstrapAddress], timeout: float) -> Json: ...
    async def dry_run(
        self, repository: RepositoryId, hints: Sequence[BootstrapAddress], timeout: float, besides: int = 0
    ) -> Json: ...
    async def unseed(self, repository: RepositoryId, *, at_once: bool = False, dry_run: bool = False) -> Json: ...
    async def follow(self, author: AuthorId, *, dry_run: bool = False) -> Json: ...
    async def unfollow(self, author: AuthorId) -> Json: ...
    async def block(self, who: RepositoryId | AuthorId, *, purge: bool, dry_run: bool = False) -> Json: ...
    async def unblock(self, who: RepositoryId | AuthorId, *, dry_run: bool = False) -> Json: ...
    async def policy(self) -> Json: ...


class SeedingHandlers:
    """One method per route."""

    def __init__(self, control: SeedingControl) -> None:
        self._control = control

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        seeding = "/v1/repositories/{repository}/seeding"
        return [
            web.get("/v1/seeding", self.policy),
            web.get(seeding, self.dry_run),
            web.put(seeding, self.seed),
            web.delete(seeding, self.unseed),
            web.put("/v1/owners/{author}", self.follow),
            web.delete("/v1/owners/{author}", self.unfollow),
            web.put("/v1/blocks/{id}", self.block),
            web.delete("/v1/blocks/{id}", self.unblock),
        ]

    async def policy(self, request: web.Request) -> web.Response:
        """List what is seeded, and why."""
        return web.json_response(await self._control.policy())

    async def dry_run(self, request: web.Request) -> web.Response:
        """Tell what seeding would take."""
        besides = bytes_of(request, "besides")
        return web.json_response(await self._control.dry_run(repository_of(request), *search_of(request), besides))

    async def seed(self, request: web.Request) -> web.Response:
        """Hold a repository."""
        body = await body_of(request)
        hints, timeout = addresses_of(body.get("hints", [])), timeout_of(body.get("timeout"))
        return web.json_response(await self._control.seed(repository_of(request), hints, timeout))

    async def unseed(self, request: web.Request) -> web.Response:
        """Hold it no longer."""
        at_once, dry_run = _switch(request, "now"), _switch(request, "dry_run")
        repository = repository_of(request)
        return web.json_response(await self._control.unseed(repository, at_once=at_once, dry_run=dry_run))

    async def follow(self, request: web.Request) -> web.Response:
        """Follow an author."""
        author = AuthorId.parse(request.match_info["author"])
        return web.json_response(await self._control.follow(author, dry_run=_switch(request, "dry_run")))

    async def unfollow(self, request: web.Request) -> web.Response:
        """Follow an author no longer."""
        return web.json_response(await self._control.unfollow(AuthorId.parse(request.match_info["author"])))

    async def block(self, request: web.Request) -> web.Response:
        """Block a repository or an author."""
        purge, dry_run = _switch(request, "purge"), _switch(request, "dry_run")
        return web.json_response(await self._control.block(_blockable(request), purge=purge, dry_run=dry_run))

    async def unblock(self, request: web.Request) -> web.Response:
        """Take one off the block list."""
        dry_run = _switch(request, "dry_run")
        return web.json_response(await self._control.unblock(_blockable(request), dry_run=dry_run))


def _blockable(request: web.Request) -> RepositoryId | AuthorId:
    text = request.match_info["id"]
    return AuthorId.parse(text) if text.startswith(AuthorId.prefix + "1") else RepositoryId.parse(text)


def _switch(request: web.Request, name: str) -> bool:
    value = request.query.get(name, "false")
    if value not in ("true", "false"):
        raise BadRequest(f"{name} is neither true nor false")
    return value == "true"
