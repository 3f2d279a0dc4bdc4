"""Errors of searches."""

from datetime import timedelta

from schemas.errors import DomainError, ErrorCode


class SearchQueryInvalid(DomainError):
    """The query cannot be read; the message names the fault."""

    code = ErrorCode.SEARCH_QUERY_INVALID


class SearchTimeout(DomainError):
    """The search did not end within `SEARCH_TIMEOUT`."""

    code = ErrorCode.SEARCH_TIMEOUT
    retryable = True
    retry_after = timedelta(seconds=5)

    def __init__(self, limit: timedelta) -> None:
        super().__init__(
            f"the search took longer than {limit.total_seconds():g} s;"
            " use rarer words, longer prefixes or filters"
        )


class SearchBusy(DomainError):
    """Too many searches of the tenant run at once."""

    code = ErrorCode.SEARCH_TIMEOUT
    retryable = True
    retry_after = timedelta(seconds=1)

    def __init__(self) -> None:
        super().__init__("too many searches of this tenant run at once; try again")


class VectorsUnavailable(DomainError):
    """The client wants vectors alone, and there are none at the moment."""

    code = ErrorCode.UNAVAILABLE
    retryable = True
    retry_after = timedelta(seconds=5)

    def __init__(self, reason: str) -> None:
        super().__init__(f"vectors are not available: {reason}; `mode=words` needs none")
