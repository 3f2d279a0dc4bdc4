"""A tenant's quotas, applied to its uploads."""

import json
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString

from psycopg.types.json import Jsonb
from psycopg.types.numeric import Int8

from gateway.db import Statements
from gateway.uploads.new_upload import NewUpload
from schemas.ids import TenantId
from schemas.policy.quotas import Quotas, Usage
from schemas.settings import QuotaSettings

QUOTAS: Final[LiteralString] = """
    SELECT quota_file_size, quota_bytes, quota_open_uploads, quota_staged_bytes, allowed_types
    FROM tenants WHERE id = %(tenant_id)s
"""

QUOTAS_AND_USAGE: Final[LiteralString] = """
    SELECT quota_file_size, quota_bytes, quota_open_uploads, quota_staged_bytes, allowed_types,
           coalesce(bytes, 0) AS bytes, coalesce(open_uploads, 0) AS open_uploads,
           coalesce(staged_bytes, 0) AS staged_bytes
    FROM tenants LEFT JOIN tenant_usage ON tenant_usage.tenant_id = tenants.id
    WHERE tenants.id = %(tenant_id)s
"""

# The lock makes the tenant's other creates wait until the commit of the statement, which then sees
# the sums with every upload that was admitted before.
RESERVE: Final[LiteralString] = """
    WITH usage AS (
        SELECT bytes + %(size)s AS bytes, open_uploads + 1 AS open_uploads,
               staged_bytes + %(size)s AS staged_bytes
        FROM tenant_usage WHERE tenant_id = %(tenant_id)s
        FOR UPDATE
    ), admitted AS (
        INSERT INTO uploads (id, tenant_id, status, filename, content_type, size, chunk_size,
                             chunk_count, sha256, staging, metadata, pipeline, expires_at)
        SELECT %(id)s, %(tenant_id)s, 'open', %(filename)s, %(content_type)s, %(size)s,
               %(chunk_size)s, %(chunk_count)s, %(sha256)s, %(staging)s, %(metadata)s,
               %(pipeline)s::jsonb,
               now() + %(lifetime)s
        FROM usage
        WHERE open_uploads <= %(open_uploads_max)s
          AND (%(bytes_max)s::bigint IS NULL OR bytes <= %(bytes_max)s)
          AND (%(staged_bytes_max)s::bigint IS NULL OR staged_bytes <= %(staged_bytes_max)s)
        RETURNING expires_at
    )
    SELECT usage.*, (SELECT expires_at FROM admitted) AS expires_at FROM usage
"""

FIRST_USAGE: Final[LiteralString] = """
    INSERT INTO tenant_usage (tenant_id) VALUES (%(tenant_id)s)
    ON CONFLICT DO NOTHING RETURNING tenant_id
"""


async def quotas_of(
    statements: Statements, *, tenant_id: TenantId, settings: QuotaSettings
) -> Quotas:
    """Return a tenant's own quotas, completed with the defaults of the settings."""
    tenant = await statements.first_row(QUOTAS, {"tenant_id": tenant_id})
    return _quotas(tenant, settings=settings)


async def reserve(
    statements: Statements,
    upload: NewUpload,
    *,
    lifetime: timedelta,
    quotas: Quotas,
    uncertain_bytes: int,
) -> datetime:
    """Add an upload if its tenant's quotas allow it; return when it expires.

    Of concurrent requests only those that fit together are admitted. The tenant's usage stays
    locked until the transaction of the statement ends.

    Args:
        statements: run the statement.
        upload: the upload to add.
        lifetime: time until the upload expires, by the database's clock.
        quotas: of the tenant.
        uncertain_bytes: part of the size that may turn out not to belong to the file.

    Raises:
        TooManyOpenUploads, QuotaExceeded, StagedBytesExceeded: the upload does not fit; it is not
            added.
    """
    values = {
        "id": upload.id,
        "tenant_id": upload.tenant_id,
        "filename": upload.filename,
        "content_type": upload.content_type,
        # Of one type: the driver prepares a statement for each combination of types.
        "size": Int8(upload.size),
        "chunk_size": Int8(upload.chunk_size),
        "chunk_count": Int8(upload.chunk_count),
        "sha256": upload.sha256,
        "staging": upload.staging.value,
        "metadata": Jsonb(upload.client_metadata),
        "pipeline": None if upload.pipeline is None else json.dumps(upload.pipeline),
        "lifetime": lifetime,
        "open_uploads_max": Int8(quotas.open_uploads),
        "bytes_max": _with_uncertain(quotas.total_bytes, uncertain_bytes),
        "staged_bytes_max": _with_uncertain(quotas.staged_bytes, uncertain_bytes),
    }
    row = await statements.first_row(RESERVE, values)
    if row is None:
        # The tenant's first upload: there is no row to lock yet.
        await statements.first_row(FIRST_USAGE, values)
        row = await statements.first_row(RESERVE, values)
    if row is None:
        raise RuntimeError("the tenant's usage has disappeared")
    if row.expires_at is None:
        quotas.check_usage(_usage(row), uncertain_bytes=uncertain_bytes)
        raise RuntimeError("the statement refuses an upload that the quotas allow")
    expires_at: datetime = row.expires_at
    return expires_at


def _with_uncertain(limit: int | None, uncertain_bytes: int) -> int | None:
    return None if limit is None else Int8(limit + uncertain_bytes)


def check_complete(
    row: Any,  # noqa: ANN401  # of `QUOTAS_AND_USAGE`
    *,
    size: int,
    sniffed_type: str | None,
    content_type: str | None,
    settings: QuotaSettings,
) -> None:
    """Check an upload again, now that its size and content are known.

    Raises:
        FileTooLarge, TypeNotAllowed, QuotaExceeded: the quotas forbid the upload.
    """
    quotas = _quotas(row, settings=settings)
    quotas.check_size(size)
    quotas.check_content(sniffed_type, declared=content_type)
    quotas.check_total(_usage(row))


async def check_reference(
    statements: Statements,
    *,
    tenant_id: TenantId,
    content_type: str | None,
    settings: QuotaSettings,
) -> None:
    """Check the quotas for an object in the bucket whose size is not known yet.

    Raises:
        TypeNotAllowed: the tenant may not send the declared type.
        QuotaExceeded: the tenant's uploads already take too many bytes.
    """
    row = await statements.first_row(QUOTAS_AND_USAGE, {"tenant_id": tenant_id})
    quotas = _quotas(row, settings=settings)
    quotas.check_declared(content_type)
    quotas.check_total(_usage(row))


def _quotas(tenant: Any, *, settings: QuotaSettings) -> Quotas:  # noqa: ANN401  # a row with the quotas of `Tenant`
    return Quotas.from_settings(settings).replaced_by(
        file_size=tenant.quota_file_size,
        total_bytes=tenant.quota_bytes,
        open_uploads=tenant.quota_open_uploads,
        staged_bytes=tenant.quota_staged_bytes,
        types=tenant.allowed_types,
    )


def _usage(row: Any) -> Usage:  # noqa: ANN401  # a row with the columns of `TenantUsage`
    return Usage(
        total_bytes=row.bytes, open_uploads=row.open_uploads, staged_bytes=row.staged_bytes
    )
