"""Outlines by PDFium, and the rest of the structure for a file that pypdf refuses."""

from itertools import islice
from typing import Final

from pypdfium2 import PdfBookmark, PdfDocument

from pipeline.ingest import text
from pipeline.ingest.extractors.extractor import (
    Attachment,
    DocumentMetadata,
    OutlineItem,
    Structure,
)
from pipeline.ingest.extractors.pdf.structure import (
    ATTACHMENTS_MAX,
    LABEL_MAX,
    OUTLINE_MAX,
    VALUE_MAX,
)

_DEPTH_MAX: Final = 50


def structure_of(document: PdfDocument) -> Structure:
    """Return what PDFium reads; dates are left out."""

    def value(key: str) -> str | None:
        return text.clean_line(document.get_metadata_value(key), longest=VALUE_MAX)

    outline = outline_of(document)
    attachments = document.count_attachments()
    labels = [
        text.clean_line(document.get_page_label(index), longest=LABEL_MAX) or ""
        for index in range(len(document))
    ]
    return Structure(
        metadata=DocumentMetadata(
            title=value("Title"),
            author=value("Author"),
            subject=value("Subject"),
            keywords=value("Keywords"),
            creator=value("Creator"),
            producer=value("Producer"),
        ),
        outline=tuple(outline[:OUTLINE_MAX]),
        attachments=tuple(
            Attachment(name=name)
            for index in range(min(attachments, ATTACHMENTS_MAX))
            if (name := _attachment_name(document, index))
        ),
        page_labels=tuple(labels) if any(labels) else (),
        is_cut=len(outline) > OUTLINE_MAX or attachments > ATTACHMENTS_MAX,
    )


def outline_of(document: PdfDocument) -> list[OutlineItem]:
    """Return the outline, at most one entry more than the limit."""
    items = map(_item, document.get_toc(max_depth=_DEPTH_MAX))
    return list(islice((item for item in items if item is not None), OUTLINE_MAX + 1))


def _item(bookmark: PdfBookmark) -> OutlineItem | None:
    title = text.clean_line(bookmark.get_title(), longest=VALUE_MAX)
    if title is None:
        return None
    target = bookmark.get_dest()
    index = target.get_index() if target else None
    return OutlineItem(title=title, level=bookmark.level, page=None if index is None else index + 1)


def _attachment_name(document: PdfDocument, index: int) -> str | None:
    return text.clean_line(document.get_attachment(index).get_name(), longest=VALUE_MAX)
