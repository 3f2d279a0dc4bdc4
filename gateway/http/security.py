"""Authentication by API key, and scopes.

A key has 256 random bits and cannot be guessed, so one SHA-256 protects the key as well as a slow
password hash. The database holds only the hash.
"""

import asyncio
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.types import ASGIApp
from sqlalchemy import case, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db import Database
from gateway.http import request_log
from gateway.http.stream_tokens import StreamToken, StreamTokenRefused
from schemas.api.scopes import Scope
from schemas.errors import DomainError, ErrorCode
from schemas.ids import ApiKeyId, JobId, TenantId
from schemas.tables.tenants import ApiKey

KEY_PREFIX: Final = "wb_"
VISIBLE_LENGTH: Final = len(KEY_PREFIX) + 8
"""Characters of a key that are stored in clear; more than 200 random bits remain."""

# No key is longer. Without the limit, a client could make the gateway hash huge headers.
KEY_LENGTH_MAX: Final = 256

REQUIRED_SCOPE: Final = "required_scope"
"""The option of a route with the scope that it requires."""

SENDS_STREAM: Final = "sends_stream"
"""The option of a route that a stream token opens too: of its `job_id`, or of the feed."""

SCOPE_OF_JOB: Final = "scope_of_job"
"""The option of a route whose operation checks the scope, which depends on the kind of the job."""

CACHED_KEYS_MAX: Final = 4096
"""When the cache is full, the key that was read first is removed."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The tenant of a request, and the scopes of its key."""

    tenant_id: TenantId
    key_id: ApiKeyId
    scopes: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class ValidKey:
    """A key that was valid when it was read; it expires after `expires_in`, if ever."""

    caller: Caller
    expires_in: timedelta | None = None


class Unauthenticated(DomainError):
    """No key, or an unknown, revoked or expired key; the answer does not say which."""

    code = ErrorCode.UNAUTHENTICATED

    def __init__(self) -> None:
        super().__init__("a valid API key is required: Authorization: Bearer <key>")


class KeyEnded(Unauthenticated):
    """A key that is revoked or expired; the client gets the answer of an unknown key."""

    def __init__(self, caller: Caller, *, state: str) -> None:
        super().__init__()
        self.caller = caller
        self.state = state


class ScopeMissing(DomainError):
    """The key is valid, but lacks the scope of the route."""

    code = ErrorCode.SCOPE_MISSING

    def __init__(self, scope: Scope) -> None:
        super().__init__(f"the API key lacks the scope {scope}")


def new_key() -> str:
    return KEY_PREFIX + secrets.token_urlsafe(32)


def hash_of(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def visible_prefix(key: str) -> str:
    """Return the characters by which an owner recognises a key."""
    return key[:VISIBLE_LENGTH]


ACTIVE: Final = "active"
STATE: Final = case(
    (ApiKey.revoked_at.is_not(None), "revoked"),
    (ApiKey.expires_at <= func.now(), "expired"),
    else_=ACTIVE,
)

_KEYS: Final = select(
    ApiKey.id,
    ApiKey.tenant_id,
    ApiKey.scopes,
    ApiKey.key_hash,
    (ApiKey.expires_at - func.now()).label("expires_in"),
    STATE.label("state"),
)
_VALID_KEYS: Final = _KEYS.where(STATE == ACTIVE)


async def valid_key(session: AsyncSession, *, key: str) -> ValidKey:
    """Return the owner and the remaining lifetime of a key, by the database's clock.

    Raises:
        Unauthenticated: the key is unknown.
        KeyEnded: the key is revoked or expired.
    """
    wanted = hash_of(key)
    found = (await session.execute(_KEYS.where(ApiKey.key_hash == wanted))).one_or_none()
    # The index compares in variable time; this comparison takes the same time for every hash.
    if found is None or not hmac.compare_digest(found.key_hash, wanted):
        raise Unauthenticated
    caller = Caller(tenant_id=found.tenant_id, key_id=found.id, scopes=frozenset(found.scopes))
    if found.state != ACTIVE:
        raise KeyEnded(caller, state=found.state)
    return ValidKey(caller=caller, expires_in=found.expires_in)


async def bearer_of(session: AsyncSession, token: StreamToken, *, job_id: JobId | None) -> Caller:
    """Return the owner of the API key that a token was made with.

    Raises:
        StreamTokenRefused: the token is for another stream, it has expired by the database's clock,
            or its key is revoked or expired.
    """
    if token.job_id != job_id:
        other = "the feed" if token.job_id is None else "another job"
        raise StreamTokenRefused(f"the stream token is for {other}")
    found = (
        await session.execute(
            _VALID_KEYS.add_columns(func.now().label("now")).where(
                ApiKey.id == token.key_id, ApiKey.tenant_id == token.tenant_id
            )
        )
    ).one_or_none()
    if found is None:
        raise StreamTokenRefused("the API key of the stream token is no longer valid")
    if found.now >= token.expires_at:
        raise StreamTokenRefused("the stream token has expired")
    return Caller(tenant_id=found.tenant_id, key_id=found.id, scopes=frozenset(found.scopes))


async def ended_keys(session: AsyncSession, key_ids: Collection[ApiKeyId]) -> set[ApiKeyId]:
    """Return the keys that are revoked or expired, of those that were valid once."""
    valid = await session.scalars(
        _VALID_KEYS.with_only_columns(ApiKey.id).where(ApiKey.id.in_(key_ids))
    )
    return {*key_ids}.difference(valid)


class ApiKeyCache:
    """Callers that were read from the database recently, by the hash of their key.

    A revoked key keeps working for at most `lifetime`, and no key works after it expires. A key
    that was not found is never cached: a new key works at once, and guessed keys do not fill the
    cache.

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
        caller, ends_at = self._callers.get(key_hash, (None, 0.0))
        if caller is not None and self._monotonic() >= ends_at:
            del self._callers[key_hash]
            return None
        return caller

    def add(self, valid: ValidKey, *, key_hash: bytes, read_at: float) -> None:
        """Cache a caller; `read_at`, a time before the read, starts the lifetime of the entry."""
        lifetime = self._lifetime
        if valid.expires_in is not None:
            lifetime = min(lifetime, valid.expires_in.total_seconds())
        self._callers[key_hash] = (valid.caller, read_at + lifetime)
        self._callers.move_to_end(key_hash)
        if len(self._callers) > self._size_max:
            self._callers.popitem(last=False)

    async def caller_of(self, database: Database, *, key: str) -> Caller:
        """Return the owner of a key, from the cache or from the database.

        Concurrent requests with one key share one read: when a busy key expires, hundreds of
        requests would otherwise need a connection at the same moment.

        Raises:
            Unauthenticated: the key is unknown.
            KeyEnded: the key is revoked or expired.
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
            valid = await valid_key(session, key=key)
        self.add(valid, key_hash=key_hash, read_at=read_at)
        return valid.caller


class ApiKeyAuthentication(AbstractAuthenticationMiddleware):
    """Sets `request.user` to the caller, limits its rate and checks its scope, before the body is read.

    Every route of the API needs a key, also a route without a scope. The context comes from the
    application's state, because Litestar deep-copies routers with their middleware.
    """

    def __init__(self, app: ASGIApp) -> None:
        # By default OPTIONS passes without a key.
        super().__init__(app, exclude_http_methods=())

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        context = connection.app.state.context
        header = connection.headers.get("authorization")
        token = stream_token_of(connection) if header is None else None
        if token is None:
            try:
                caller = await context.api_keys.caller_of(context.database, key=bearer(header))
            except KeyEnded as error:
                # Without the id, no operator would find the client that still sends the key.
                _bind(error.caller)
                request_log.bind(key_state=error.state)
                raise
        else:
            decoded = StreamToken.decode(token, keys=context.secret_keys)
            request_log.bind(tenant_id=decoded.tenant_id, key_id=decoded.key_id)
            async with context.database.transaction() as session:
                caller = await bearer_of(
                    session, decoded, job_id=connection.path_params.get("job_id")
                )
        _bind(caller)
        context.key_uses.note(caller.key_id)
        context.rates.admit(caller.tenant_id, connection.scope)
        scope: Scope | None = connection.route_handler.opt.get(REQUIRED_SCOPE)
        if scope is not None and scope not in caller.scopes:
            raise ScopeMissing(scope)
        return AuthenticationResult(user=caller, auth=None)


def _bind(caller: Caller) -> None:
    request_log.bind(tenant_id=caller.tenant_id, key_id=caller.key_id)


def stream_token_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    """Return the token in the query, if the route accepts one."""
    if not connection.route_handler.opt.get(SENDS_STREAM):
        return None
    token: str | None = connection.query_params.get("token")
    return token


def bearer(header: str | None) -> str:
    """Return the key of an `Authorization` header.

    Raises:
        Unauthenticated: the header does not contain text with the form of a key.
    """
    # Optional white space is spaces and tabs (RFC 9110, 5.6.3).
    scheme, _, key = (header or "").strip(" \t").partition(" ")
    key = key.lstrip(" ")
    if scheme.lower() != "bearer" or not key or len(key) > KEY_LENGTH_MAX or not key.isascii():
        raise Unauthenticated
    return key


def requires(scope: Scope) -> dict[str, Any]:
    """Return the option of a route that requires a scope.

    An option and not a guard: Litestar copies the route for each call of a guard.
    """
    return {REQUIRED_SCOPE: scope}
