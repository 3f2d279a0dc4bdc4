"""Authentication by API key, and scopes.

A key has 256 random bits and cannot be guessed, so one SHA-256 protects the key as well as a slow
password hash. The database holds only the hash.
"""

import asyncio
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

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
# No key is longer. Without the limit, a client could make the gateway hash huge headers.
KEY_LENGTH_MAX: Final = 256

CACHED_KEYS_MAX: Final = 4096
"""When the cache is full, the key that was read first is removed."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The tenant of a request, and the scopes of its key."""

    tenant_id: TenantId
    key_id: ApiKeyId
    scopes: frozenset[str]


class Unauthenticated(DomainError):
    """No key, an unknown key or a revoked key; the answer does not say which."""

    code = ErrorCode.UNAUTHENTICATED

    def __init__(self) -> None:
        super().__init__("a valid API key is required: Authorization: Bearer <key>")


class ScopeMissing(DomainError):
    """The key is valid, but lacks the scope of the route."""

    code = ErrorCode.SCOPE_MISSING

    def __init__(self, scope: Scope) -> None:
        super().__init__(f"the API key lacks the scope {scope}")


def new_key() -> str:
    return KEY_PREFIX + secrets.token_urlsafe(32)


def hash_of(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


async def caller_of(session: AsyncSession, *, key: str) -> Caller:
    """Return the owner of a key.

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
    # The index compares in variable time; this comparison takes the same time for every hash.
    if found is None or not hmac.compare_digest(found.key_hash, wanted):
        raise Unauthenticated
    return Caller(tenant_id=found.tenant_id, key_id=found.id, scopes=frozenset(found.scopes))


class ApiKeyCache:
    """Callers that were read from the database recently, by the hash of their key.

    A revoked key keeps working for at most `lifetime`. A key that was not found is never
    cached: a new key works at once, and guessed keys do not fill the cache.

    Args:
        monotonic: a clock in seconds that is never set back.
    """

    def __init__(
        self,
        *,
        lifetime: timedelta,
        monotonic: Callable[[], float],
        size_max: int = CACHED_KEYS_MAX,
    ) -> None:
        self._lifetime = lifetime.total_seconds()
        self._monotonic = monotonic
        self._size_max = size_max
        self._callers: OrderedDict[bytes, tuple[Caller, float]] = OrderedDict()
        self._reads: dict[bytes, asyncio.Task[Caller]] = {}

    def find(self, key_hash: bytes) -> Caller | None:
        caller, read_at = self._callers.get(key_hash, (None, 0.0))
        if caller is not None and self._monotonic() - read_at >= self._lifetime:
            del self._callers[key_hash]
            return None
        return caller

    def add(self, caller: Caller, *, key_hash: bytes, read_at: float) -> None:
        """Cache a caller; `read_at`, a time before the read, starts the lifetime of the entry."""
        self._callers[key_hash] = (caller, read_at)
        self._callers.move_to_end(key_hash)
        if len(self._callers) > self._size_max:
            self._callers.popitem(last=False)

    async def caller_of(self, database: Database, *, key: str) -> Caller:
        """Return the owner of a key, from the cache or from the database.

        Concurrent requests with one key share one read: when a busy key expires, hundreds of
        requests would otherwise need a connection at the same moment.

        Raises:
            Unauthenticated: the key is unknown or revoked.
        """
        key_hash = hash_of(key)
        caller = self.find(key_hash)
        if caller is not None:
            return caller
        read = self._reads.get(key_hash)
        if read is None:
            read = asyncio.create_task(self._read(database, key=key, key_hash=key_hash))
            self._reads[key_hash] = read
            read.add_done_callback(lambda _: self._reads.pop(key_hash))
        # Without the shield, one disconnected client would cancel the read for all other requests.
        return await asyncio.shield(read)

    async def _read(self, database: Database, *, key: str, key_hash: bytes) -> Caller:
        read_at = self._monotonic()
        async with database.transaction() as session:
            caller = await caller_of(session, key=key)
        self.add(caller, key_hash=key_hash, read_at=read_at)
        return caller


class ApiKeyAuthentication(AbstractAuthenticationMiddleware):
    """Sets `request.user` to the caller, and limits its rate, before the body is read.

    Every route of the API needs a key, also a route without a guard. The context comes from the
    application's state, because Litestar deep-copies routers with their middleware.
    """

    def __init__(self, app: ASGIApp) -> None:
        # By default OPTIONS passes without a key and then fails in guards that read the caller.
        super().__init__(app, exclude_http_methods=())

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        key = bearer(connection.headers.get("authorization"))
        context = connection.app.state.context
        caller = await context.api_keys.caller_of(context.database, key=key)
        request_log.bind(tenant_id=caller.tenant_id)
        context.rates.admit(caller.tenant_id, connection.scope)
        return AuthenticationResult(user=caller, auth=None)


def bearer(header: str | None) -> str:
    """Return the key of an `Authorization` header.

    Raises:
        Unauthenticated: the header does not contain text with the form of a key.
    """
    scheme, _, key = (header or "").partition(" ")
    key = key.strip(" ")
    if scheme.lower() != "bearer" or not key or len(key) > KEY_LENGTH_MAX or not key.isascii():
        raise Unauthenticated
    return key


def requires(
    scope: Scope,
) -> Callable[[ASGIConnection[Any, Caller, Any, Any], BaseRouteHandler], Awaitable[None]]:
    """Return a guard that requires a scope."""

    async def guard(connection: ASGIConnection[Any, Caller, Any, Any], _: BaseRouteHandler) -> None:
        if scope not in connection.user.scopes:
            raise ScopeMissing(scope)

    return guard
