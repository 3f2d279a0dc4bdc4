"""Writes the pages of a document."""

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import insert
from sqlalchemy.orm import Session

from pipeline.ingest.frames import PageReading
from schemas.events.uploads import StoredEvent
from schemas.tables.documents import Entity, Page, Passage

ROWS_PER_STATEMENT: Final = 1_000
"""Rows collected before an insert; with the limits of a page it bounds the worker's memory."""


class PageWriter:
    """Collects the rows of pages and inserts them in batches."""

    def __init__(self, session: Session, stored: StoredEvent) -> None:
        self._session = session
        self._document_id = stored.document_id
        self._pages: list[dict[str, Any]] = []
        self._passages: list[dict[str, Any]] = []
        self._entities: list[dict[str, Any]] = []

    def write(self, page: PageReading) -> None:
        place = {"document_id": self._document_id, "page": page.number}
        self._pages.append(
            {
                "document_id": self._document_id,
                "number": page.number,
                "text": page.text,
                "error_code": page.error_code,
                "width_points": page.width_points,
                "height_points": page.height_points,
            },
        )
        self._passages += (
            {
                **place,
                "ordinal": passage.ordinal,
                "start": passage.start,
                "end": passage.end,
                "text": page.text[passage.start : passage.end],
            }
            for passage in page.passages
        )
        self._entities += (
            {
                **place,
                "ordinal": ordinal,
                "label": entity.label,
                "text": entity.text,
                "normal_form": entity.normal,
                "start": entity.start,
                "end": entity.end,
            }
            for ordinal, entity in enumerate(page.entities)
        )
        if len(self._pages) + len(self._passages) + len(self._entities) >= ROWS_PER_STATEMENT:
            self.flush()

    def flush(self) -> None:
        for table, rows in (
            (Page, self._pages),
            (Passage, self._passages),
            (Entity, self._entities),
        ):
            for batch in _batches(rows):
                self._session.execute(insert(table), batch)
            rows.clear()


def _batches(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        yield rows[start : start + ROWS_PER_STATEMENT]
