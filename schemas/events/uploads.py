"""Events of an upload, from finalize until its bytes are one object."""

from typing import Annotated, ClassVar, TypeAlias

import msgspec

from schemas.ids import DocumentId, JobId, UploadId
from schemas.lifecycle import ScanState


class _UploadEvent(msgspec.Struct, frozen=True, kw_only=True):
    upload_id: UploadId

    @property
    def subject(self) -> UploadId:
        return self.upload_id


class UploadFinalized(_UploadEvent, frozen=True, kw_only=True):
    """The client finalized the upload; every byte is durable in staging."""

    TYPE: ClassVar[str] = "upload.finalized"

    job_id: JobId
    filename: str
    size: Annotated[
        int | None,
        msgspec.Meta(
            description="bytes; null for an upload by reference, whose object is in the bucket and was not measured yet"
        ),
    ] = None


class StoredEvent(_UploadEvent, frozen=True, kw_only=True):
    """The upload's bytes are stored as one verified object."""

    TYPE: ClassVar[str] = "upload.stored"

    job_id: JobId
    document_id: DocumentId
    filename: str
    size: Annotated[int, msgspec.Meta(description="bytes")]
    sha256: Annotated[str, msgspec.Meta(description="digest of the bytes, in hexadecimal")]
    content_type: str
    object_key: Annotated[str, msgspec.Meta(description="key of the object in the bucket")]
    will_be_read: Annotated[
        bool,
        msgspec.Meta(
            description="whether `document.ingested` or `document.failed` follows; if not, this event is the last of its job, unless `malware_scan` is `pending`"
        ),
    ]
    malware_scan: Annotated[
        ScanState,
        msgspec.Meta(
            description="`pending`: the file can be downloaded once `document.scanned` follows; if malware is found, `document.failed` follows"
        ),
    ] = ScanState.OFF


class UploadFailed(_UploadEvent, frozen=True, kw_only=True):
    """The upload failed for good: there is no object, and no attempt follows."""

    TYPE: ClassVar[str] = "upload.failed"

    job_id: Annotated[
        JobId | None,
        msgspec.Meta(description="null for an upload that expired before it was finalized"),
    ] = None
    filename: str
    code: Annotated[str, msgspec.Meta(description="stable code of the error, as in the job")]
    detail: Annotated[str, msgspec.Meta(description="a sentence for people")]


class UploadCancelled(_UploadEvent, frozen=True, kw_only=True):
    """The client cancelled the upload, or purged it after `upload.stored`, or the tenant's retention of documents is over; none of its bytes are kept."""

    TYPE: ClassVar[str] = "upload.cancelled"

    job_id: Annotated[
        JobId | None, msgspec.Meta(description="null for an upload that was not finalized")
    ] = None
    filename: str


UploadEvent: TypeAlias = UploadFinalized | StoredEvent | UploadFailed | UploadCancelled
