"""A tenant's quotas, applied to its uploads."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from schemas.ids import TenantId
from schemas.policy.quotas import Quotas, Usage
from schemas.settings import QuotaSettings
from schemas.tables.tenants import Tenant, TenantUsage
from schemas.tables.uploads import Upload


async def quotas_of(
    session: AsyncSession, *, tenant_id: TenantId, settings: QuotaSettings
) -> Quotas:
    """Return a tenant's own quotas, completed with the defaults of the settings."""
    tenant = (await session.scalars(select(Tenant).where(Tenant.id == tenant_id))).one()
    return _quotas(tenant, settings=settings)


async def reserve(
    session: AsyncSession, upload: Upload, *, quotas: Quotas, uncertain_bytes: int
) -> None:
    """Add an upload and check its tenant's quotas; after an error the caller must roll back.

    Adding the upload locks the tenant's usage until the transaction ends, so the
    usage read afterwards counts every upload that was admitted before.

    Raises:
        TooManyOpenUploads, QuotaExceeded, StagedBytesExceeded: the upload does not fit.
    """
    session.add(upload)
    await session.flush()
    usage = await _usage_of(session, upload.tenant_id)
    quotas.check_usage(usage, uncertain_bytes=uncertain_bytes)


async def check_complete(session: AsyncSession, upload: Upload, *, settings: QuotaSettings) -> None:
    """Check an upload in the session again, now that its size and content are known.

    Raises:
        FileTooLarge, TypeNotAllowed, QuotaExceeded: the quotas forbid the upload.
    """
    quotas, usage = await _quotas_and_usage(session, upload.tenant_id, settings=settings)
    quotas.check_size(upload.size)
    quotas.check_content(upload.sniffed_type, declared=upload.content_type)
    quotas.check_total(usage)


async def check_reference(
    session: AsyncSession, *, tenant_id: TenantId, content_type: str | None, settings: QuotaSettings
) -> None:
    """Check the quotas for an object in the bucket whose size is not known yet.

    Raises:
        TypeNotAllowed: the tenant may not send the declared type.
        QuotaExceeded: the tenant's uploads already take too many bytes.
    """
    quotas, usage = await _quotas_and_usage(session, tenant_id, settings=settings)
    quotas.check_declared(content_type)
    quotas.check_total(usage)


async def _quotas_and_usage(
    session: AsyncSession, tenant_id: TenantId, *, settings: QuotaSettings
) -> tuple[Quotas, Usage]:
    tenant, usage = (
        await session.execute(
            select(Tenant, TenantUsage)
            .outerjoin(TenantUsage, TenantUsage.tenant_id == Tenant.id)
            .where(Tenant.id == tenant_id)
            .execution_options(populate_existing=True)
        )
    ).one()
    return _quotas(tenant, settings=settings), _usage(usage)


async def _usage_of(session: AsyncSession, tenant_id: TenantId) -> Usage:
    return _usage(await session.get(TenantUsage, tenant_id, populate_existing=True))


def _quotas(tenant: Tenant, *, settings: QuotaSettings) -> Quotas:
    return Quotas.from_settings(settings).replaced_by(
        file_size=tenant.quota_file_size,
        total_bytes=tenant.quota_bytes,
        open_uploads=tenant.quota_open_uploads,
        staged_bytes=tenant.quota_staged_bytes,
        types=tenant.allowed_types,
    )


def _usage(usage: TenantUsage | None) -> Usage:
    return Usage(
        total_bytes=usage.bytes if usage else 0,
        open_uploads=usage.open_uploads if usage else 0,
        staged_bytes=usage.staged_bytes if usage else 0,
    )
