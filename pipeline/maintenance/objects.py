"""Removes staged objects from the bucket that no upload owns."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog

from pipeline.context import Context
from pipeline.maintenance import operations, ownership
from pipeline.maintenance.exclusive import Budget
from pipeline.maintenance.report import SweepReport
from pipeline.storage.port import ListedObject, ObjectStorage
from schemas import staging_layout
from schemas.errors import StoreFailed
from schemas.ids import TenantId, UploadId
from schemas.object_keys import ObjectKey

log = structlog.stdlib.get_logger(__name__)

BATCH: Final = 1000
"""As many as a store lists, and deletes, in one request."""


def sweep(context: Context, budget: Budget) -> SweepReport:
    findings = SweepReport()
    now = datetime.now(UTC)
    for batch in budget.batches(context.storage.objects_under(staging_layout.PREFIX), of=BATCH):
        owners = {found.key: staging_layout.upload_of_key(found.key) for found in batch}
        with context.transaction() as session:
            statuses = operations.statuses(session, {owner for owner in owners.values() if owner})
        left = []
        for found in batch:
            owner = owners[found.key]
            if owner is None and not staging_layout.is_probe(found.key):
                findings.add_unrecognized(found.key)
            elif _is_old(found, now=now, context=context) and (
                owner is None or ownership.is_left_in_staging(statuses.get(owner))
            ):
                left.append(found.key)
            else:
                findings.kept += 1
        _remove(left, storage=context.storage, findings=findings, budget=budget)
    return findings


def remove_staged(
    tenant_id: TenantId, upload_id: UploadId, *, storage: ObjectStorage, budget: Budget
) -> None:
    """Remove what is staged of an upload that has ended, as far as the budget goes."""
    staged = storage.objects_under(staging_layout.prefix_of(tenant_id, upload_id))
    for batch in budget.batches(staged, of=BATCH):
        storage.delete_all([found.key for found in batch])


def _remove(
    keys: Sequence[ObjectKey], *, storage: ObjectStorage, findings: SweepReport, budget: Budget
) -> None:
    """Delete orphans at once; where that fails one by one, so that the others go all the same."""
    try:
        if keys:
            storage.delete_all(keys)
    except StoreFailed as error:
        log.warning("sweep.batch_refused", reason=str(error))
    else:
        findings.removed += len(keys)
        return
    for key in keys:
        if budget.is_spent:
            return
        findings.remove(key, partial(storage.delete, key))


def _is_old(found: ListedObject, *, now: datetime, context: Context) -> bool:
    return ownership.is_settled(found.modified_at, now=now, grace=context.settings.sweep_grace)
