"""Creating an upload, sending its chunks, seeing which are there, declaring it complete."""

from datetime import datetime
from typing import Annotated

import msgspec

from schemas.ids import JobId, UploadId
from schemas.lifecycle import UploadStatus

# PostgreSQL refuses NUL, and a line break in a name forges a line in somebody's log.
_NO_CONTROL_CHARACTERS = r"^(?![\s\S]*[\x00-\x1f\x7f])"

# The pattern's "$" alone would let a line break follow.
Sha256Hex = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
Filename = Annotated[
    str, msgspec.Meta(min_length=1, max_length=1024, pattern=_NO_CONTROL_CHARACTERS)
]
ContentType = Annotated[str, msgspec.Meta(max_length=255, pattern=r"^[!-~]+/[!-~][ -~]*$(?!\n)")]
MetadataName = Annotated[
    str, msgspec.Meta(min_length=1, max_length=128, pattern=_NO_CONTROL_CHARACTERS)
]
# Values may have line breaks; only NUL is refused.
MetadataValue = Annotated[str, msgspec.Meta(max_length=2048, pattern=r"^[^\x00]*$")]


class CreateUpload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the client promises to send.

    Attributes:
        filename: kept as data and shown back; never used as a path.
        size: bytes of the whole file; 0 is a file too.
        chunk_size: a wish in bytes; the server answers with the size to use.
        sha256: of the whole file, hex; verified before the upload counts as stored.
        callback_url: told of this upload's events, like a webhook of its own.
    """

    filename: Filename
    size: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    content_type: ContentType | None = None
    chunk_size: Annotated[int, msgspec.Meta(ge=1, le=2**40)] | None = None
    sha256: Sha256Hex | None = None
    metadata: Annotated[dict[MetadataName, MetadataValue], msgspec.Meta(max_length=64)] = {}
    callback_url: Annotated[str, msgspec.Meta(max_length=2048)] | None = None


class UploadCreated(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Send `chunk_count` chunks of `chunk_size` bytes (the last may be shorter) before `expires_at`.

    `callback_secret` verifies the signatures sent to `callback_url`; it is shown here alone.
    """

    upload_id: UploadId
    status: UploadStatus
    filename: str
    size: int
    chunk_size: int
    chunk_count: int
    expires_at: datetime
    chunk_url_template: str
    finalize_url: str
    status_url: str
    callback_secret: str | None = None


class ChunkStored(msgspec.Struct, frozen=True, kw_only=True):
    """The chunk is on disk and on record; sending it again changes nothing."""

    upload_id: UploadId
    index: int
    size: int
    sha256: str


class ChunkEntry(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    size: int
    sha256: str


class UploadManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Which chunks are there; the others are still to be sent."""

    upload_id: UploadId
    status: UploadStatus
    filename: str
    content_type: str | None
    size: int
    chunk_size: int
    chunk_count: int
    received_bytes: int
    sha256: str | None
    metadata: dict[str, str]
    created_at: datetime
    expires_at: datetime
    chunks: list[ChunkEntry]


class DeclaredChunk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    index: Annotated[int, msgspec.Meta(ge=0)]
    size: Annotated[int, msgspec.Meta(ge=0)]
    sha256: Sha256Hex


class FinalizeUpload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Declares the upload complete. `chunks`, where given, must be the stored ones, in order."""

    upload_id: UploadId
    chunks: list[DeclaredChunk] | None = None
    sha256: Sha256Hex | None = None


class UploadAbandoned(msgspec.Struct, frozen=True, kw_only=True):
    upload_id: UploadId
    status: UploadStatus
    job_id: JobId | None
