"""Deletes exports whose time is over, and files in the bucket that no export has."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

import structlog
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from pipeline.context import Context, database_time
from pipeline.export import send
from pipeline.maintenance import ownership
from pipeline.maintenance.exclusive import Budget
from pipeline.maintenance.report import SweepReport
from pipeline.storage.port import Multipart
from schemas import object_keys
from schemas.errors import StoreFailed
from schemas.ids import ExportId
from schemas.lifecycle import ACTIVE_STEPS
from schemas.object_keys import ObjectKey
from schemas.steps import StepName
from schemas.tables import retention
from schemas.tables.exports import Export
from schemas.tables.steps import Step

log = structlog.stdlib.get_logger(__name__)

BATCH: Final = 50
"""Exports per transaction; each costs requests to the store."""

LISTING_BATCH: Final = 1_000


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a sweep did; the files that are `left` are tried again."""

    deleted: int
    left: int


def sweep(context: Context, budget: Budget) -> Summary:
    """Delete exports that expired or were deleted: first the file, then the row.

    A sweep that dies in between finds the row again. No transaction is open around the store.
    """
    deleted = left = 0
    while not budget.is_spent and not left:
        with context.transaction() as session:
            batch = session.execute(
                retention.exports().order_by(Export.expires_at).limit(BATCH)
            ).all()
        cleaned = []
        for export in batch:
            prefix = object_keys.of_export(export.tenant_id, export.id)
            try:
                send.clean_up(prefix, storage=context.storage)
            except StoreFailed as error:
                log.warning("sweep.export_left", export_id=str(export.id), reason=str(error))
                left += 1
            else:
                cleaned.append(export.id)
        with context.transaction() as session:
            session.execute(
                delete(Export).where(Export.id.in_(cleaned), Export.expires_at < func.now())
            )
        deleted += len(cleaned)
        if len(batch) < BATCH:
            break
    return Summary(deleted=deleted, left=left)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """An object, or a multipart upload, under the prefix of exports."""

    key: ObjectKey
    modified_at: datetime
    multipart: Multipart | None = None

    @property
    def export_id(self) -> ExportId | None:
        return object_keys.export_of_file(self.key)


@dataclass(frozen=True, kw_only=True)
class _Owner:
    """The export that a key belongs to."""

    object_key: str | None
    is_active: bool


def sweep_orphans(context: Context, budget: Budget) -> SweepReport:
    """Delete files that no export has: of workers that lost their lease, or of deleted jobs."""
    report = SweepReport()
    for batch in budget.batches(_found(context), size=LISTING_BATCH):
        with context.transaction() as session:
            now = database_time(session)
            owners = _owners(session, {each.export_id for each in batch if each.export_id})
        for each in batch:
            if each.export_id is None:
                report.add_unrecognized(each.key)
            elif _is_orphan(each, owners) and ownership.is_old(
                each.modified_at, now=now, grace=context.settings.sweep_grace
            ):
                remove = (
                    partial(context.storage.delete, each.key)
                    if each.multipart is None
                    else partial(context.storage.abort, each.multipart)
                )
                report.remove(each.key, remove)
            else:
                report.kept += 1
    return report


def _found(context: Context) -> Iterator[_Found]:
    for listed in context.storage.objects_under(object_keys.EXPORTS):
        yield _Found(key=listed.key, modified_at=listed.modified_at)
    for unfinished in context.storage.multiparts_under(object_keys.EXPORTS):
        yield _Found(
            key=unfinished.multipart.key,
            modified_at=unfinished.begun_at,
            multipart=unfinished.multipart,
        )


def _owners(session: Session, export_ids: Collection[ExportId]) -> Mapping[ExportId, _Owner]:
    found = session.execute(
        select(Export.id, Export.object_key, Step.status)
        .outerjoin(Step, (Step.job_id == Export.job_id) & (Step.name == StepName.EXPORT))
        .where(Export.id.in_(export_ids))
    )
    return {
        export_id: _Owner(object_key=key, is_active=status in ACTIVE_STEPS)
        for export_id, key, status in found
    }


def _is_orphan(found: _Found, owners: Mapping[ExportId, _Owner]) -> bool:
    """Return whether nothing needs the file.

    An attempt that is active, or will follow, deletes what earlier attempts left. The file of a
    completed export may still be listed as a multipart upload, whose end would destroy the file.
    """
    owner = owners.get(found.export_id) if found.export_id is not None else None
    return owner is None or not (owner.is_active or owner.object_key == found.key)
