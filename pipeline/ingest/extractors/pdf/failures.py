"""What an exception of an engine means for the document or the page."""

from collections.abc import Sequence

from pypdf.errors import EmptyFileError, FileNotDecryptedError, LimitReachedError

from pipeline.ingest.errors import (
    DocumentCorrupt,
    DocumentEmpty,
    DocumentEncrypted,
    DocumentError,
    DocumentLimitExceeded,
)


def clearest(failures: Sequence[Exception]) -> DocumentError:
    """Return the error that says most, if every engine failed."""
    errors = [error_of(failure) for failure in failures]
    return next((error for error in errors if not isinstance(error, DocumentCorrupt)), errors[0])


def error_of(error: Exception) -> DocumentError:
    """Classify an exception; the words of the engine are left out, because clients see the error."""
    match error:
        case DocumentError():
            return error
        case EmptyFileError():
            return DocumentEmpty()
        case FileNotDecryptedError():
            return DocumentEncrypted()
        case LimitReachedError() | RecursionError():
            return DocumentLimitExceeded()
        case _:
            # On a damaged file an engine may raise any exception.
            return DocumentCorrupt()
