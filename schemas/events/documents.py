"""Events of a stored document."""

from typing import Annotated, ClassVar, TypeAlias

import msgspec

from schemas.ids import DocumentId, JobId, UploadId
from schemas.lifecycle import ScanState
from schemas.outcomes import Outcome, Reason


class _DocumentEvent(msgspec.Struct, frozen=True, kw_only=True):
    document_id: DocumentId

    @property
    def subject(self) -> DocumentId:
        return self.document_id


class _StoredDocumentEvent(_DocumentEvent, frozen=True, kw_only=True):
    upload_id: UploadId
    job_id: JobId
    filename: str
    size: int
    sha256: str
    content_type: str
    object_key: str


class ReprocessRequested(_StoredDocumentEvent, frozen=True, kw_only=True):
    """A stored document is to be read again; only starts the steps of a job."""

    TYPE: ClassVar[str] = "document.reprocess_requested"

    is_rescan: bool = False
    """An operator orders a malware scan; files that are not read otherwise are not read after it."""
    tables: bool | None = None
    """Whether tables and figures are found; None for what the upload says."""


class TablesRequested(_StoredDocumentEvent, frozen=True, kw_only=True):
    """Tables and figures of a published revision are to be found; only starts a step of its job."""

    TYPE: ClassVar[str] = "document.tables_requested"


class RenderRequested(_StoredDocumentEvent, frozen=True, kw_only=True):
    """The image of a page, or of a figure on it, is to be made; only starts the step of a job.

    Attributes:
        image_key: where the image is stored.
        figure: number of the figure; None for the whole page.
        box: place of the figure: left, top, right and bottom in 1/72 inch.
    """

    TYPE: ClassVar[str] = "document.render_requested"

    page: int
    image_key: str
    figure: int | None = None
    box: tuple[int, int, int, int] | None = None


class DocumentScanned(_DocumentEvent, frozen=True, kw_only=True):
    """The malware scan of the file has ended, and the file can be downloaded; only if scans are set up."""

    TYPE: ClassVar[str] = "document.scanned"

    upload_id: UploadId
    job_id: JobId
    filename: str
    malware_scan: Annotated[
        ScanState,
        msgspec.Meta(
            description="`clean`, or `unscanned` for a file that passed without a whole scan, as the operator permits"
        ),
    ]


class IndexRequested(_StoredDocumentEvent, frozen=True, kw_only=True):
    """The passages of a published document need vectors; only starts a step of the job that read it."""

    TYPE: ClassVar[str] = "document.index_requested"


class IngestedEvent(_DocumentEvent, frozen=True, kw_only=True):
    """Text and entities of the document can be fetched; `outcome` says whether all of them.

    The fields with a default are missing in events of earlier versions.
    """

    TYPE: ClassVar[str] = "document.ingested"

    upload_id: UploadId
    job_id: JobId
    filename: str
    sha256: str
    pages: Annotated[
        int, msgspec.Meta(description="pages of the document, including those beyond a limit")
    ]
    passages: Annotated[int, msgspec.Meta(description="sentences")]
    entities: int
    language: Annotated[
        str | None, msgspec.Meta(description="ISO 639-1 code; null if it is unknown")
    ] = None
    language_confidence: Annotated[float | None, msgspec.Meta(description="0 to 1")] = None
    truncated: Annotated[
        bool,
        msgspec.Meta(
            description="whether a limit cut the text short; the text before the limit is kept"
        ),
    ] = False
    revision: Annotated[int, msgspec.Meta(description="number of this reading of the document")] = 1
    is_superseded: Annotated[
        bool,
        msgspec.Meta(
            description="whether a newer revision was published before this one; the document shows the newer one"
        ),
    ] = False
    outcome: Annotated[Outcome, msgspec.Meta(description="what the reading came to")] = (
        Outcome.COMPLETE
    )
    reasons: Annotated[
        tuple[Reason, ...],
        msgspec.Meta(description="which pages are missing or incomplete, and why"),
    ] = ()
    pages_read: Annotated[
        int | None,
        msgspec.Meta(
            description="pages whose text was read, without OCR; includes pages without text"
        ),
    ] = None
    pages_ocr: Annotated[
        int, msgspec.Meta(description="pages whose text was recognised by OCR")
    ] = 0
    pages_failed: Annotated[int, msgspec.Meta(description="pages that could not be read")] = 0
    pages_needs_ocr: Annotated[
        int, msgspec.Meta(description="pages that are pictures of text and were not recognised")
    ] = 0


class DocumentFailed(_DocumentEvent, frozen=True, kw_only=True):
    """The object is stored, but its content could not be read, or malware was found in it."""

    TYPE: ClassVar[str] = "document.failed"

    upload_id: UploadId
    job_id: JobId
    filename: str
    code: Annotated[
        str,
        msgspec.Meta(
            description="stable code of the error, as in the job; a fault of the system is "
            "`store_unavailable`, `not_found` (the object was removed), `attempts_exhausted` or "
            "`internal`"
        ),
    ]
    detail: Annotated[str, msgspec.Meta(description="a sentence for people")]
    outcome: Annotated[
        Outcome | None,
        msgspec.Meta(description="null if a fault of the system ended the job, not the document"),
    ] = None


DocumentEvent: TypeAlias = (
    ReprocessRequested
    | TablesRequested
    | RenderRequested
    | IndexRequested
    | DocumentScanned
    | IngestedEvent
    | DocumentFailed
)
