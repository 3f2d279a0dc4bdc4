"""Submitting a whole file in one request: in a form, or by reference to an object in the bucket."""

from typing import Annotated

import msgspec

from schemas.api.uploads import (
    CallbackId,
    CallbackSecret,
    CallbackUrl,
    ContentType,
    Filename,
    Metadata,
    Password,
    RequestedPassword,
    RequestedPipeline,
    RequestedPriority,
    Sha256Hex,
    known_type,
)
from schemas.ids import EventId, JobId, UploadId
from schemas.lifecycle import JobStatus


class FormFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields of a form besides its file; send them before the file.

    An empty field counts as absent.

    Attributes:
        pipeline: as JSON.
        metadata: every field of another name; the values of a repeated field are lines.
    """

    sha256: Sha256Hex | None = None
    callback_url: CallbackUrl | None = None
    priority: RequestedPriority = msgspec.UNSET
    password: Password | None = None
    pipeline: RequestedPipeline = msgspec.UNSET
    metadata: Metadata = {}


class SubmitReference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Submits an object in the bucket, under `incoming/<tenant>/`; it is copied and kept.

    Attributes:
        object_key: key of the object.
        filename: as in an upload; by default the last part of the key.
        content_type: declared media type, empty or null if unknown; the type that the first bytes
            prove wins.
        sha256: of the whole object, hex; verified before the upload is stored.
        metadata: stored and returned as data.
        priority: of the job.
    """

    object_key: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    filename: Filename | None = None
    content_type: ContentType | None = None
    sha256: Sha256Hex | None = None
    metadata: Metadata = {}
    callback_url: CallbackUrl | None = None
    priority: RequestedPriority = msgspec.UNSET
    password: RequestedPassword = msgspec.UNSET
    pipeline: RequestedPipeline = msgspec.UNSET

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "content_type", known_type(self.content_type))


class Submitted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The file is accepted; `status_endpoint` shows its progress.

    `success` is false only if the request waited for the end of the job and the
    job failed or was cancelled.
    """

    success: bool
    message: str
    job_id: JobId
    upload_id: UploadId
    task_id: Annotated[
        EventId | None,
        msgspec.Meta(
            description="id of the Celery task that stores the file, as Flower and the logs show it"
        ),
    ]
    filename: str
    status: JobStatus
    status_endpoint: str
    callback_secret: CallbackSecret = msgspec.UNSET
    callback_webhook_id: CallbackId = msgspec.UNSET
