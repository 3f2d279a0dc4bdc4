"""Records the progress of a transfer, for clients and for the next attempt."""

from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Final

import structlog

from pipeline.context import Context
from pipeline.messaging.event_task import RetryLater
from pipeline.steps import lease
from pipeline.transfer.claim import ClaimedTransfer, encode_checkpoint
from pipeline.transfer.resume import Checkpoint
from schemas.errors import DomainError, ErrorCode

log = structlog.stdlib.get_logger(__name__)

PROGRESS_INTERVAL: Final = timedelta(milliseconds=250)
"""Reading waits for the transaction: one per part would slow down a transfer of small parts."""


class SliceEnded(RetryLater):
    """The message was kept for `TRANSFER_SLICE`; the next delivery continues the transfer."""

    made_progress = True


class PartsLost(DomainError):
    """The store lost the parts of earlier deliveries, and this slice could not send the whole file.

    Counts as an attempt. Otherwise, with a store that ends every multipart upload after some time,
    a large file would be sent from its start for ever.
    """

    code = ErrorCode.STORE_UNAVAILABLE
    retryable = True

    def __init__(self, lost_bytes: int) -> None:
        super().__init__(f"the store no longer has the {lost_bytes} bytes that were stored before")


class Progress:
    """Records progress and renews the lease in the same transaction."""

    def __init__(
        self, context: Context, claimed: ClaimedTransfer, *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._clock = clock
        self._context = context
        self._claimed = claimed
        self._bytes_done = 0
        self._bytes_before = self._bytes_written = claimed.bytes_done
        self._lost_bytes = 0
        self._multipart_id = claimed.multipart_id
        self._checkpoint = claimed.checkpoint
        self._written_at = self._clock()
        self._slice_ends = self._written_at + context.settings.transfer_slice.total_seconds()

    def multipart_created(self, multipart_id: str) -> None:
        """Begin at zero: a new multipart upload has none of the parts stored before."""
        if self._bytes_before:
            log.warning("transfer.begun_anew", lost_bytes=self._bytes_before)
            self._lost_bytes = self._bytes_before
        with self._context.transaction() as session:
            lease.restart(
                session,
                self._claimed.step,
                lease=self._context.settings.step_lease,
                total=self._claimed.size,
                checkpoint=encode_checkpoint(multipart_id, None),
            )
        self._multipart_id, self._checkpoint = multipart_id, None
        self._bytes_done = self._bytes_before = self._bytes_written = 0
        self._written_at = self._clock()

    def bytes_stored(self, bytes_done: int, checkpoint: Checkpoint | None) -> None:
        self._bytes_done, self._checkpoint = bytes_done, checkpoint
        if bytes_done == self._claimed.size and self._multipart_id is None:
            # The object is complete after one request; its record follows at once.
            return
        since = self._clock() - self._written_at
        if (
            self._has_first_new_bytes
            or self._slice_is_over
            or since >= PROGRESS_INTERVAL.total_seconds()
        ):
            self.renew()

    def renew(self) -> None:
        """Renew the lease and record the progress.

        Raises:
            StepCancelled, LeaseLost: see `lease.renew`.
            SliceEnded, PartsLost: the slice is over.
        """
        with self._context.transaction() as session:
            lease.renew(
                session,
                self._claimed.step,
                lease=self._context.settings.step_lease,
                done=self._bytes_done,
                total=self._claimed.size,
                checkpoint=encode_checkpoint(self._multipart_id, self._checkpoint),
            )
        self._written_at = self._clock()
        self._bytes_written = max(self._bytes_written, self._bytes_done)
        if self._slice_is_over and self._lost_bytes and self._bytes_done < self._claimed.size:
            raise PartsLost(self._lost_bytes)
        if self._slice_is_over:
            raise SliceEnded(f"{self._bytes_done} of {self._claimed.size} bytes stored")

    @property
    def _has_first_new_bytes(self) -> bool:
        """Return whether this worker has sent new bytes and has not recorded any of them yet."""
        return self._bytes_written == self._bytes_before < self._bytes_done

    @property
    def _slice_is_over(self) -> bool:
        # Reading stored parts again takes time too: a slice that ended without a new part
        # would be followed by an equal slice, for ever.
        return self._clock() > self._slice_ends and self._bytes_done > self._bytes_before
