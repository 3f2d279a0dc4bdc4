"""Uploads: create, chunks, manifest, finalize, cancel."""

from datetime import datetime
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from schemas.ids import JobId, UploadId, WebhookId
from schemas.lifecycle import Priority, UploadStatus

# PostgreSQL refuses NUL, and a line break in a name could forge a line in a client's log.
_NO_CONTROL_CHARACTERS = r"^(?![\s\S]*[\x00-\x1f\x7f])"

# "$" alone also matches before a final line break.
Sha256Hex = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
Filename = Annotated[
    str, msgspec.Meta(min_length=1, max_length=1024, pattern=_NO_CONTROL_CHARACTERS)
]
# Browsers give an empty type for a file whose type they do not know.
ContentType = Annotated[
    str, msgspec.Meta(max_length=255, pattern=r"^[ \t]*([!-~]+/[!-~][ -~]*)?[ \t]*$(?!\n)")
]
MetadataName = Annotated[
    str, msgspec.Meta(min_length=1, max_length=128, pattern=_NO_CONTROL_CHARACTERS)
]
# Unset is not encoded. The hash of a request without it, which an `Idempotency-Key` is bound to, is
# therefore the same as in versions before priorities.
RequestedPriority = Annotated[
    Priority | msgspec.UnsetType,
    msgspec.Meta(
        description="`interactive` (the default) or `bulk`: bulk work of a tenant starts only while"
        " no interactive work of the tenant waits",
    ),
]
# Values may have line breaks; only NUL is refused.
MetadataValue = Annotated[str, msgspec.Meta(max_length=2048, pattern=r"^[^\x00]*$")]
METADATA_COUNT_MAX: Final = 64
Metadata = Annotated[dict[MetadataName, MetadataValue], msgspec.Meta(max_length=METADATA_COUNT_MAX)]

Password = Annotated[
    str,
    msgspec.Meta(
        max_length=128,
        pattern=r"^[^\x00]*$",
        description="opens the document, if it is encrypted; kept encrypted until the job ends or"
        " the upload is cancelled or expires, and never shown",
        extra_json_schema={"format": "password", "writeOnly": True},
    ),
]
# Unset, like a priority. An empty password counts as none.
RequestedPassword: TypeAlias = Password | msgspec.UnsetType | None

CallbackUrl = Annotated[
    str,
    msgspec.Meta(
        max_length=2048,
        description="receives the events of this upload, signed like those of a webhook;"
        " the scope `uploads:write` suffices",
        extra_json_schema={"format": "uri"},
    ),
]
CallbackSecret: TypeAlias = Annotated[
    str | msgspec.UnsetType | None,
    msgspec.Meta(
        description="verifies the signatures sent to `callback_url`; only the first answer has it:"
        " null in a repetition of the request, absent without `callback_url`"
    ),
]

CallbackId: TypeAlias = Annotated[
    WebhookId | msgspec.UnsetType | None,
    msgspec.Meta(
        description="the `webhook_id` of `callback_url`; null once it is deleted, absent without"
        " `callback_url`"
    ),
]


def known_type(declared: str | None) -> str | None:
    """Return a declared media type without white space around it; None if it is empty."""
    return (declared or "").strip(" \t") or None


class PipelineOptions(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What is done with the document besides reading its text."""

    tables: Annotated[
        bool, msgspec.Meta(description="whether its tables and figures are found")
    ] = True


# Unset, like a priority.
RequestedPipeline: TypeAlias = PipelineOptions | msgspec.UnsetType


def stored_pipeline(requested: RequestedPipeline) -> dict[str, Any] | None:
    """Return the value of the column `uploads.pipeline`."""
    return msgspec.to_builtins(requested) if requested else None


class CreateUpload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Declares the file that the client uploads.

    Attributes:
        filename: stored and returned as data; never used as a path.
        size: bytes of the whole file; may be 0.
        content_type: declared media type; empty or null if the client does not know it.
        chunk_size: requested chunk size in bytes; the response has the size to use.
        sha256: of the whole file, hex; verified before the upload is stored.
    """

    filename: Filename
    size: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    content_type: ContentType | None = None
    chunk_size: Annotated[int, msgspec.Meta(ge=1, le=2**40)] | None = None
    sha256: Sha256Hex | None = None
    metadata: Metadata = {}
    callback_url: CallbackUrl | None = None
    password: RequestedPassword = msgspec.UNSET
    pipeline: RequestedPipeline = msgspec.UNSET

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "content_type", known_type(self.content_type))


class UploadCreated(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Send `chunk_count` chunks of `chunk_size` bytes (the last may be shorter) before `expires_at`."""

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
    callback_secret: CallbackSecret = msgspec.UNSET
    callback_webhook_id: CallbackId = msgspec.UNSET


class ChunkStored(msgspec.Struct, frozen=True, kw_only=True):
    """The chunk is durable and recorded; sending it again changes nothing."""

    upload_id: UploadId
    index: int
    size: int
    sha256: str


class ChunkEntry(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    size: int
    sha256: str


class UploadManifest(msgspec.Struct, frozen=True, kw_only=True):
    """An upload with its stored chunks; the client sends the missing chunks."""

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
    callback_webhook_id: Annotated[
        WebhookId | None,
        msgspec.Meta(description="the `webhook_id` of `callback_url`; null if there is none"),
    ]
    chunks: list[ChunkEntry]


class DeclaredChunk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    index: Annotated[int, msgspec.Meta(ge=0)]
    size: Annotated[int, msgspec.Meta(ge=0)]
    sha256: Sha256Hex


class FinalizeUpload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Finalizes the upload. `chunks`, if given, must equal the stored chunks, in order."""

    upload_id: UploadId
    chunks: list[DeclaredChunk] | None = None
    sha256: Sha256Hex | None = None
    priority: RequestedPriority = msgspec.UNSET


class UploadAbandoned(msgspec.Struct, frozen=True, kw_only=True):
    upload_id: UploadId
    status: UploadStatus
    job_id: JobId | None
