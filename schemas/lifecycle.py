"""States of uploads, jobs, documents and deliveries, and the moves between them.

A state moves only by ``UPDATE … WHERE status IN (…)`` with the left side of
these tables, so that a duplicate message changes nothing.
"""

from enum import StrEnum
from typing import Final


class StagingKind(StrEnum):
    """Where the bytes of an upload are until they are one object."""

    DIRECTORY = "directory"  # one sparse file in STAGING_DIR
    OBJECTS = "s3"  # one object per chunk, under a prefix of the bucket
    REFERENCE = "reference"  # an object somebody else put into the bucket; it is copied, not moved


class UploadStatus(StrEnum):
    OPEN = "open"  # takes chunks
    FINALIZED = "finalized"  # complete, durable, waiting for or in transfer
    STORED = "stored"  # one verified object; nothing staged any more
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"  # nobody finalized it in time


class JobStatus(StrEnum):
    """What a client polling for the end of its upload sees."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobStage(StrEnum):
    """Where in the pipeline a job is; finer than its status."""

    TRANSFER = "transfer"
    INGEST = "ingest"
    DONE = "done"


class DocumentStatus(StrEnum):
    STORED = "stored"  # object is there; not (or not to be) read
    INGESTED = "ingested"
    FAILED = "failed"  # object is there, reading it failed for good


class DeliveryStatus(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    EXHAUSTED = "exhausted"  # every attempt of the schedule failed
    DISCARDED = "discarded"  # the endpoint went away before it could be told


SETTLED_JOBS: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})
ACTIVE_JOBS: Final = frozenset({JobStatus.QUEUED, JobStatus.PROCESSING})
CANCELLABLE_UPLOADS: Final = frozenset({UploadStatus.OPEN, UploadStatus.FINALIZED})
