"""Why a PDF could not be read: one error per code."""

from signal import SIGKILL
from typing import ClassVar

from schemas.errors import DomainError, ErrorCode


class PdfError(DomainError):
    """Base of the errors; `reason` adds details that are safe to show."""

    caused_by_client = True
    summary: ClassVar[str]

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(f"{self.summary}: {reason}" if reason else self.summary)


class PdfEmpty(PdfError):
    """The file has no bytes or no pages."""

    code = ErrorCode.PDF_EMPTY
    summary = "the PDF is empty"


class PdfCorrupt(PdfError):
    """The file is not a PDF, or is so damaged that no page can be read."""

    code = ErrorCode.PDF_CORRUPT
    summary = "the PDF cannot be read"


class PdfEncrypted(PdfError):
    """The PDF needs a password, or uses an encryption that is not supported."""

    code = ErrorCode.PDF_ENCRYPTED
    summary = "the PDF is encrypted and does not open without a password"


class PdfLimitExceeded(PdfError):
    """Reading the PDF would take more than a limit allows."""

    code = ErrorCode.PDF_LIMIT_EXCEEDED
    summary = "the PDF exceeds a limit"


class PdfTimeout(PdfError):
    """Reading the PDF took longer than allowed."""

    code = ErrorCode.PDF_TIMEOUT
    summary = "the PDF could not be read in the time allowed"


class PdfOutOfMemory(PdfError):
    """Reading the PDF took more memory than allowed."""

    code = ErrorCode.PDF_OUT_OF_MEMORY
    summary = "the PDF could not be read within the memory allowed"


class PdfCrashed(PdfError):
    """The process that read the PDF died.

    An operator, or the kernel when memory is short, sends SIGKILL: the next attempt may succeed.
    Every other death is caused by the document.
    """

    code = ErrorCode.PDF_CRASHED
    summary = "the process that read the PDF ended"

    def __init__(self, *, signal_number: int | None, exit_status: int | None) -> None:
        self.retryable = signal_number == SIGKILL
        self.caused_by_client = not self.retryable
        super().__init__(f"signal {signal_number}" if signal_number else f"status {exit_status}")


BY_CODE = {
    kind.code: kind
    for kind in (PdfEmpty, PdfCorrupt, PdfEncrypted, PdfLimitExceeded, PdfTimeout, PdfOutOfMemory)
}
"""The errors that the child sends."""
