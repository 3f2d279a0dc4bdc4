from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.ingest.extractors.extractor import Attachment, OutlineItem, Structure
from pipeline.ingest.extractors.pdf import structure
from pipeline.ingest.extractors.pdf.document import PdfExtractor
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.settings import PdfEngine
from tests.factories import pdf_faults, pdfs

XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:pdfaid="http://www.aiim.org/pdfa/ns/id/">
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">Annual report</rdf:li></rdf:Alt></dc:title>
<dc:creator><rdf:Seq><rdf:li>Ann</rdf:li><rdf:li>Bob</rdf:li></rdf:Seq></dc:creator>
<dc:language><rdf:Bag><rdf:li>de-DE</rdf:li></rdf:Bag></dc:language>
<xmp:CreateDate>2024-05-01T12:00:00+02:00</xmp:CreateDate><pdfaid:part>2</pdfaid:part>
</rdf:Description></rdf:RDF></x:xmpmeta>"""


def structure_of(content: bytes, *, directory: Path, limits: ReadingLimits) -> Structure:
    path = directory / "document.pdf"
    path.write_bytes(content)
    with PdfExtractor().open(path, limits=limits, password=None) as document:
        return document.structure()


def test_metadata_is_cleaned_and_cut(tmp_path: Path, limits: ReadingLimits) -> None:
    content = pdfs.with_information(
        {
            "/Title": "Annual\x00 report\r\n2024",
            "/Author": "A" * 100_000,
            "/Subject": " ",
            "/CreationDate": "D:20240501120000+02'00'",
            "/ModDate": "yesterday",
        }
    )
    metadata = structure_of(content, directory=tmp_path, limits=limits).metadata
    assert metadata.title == "Annual report 2024"
    assert metadata.author == "A" * 1_000
    assert metadata.subject is None
    assert metadata.created == datetime(2024, 5, 1, 10, tzinfo=UTC)
    assert metadata.modified is None


def test_a_date_out_of_range_is_left_out(tmp_path: Path, limits: ReadingLimits) -> None:
    content = pdfs.with_information({"/CreationDate": "D:00010101000000+14'00'"})
    assert structure_of(content, directory=tmp_path, limits=limits).metadata.created is None


def test_xmp_fills_the_gaps_of_the_information(tmp_path: Path, limits: ReadingLimits) -> None:
    metadata = structure_of(pdf_faults.with_xmp(XMP), directory=tmp_path, limits=limits).metadata
    assert metadata.title == "Annual report"
    assert metadata.author == "Ann, Bob"
    assert metadata.created == datetime(2024, 5, 1, 10, tzinfo=UTC)
    assert metadata.extra == {"language": "de-DE", "pdfa_part": "2"}


def test_unreadable_xmp_loses_nothing_else(tmp_path: Path, limits: ReadingLimits) -> None:
    read = structure_of(pdf_faults.with_xmp("<broken"), directory=tmp_path, limits=limits)
    assert read.metadata.title is None
    assert read.metadata.extra == {}


@pytest.mark.parametrize("engine", [PdfEngine.AUTO, PdfEngine.PYPDF])
def test_outline_labels_and_attachments_are_read(
    engine: PdfEngine, tmp_path: Path, limits: ReadingLimits
) -> None:
    chosen = replace(limits, pdf_engine=engine)
    read = structure_of(pdf_faults.with_structure(), directory=tmp_path, limits=chosen)
    assert read.outline == (
        OutlineItem(title="Chapter one", level=0, page=1),
        OutlineItem(title="Section", level=1, page=2),
        OutlineItem(title="Chapter two", level=0, page=3),
    )
    assert read.page_labels == ("i", "ii", "1")
    assert read.attachments == (
        Attachment(name="data.csv", size_bytes=8, media_type="text/csv", description="Two lines"),
    )
    assert not read.is_cut


def test_a_document_without_labels_has_none(tmp_path: Path, limits: ReadingLimits) -> None:
    read = structure_of(pdfs.with_pages("a"), directory=tmp_path, limits=limits)
    assert (read.page_labels, read.outline, read.attachments) == ((), (), ())


@pytest.mark.parametrize("engine", [PdfEngine.AUTO, PdfEngine.PYPDF])
def test_a_long_outline_is_cut_and_flagged(
    engine: PdfEngine, tmp_path: Path, limits: ReadingLimits
) -> None:
    content = pdf_faults.with_an_outline(structure.OUTLINE_MAX + 1)
    chosen = replace(limits, pdf_engine=engine)
    read = structure_of(content, directory=tmp_path, limits=chosen)
    assert len(read.outline) == structure.OUTLINE_MAX
    assert read.is_cut


def test_pdfium_gives_the_structure_that_pypdf_refuses(
    tmp_path: Path, limits: ReadingLimits
) -> None:
    whole = pdf_faults.with_structure()
    damaged = whole[: whole.rindex(b"startxref")] + b"startxref\n%%EOF\n"
    read = structure_of(damaged, directory=tmp_path, limits=limits)
    assert [(item.title, item.level, item.page) for item in read.outline] == [
        ("Chapter one", 0, 1),
        ("Section", 1, 2),
        ("Chapter two", 0, 3),
    ]
    assert read.page_labels == ("i", "ii", "1")
    assert [attachment.name for attachment in read.attachments] == ["data.csv"]
