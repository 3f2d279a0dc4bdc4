"""`/webhooks/{id}`: secrets, and the public keys that receivers verify with."""

from typing import Final
from uuid import UUID

import msgspec
from litestar import Response, Router, delete, get, post
from litestar.params import FromPath, JSONBody

from gateway.context import ApiRequest
from gateway.http.idempotency import IdempotencyKey, KeyedRequest
from gateway.http.problems import BODY_ERRORS, answers
from gateway.http.security import requires
from gateway.settings import API_PREFIX
from gateway.webhooks import secrets
from gateway.webhooks.create import signed
from schemas.api.scopes import Scope
from schemas.api.webhooks import PublicKeys, RotateSecret, SecretRotated
from schemas.errors import ErrorCode
from schemas.ids import TenantId, WebhookId

WITHOUT_BODY: Final = RotateSecret()

CACHE_CONTROL: Final = "public, max-age=300"
"""A receiver that has an earlier key for so long verifies with it: the overlap is longer, unless the
tenant asks for a shorter one."""

NOBODY: Final = TenantId(UUID(int=0))
"""The turns of requests without a key: a burst of them occupies few connections."""


class KeyedRotation(msgspec.Struct, frozen=True, kw_only=True):
    """What an `Idempotency-Key` is bound to."""

    webhook_id: WebhookId
    request: RotateSecret


@post(
    "/{webhook_id:uuid}/rotate-secret",
    summary="Rotate the secret of an endpoint",
    opt=requires(Scope.WEBHOOKS_WRITE),
    responses=answers(
        *BODY_ERRORS,
        ErrorCode.WEBHOOK_NOT_FOUND,
        ErrorCode.WEBHOOK_SECRET_NOT_FOUND,
        ErrorCode.TOO_MANY_WEBHOOK_SECRETS,
        ErrorCode.IDEMPOTENCY_KEY_REUSED,
        has_json=True,
    ),
)
async def rotate_secret(
    request: ApiRequest,
    *,
    webhook_id: FromPath[WebhookId],
    data: JSONBody[RotateSecret] = WITHOUT_BODY,
    idempotency_key: IdempotencyKey = None,
) -> SecretRotated:
    """Add a secret, which is not shown again; the earlier ones sign beside it for `overlap` seconds.

    Every delivery carries one signature for each secret, so a receiver that has either of them
    verifies it. A repetition with the same `Idempotency-Key` returns the same secret's id with
    `secret: null`.
    """
    keys = request.context.secret_keys
    hashable = KeyedRotation(
        webhook_id=webhook_id,
        request=msgspec.structs.replace(data, secret=signed(data.secret, keys=keys)),
    )
    return await secrets.rotate_secret(
        request.context,
        caller=request.user,
        webhook_id=webhook_id,
        request=data,
        keyed=KeyedRequest.of(idempotency_key, operation="rotate_secret", request=hashable),
    )


@delete(
    "/{webhook_id:uuid}/secrets/{secret_id:uuid}",
    summary="End a secret of an endpoint",
    opt=requires(Scope.WEBHOOKS_WRITE),
    responses=answers(
        ErrorCode.WEBHOOK_NOT_FOUND,
        ErrorCode.WEBHOOK_SECRET_NOT_FOUND,
        ErrorCode.WEBHOOK_SECRET_IN_USE,
    ),
)
async def end_secret(
    request: ApiRequest, *, webhook_id: FromPath[WebhookId], secret_id: FromPath[UUID]
) -> None:
    """End an earlier secret before its overlap is over; the present one is refused."""
    await secrets.end_secret(
        request.context, caller=request.user, webhook_id=webhook_id, secret_id=secret_id
    )


@get(
    "/{webhook_id:uuid}/public-key",
    summary="Get the public keys of an endpoint",
    responses=answers(ErrorCode.WEBHOOK_NOT_FOUND, needs_key=False),
)
async def get_public_key(
    request: ApiRequest, *, webhook_id: FromPath[WebhookId]
) -> Response[PublicKeys]:
    """Return the public keys that verify the signatures `v1a`, as a JWK Set; needs no API key.

    A receiver that fetches them follows a rotation by itself. An endpoint with signatures `v1` has
    none.
    """
    async with request.context.autocommit.turn(NOBODY):
        keys = await secrets.public_keys(request.context, webhook_id)
    return Response(keys, headers={"Cache-Control": CACHE_CONTROL})


public_router = Router(
    f"{API_PREFIX}/webhooks", route_handlers=[get_public_key], tags=["webhooks"], security=[{}]
)
"""The route that needs no API key."""
