"""Metadata, outline, page labels and attachments of a PDF, by pypdf; each part has a limit."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import islice
from operator import attrgetter
from typing import Final, Protocol, TypeVar

from pypdf import PdfReader
from pypdf.generic import Destination, EmbeddedFile
from pypdf.xmp import XmpInformation

from pipeline.ingest import text
from pipeline.ingest.extractors.extractor import (
    Attachment,
    DocumentMetadata,
    OutlineItem,
    Structure,
)

S = TypeVar("S")
T = TypeVar("T")

VALUE_MAX: Final = 1_000
"""Characters of a value, a title or a name."""
LABEL_MAX: Final = 50
OUTLINE_MAX: Final = 5_000
ATTACHMENTS_MAX: Final = 1_000


class Attempt(Protocol):
    """Returns what `read` returns for a subject, or None if it raises."""

    def __call__(self, read: Callable[[S], T], subject: S) -> T | None: ...


def structure_of(
    reader: PdfReader, *, attempt: Attempt, outline: Sequence[OutlineItem] | None
) -> Structure:
    """Return the parts that can be read.

    Args:
        reader: the open PDF.
        attempt: reads a part.
        outline: the outline as another engine reads it, at most one entry more than the limit;
            None if this one has to read it, which takes time for each page of the document.
    """
    if outline is None:
        outline = attempt(_outline, reader) or ()
    attachments = attempt(_files, reader) or []
    return Structure(
        metadata=_metadata(reader, attempt=attempt),
        outline=tuple(outline[:OUTLINE_MAX]),
        attachments=tuple(
            attachment
            for file in attachments[:ATTACHMENTS_MAX]
            if (attachment := _attachment(file, attempt=attempt))
        ),
        page_labels=tuple(attempt(_page_labels, reader) or ()),
        is_cut=len(outline) > OUTLINE_MAX or len(attachments) > ATTACHMENTS_MAX,
    )


def _metadata(reader: PdfReader, *, attempt: Attempt) -> DocumentMetadata:
    """Return the fields of the information dictionary; XMP fills the gaps."""
    information = attempt(attrgetter("metadata"), reader)
    xmp = attempt(attrgetter("xmp_metadata"), reader)

    def line(name: str, of_xmp: Callable[[XmpInformation], object]) -> str | None:
        found = _line(attempt(attrgetter(name), information)) if information else None
        return found or (_line(attempt(of_xmp, xmp)) if xmp else None)

    def date(name: str, name_in_xmp: str) -> datetime | None:
        found = attempt(attrgetter(name), information) if information else None
        if isinstance(found, datetime):
            return attempt(_in_utc, found)
        found = attempt(attrgetter(name_in_xmp), xmp) if xmp else None
        # pypdf converts the dates of XMP to UTC and leaves the time zone out.
        return found.replace(tzinfo=UTC) if isinstance(found, datetime) else None

    return DocumentMetadata(
        title=line("title", lambda xmp: _first(xmp.dc_title)),
        author=line("author", lambda xmp: _joined(xmp.dc_creator)),
        subject=line("subject", lambda xmp: _first(xmp.dc_description)),
        keywords=line("keywords", lambda xmp: xmp.pdf_keywords or _joined(xmp.dc_subject)),
        creator=line("creator", lambda xmp: xmp.xmp_creator_tool),
        producer=line("producer", lambda xmp: xmp.pdf_producer),
        created=date("creation_date", "xmp_create_date"),
        modified=date("modification_date", "xmp_modify_date"),
        extra=_extra(xmp, attempt=attempt) if xmp else {},
    )


def _extra(xmp: XmpInformation, *, attempt: Attempt) -> dict[str, str]:
    """Return the fields of XMP that the information dictionary does not have."""
    fields: dict[str, Callable[[XmpInformation], object]] = {
        "language": lambda xmp: _joined(xmp.dc_language),
        "publisher": lambda xmp: _joined(xmp.dc_publisher),
        "contributor": lambda xmp: _joined(xmp.dc_contributor),
        "rights": lambda xmp: _first(xmp.dc_rights),
        "identifier": lambda xmp: xmp.dc_identifier,
        "document_id": lambda xmp: xmp.xmpmm_document_id,
        "pdfa_part": lambda xmp: xmp.pdfaid_part,
        "pdfa_conformance": lambda xmp: xmp.pdfaid_conformance,
    }
    lines = {name: _line(attempt(read, xmp)) for name, read in fields.items()}
    return {name: line for name, line in lines.items() if line}


def _outline(reader: PdfReader) -> list[OutlineItem]:
    """Return the entries, at most one more than the limit."""
    if "/Outlines" not in reader.root_object:
        return []
    numbers = {
        page.indirect_reference.idnum: number
        for number, page in enumerate(reader.pages, start=1)
        if page.indirect_reference is not None
    }
    items: list[OutlineItem] = []
    # The children of an entry are a list after it.
    waiting: list[tuple[object, int]] = [(reader.outline, -1)]
    while waiting and len(items) <= OUTLINE_MAX:
        node, level = waiting.pop()
        if isinstance(node, list):
            waiting += [(child, level + 1) for child in reversed(node)]
        elif isinstance(node, Destination) and (title := _line(str(node.title or ""))):
            page = numbers.get(getattr(node.page, "idnum", 0))
            items.append(OutlineItem(title=title, level=level, page=page))
    return items


def _files(reader: PdfReader) -> list[EmbeddedFile]:
    """Return the attachments, at most one more than the limit."""
    return list(islice(reader.attachment_list, ATTACHMENTS_MAX + 1))


def _attachment(file: EmbeddedFile, *, attempt: Attempt) -> Attachment | None:
    name = _line(attempt(attrgetter("alternative_name"), file)) or _line(file.name)
    if name is None:
        return None
    size = attempt(attrgetter("size"), file)
    media_type = _line(attempt(attrgetter("subtype"), file))
    return Attachment(
        name=name,
        size_bytes=int(size) if isinstance(size, int) and size >= 0 else None,
        media_type=media_type.removeprefix("/") if media_type else None,
        description=_line(attempt(attrgetter("description"), file)),
    )


def _page_labels(reader: PdfReader) -> list[str]:
    """Return the labels; none if the document has none, because pypdf counts from 1 then."""
    if "/PageLabels" not in reader.root_object:
        return []
    return [text.clean_line(label, longest=LABEL_MAX) or "" for label in reader.page_labels]


def _line(value: object) -> str | None:
    return text.clean_line(value, longest=VALUE_MAX) if isinstance(value, str) else None


def _first(values: dict[str, str] | None) -> str | None:
    """Return the value in the first of the languages, which is the default one."""
    return next(iter(values.values()), None) if values else None


def _joined(values: list[str] | None) -> str | None:
    return ", ".join(values) if values else None


def _in_utc(value: datetime) -> datetime:
    """Return a date in UTC if it has a time zone; raises for year 1 east of Greenwich."""
    return value.astimezone(UTC) if value.tzinfo else value
