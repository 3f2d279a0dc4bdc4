"""Why a document could not be read: one error per outcome of a failed document."""

from collections.abc import Mapping
from signal import SIGKILL
from types import MappingProxyType
from typing import ClassVar, Final

from schemas.errors import DomainError, ErrorCode
from schemas.outcomes import MEANINGS, Outcome


class DocumentError(DomainError):
    """A document, or a page of it, cannot be read.

    Attributes:
        outcome: of the document or page.
        reason: a sentence for clients that adds to the meaning of the outcome, such as a limit; it
            has no words of a library, no class names and no paths.
    """

    caused_by_client = True
    default_outcome: ClassVar[Outcome] = Outcome.CORRUPT

    def __init__(self, reason: str = "", *, outcome: Outcome | None = None) -> None:
        self.outcome = outcome or self.default_outcome
        self.reason = reason
        meaning = MEANINGS[self.outcome]
        if meaning.code is None:
            raise ValueError(f"{self.outcome} is not the outcome of a document that failed")
        self.code = meaning.code
        self.retryable = meaning.retryable
        super().__init__(f"{meaning.sentence} {reason}" if reason else meaning.sentence)


class DocumentEmpty(DocumentError):
    """The file has no bytes or no pages."""

    default_outcome = Outcome.EMPTY


class DocumentCorrupt(DocumentError):
    """The file is not of its type, or is so damaged that no page can be read."""

    default_outcome = Outcome.CORRUPT


class DocumentEncrypted(DocumentError):
    """The document needs a password or another one, or its encryption is not supported."""

    default_outcome = Outcome.ENCRYPTED


class DocumentLimitExceeded(DocumentError):
    """Reading the document would take more than a limit allows; `outcome` says which."""

    default_outcome = Outcome.LIMIT_PAGE_CONTENT


class DocumentTimeout(DocumentError):
    """Reading the document took longer than allowed."""

    default_outcome = Outcome.TIMEOUT_DOCUMENT


class DocumentOutOfMemory(DocumentError):
    """Reading the document took more memory than allowed."""

    default_outcome = Outcome.OUT_OF_MEMORY


class DocumentCrashed(DocumentError):
    """The process that read the document died.

    An operator, or the kernel when memory is short, sends SIGKILL: the next attempt may succeed.
    Every other death is caused by the document.
    """

    default_outcome = Outcome.CRASHED

    def __init__(self, *, signal_number: int | None, exit_status: int | None) -> None:
        super().__init__()
        self.signal_number = signal_number
        self.exit_status = exit_status
        self.retryable = signal_number == SIGKILL
        self.caused_by_client = not self.retryable


class DocumentQuarantined(DocumentError):
    """The document killed its reader again and again."""

    default_outcome = Outcome.QUARANTINED


class DocumentDuplicate(DocumentError):
    """The tenant refuses documents whose bytes it has already."""

    default_outcome = Outcome.DUPLICATE


class NoDiskSpace(DomainError):
    """The working directory has no space for the copy of a document now."""

    code = ErrorCode.UNAVAILABLE
    retryable = True

    def __init__(self) -> None:
        super().__init__(
            "there is no disk space for a copy of the document; it is read again later"
        )


class PageNotRendered(DomainError):
    """A page has no image, also if the attempt is repeated."""

    caused_by_client = True

    def __init__(self, number: int, *, code: ErrorCode, reason: str) -> None:
        self.code = code
        super().__init__(f"Page {number} cannot be rendered. {reason}")


PAGE_REASONS: Final[Mapping[Outcome, str]] = MappingProxyType(
    {
        Outcome.NEEDS_OCR: "The page is a picture of text, or its text has no known characters.",
        Outcome.ENCRYPTED: "The page is encrypted.",
        Outcome.CORRUPT: "The page is damaged.",
        Outcome.LIMIT_PAGE_TEXT: "The page has more text than is kept of one page.",
        Outcome.LIMIT_PAGE_CONTENT: "The page has more content than is read of one page.",
        Outcome.TIMEOUT_PAGE: "The page could not be read in the time allowed for one page.",
        Outcome.OUT_OF_MEMORY: "The page could not be read within the memory allowed.",
        Outcome.CRASHED: "The page makes its reader end.",
    }
)
"""Sentences for the reason of a page, by its outcome, where nothing more exact is known."""

FAILURES: Final[frozenset[Outcome]] = frozenset(
    outcome for outcome, meaning in MEANINGS.items() if meaning.code is not None
)
"""The outcomes of a document that fails; `DocumentError` accepts no other."""


def outcome_of(error: DomainError) -> Outcome | None:
    """Return the outcome of a document that ends with an error; None for a fault of the system."""
    return error.outcome if isinstance(error, DocumentError) else None
