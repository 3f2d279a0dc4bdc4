"""Batches: many files by reference or upload id, in one request."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import msgspec

from schemas.api.uploads import (
    ContentType,
    Filename,
    Metadata,
    RequestedPipeline,
    Sha256Hex,
    known_type,
)
from schemas.ids import BatchId, JobId, UploadId
from schemas.lifecycle import BatchEvents, BatchLineState, BatchStatus


def _described(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class BatchLine(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """One line: an object in the bucket, or a complete upload that is not finalized.

    Attributes:
        object_key: key of an object under `incoming/<tenant>/`; it is copied and kept.
        upload_id: an upload whose chunks are all stored. Its name, type and metadata are those of
            the upload; with it, `sha256` is the only other field.
        filename: by default the last part of the key.
        content_type: declared media type, as in an upload.
        sha256: of the whole file, hex; verified before the file is stored.
        metadata: stored and returned as data, with the metadata of the batch.
        pipeline: as in an upload.
    """

    object_key: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)] | None = None
    upload_id: UploadId | None = None
    filename: Filename | None = None
    content_type: ContentType | None = None
    sha256: Sha256Hex | None = None
    metadata: Metadata = {}
    pipeline: RequestedPipeline = msgspec.UNSET

    def __post_init__(self) -> None:
        if (self.object_key is None) == (self.upload_id is None):
            raise ValueError("a line has either `object_key` or `upload_id`")
        if self.upload_id is not None and (
            self.filename or self.content_type or self.metadata or self.pipeline
        ):
            raise ValueError(
                "a line with `upload_id` has no `filename`, `content_type`, `metadata`, `pipeline`"
            )
        msgspec.structs.force_setattr(self, "content_type", known_type(self.content_type))


class BatchCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The lines of a batch by state; `lines` is the sum of the others."""

    lines: Annotated[int, _described("all lines that are not empty")]
    rejected: Annotated[int, _described("lines that were not valid when they were received")]
    waiting: Annotated[int, _described("lines whose turn has not come")]
    started: Annotated[int, _described("lines whose jobs have not ended")]
    completed: int
    failed: Annotated[int, _described("lines whose jobs failed, or that could not become jobs")]
    cancelled: int


class BatchView(msgspec.Struct, frozen=True, kw_only=True):
    """A batch, and how far it is."""

    batch_id: BatchId
    job_id: Annotated[
        JobId | None,
        _described("the job of the batch itself; null while it is received, or once it is deleted"),
    ]
    status: BatchStatus
    counts: BatchCounts
    events: BatchEvents
    metadata: Annotated[dict[str, str], _described("added to the metadata of each line")]
    created_at: datetime
    received_at: datetime | None
    finished_at: Annotated[datetime | None, _described("when every line had ended")]
    expires_at: Annotated[
        datetime | None, _described("when the batch is deleted; null until it has ended")
    ]
    status_url: str
    items_url: str
    report_url: str


class BatchItemView(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a batch."""

    line: Annotated[int, _described("its number in the request, from 1")]
    state: BatchLineState
    object_key: str | None
    upload_id: UploadId | None
    job_id: JobId | None
    error_code: str | None
    error_detail: str | None


class ReportFormat(StrEnum):
    """The format of a batch's report."""

    JSONL = "jsonl"  # one JSON object per line
    CSV = "csv"
