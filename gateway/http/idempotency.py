"""`Idempotency-Key`: the repetition of a request creates nothing and gets the same answer.

The key is claimed in the transaction that creates the thing, so both are there
or neither. A second request with the key waits on the first one's uncommitted
row, then finds the thing it made.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Self
from uuid import UUID

import msgspec
from litestar.params import HeaderParameter
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from schemas.errors import DomainError, ErrorCode
from schemas.ids import TenantId
from schemas.tables.idempotency import IdempotentRequest

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        pattern=r"^[!-~]{1,255}$",
        required=False,
        description="makes repeating this request safe; bound to the operation and the body",
    ),
]


class KeyForgotten(DomainError):
    """The time of the request's key was over while the request was under way."""

    code = ErrorCode.UNAVAILABLE
    retryable = True

    def __init__(self) -> None:
        super().__init__("the Idempotency-Key was forgotten meanwhile; try again")


class IdempotencyKeyReused(DomainError):
    """The key was used before, for something else."""

    code = ErrorCode.IDEMPOTENCY_KEY_REUSED

    def __init__(self) -> None:
        super().__init__("this Idempotency-Key was used before with another request")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A request that asks to be applied once."""

    key: str
    operation: str
    request_hash: bytes

    @classmethod
    def of(cls, key: str | None, *, operation: str, request: msgspec.Struct) -> Self | None:
        """Return the claim of a request, or None where it has no key.

        The hash is of the request's meaning: white space and the order of
        fields make no difference.
        """
        if key is None:
            return None
        meaning = msgspec.json.encode(request, order="deterministic")
        return cls(key=key, operation=operation, request_hash=hashlib.sha256(meaning).digest())


async def first_use(
    session: AsyncSession, claim: Claim | None, *, tenant_id: TenantId, resource_id: UUID
) -> UUID:
    """Bind the key to the thing about to be created; return the thing it is bound to.

    Another id than `resource_id` means: that one exists already, create nothing.

    The key stays locked until the transaction ends. What opens or finalizes an upload locks
    the tenant's usage too, and does so afterwards: two such requests with one key would
    otherwise wait for each other.

    Raises:
        IdempotencyKeyReused: the key is bound to another operation or body.
        KeyForgotten: it was, until a moment ago.
    """
    if claim is None:
        return resource_id
    inserted = await session.scalar(
        insert(IdempotentRequest)
        .values(
            tenant_id=tenant_id,
            key=claim.key,
            operation=claim.operation,
            request_hash=claim.request_hash,
            resource_id=resource_id,
        )
        .on_conflict_do_nothing()
        .returning(IdempotentRequest.resource_id),
    )
    if inserted is not None:
        return resource_id
    earlier = await earlier_use(session, claim, tenant_id=tenant_id)
    if earlier is None:
        raise KeyForgotten
    return earlier


async def earlier_use(
    session: AsyncSession, claim: Claim | None, *, tenant_id: TenantId
) -> UUID | None:
    """Return the thing the key is bound to; None where it is bound to nothing.

    Raises:
        IdempotencyKeyReused: the key is bound to another operation or body.
    """
    if claim is None:
        return None
    earlier = await session.get(IdempotentRequest, (tenant_id, claim.key))
    if earlier is None:
        return None
    if (earlier.operation, earlier.request_hash) != (claim.operation, claim.request_hash):
        raise IdempotencyKeyReused
    return earlier.resource_id


async def is_used(session: AsyncSession, key: str, *, tenant_id: TenantId) -> bool:
    """Say whether a key is bound to something; what a request means may not be known yet."""
    return await session.get(IdempotentRequest, (tenant_id, key)) is not None
