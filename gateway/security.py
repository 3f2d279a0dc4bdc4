"""Who is asking, and what their key allows.

A key is 256 random bits, so one SHA-256 hides it as well as a slow hash would:
there is nothing to guess. The database holds the hash alone.
"""

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.types import ASGIApp
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from schemas.api.scopes import Scope
from schemas.errors import DomainError, ErrorCode
from schemas.ids import ApiKeyId, TenantId
from schemas.tables.tenants import ApiKey

KEY_PREFIX: Final = "wb_"
# Longer than any key of ours: what is longer need not be hashed to be refused.
KEY_LENGTH_MAX: Final = 256


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


class ApiKeyAuthentication(AbstractAuthenticationMiddleware):
    """Sets `request.user` to the caller, before anything of the body is read.

    It stands before every route of the API, so that none can be left open by
    forgetting its guard. The transaction is found in the application's state:
    the framework copies routers deeply, and with them what they were given.
    """

    def __init__(self, app: ASGIApp) -> None:
        # By default OPTIONS passes without a key, and then meets guards that need one.
        super().__init__(app, exclude_http_methods=())

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        key = bearer(connection.headers.get("authorization"))
        async with connection.app.state.transaction() as session:
            caller = await caller_of(session, key=key)
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
