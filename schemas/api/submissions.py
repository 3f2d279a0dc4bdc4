"""Handing a file over in one request: in a form, or by the name of an object that is there already."""

from typing import Annotated

import msgspec

from schemas.api.uploads import ContentType, Filename, MetadataName, MetadataValue, Sha256Hex
from schemas.ids import JobId, UploadId
from schemas.lifecycle import JobStatus

CallbackUrl = Annotated[str, msgspec.Meta(max_length=2048, extra_json_schema={"format": "uri"})]


class FormFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a form may say besides its file; better before it than after."""

    sha256: Sha256Hex | None = None
    callback_url: CallbackUrl | None = None


class SubmitReference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names an object in the bucket, under `incoming/<tenant>/`; it is copied, and stays.

    Attributes:
        object_key: the object.
        filename: as in an upload; by default the last part of the key.
        content_type: as the client knows it; what the first bytes show goes before.
        sha256: of the whole object, hex; verified before the upload counts as stored.
        metadata: kept and shown back.
        callback_url: told of this upload's events, like a webhook of its own.
    """

    object_key: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    filename: Filename | None = None
    content_type: ContentType | None = None
    sha256: Sha256Hex | None = None
    metadata: Annotated[dict[MetadataName, MetadataValue], msgspec.Meta(max_length=64)] = {}
    callback_url: CallbackUrl | None = None


class Submitted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The file was taken; ask `status_endpoint` what becomes of it.

    `success` is false only where the request waited for the end, and the end was
    not a good one. `callback_secret` verifies the signatures sent to
    `callback_url`; it is shown here alone.
    """

    success: bool
    message: str
    job_id: JobId
    upload_id: UploadId
    filename: str
    status: JobStatus
    status_endpoint: str
    callback_secret: str | None = None
