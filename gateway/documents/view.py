"""Documents, pages and entities as clients see them."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row

from schemas.api.documents import (
    Box,
    DocumentAttachment,
    DocumentAttachments,
    DocumentEntity,
    DocumentOutline,
    DocumentPage,
    DocumentPassage,
    DocumentView,
    MalwareScan,
    OutlineEntry,
    PageLine,
    PageSpan,
    TextRange,
)
from schemas.api.jobs import JobError
from schemas.lifecycle import PassageKind
from schemas.outcomes import MEANINGS, Reason
from schemas.policy.passage_ordinals import table_of_passage
from schemas.spans import SPAN_KINDS
from schemas.tables.documents import Document, Entity, Page, Revision


def show(document: Document, revision: Revision | None) -> DocumentView:
    """Return a document.

    Args:
        document: the document.
        revision: the revision that it shows or, while the first reading runs, writes.
    """
    is_shown = revision is not None and revision.id == document.revision_id
    return DocumentView(
        document_id=document.id,
        upload_id=document.upload_id,
        job_id=document.job_id,
        status=document.status,
        outcome=document.outcome,
        reasons=msgspec.convert(revision.reasons if revision else [], list[Reason]),
        revision=revision.number if revision and is_shown else None,
        filename=document.filename,
        content_type=document.content_type,
        size=document.size,
        sha256=document.sha256,
        page_count=revision.page_count if revision else None,
        pages_read=revision.pages_read if revision else 0,
        pages_ocr=revision.pages_ocr if revision else 0,
        pages_failed=revision.pages_failed if revision else 0,
        pages_needs_ocr=revision.pages_needs_ocr if revision else 0,
        pages_no_text=revision.pages_no_text if revision else 0,
        language=revision.language if revision else None,
        language_confidence=revision.language_confidence if revision else None,
        title=revision.title if revision else None,
        key_phrases=list(revision.key_phrases) if revision else [],
        truncated=revision.truncated if revision else False,
        warnings=revision.warnings if revision else 0,
        metadata=(revision.document_metadata if revision else None) or {},
        malware_scan=MalwareScan(
            state=document.scan_state,
            signature=document.scan_signature,
            scanned_at=document.scanned_at,
        ),
        tables=revision.tables_state if revision else None,
        tables_reasons=msgspec.convert(revision.tables_reasons if revision else [], list[Reason]),
        table_count=revision.table_count if revision else 0,
        figure_count=revision.figure_count if revision else 0,
        search=revision.search if revision and is_shown else None,
        error=_error_of(document),
        created_at=document.created_at,
        ingested_at=document.ingested_at,
    )


def show_page(
    page: Page, document: Document, *, label: str | None, has_sentences: bool, has_lines: bool
) -> DocumentPage:
    return DocumentPage(
        document_id=document.id,
        number=page.number,
        label=label,
        status=page.status,
        outcome=page.outcome,
        reason=page.reason,
        text=page.text,
        error_code=MEANINGS[page.outcome].code,
        engine=page.engine,
        engine_version=page.engine_version,
        engine_reason=page.engine_reason,
        confidence=page.confidence,
        language=page.language,
        language_confidence=page.language_confidence,
        width_points=page.width_points,
        height_points=page.height_points,
        spans=[
            PageSpan(kind=SPAN_KINDS[kind], start=start, end=end)
            for kind, start, end in _groups(page.spans, of=3)
        ],
        sentences=[TextRange(start=start, end=end) for start, end in _groups(page.sentences, of=2)]
        if has_sentences
        else msgspec.UNSET,
        lines=list(lines_of(page.lines)) if has_lines else msgspec.UNSET,
    )


def lines_of(packed: Sequence[int]) -> Iterator[PageLine]:
    """Yield the lines of the column `Page.lines`."""
    for start, end, left, top, right, bottom in _groups(packed, of=6):
        yield PageLine(
            start=start, end=end, box=Box(left=left, top=top, right=right, bottom=bottom)
        )


def show_entity(entity: Entity, *, lines: Sequence[PageLine]) -> DocumentEntity:
    """Return an entity.

    Args:
        entity: the entity.
        lines: those of its page.
    """
    return DocumentEntity(
        page=entity.page,
        label=entity.label,
        text=entity.text,
        normal_form=entity.normal_form,
        start=entity.start,
        end=entity.end,
        box=box_around(line.box for line in lines if _overlap(line, entity)),
    )


def box_around(boxes: Iterator[Box]) -> Box | None:
    """Return the smallest box with these boxes; None without any."""
    found = list(boxes)
    if not found:
        return None
    return Box(
        left=min(box.left for box in found),
        top=min(box.top for box in found),
        right=max(box.right for box in found),
        bottom=max(box.bottom for box in found),
    )


def show_passage(row: Row[Any]) -> DocumentPassage:
    """Return a passage.

    Args:
        row: the columns of `Passage` that clients see, with the text.
    """
    return DocumentPassage(
        page=row.page,
        ordinal=row.ordinal,
        kind=PassageKind(row.kind),
        table=table_of_passage(row.ordinal),
        start=row.start,
        end=row.end,
        text=row.text,
        language=row.language,
        tokens=row.tokens,
    )


def show_outline(document: Document, items: list[Any] | None, *, is_cut: bool) -> DocumentOutline:
    return DocumentOutline(
        document_id=document.id,
        items=msgspec.convert(items, list[OutlineEntry] | None),
        is_cut=is_cut,
    )


def show_attachments(
    document: Document, items: list[Any] | None, *, is_cut: bool
) -> DocumentAttachments:
    return DocumentAttachments(
        document_id=document.id,
        items=msgspec.convert(items, list[DocumentAttachment] | None),
        is_cut=is_cut,
    )


def _overlap(line: PageLine, entity: Entity) -> bool:
    return line.start < entity.end and entity.start < line.end


def _error_of(document: Document) -> JobError | None:
    if document.error_code is None:
        return None
    return JobError(
        code=document.error_code,
        detail=document.error_detail or "",
        # Without an outcome a fault of the system ended the reading, not the document.
        retryable=document.outcome is None or MEANINGS[document.outcome].retryable,
    )


def _groups(packed: Sequence[int], *, of: int) -> Iterator[tuple[int, ...]]:
    return zip(*[iter(packed)] * of, strict=True)
