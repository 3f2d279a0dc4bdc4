"""Limits how many requests of one API key wait for a job at once, in this process."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from schemas.errors import DomainError, ErrorCode
from schemas.ids import ApiKeyId

RETRY_AFTER: Final = timedelta(seconds=5)


class TooManyWaits(DomainError):
    """Too many requests of the API key wait; a request without a wait is answered."""

    code = ErrorCode.TOO_MANY_WAITS
    retryable = True
    retry_after = RETRY_AFTER

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} requests of this API key already wait for a job, and no more are allowed;"
            " ask without waiting, or again later"
        )


class KeyWaits:
    """The waiting requests of each API key: long polls and event streams."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waits: defaultdict[ApiKeyId, set[Callable[[], None]]] = defaultdict(set)

    @property
    def key_ids(self) -> Collection[ApiKeyId]:
        """The keys with waiting requests."""
        return self._waits.keys()

    def has_room(self, key_id: ApiKeyId) -> bool:
        return len(self._waits.get(key_id, ())) < self._limit

    def check(self, key_id: ApiKeyId) -> None:
        """Check that one more request may wait.

        Raises:
            TooManyWaits: as many as the limit allows wait already.
        """
        if not self.has_room(key_id):
            raise TooManyWaits(self._limit)

    @contextmanager
    def counted(self, key_id: ApiKeyId, *, end: Callable[[], None]) -> Iterator[None]:
        """Count a request that waits until the block ends; nothing is checked.

        Args:
            key_id: the API key of the request.
            end: ends the wait of this request and of no other.
        """
        self._waits[key_id].add(end)
        try:
            yield
        finally:
            self._waits[key_id].discard(end)
            if not self._waits[key_id]:
                del self._waits[key_id]

    def end(self, key_id: ApiKeyId) -> None:
        """End every wait of a key."""
        for end in self._waits.get(key_id, ()):
            end()
