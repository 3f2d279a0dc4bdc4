"""Turns the next waiting lines of a batch into jobs, a group of lines in one transaction.

The transaction has the lines, their uploads, jobs, events and steps, and the counters of the batch:
a worker that is killed repeats no line and loses none. It locks lines, uploads, the usage of the
tenant, the counters of its steps, the step of the batch, and the batch, in this order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

import msgspec
from sqlalchemy import ARRAY, Integer, Text, Uuid, bindparam, func, insert, select, text, update
from sqlalchemy.orm import Session

from pipeline.batch import checks
from pipeline.batch.checks import Finalized, OpenUpload, Reference
from pipeline.batch.record import SOURCE, BatchFacts
from pipeline.context import database_time
from pipeline.settings import Settings
from schemas.api.batches import BatchLine as Source
from schemas.errors import DomainError
from schemas.events.uploads import UploadFinalized
from schemas.ids import EventId, JobId, TenantId, UploadId
from schemas.lifecycle import BatchLineState, JobKind, Priority, UploadStatus
from schemas.policy.quotas import Quotas, Usage
from schemas.steps import JobStage, StepName
from schemas.tables import steps
from schemas.tables.base import table_of
from schemas.tables.batches import BatchLine
from schemas.tables.events import emit
from schemas.tables.jobs import Job
from schemas.tables.tenants import Tenant, TenantUsage
from schemas.tables.uploads import Chunk, Upload, a_reference

GROUP: Final = 20
"""Lines of a transaction. It holds the counters of the tenant's steps, which its finalizes also
lock. Each further step also reads the versions of the counters that the steps before have left."""

_LINES: Final = table_of(BatchLine)
_UPLOADS: Final = table_of(Upload)

_WAITING: Final = (
    select(_LINES.c.line, _LINES.c.source)
    .where(
        _LINES.c.batch_id == bindparam("of_batch"),
        _LINES.c.state == BatchLineState.WAITING,
        _LINES.c.line > bindparam("after"),
    )
    .order_by(_LINES.c.line)
    .limit(bindparam("at_most"))
    .with_for_update()
)

_START: Final = text(
    """
    UPDATE batch_lines SET state = 'started', job_id = chosen.job_id
    FROM unnest(:lines, :jobs) AS chosen (line, job_id)
    WHERE batch_id = :batch_id AND batch_lines.line = chosen.line AND batch_lines.line = ANY(:lines)
    """
).bindparams(bindparam("lines", type_=ARRAY(Integer())), bindparam("jobs", type_=ARRAY(Uuid())))

_REFUSE: Final = text(
    """
    UPDATE batch_lines SET state = 'failed', error_code = chosen.code, error_detail = chosen.detail
    FROM unnest(:lines, :codes, :details) AS chosen (line, code, detail)
    WHERE batch_id = :batch_id AND batch_lines.line = chosen.line AND batch_lines.line = ANY(:lines)
    """
).bindparams(
    bindparam("lines", type_=ARRAY(Integer())),
    bindparam("codes", type_=ARRAY(Text())),
    bindparam("details", type_=ARRAY(Text())),
)


@dataclass(frozen=True, kw_only=True)
class Group:
    """What became of a group of lines.

    Attributes:
        started: lines that became jobs.
        failed: lines that could not become jobs.
        last: number of the last line; 0 if no line waits.
    """

    started: int = 0
    failed: int = 0
    last: int = 0

    @property
    def lines(self) -> int:
        return self.started + self.failed


@dataclass(frozen=True, kw_only=True)
class _NewJob:
    line: int
    id: JobId
    upload_id: UploadId
    filename: str
    size: int | None


def start_lines(
    session: Session, batch: BatchFacts, *, after: int, at_most: int, settings: Settings
) -> Group:
    """Turn the next waiting lines into jobs; a line that cannot become one fails with the reason.

    Args:
        session: the session of the group.
        batch: the batch.
        after: the last line that had its turn.
        at_most: most lines.
        settings: default quotas, and shares of the queues.
    """
    rows = session.execute(
        _WAITING, {"of_batch": batch.id, "after": after, "at_most": at_most}
    ).all()
    if not rows:
        return Group()
    sources = {row.line: msgspec.convert(row.source, Source) for row in rows}
    uploads = _lock_uploads(
        session,
        [each.upload_id for each in sources.values() if each.upload_id is not None],
        tenant_id=batch.tenant_id,
    )
    tenant = _tenant(session, batch.tenant_id, settings=settings)
    now = database_time(session)
    references = dict[int, Reference]()
    finalized = dict[int, Finalized]()
    refused = dict[int, DomainError]()
    for line, source in sources.items():
        decision = checks.decide(
            source, tenant=tenant, uploads=uploads, metadata=batch.metadata, now=now
        )
        match decision:
            case Reference():
                references[line] = decision
            case Finalized():
                finalized[line] = decision
                # A second line with this upload is refused.
                uploads[decision.upload.id] = replace(
                    decision.upload, status=UploadStatus.FINALIZED
                )
            case DomainError():
                refused[line] = decision
    jobs = [
        *_add_uploads(session, references, tenant_id=batch.tenant_id),
        *_finalize(session, finalized),
    ]
    jobs.sort(key=lambda job: job.line)
    _add_jobs(session, jobs, batch=batch, settings=settings, now=now)
    _record(session, batch, jobs=jobs, refused=refused)
    return Group(started=len(jobs), failed=len(refused), last=rows[-1].line)


def _lock_uploads(
    session: Session, upload_ids: Sequence[UploadId], *, tenant_id: TenantId
) -> dict[UploadId, OpenUpload]:
    """Return the uploads of the tenant among these ids, locked in the order of their ids."""
    if not upload_ids:
        return {}
    rows = session.execute(
        select(_UPLOADS)
        .where(_UPLOADS.c.id.in_(upload_ids), _UPLOADS.c.tenant_id == tenant_id)
        .order_by(_UPLOADS.c.id)
        .with_for_update()
    ).all()
    stored: Mapping[UploadId, Sequence[int]] = {
        row.upload_id: row.indexes
        for row in session.execute(
            select(Chunk.upload_id, func.array_agg(Chunk.index).label("indexes"))
            .where(Chunk.upload_id.in_([row.id for row in rows]))
            .group_by(Chunk.upload_id)
        )
    }
    return {
        row.id: OpenUpload(
            id=row.id,
            status=row.status,
            filename=row.filename,
            content_type=row.content_type,
            sniffed_type=row.sniffed_type,
            size=row.size,
            chunk_count=row.chunk_count,
            sha256=row.sha256,
            expires_at=row.expires_at,
            stored=stored.get(row.id, ()),
        )
        for row in rows
    }


def _tenant(session: Session, tenant_id: TenantId, *, settings: Settings) -> checks.Tenant:
    tenant = session.get_one(Tenant, tenant_id)
    usage = session.get(TenantUsage, tenant_id)
    return checks.Tenant(
        id=tenant_id,
        quotas=Quotas.from_settings(settings).replaced_by(
            file_size=tenant.quota_file_size,
            total_bytes=tenant.quota_bytes,
            open_uploads=tenant.quota_open_uploads,
            staged_bytes=tenant.quota_staged_bytes,
            types=tenant.allowed_types,
        ),
        usage=Usage(
            total_bytes=usage.bytes if usage else 0,
            open_uploads=usage.open_uploads if usage else 0,
            staged_bytes=usage.staged_bytes if usage else 0,
        ),
    )


def _add_uploads(
    session: Session, references: Mapping[int, Reference], *, tenant_id: TenantId
) -> list[_NewJob]:
    jobs = []
    for line, reference in references.items():
        upload_id = UploadId(uuid4())
        session.add(
            a_reference(
                upload_id,
                tenant_id=tenant_id,
                object_key=reference.object_key,
                filename=reference.filename,
                content_type=reference.content_type,
                sha256=reference.sha256,
                metadata=reference.metadata,
                pipeline=reference.pipeline,
            )
        )
        jobs.append(
            _NewJob(
                line=line,
                id=JobId(uuid4()),
                upload_id=upload_id,
                filename=reference.filename,
                size=None,
            )
        )
    session.flush()
    return jobs


def _finalize(session: Session, finalized: Mapping[int, Finalized]) -> list[_NewJob]:
    if finalized:
        session.execute(
            update(_UPLOADS)
            .where(_UPLOADS.c.id == bindparam("of_upload"))
            .values(
                status=UploadStatus.FINALIZED, finalized_at=func.now(), sha256=bindparam("digest")
            ),
            [{"of_upload": each.upload.id, "digest": each.sha256} for each in finalized.values()],
        )
    return [
        _NewJob(
            line=line,
            id=JobId(uuid4()),
            upload_id=each.upload.id,
            filename=each.upload.filename,
            size=each.upload.size,
        )
        for line, each in finalized.items()
    ]


def _add_jobs(
    session: Session,
    jobs: Sequence[_NewJob],
    *,
    batch: BatchFacts,
    settings: Settings,
    now: datetime,
) -> None:
    """Add the jobs with their first steps, as a finalize does; the steps wait for the tenant's share."""
    if not jobs:
        return
    session.execute(
        insert(table_of(Job)),
        [
            {
                "id": job.id,
                "tenant_id": batch.tenant_id,
                "kind": JobKind.UPLOAD,
                "upload_id": job.upload_id,
                "priority": Priority.BULK,
                "stage": JobStage.TRANSFER,
                "batch_id": batch.id,
            }
            for job in jobs
        ],
    )
    for job in jobs:
        steps.add_step(
            session,
            StepName.TRANSFER,
            job_id=job.id,
            tenant_id=batch.tenant_id,
            priority=Priority.BULK,
            event_id=_emit(session, job, tenant_id=batch.tenant_id, now=now),
            total=job.size,
        )
    session.flush()
    session.execute(steps.release(batch.tenant_id, StepName.TRANSFER, settings=settings))


def _emit(session: Session, job: _NewJob, *, tenant_id: TenantId, now: datetime) -> EventId:
    return emit(
        session,
        UploadFinalized(
            upload_id=job.upload_id, job_id=job.id, filename=job.filename, size=job.size
        ),
        tenant_id=tenant_id,
        source=SOURCE,
        now=now,
    )


def _record(
    session: Session,
    batch: BatchFacts,
    *,
    jobs: Sequence[_NewJob],
    refused: Mapping[int, DomainError],
) -> None:
    values: dict[str, Any] = {"batch_id": batch.id}
    if jobs:
        session.execute(
            _START,
            values | {"lines": [job.line for job in jobs], "jobs": [job.id for job in jobs]},
        )
    if refused:
        session.execute(
            _REFUSE,
            values
            | {
                "lines": list(refused),
                "codes": [error.code.value for error in refused.values()],
                "details": [str(error) for error in refused.values()],
            },
        )
