"""Who is asking, and what their key allows.

A key is 256 random bits, so one SHA-256 hides it as well as a slow hash would:
there is nothing to guess. The database holds the hash alone.
"""

import asyncio
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeAlias

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.types import ASGIApp
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db import Database
from gateway.http import request_log
from schemas.api.scopes import Scope
from schemas.errors import DomainError, ErrorCode
from schemas.ids import ApiKeyId, TenantId
from schemas.tables.tenants import ApiKey

KEY_PREFIX: Final = "wb_"
# Longer than any key of ours: what is longer need not be hashed to be refused.
KEY_LENGTH_MAX: Final = 256

KNOWN_MAX: Final = 4096
"""Keys remembered at once; beyond that the one read longest ago is asked for again."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The tenant a request speaks for, and what its key may do."""

    tenant_id: TenantId
    key_id: ApiKeyId
    scopes: frozenset[str]


ApiRequest: TypeAlias = Request[Caller, None, Any]


class Unauthenticated(DomainError):
    """No key, an unknown key, or a revoked one; which of them is not told."""

    code = ErrorCode.UNAUTHENTICATED

    def __init__(self) -> None:
        super().__init__("a valid API key is needed: Authorization: Bearer <key>")


class ScopeMissing(DomainError):
    """The key is valid, but not for this."""

    code = ErrorCode.SCOPE_MISSING

    def __init__(self, scope: Scope) -> None:
        super().__init__(f"the API key lacks the scope {scope}")


def new_key() -> str:
    return KEY_PREFIX + secrets.token_urlsafe(32)


def hash_of(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


async def caller_of(session: AsyncSession, *, key: str) -> Caller:
    """Return who a key belongs to.

    Raises:
        Unauthenticated: the key is unknown or revoked.
    """
    wanted = hash_of(key)
    found = (
        await session.execute(
            select(ApiKey.id, ApiKey.tenant_id, ApiKey.scopes, ApiKey.key_hash).where(
                ApiKey.key_hash == wanted, ApiKey.revoked_at.is_(None)
            ),
        )
    ).one_or_none()
    # The index has compared already; this comparison takes the same time for every hash.
    if found is None or not hmac.compare_digest(found.key_hash, wanted):
        raise Unauthenticated
    return Caller(tenant_id=found.tenant_id, key_id=found.id, scopes=frozenset(found.scopes))


class ApiKeyCache:
    """Callers read from the database a moment ago, by the hash of their key.

    A key that was revoked works on for at most `believed_for`. That a key is
    unknown is never remembered: a new key works at once, and guessing fills
    nothing.

    Args:
        seconds: a clock that is never set back.
    """

    def __init__(
        self, *, believed_for: timedelta, seconds: Callable[[], float], most: int = KNOWN_MAX
    ) -> None:
        self._believed_for = believed_for.total_seconds()
        self._seconds = seconds
        self._most = most
        self._found: OrderedDict[bytes, tuple[Caller, float]] = OrderedDict()
        self._asked: dict[bytes, asyncio.Task[Caller]] = {}

    def find(self, key_hash: bytes) -> Caller | None:
        caller, read_at = self._found.get(key_hash, (None, 0.0))
        if caller is not None and self._seconds() - read_at >= self._believed_for:
            del self._found[key_hash]
            return None
        return caller

    def remember(self, caller: Caller, *, key_hash: bytes, read_at: float) -> None:
        """Believe in a caller from the moment before it was read."""
        self._found[key_hash] = (caller, read_at)
        self._found.move_to_end(key_hash)
        if len(self._found) > self._most:
            self._found.popitem(last=False)

    async def caller_of(self, database: Database, *, key: str) -> Caller:
        """Return who a key belongs to, from memory or from the database.

        Requests that come together are told by one look: when a busy key is no
        longer believed, hundreds would otherwise want a connection at one moment.

        Raises:
            Unauthenticated: the key is unknown or revoked.
        """
        key_hash = hash_of(key)
        caller = self.find(key_hash)
        if caller is not None:
            return caller
        asking = self._asked.get(key_hash)
        if asking is None:
            asking = asyncio.create_task(self._ask(database, key=key, key_hash=key_hash))
            self._asked[key_hash] = asking
            asking.add_done_callback(lambda _: self._asked.pop(key_hash))
        # Who goes away must not take the answer from the others.
        return await asyncio.shield(asking)

    async def _ask(self, database: Database, *, key: str, key_hash: bytes) -> Caller:
        read_at = self._seconds()
        async with database.transaction() as session:
            caller = await caller_of(session, key=key)
        self.remember(caller, key_hash=key_hash, read_at=read_at)
        return caller


class ApiKeyAuthentication(AbstractAuthenticationMiddleware):
    """Sets `request.user` to the caller, before anything of the body is read.

    It stands before every route of the API, so that none can be left open by
    forgetting its guard. What it needs is found in the application's state:
    the framework copies routers deeply, and with them what they were given.
    """

    def __init__(self, app: ASGIApp) -> None:
        # By default OPTIONS passes without a key, and then meets guards that need one.
        super().__init__(app, exclude_http_methods=())

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        key = bearer(connection.headers.get("authorization"))
        context = connection.app.state.context
        caller = await context.api_keys.caller_of(context.database, key=key)
        request_log.bind(tenant_id=caller.tenant_id)
        return AuthenticationResult(user=caller, auth=None)


def bearer(header: str | None) -> str:
    """Return the key of an `Authorization` header.

    Raises:
        Unauthenticated: there is none that could be a key.
    """
    scheme, _, key = (header or "").partition(" ")
    key = key.strip(" ")
    if scheme.lower() != "bearer" or not key or len(key) > KEY_LENGTH_MAX or not key.isascii():
        raise Unauthenticated
    return key


def requires(
    scope: Scope,
) -> Callable[[ASGIConnection[Any, Caller, Any, Any], BaseRouteHandler], Awaitable[None]]:
    """Return the guard of a route that needs a scope."""

    async def guard(connection: ASGIConnection[Any, Caller, Any, Any], _: BaseRouteHandler) -> None:
        if scope not in connection.user.scopes:
            raise ScopeMissing(scope)

    return guard
