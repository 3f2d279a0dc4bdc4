import logging
import os
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Never

import psutil
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc

from pipeline.enrich.enricher import Enricher
from pipeline.ingest.errors import DocumentError
from pipeline.ingest.frames import PageReading
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.outcomes import Outcome
from schemas.settings import PdfEngine
from tests.factories import pdfs
from tests.integration.sandbox.conftest import Bench, NewChildren

MIB = 1024 * 1024


def test_a_document_is_read_page_by_page(reader: Bench) -> None:
    pages, ending = reader.read(
        pdfs.with_pages("Dear Ann.\nWrite to ann@example.com.", "Page two."),
    )
    assert (ending.page_count, ending.is_paused) == (2, False)
    assert [page.number for page in pages] == [1, 2]
    first = pages[0]
    assert [first.text[start:end] for start, end in first.sentences] == [
        "Dear Ann.",
        "Write to ann@example.com.",
    ]
    assert [(e.label, first.text[e.start : e.end]) for e in first.entities] == [
        ("EMAIL", "ann@example.com"),
    ]
    assert [page.outcome for page in pages] == [Outcome.COMPLETE, Outcome.COMPLETE]
    assert (ending.read.cut, ending.read.warnings) == (None, 0)


def test_a_page_has_its_size(reader: Bench) -> None:
    page = reader.read(pdfs.with_pages("A4")).pages[0]
    assert page.width_points == pytest.approx(595, abs=1)
    assert page.height_points == pytest.approx(842, abs=1)


def test_the_size_of_a_rotated_page_is_its_displayed_size(reader: Bench) -> None:
    page = reader.read(pdfs.rotated("A4", degrees=270)).pages[0]
    assert page.width_points == pytest.approx(842, abs=1)
    assert page.height_points == pytest.approx(595, abs=1)


def test_a_page_without_text_is_read(reader: Bench) -> None:
    pages = reader.read(pdfs.with_pages("", "text")).pages
    assert (pages[0].text, pages[0].outcome) == ("", Outcome.NO_TEXT)


def test_a_pdf_with_only_an_owners_password_is_read(reader: Bench) -> None:
    pages, _ = reader.read(pdfs.owner_locked("Anyone may read this."))
    assert pages[0].text.strip() == "Anyone may read this."


def test_a_bad_page_fails_alone(reader: Bench) -> None:
    pages = reader.read(pdfs.with_a_bad_page("First.", "Third.")).pages
    assert [page.outcome for page in pages] == [
        Outcome.COMPLETE,
        Outcome.CORRUPT,
        Outcome.COMPLETE,
    ]
    assert [page.text for page in pages] == ["First.", "", "Third."]
    assert pages[1].reason == "The page is damaged."


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        pytest.param(pdfs.without_pages(), Outcome.EMPTY, id="without pages"),
        pytest.param(pdfs.not_a_pdf(), Outcome.CORRUPT, id="not a PDF"),
        pytest.param(pdfs.truncated(), Outcome.CORRUPT, id="truncated"),
        pytest.param(pdfs.garbage(100_000), Outcome.CORRUPT, id="garbage"),
        pytest.param(pdfs.locked("x", opened_with="pw"), Outcome.ENCRYPTED, id="locked"),
        pytest.param(
            pdfs.encrypted_by_an_unknown_handler(), Outcome.ENCRYPTED, id="unknown handler"
        ),
    ],
)
def test_a_document_that_does_not_open_fails_with_its_outcome(
    content: bytes, outcome: Outcome, reader: Bench, children: NewChildren
) -> None:
    with pytest.raises(DocumentError) as raised:
        reader.read(content)
    assert raised.value.outcome is outcome
    assert children() == []


def test_pages_beyond_the_limit_are_left_out_and_flagged(reader: Bench) -> None:
    pages, ending = reader.read(pdfs.with_pages("one", "two", "three"), pages=2)
    assert [page.text.strip() for page in pages] == ["one", "two"]
    assert ending.page_count == 3
    assert (ending.read.cut, ending.read.cut_reason) == (
        Outcome.LIMIT_PAGES,
        "Only the first 2 pages are read.",
    )


def test_text_beyond_the_limit_is_left_out_and_flagged(reader: Bench) -> None:
    content = pdfs.with_page_contents(*[b"BT /F1 12 Tf (0123456789) Tj ET"] * 3)
    pages, ending = reader.read(content, text_bytes=15)
    assert [page.text for page in pages] == ["0123456789", "01234"]
    assert (ending.read.cut, pages[1].outcome) == (Outcome.LIMIT_TEXT, Outcome.LIMIT_TEXT)


def test_a_page_with_too_much_text_is_cut_and_flagged(reader: Bench) -> None:
    page = reader.read(pdfs.page_of_text(b"0123456789"), page_characters=4).pages[0]
    assert (page.text, page.outcome) == ("0123", Outcome.LIMIT_PAGE_TEXT)


def test_the_ending_is_not_available_before_the_last_page(reader: Bench) -> None:
    with pytest.raises(RuntimeError):
        _ = reader.reading(pdfs.with_pages("one")).ending


def test_an_abandoned_reading_leaves_no_child(reader: Bench, children: NewChildren) -> None:
    with closing(reader.reading(pdfs.with_pages("one", "two")).run()) as steps:
        assert isinstance(next(steps), PageReading)
        assert children()
    assert children() == []


def test_a_child_reads_several_documents_of_a_tenant(reader: Bench, children: NewChildren) -> None:
    reader.read(pdfs.with_pages("one"))
    [first] = children()
    pages = reader.read(pdfs.with_pages("two")).pages
    assert pages[0].text.strip() == "two"
    assert children() == [first]


def test_a_child_that_failed_to_read_a_page_is_replaced(
    reader: Bench, children: NewChildren
) -> None:
    slow = b"BT /F1 1 Tf " + b"1 0 0 1 5 5 Tm (a) Tj " * 32_000 + b"ET"
    reader.read(
        pdfs.with_page_contents(slow),
        page_timeout=timedelta(milliseconds=50),
        pdf_engine=PdfEngine.PYPDF,
    )
    assert children() == []


def test_parser_warnings_are_counted_and_not_logged(
    reader: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    handler = logging.StreamHandler(os.fdopen(2, "w", closefd=False))  # which the child keeps
    logging.getLogger().addHandler(handler)
    try:
        pages, ending = reader.read(
            pdfs.with_wrong_offsets("Found all the same."), pdf_engine=PdfEngine.PYPDF
        )
    finally:
        logging.getLogger().removeHandler(handler)
    assert pages[0].text.strip() == "Found all the same."
    assert ending.read.warnings > 0
    assert capfd.readouterr() == ("", "")


def test_a_page_that_runs_out_of_memory_is_read_again_after_memory_is_freed(reader: Bench) -> None:
    content = pdfs.with_page_contents(*[b" " * (8 * MIB)] * 24)
    pages = reader.read(content, memory_bytes=128 * MIB).pages
    assert [page.outcome for page in pages] == [Outcome.NO_TEXT] * 24


def test_a_page_that_is_too_slow_to_annotate_keeps_its_text(
    limits: ReadingLimits, tmp_path: Path
) -> None:
    model = spacy.blank("en")
    model.add_pipe("spins_for_ever")
    model.to_disk(tmp_path / "model")
    enricher = Enricher(str(tmp_path / "model"))
    bench = Bench(limits, enricher=enricher, directory=tmp_path)
    page = bench.read(
        pdfs.with_pages("Some text."), page_timeout=timedelta(milliseconds=500)
    ).pages[0]
    bench.reader.close()
    assert (page.text.strip(), page.outcome) == ("Some text.", Outcome.TIMEOUT_PAGE)
    assert page.sentences == ()


@Language.component("spins_for_ever")
def spins_for_ever(_: Doc) -> Never:
    while True:
        pass


def test_readings_do_not_grow_the_memory_of_the_parent(reader: Bench) -> None:
    def page(number: int) -> str:
        return "\n".join(f"word{number}x{line} and more" for line in range(40))

    reader.read(pdfs.with_pages("warm up"))
    before = psutil.Process().memory_info().rss
    for document in range(5):
        content = pdfs.with_pages(*(page(document * 10 + number) for number in range(10)))
        assert len(reader.read(content).pages) == 10
    assert psutil.Process().memory_info().rss - before < 16 * MIB
