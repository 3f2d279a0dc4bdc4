"""Limits how many requests of one API key, and of all keys, wait at once in this process."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from schemas.errors import DomainError, ErrorCode
from schemas.ids import ApiKeyId

RETRY_AFTER: Final = timedelta(seconds=5)

WAIT_ERRORS: Final = (ErrorCode.TOO_MANY_WAITS, ErrorCode.SYSTEM_BUSY)
"""The errors of every route that may wait."""


class TooManyWaits(DomainError):
    """Too many requests of the API key wait; a request without a wait is answered."""

    code = ErrorCode.TOO_MANY_WAITS
    retryable = True
    retry_after = RETRY_AFTER

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} requests of this API key already wait, and no more are allowed;"
            " ask without waiting, or again later"
        )


class WaitsBusy(DomainError):
    """Too many requests of all API keys wait; a request without a wait is answered."""

    code = ErrorCode.SYSTEM_BUSY
    retryable = True
    retry_after = RETRY_AFTER

    def __init__(self) -> None:
        super().__init__(
            "too many requests wait at the moment; ask without waiting, or again later"
        )


class KeyWaits:
    """The waiting requests of each API key: long polls and event streams.

    Args:
        limit: most waits of one key.
        total: most waits of all keys.
    """

    def __init__(self, limit: int, *, total: int) -> None:
        self._limit = limit
        self._total = total
        self._count = 0
        self._waits: defaultdict[ApiKeyId, set[Callable[[], None]]] = defaultdict(set)

    @property
    def key_ids(self) -> Collection[ApiKeyId]:
        """The keys with waiting requests."""
        return self._waits.keys()

    def has_room(self, key_id: ApiKeyId) -> bool:
        return self._count < self._total and len(self._waits.get(key_id, ())) < self._limit

    def check(self, key_id: ApiKeyId) -> None:
        """Check that one more request may wait.

        Raises:
            TooManyWaits: as many requests of the key as its limit allows wait already.
            WaitsBusy: as many requests of all keys as the process allows wait already.
        """
        if len(self._waits.get(key_id, ())) >= self._limit:
            raise TooManyWaits(self._limit)
        if self._count >= self._total:
            raise WaitsBusy

    @contextmanager
    def counted(self, key_id: ApiKeyId, *, end: Callable[[], None]) -> Iterator[None]:
        """Count a request that waits until the block ends; nothing is checked.

        Args:
            key_id: the API key of the request.
            end: ends the wait of this request and of no other.
        """
        self._waits[key_id].add(end)
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            self._waits[key_id].discard(end)
            if not self._waits[key_id]:
                del self._waits[key_id]

    def end(self, key_id: ApiKeyId) -> None:
        """End every wait of a key."""
        for end in self._waits.get(key_id, ()):
            end()
