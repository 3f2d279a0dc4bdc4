"""Why a file is not scanned now, or may not be read."""

from pipeline.messaging.event_task import RetryLater
from schemas.errors import DomainError, ErrorCode


class ScannerAway(RetryLater):
    """No scanner answers as clamd does: the file waits, however long.

    Not the fault of the file, so that the wait does not count as an attempt.
    """

    backoff = True


class ScanFailed(DomainError):
    """The scanner works, but ended the scan of this file without a verdict.

    Counted as an attempt: a file may crash its scanner every time.
    """

    code = ErrorCode.SCAN_FAILED
    retryable = True

    def __init__(self, reason: str) -> None:
        super().__init__(f"the malware scan ended without a verdict: {reason}")


class MalwareFound(DomainError):
    """The scanner found malware; the file is never served or read."""

    code = ErrorCode.MALWARE_FOUND
    caused_by_client = True

    def __init__(self, signature: str) -> None:
        self.signature = signature
        super().__init__(f"the malware scan found {signature}; the file is quarantined")


class FileUnscannable(DomainError):
    """The scanner does not scan the file as a whole, and the settings permit no file without a scan."""

    code = ErrorCode.DOCUMENT_UNSCANNABLE
    caused_by_client = True

    def __init__(self, reason: str) -> None:
        super().__init__(f"the file cannot be scanned for malware as a whole: {reason}")
