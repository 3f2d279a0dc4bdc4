"""A batch and its lines as clients see them."""

from typing import Any

import msgspec

from gateway.settings import API_PREFIX
from schemas.api.batches import BatchCounts, BatchItemView, BatchLine, BatchView
from schemas.lifecycle import BatchLineState
from schemas.tables.batches import Batch


def show(batch: Batch) -> BatchView:
    url = f"{API_PREFIX}/batches/{batch.id}"
    ended = batch.completed + batch.failed + batch.cancelled
    return BatchView(
        batch_id=batch.id,
        job_id=batch.job_id,
        status=batch.status,
        counts=BatchCounts(
            lines=batch.lines,
            rejected=batch.rejected,
            waiting=batch.lines - batch.rejected - batch.started - ended,
            started=batch.started,
            completed=batch.completed,
            failed=batch.failed,
            cancelled=batch.cancelled,
        ),
        events=batch.events,
        metadata=batch.client_metadata,
        created_at=batch.created_at,
        received_at=batch.received_at,
        finished_at=batch.finished_at,
        expires_at=batch.expires_at if batch.finished_at is not None else None,
        status_url=url,
        items_url=f"{url}/items",
        report_url=f"{url}/report",
    )


def show_line(row: Any) -> BatchItemView:  # noqa: ANN401  # a row of `queries.LINES`
    source = None if row.source is None else msgspec.convert(row.source, BatchLine)
    return BatchItemView(
        line=row.line,
        state=BatchLineState(row.state),
        object_key=source.object_key if source else None,
        upload_id=source.upload_id if source else None,
        job_id=row.job_id,
        error_code=row.error_code,
        error_detail=row.error_detail,
    )
