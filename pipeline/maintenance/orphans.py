"""Deletes orphans: files, objects and multipart uploads that no upload owns."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.context import Context, database_time
from pipeline.maintenance import ownership
from pipeline.maintenance.exclusive import Budget
from pipeline.maintenance.ownership import Transfer
from pipeline.maintenance.report import SweepReport
from pipeline.steps import lease
from pipeline.steps.errors import LeaseHeld, LeaseLost
from pipeline.steps.task import held
from pipeline.storage.errors import MultipartGone, ObjectMissing
from pipeline.storage.port import Multipart, ObjectStorage
from schemas import object_keys, staging_layout
from schemas.errors import StoreFailed, StoreRejected
from schemas.ids import JobId, UploadId
from schemas.lifecycle import ACTIVE_STEPS, StepStatus, UploadStatus
from schemas.object_keys import ObjectKey
from schemas.steps import StepName
from schemas.tables.jobs import Job
from schemas.tables.steps import Step
from schemas.tables.uploads import Upload

log = structlog.stdlib.get_logger(__name__)

LISTING_BATCH: Final = 1000
"""S3 lists and deletes as many objects in one request."""

REQUEST_BATCH: Final = 100
"""For orphans that need requests of their own."""

ORIGINALS_SWEEPS: Final = 3
"""Number of sweeps that examine an ended upload; one of them may be cut short."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file, object or multipart upload that a sweep found; it may be an orphan."""

    name: str
    upload_id: UploadId | None
    """The upload that the name contains."""
    modified_at: datetime
    is_probe: bool = False
    multipart_id: str = ""

    @property
    def is_ours(self) -> bool:
        return self.is_probe or self.upload_id is not None


IsOrphan = Callable[[Found], bool]


def sweep_files(context: Context, budget: Budget) -> SweepReport:
    """Delete files of the staging directory."""
    report = SweepReport()
    directory = context.settings.staging_dir
    if directory is None:
        return report
    if not (directory / staging_layout.MARKER).exists():
        # An empty mount point, or a directory that the gateways do not write to.
        log.warning("sweep.staging_not_mounted")
        return report
    sweep = partial(
        _orphans,
        context,
        budget,
        report,
        judge=_judge_staged,
        batch_size=LISTING_BATCH,
        not_after=_time_of_files(directory),
    )
    with os.scandir(directory) as entries:
        for orphans in sweep(_files(entries, report)):
            for orphan in orphans:
                report.remove(
                    orphan.name, partial((directory / orphan.name).unlink, missing_ok=True)
                )
    return report


def sweep_staged_objects(context: Context, budget: Budget) -> SweepReport:
    """Delete staged chunks of the bucket, and the objects of probes."""
    report = SweepReport()
    found = (
        Found(
            name=listed.key,
            upload_id=staging_layout.upload_of_key(listed.key),
            modified_at=listed.modified_at,
            is_probe=staging_layout.is_probe(listed.key),
        )
        for listed in context.storage.objects_under(staging_layout.PREFIX)
    )
    for orphans in _orphans(
        context, budget, report, found, judge=_judge_staged, batch_size=LISTING_BATCH
    ):
        keys = [ObjectKey(orphan.name) for orphan in orphans]
        _delete_objects(keys, storage=context.storage, report=report, budget=budget)
    return report


def sweep_multiparts(context: Context, budget: Budget) -> SweepReport:
    """Abort multipart uploads that no transfer continues."""
    report = SweepReport()
    found = (
        Found(
            name=listed.multipart.key,
            upload_id=object_keys.upload_of_original(listed.multipart.key),
            modified_at=listed.begun_at,
            is_probe=staging_layout.is_probe(listed.multipart.key),
            multipart_id=listed.multipart.id,
        )
        for listed in chain(
            context.storage.multiparts_under(object_keys.ORIGINALS),
            context.storage.multiparts_under(staging_layout.PROBES),
        )
    )
    for orphans in _orphans(
        context, budget, report, found, judge=_judge_unfinished, batch_size=REQUEST_BATCH
    ):
        for orphan in orphans:
            if budget.is_spent:
                break  # a store that refuses may take long over each request
            multipart = Multipart(ObjectKey(orphan.name), id=orphan.multipart_id)
            _abort(multipart, storage=context.storage, report=report)
    return report


def sweep_originals(context: Context, budget: Budget) -> SweepReport:
    """Delete objects that appeared after their upload had ended without an object.

    The store may execute a request minutes after a worker has abandoned the request. The tasks of
    the
    upload have cleaned up by then, so only this sweep finds the object.
    """
    report = SweepReport()
    with context.transaction() as session:
        before = database_time(session) - context.settings.sweep_grace
        after = before - ORIGINALS_SWEEPS * context.settings.sweep_every
        ended = _transfers_without_object(session, after=after, before=before)
    for batch in budget.batches(ended, size=REQUEST_BATCH):
        for transfer in batch:
            if budget.is_spent:
                break  # a store that refuses may take long over each request
            try:
                exists = _exists(transfer.key, storage=context.storage)
            except StoreRejected as error:
                # The store refuses this key. A store that is down or refuses every request
                # raises another error, which ends the sweep.
                report.add_failed(transfer.key, error)
                continue
            if exists:
                _remove_unless_retried(context, transfer, report)
    return report


def _orphans(
    context: Context,
    budget: Budget,
    report: SweepReport,
    found: Iterable[Found],
    *,
    judge: Callable[[Session, Collection[UploadId]], IsOrphan],
    batch_size: int,
    not_after: datetime | None = None,
) -> Iterator[list[Found]]:
    """Yield the orphans, batch by batch, and count everything else in the report.

    Args:
        context: the database and the settings.
        budget: the time for this.
        report: counts.
        found: what may be an orphan.
        judge: decides which of the old ones are orphans.
        batch_size: how many are judged together.
        not_after: the time of the system that dated `found`, if known. Its clock may be behind the
            database's; then everything would look old.
    """
    grace = context.settings.sweep_grace
    for batch in budget.batches(found, size=batch_size):
        ours = [each for each in batch if each.is_ours]
        with context.transaction() as session:
            now = database_time(session)
            if not_after is not None:
                now = min(now, not_after)
            old = [
                each for each in ours if ownership.is_old(each.modified_at, now=now, grace=grace)
            ]
            is_orphan = judge(session, {each.upload_id for each in old if each.upload_id})
        orphans = [each for each in old if each.is_probe or is_orphan(each)]
        for each in batch:
            if not each.is_ours:
                report.add_unrecognized(each.name)
        report.kept += len(ours) - len(orphans)
        yield orphans


def _judge_staged(session: Session, upload_ids: Collection[UploadId]) -> IsOrphan:
    found = session.execute(select(Upload.id, Upload.status).where(Upload.id.in_(upload_ids)))
    statuses: Mapping[UploadId | None, UploadStatus] = {row.id: row.status for row in found}
    return lambda each: ownership.is_left_in_staging(statuses.get(each.upload_id))


def _judge_unfinished(session: Session, upload_ids: Collection[UploadId]) -> IsOrphan:
    found = session.execute(
        select(
            Job.upload_id,
            Step.status,
            Step.checkpoint["multipart_id"].astext.label("multipart_id"),
            (~lease.is_free()).label("lease_is_live"),
        )
        .join(Step, (Step.job_id == Job.id) & (Step.name == StepName.TRANSFER))
        .where(Job.upload_id.in_(upload_ids))
    )
    transfers: Mapping[UploadId | None, Transfer] = {
        job.upload_id: Transfer(
            is_active=job.status in ACTIVE_STEPS,
            multipart_id=job.multipart_id,
            lease_is_live=job.lease_is_live,
        )
        for job in found
    }
    return lambda each: ownership.is_left_unfinished(
        each.multipart_id, transfers.get(each.upload_id)
    )


@dataclass(frozen=True, kw_only=True)
class EndedTransfer:
    """A transfer of an upload that has no object; `key` is where the object would be."""

    key: ObjectKey
    job_id: JobId
    status: StepStatus


def _transfers_without_object(
    session: Session, *, after: datetime, before: datetime
) -> Sequence[EndedTransfer]:
    """Return the transfers of uploads whose job failed or was cancelled between the two times."""
    found = session.execute(
        select(Upload.tenant_id, Upload.id, Step.job_id, Step.status)
        .join(Job, Job.upload_id == Upload.id)
        .join(Step, (Step.job_id == Job.id) & (Step.name == StepName.TRANSFER))
        .where(
            Upload.status.in_((UploadStatus.FAILED, UploadStatus.CANCELLED)),
            Job.finished_at > after,
            Job.finished_at <= before,
        )
    )
    return [
        EndedTransfer(
            key=object_keys.original(row.tenant_id, row.id), job_id=row.job_id, status=row.status
        )
        for row in found
    ]


def _remove_unless_retried(context: Context, transfer: EndedTransfer, report: SweepReport) -> None:
    """Delete an object; a client that retried the transfer meanwhile may have stored it again."""
    try:
        with held(
            context, job_id=transfer.job_id, name=StepName.TRANSFER, status=transfer.status
        ) as pool:
            if pool is None:
                report.kept += 1
            else:
                report.remove(
                    transfer.key, partial(pool.run, partial(context.storage.delete, transfer.key))
                )
    except (LeaseHeld, LeaseLost):
        report.kept += 1


def _time_of_files(directory: Path) -> datetime:
    """Return the time that the file system gives a file that changes now."""
    marker = directory / staging_layout.MARKER
    marker.touch()
    return datetime.fromtimestamp(marker.stat().st_mtime, UTC)


def _files(entries: Iterable["os.DirEntry[str]"], report: SweepReport) -> Iterator[Found]:
    for entry in entries:
        upload_id = staging_layout.upload_of_file(entry.name)
        try:
            if upload_id is not None and entry.is_file(follow_symlinks=False):
                modified_at = datetime.fromtimestamp(entry.stat().st_mtime, UTC)
                yield Found(name=entry.name, upload_id=upload_id, modified_at=modified_at)
            elif entry.name != staging_layout.MARKER:
                report.add_unrecognized(entry.name)
        except FileNotFoundError:
            pass  # its upload ended meanwhile
        except OSError as error:
            report.add_failed(entry.name, error)


def _delete_objects(
    keys: Sequence[ObjectKey], *, storage: ObjectStorage, report: SweepReport, budget: Budget
) -> None:
    """Delete orphans in one request; if the store refuses, one by one."""
    if not keys:
        return
    try:
        storage.delete_all(keys)
    except StoreFailed as error:
        log.warning("sweep.batch_refused", reason=str(error))
    else:
        report.removed += len(keys)
        return
    for key in keys:
        if budget.is_spent:
            return
        report.remove(key, partial(storage.delete, key))


def _abort(multipart: Multipart, *, storage: ObjectStorage, report: SweepReport) -> None:
    try:
        may_be_completed = _may_be_completed(multipart, storage=storage)
    except StoreFailed as error:
        report.add_failed(multipart.key, error)
        return
    if may_be_completed:
        log.warning("sweep.multipart_left", key=multipart.key, reason="it may be an object")
        report.kept += 1
    else:
        report.remove(multipart.key, partial(storage.abort, multipart))


def _may_be_completed(multipart: Multipart, *, storage: ObjectStorage) -> bool:
    """Return whether the multipart upload may be completed although the store lists it as open.

    A store that dies within Complete may list the multipart upload for ever. Aborting it
    would delete the parts that the object consists of. The multipart upload is not completed if
    there is no object, or if it has no parts.
    """
    try:
        storage.head(multipart.key)
        return bool(storage.list_parts(multipart))
    except (ObjectMissing, MultipartGone):
        return False


def _exists(key: ObjectKey, *, storage: ObjectStorage) -> bool:
    try:
        storage.head(key)
    except ObjectMissing:
        return False
    return True
