"""Errors of reading tables."""

from schemas.errors import DomainError, ErrorCode
from schemas.ids import DocumentId


class TableNotFound(DomainError):
    """The document has no such table, or it is not found yet."""

    code = ErrorCode.NOT_FOUND

    def __init__(self, document_id: DocumentId, *, number: int) -> None:
        super().__init__(f"document {document_id} has no table {number}; the first is 1")
