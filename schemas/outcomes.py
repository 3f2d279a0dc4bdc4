"""What the reading of a document or of one page came to: stable codes, finer than a status."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Final

import msgspec

from schemas.errors import ErrorCode
from schemas.lifecycle import DocumentStatus, JobStatus


class Outcome(StrEnum):
    """Result of reading a document or one of its pages; clients may branch on it."""

    COMPLETE = "complete"
    PARTIAL = "partial"  # of a document: some pages or parts are missing
    NO_TEXT = "no_text"  # read as a whole, and there is no text in it
    NEEDS_OCR = "needs_ocr"  # a picture of text, or text that cannot be mapped to characters
    ENCRYPTED = "encrypted"
    CORRUPT = "corrupt"
    EMPTY = "empty"  # no bytes, or no pages
    LIMIT_FILE_SIZE = "limit_file_size"
    LIMIT_PAGES = "limit_pages"
    LIMIT_TEXT = "limit_text"  # text of the whole document
    LIMIT_PAGE_TEXT = "limit_page_text"
    LIMIT_PAGE_CONTENT = "limit_page_content"  # operators, forms or pixels of one page
    TIMEOUT_DOCUMENT = "timeout_document"
    TIMEOUT_PAGE = "timeout_page"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    QUARANTINED = (
        "quarantined"  # has malware (`malware_found`), or killed its reader again and again
    )
    UNSCANNABLE = "unscannable"  # the malware scan does not cover all of it
    DUPLICATE = "duplicate"  # the tenant refuses bytes that it has already


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What an outcome of a document means.

    Attributes:
        document_status: status of the document.
        job_status: status of the job that read it.
        code: code of the job's error; None if the job is completed.
        retryable: whether reading the same bytes again may give more.
        sentence: for clients: what happened, and what the client can do.
    """

    document_status: DocumentStatus
    code: ErrorCode | None = None
    retryable: bool = False
    sentence: str

    @property
    def job_status(self) -> JobStatus:
        return JobStatus.COMPLETED if self.code is None else JobStatus.FAILED


def _failed(code: ErrorCode, sentence: str, *, retryable: bool = False) -> Meaning:
    return Meaning(
        document_status=DocumentStatus.FAILED, code=code, retryable=retryable, sentence=sentence
    )


MEANINGS: Final[Mapping[Outcome, Meaning]] = MappingProxyType(
    {
        Outcome.COMPLETE: Meaning(
            document_status=DocumentStatus.INGESTED,
            sentence="The document was read as a whole.",
        ),
        Outcome.PARTIAL: Meaning(
            document_status=DocumentStatus.PARTIAL,
            sentence="Some pages or parts are missing; the reasons say which and why.",
        ),
        Outcome.NO_TEXT: Meaning(
            document_status=DocumentStatus.INGESTED,
            sentence="The document was read as a whole, and there is no text in it.",
        ),
        Outcome.NEEDS_OCR: Meaning(
            document_status=DocumentStatus.PARTIAL,
            retryable=True,
            sentence="The pages are pictures of text; reprocess the document once OCR is available.",
        ),
        Outcome.ENCRYPTED: _failed(
            ErrorCode.DOCUMENT_ENCRYPTED,
            "The document is encrypted; upload it again with its password.",
        ),
        Outcome.CORRUPT: _failed(
            ErrorCode.DOCUMENT_CORRUPT,
            "The file is damaged or is not of its type; upload a file that other programs open.",
        ),
        Outcome.EMPTY: _failed(
            ErrorCode.DOCUMENT_EMPTY, "The file has no bytes or no pages; upload another file."
        ),
        Outcome.LIMIT_FILE_SIZE: _failed(
            ErrorCode.DOCUMENT_LIMIT,
            "The file is larger than a document that is read may be; upload it in parts.",
        ),
        Outcome.LIMIT_PAGES: _failed(
            ErrorCode.DOCUMENT_LIMIT,
            "The document has more pages than are read; upload it in parts.",
        ),
        Outcome.LIMIT_TEXT: _failed(
            ErrorCode.DOCUMENT_LIMIT,
            "The document has more text than is kept; upload it in parts.",
        ),
        Outcome.LIMIT_PAGE_TEXT: _failed(
            ErrorCode.DOCUMENT_LIMIT, "Every page has more text than is kept of one page."
        ),
        Outcome.LIMIT_PAGE_CONTENT: _failed(
            ErrorCode.DOCUMENT_LIMIT,
            "Every page has more content than is read of one page; simplify the document.",
        ),
        Outcome.TIMEOUT_DOCUMENT: _failed(
            ErrorCode.DOCUMENT_TIMEOUT,
            "The document could not be read in the time allowed; upload it in parts.",
        ),
        Outcome.TIMEOUT_PAGE: _failed(
            ErrorCode.DOCUMENT_TIMEOUT,
            "No page could be read in the time allowed for one page; simplify the document.",
        ),
        Outcome.OUT_OF_MEMORY: _failed(
            ErrorCode.DOCUMENT_OUT_OF_MEMORY,
            "The document could not be read within the memory allowed; simplify the document.",
        ),
        Outcome.CRASHED: _failed(
            ErrorCode.DOCUMENT_CRASHED,
            "The document makes its reader end; save it anew with another program.",
        ),
        Outcome.QUARANTINED: _failed(
            ErrorCode.DOCUMENT_QUARANTINED,
            "The document made its readers end again and again, and is not read any more;"
            " save it anew with another program.",
        ),
        Outcome.UNSCANNABLE: _failed(
            ErrorCode.DOCUMENT_UNSCANNABLE,
            "The file cannot be scanned for malware as a whole; upload a smaller file.",
        ),
        Outcome.DUPLICATE: _failed(
            ErrorCode.DOCUMENT_DUPLICATE,
            "Another document has the same bytes, and duplicates are refused.",
        ),
    }
)
"""The meaning of every outcome of a document; docs/outcomes.md shows this table."""

RANGES_MAX: Final = 50
"""Ranges of pages in one reason; `page_count` counts all pages."""


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why some pages of a document are missing or incomplete."""

    outcome: Outcome
    pages: Annotated[
        tuple[tuple[int, int], ...],
        msgspec.Meta(description=f"first and last page of at most {RANGES_MAX} ranges"),
    ]
    page_count: int
    reason: Annotated[str, msgspec.Meta(description="a sentence")]
