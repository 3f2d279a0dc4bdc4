"""Writes the pages of a reading in short transactions, which also keep its lease alive."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from time import monotonic
from typing import Final

import msgspec
from sqlalchemy.orm import Session

from pipeline.context import Context
from pipeline.ingest import passage_rows, record, writer
from pipeline.ingest.frames import PageReading
from pipeline.ingest.reading import SoFar
from pipeline.ingest.record import DocumentToRead
from pipeline.steps import lease
from pipeline.steps.lease import ClaimedStep
from schemas.ids import RevisionId

INTERVAL: Final = timedelta(seconds=1)
"""Longest time between two renewals of the lease, and for which a page that is read is not written.

A cancellation is noticed within one interval.
"""


class PageBatches:
    """Collects pages and writes them: every second, and when there are many rows.

    Attributes:
        claimed: the step with the progress that is recorded.
        total: pages to read; None if it is not known yet.
        so_far: recorded as the checkpoint; it belongs to the last page that was added.
    """

    def __init__(
        self,
        context: Context,
        claimed: ClaimedStep,
        *,
        document: DocumentToRead,
        revision_id: RevisionId,
        so_far: SoFar,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.claimed = claimed
        self.total = claimed.total
        self.so_far = so_far
        self._context = context
        self._document = document
        self._revision_id = revision_id
        self._clock = clock
        self._pages: list[PageReading] = []
        self._rows = 0
        self._due = clock() + INTERVAL.total_seconds()

    def add(self, page: PageReading) -> None:
        self._pages.append(page)
        self._rows += writer.row_count(page)

    def note_time(self, seconds: float) -> None:
        """Note what the document has cost, although the page that costs it is not read yet."""
        self.so_far = msgspec.structs.replace(self.so_far, seconds=seconds)

    def beat(self) -> None:
        """Write or renew the lease if it is time.

        Raises:
            StepCancelled, DocumentGone, LeaseLost: see `write`.
        """
        if self._rows >= writer.ROWS_MAX or self._clock() >= self._due:
            self.write()

    def write(self) -> None:
        """Write the pages, record progress and checkpoint, and renew the lease.

        Raises:
            StepCancelled, DocumentGone: the document is deleted, or the client cancelled.
            LeaseLost: another worker took over.
        """
        with self._context.transaction() as session:
            if self._pages:
                record.lock_document(session, self._document)
            claimed = self.write_in(session)
        self._written(claimed)

    def write_in(self, session: Session) -> ClaimedStep:
        """Write as `write` does, in a transaction of the caller that has locked the document."""
        checkpoint = msgspec.to_builtins(self.so_far)
        settings = self._context.settings
        if self._pages:
            return writer.write_pages(
                session,
                self.claimed,
                document=self._document,
                revision_id=self._revision_id,
                pages=self._pages,
                total=self.total,
                budget=passage_rows.budget_of(settings),
                checkpoint=checkpoint,
                settings=settings,
            )
        lease.renew(
            session,
            self.claimed,
            lease=settings.step_lease,
            done=self.claimed.done,
            total=self.total,
            checkpoint=checkpoint,
        )
        return replace(self.claimed, total=self.total, checkpoint=checkpoint)

    def _written(self, claimed: ClaimedStep) -> None:
        self.claimed = claimed
        self._pages.clear()
        self._rows = 0
        self._due = self._clock() + INTERVAL.total_seconds()
