"""Statuses of uploads, jobs, steps, batches, documents, deliveries and dead letters; kinds of jobs and exports.

A status changes only by ``UPDATE … WHERE status IN (…)`` with the statuses that
may precede it, so that a repeated message changes nothing. The status of a job
is derived from its steps, by a trigger.
"""

from enum import StrEnum
from typing import Final


class StagingKind(StrEnum):
    """Where the bytes of an upload are until the transfer has stored them as one object."""

    DIRECTORY = "directory"  # one sparse file in STAGING_DIR
    OBJECTS = "s3"  # one object per chunk, under a prefix of the bucket
    REFERENCE = "reference"  # an object that is in the bucket already; it is copied, not moved


class UploadStatus(StrEnum):
    OPEN = "open"  # accepts chunks
    FINALIZED = "finalized"  # complete and durable; the transfer waits or runs
    STORED = "stored"  # one verified object; no staged bytes
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"  # not finalized in time


class JobKind(StrEnum):
    """What a job does."""

    UPLOAD = "upload"  # stores a finalized upload, and reads its document
    REPROCESS = "reprocess"  # reads a stored document again
    RENDER = "render"  # makes the image of one page
    REPLAY = "replay"  # delivers events to an endpoint again
    EXPORT = "export"  # writes the rows of a query into a file
    BATCH = "batch"  # turns the lines of a batch into jobs of kind `upload`
    BULK = "bulk"  # cancels or retries the jobs of a filter


class BatchStatus(StrEnum):
    """Status of a batch; a status of an ended batch is followed by `finished_at`."""

    RECEIVING = "receiving"  # the request that sends its lines has not ended
    PROCESSING = "processing"  # its lines become jobs in turn
    PAUSED = "paused"  # no further line becomes a job; started lines continue
    COMPLETED = "completed"  # every line has ended
    FAILED = "failed"  # an internal error; the lines that still wait stay as they are
    CANCELLED = "cancelled"  # ended once its lines have ended


class BatchLineState(StrEnum):
    """State of one line of a batch."""

    REJECTED = "rejected"  # not a valid line when it was received
    WAITING = "waiting"  # for its turn
    STARTED = "started"  # its job has not ended
    COMPLETED = "completed"
    FAILED = "failed"  # its job failed, or it could not become a job
    CANCELLED = "cancelled"


class BatchEvents(StrEnum):
    """Which events of a batch are delivered to webhooks; the feed has all of them."""

    EACH = "each"  # those of every document, and those of the batch
    BATCH = "batch"  # those of the batch alone


class JobAction(StrEnum):
    """What a job of kind `bulk` does with the jobs of its filter."""

    CANCEL = "cancel"
    RETRY = "retry"  # failed jobs; cancelled ones only if the filter names that status


class ExportKind(StrEnum):
    """What the rows of an export are."""

    DOCUMENTS = "documents"
    SENTENCES = "sentences"
    ENTITIES = "entities"
    TABLES = "tables"  # one row for each cell
    JOBS = "jobs"
    DELIVERIES = "deliveries"


class ExportFormat(StrEnum):
    """The format of an export's file."""

    CSV = "csv"
    JSONL = "jsonl"  # one JSON object per line


class JobStatus(StrEnum):
    """Status of a job, as clients poll it."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StepStatus(StrEnum):
    """`waiting` for the tenant's earlier steps, `queued` for a worker, `running`, or ended."""

    WAITING = "waiting"  # only in PostgreSQL, until its tenant has room in the broker
    QUEUED = "queued"  # its event was given to the broker
    RUNNING = "running"  # a worker holds its lease
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Priority(StrEnum):
    """Bulk steps of a tenant start only while none of its interactive steps waits."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class DocumentStatus(StrEnum):
    """Status of a document; its `outcome` says more."""

    STORED = "stored"  # the object is stored; its type is not read
    READING = "reading"  # the first reading waits or runs; pages that have text may be readable
    INGESTED = "ingested"
    PARTIAL = "partial"  # some pages or parts are missing
    FAILED = "failed"  # the object is stored; no page can be read


class ScanState(StrEnum):
    """What the malware scan of a stored file came to."""

    OFF = "off"  # stored while no scanner was set
    PENDING = "pending"
    CLEAN = "clean"
    INFECTED = "infected"  # quarantined
    UNSCANNABLE = "unscannable"  # not scanned as a whole, and none may pass without a scan
    UNSCANNED = "unscanned"  # not scanned as a whole; passed, as the settings permit


class RevisionState(StrEnum):
    """A revision is one reading of a document."""

    WRITING = "writing"
    PUBLISHED = "published"
    SUPERSEDED = "superseded"  # a newer revision was published


class PassageKind(StrEnum):
    """What a passage was made of."""

    TEXT = "text"
    TABLE = "table"


class SearchState(StrEnum):
    """What search has of a published revision, beside its words."""

    PENDING = "pending"  # vectors are being made
    WORDS = "words"  # no model was there to make vectors
    COMPLETE = "complete"
    FAILED = "failed"  # vectors could not be made; `waybill reindex` tries again


class EmbeddingModelState(StrEnum):
    """State of a model that makes vectors of passages."""

    BUILDING = "building"  # its vectors are being made beside those of the active model
    ACTIVE = "active"  # search uses its vectors
    RETIRED = "retired"  # its vectors are deleted, or will be


class TablesState(StrEnum):
    """How far the search for the tables and figures of a revision is."""

    PENDING = "pending"  # waits or runs; those found so far are shown
    COMPLETE = "complete"
    PARTIAL = "partial"  # those of some pages are missing
    FAILED = "failed"  # ended with an error; those found before are shown
    OFF = "off"  # switched off by the upload, the request or the settings


class PageStatus(StrEnum):
    READ = "read"
    OCR = "ocr"  # its text is recognised
    NEEDS_OCR = "needs_ocr"
    FAILED = "failed"


class EndpointState(StrEnum):
    """Whether an endpoint receives events."""

    ACTIVE = "active"
    PAUSED = "paused"  # by the tenant; deliveries wait
    DISABLED = "disabled"  # it answered 410, or failed for days; deliveries are discarded


class DeliveryStatus(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    EXHAUSTED = "exhausted"  # every attempt of the schedule failed
    DISCARDED = (
        "discarded"  # its endpoint was deleted or disabled, or its event is no longer stored
    )


class DiscardReason(StrEnum):
    """Why a delivery is discarded."""

    ENDPOINT_DISABLED = "endpoint_disabled"
    ENDPOINT_DELETED = "endpoint_deleted"
    EVENT_MISSING = "event_missing"  # the event is no longer stored
    EXPIRED = "expired"  # its endpoint was paused for longer than deliveries are kept


class DisabledReason(StrEnum):
    """Why an endpoint is disabled."""

    GONE = "gone"  # it answered 410
    FAILING = "failing"  # every attempt failed for days


class DeadLetterState(StrEnum):
    WAITING = "waiting"  # an operator decides
    REPLAYED = "replayed"  # its event was added to the outbox again
    DROPPED = "dropped"


SETTLED_JOBS: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})
FAILED_DELIVERIES: Final = frozenset({DeliveryStatus.EXHAUSTED, DeliveryStatus.DISCARDED})
SETTLED_DELIVERIES: Final = FAILED_DELIVERIES | {DeliveryStatus.DELIVERED}
ACTIVE_STEPS: Final = frozenset({StepStatus.WAITING, StepStatus.QUEUED, StepStatus.RUNNING})
LIVE_BATCHES: Final = frozenset({BatchStatus.PROCESSING, BatchStatus.PAUSED})
READABLE_DOCUMENTS: Final = frozenset({DocumentStatus.INGESTED, DocumentStatus.PARTIAL})
WITHHELD_FILES: Final = frozenset({ScanState.PENDING, ScanState.INFECTED, ScanState.UNSCANNABLE})
"""Files that are neither read nor served."""

CANCELLABLE_UPLOADS: Final = frozenset({UploadStatus.OPEN, UploadStatus.FINALIZED})
