"""`Idempotency-Key`: a repeated request creates nothing and gets the same answer.

The key is bound in the transaction that creates the resource: both are committed, or
neither is. A second request with the key waits for the first one's uncommitted row, then
finds the resource that the first request created.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Final, LiteralString, Self
from uuid import UUID

import msgspec
from litestar.params import HeaderParameter

from gateway.db import Statements
from schemas.errors import DomainError, ErrorCode
from schemas.ids import TenantId

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        pattern=r"^[!-~]{1,255}$",
        required=False,
        description="makes repeating this request safe; bound to the operation and the body",
    ),
]

BIND: Final[LiteralString] = """
    INSERT INTO idempotent_requests (tenant_id, key, operation, request_hash, resource_id)
    VALUES (%(tenant_id)s, %(key)s, %(operation)s, %(request_hash)s, %(resource_id)s)
    ON CONFLICT DO NOTHING
    RETURNING resource_id
"""

BOUND: Final[LiteralString] = """
    SELECT operation, request_hash, resource_id FROM idempotent_requests
    WHERE tenant_id = %(tenant_id)s AND key = %(key)s
"""


class KeyForgotten(DomainError):
    """The key expired while the request was processed."""

    code = ErrorCode.UNAVAILABLE
    retryable = True

    def __init__(self) -> None:
        super().__init__("the Idempotency-Key expired during the request; try again")


class IdempotencyKeyReused(DomainError):
    """The key is bound to another request."""

    code = ErrorCode.IDEMPOTENCY_KEY_REUSED

    def __init__(self) -> None:
        super().__init__("this Idempotency-Key was used before with another request")


@dataclass(frozen=True, kw_only=True)
class KeyedRequest:
    """A request with an idempotency key: it is applied at most once."""

    key: str
    operation: str
    request_hash: bytes

    @classmethod
    def of(cls, key: str | None, *, operation: str, request: msgspec.Struct) -> Self | None:
        """Return the request with its key, or None if the request has no key.

        The hash covers the decoded values: white space and the order of fields make no
        difference.
        """
        if key is None:
            return None
        values = msgspec.json.encode(request, order="deterministic")
        return cls(key=key, operation=operation, request_hash=hashlib.sha256(values).digest())


async def first_use(
    statements: Statements, keyed: KeyedRequest | None, *, tenant_id: TenantId, resource_id: UUID
) -> UUID:
    """Bind the key to the resource about to be created; return the resource it is bound to.

    If the returned id is not `resource_id`, an earlier request created the resource, and the caller
    must create nothing.

    The key stays locked until the transaction ends. A request that opens or finalizes an
    upload locks the tenant's usage after the key, never before it: two requests with one key
    would otherwise deadlock.

    Raises:
        IdempotencyKeyReused: the key is bound to another operation or body.
        KeyForgotten: the key expired a moment ago.
    """
    if keyed is None:
        return resource_id
    inserted = await statements.first_row(
        BIND,
        {
            "tenant_id": tenant_id,
            "key": keyed.key,
            "operation": keyed.operation,
            "request_hash": keyed.request_hash,
            "resource_id": resource_id,
        },
    )
    if inserted is not None:
        return resource_id
    earlier = await earlier_use(statements, keyed, tenant_id=tenant_id)
    if earlier is None:
        raise KeyForgotten
    return earlier


async def earlier_use(
    statements: Statements, keyed: KeyedRequest | None, *, tenant_id: TenantId
) -> UUID | None:
    """Return the resource that the key is bound to; None if the key is unused.

    Raises:
        IdempotencyKeyReused: the key is bound to another operation or body.
    """
    if keyed is None:
        return None
    earlier = await statements.first_row(BOUND, {"tenant_id": tenant_id, "key": keyed.key})
    if earlier is None:
        return None
    if (earlier.operation, earlier.request_hash) != (keyed.operation, keyed.request_hash):
        raise IdempotencyKeyReused
    resource_id: UUID = earlier.resource_id
    return resource_id


async def is_used(statements: Statements, key: str, *, tenant_id: TenantId) -> bool:
    """Return whether the key is bound to a resource, even by a different request."""
    return await statements.first_row(BOUND, {"tenant_id": tenant_id, "key": key}) is not None
