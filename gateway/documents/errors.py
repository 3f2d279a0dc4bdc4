"""Errors of reading documents."""

from typing import Final

from schemas.errors import DomainError, ErrorCode
from schemas.ids import DocumentId
from schemas.lifecycle import WITHHELD_FILES, ScanState
from schemas.tables.documents import Document


class DocumentNotFound(DomainError):
    """The document does not exist, or belongs to another tenant."""

    code = ErrorCode.DOCUMENT_NOT_FOUND

    def __init__(self, document_id: DocumentId) -> None:
        super().__init__(f"there is no document {document_id}")


class DocumentNotReady(DomainError):
    """No page of the document can be shown yet, or reading it failed."""

    code = ErrorCode.DOCUMENT_NOT_READY

    def __init__(self, document: Document) -> None:
        reason = document.error_code or "no page is read yet"
        super().__init__(f"document {document.id} has no text: it is {document.status}, {reason}")


class FileWithheld(DomainError):
    """The file is not served: it is not scanned for malware yet, not scanned as a whole, or infected."""

    def __init__(self, document: Document) -> None:
        self.code, reason = _WHY_WITHHELD[document.scan_state]
        self.retryable = self.code is ErrorCode.SCAN_PENDING
        if document.scan_signature is not None:
            reason = f"{reason} ({document.scan_signature})"
        super().__init__(f"the file of document {document.id} is withheld: {reason}")


_WHY_WITHHELD: Final = {
    ScanState.PENDING: (ErrorCode.SCAN_PENDING, "its malware scan has not ended"),
    ScanState.INFECTED: (ErrorCode.MALWARE_FOUND, "it has malware"),
    ScanState.UNSCANNABLE: (
        ErrorCode.DOCUMENT_UNSCANNABLE,
        "it cannot be scanned for malware as a whole",
    ),
}


def check_is_served(document: Document) -> None:
    """Check that the file of a document, and pictures of it, may be served.

    Raises:
        FileWithheld: the malware scan has not passed it.
    """
    if document.scan_state in WITHHELD_FILES:
        raise FileWithheld(document)


class PageNotFound(DomainError):
    """The document has no such page."""

    code = ErrorCode.NOT_FOUND

    def __init__(self, document_id: DocumentId, *, number: int) -> None:
        super().__init__(f"document {document_id} has no page {number}; the first is 1")


class ImageNotFound(DomainError):
    """There is no image of the page."""

    code = ErrorCode.NOT_FOUND

    def __init__(self, document_id: DocumentId, *, number: int) -> None:
        super().__init__(
            f"there is no image of page {number} of document {document_id}:"
            " only pages of PDFs and images have one"
        )


class FigureNotFound(DomainError):
    """The document has no such figure, or it is not found yet."""

    code = ErrorCode.NOT_FOUND

    def __init__(self, document_id: DocumentId, *, number: int) -> None:
        super().__init__(f"document {document_id} has no figure {number}; the first is 1")


class RevisionGone(Exception):
    """The revision whose text is being sent was deleted: the answer must not look complete."""
