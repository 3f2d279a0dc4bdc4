"""Errors of reading documents."""

from schemas.errors import DomainError, ErrorCode
from schemas.ids import DocumentId
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


class RevisionGone(Exception):
    """The revision whose text is being sent was deleted: the answer must not look complete."""
