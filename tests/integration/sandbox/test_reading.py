import logging
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Never

import psutil
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from structlog.testing import capture_logs

from pipeline.enrich.enricher import Enricher
from pipeline.ingest.errors import (
    DocumentCorrupt,
    DocumentCrashed,
    DocumentEmpty,
    DocumentEncrypted,
    DocumentLimitExceeded,
    DocumentOutOfMemory,
)
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.errors import DomainError
from schemas.outcomes import Outcome
from tests.factories import pdfs
from tests.integration.sandbox.conftest import Bench, NewChildren

MIB = 1024 * 1024


def test_a_document_is_read_page_by_page(reader: Bench) -> None:
    opened, pages, summary = reader.read(
        pdfs.with_pages("Dear Ann.\nWrite to ann@example.com.", "Page two."),
    )
    assert opened.page_count == 2
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
    assert (summary.cut, summary.warnings) == (None, 0)


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


def test_metadata_is_cleaned_and_cut(reader: Bench) -> None:
    information = {
        "/Title": "Annual\x00 report\r\n2024",
        "/Author": "A" * 100_000,
        "/Subject": " ",
        "/CreationDate": "D:20240501120000+02'00'",
        "/ModDate": "yesterday",
    }
    metadata = reader.read(pdfs.with_information(information)).opened.metadata
    assert metadata.title == "Annual report 2024"
    assert metadata.author == "A" * 1_000
    assert metadata.subject is None
    assert metadata.created == datetime(2024, 5, 1, 10, tzinfo=UTC)
    assert metadata.modified is None


def test_a_date_out_of_range_is_left_out(reader: Bench) -> None:
    content = pdfs.with_information({"/CreationDate": "D:00010101000000+14'00'"})
    opened, pages, _ = reader.read(content)
    assert opened.metadata.created is None
    assert pages[0].text


def test_a_pdf_with_only_an_owners_password_is_read(reader: Bench) -> None:
    _, pages, _ = reader.read(pdfs.owner_locked("Anyone may read this."))
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


def test_a_slow_page_fails_alone(reader: Bench) -> None:
    slow = b"BT /F1 1 Tf " + b"1 0 0 1 5 5 Tm (a) Tj " * 32_000 + b"ET"
    content = pdfs.with_page_contents(slow, b"BT /F1 12 Tf (Quick.) Tj ET")
    pages = reader.read(content, page_timeout=timedelta(milliseconds=200)).pages
    assert [page.outcome for page in pages] == [Outcome.TIMEOUT_PAGE, Outcome.COMPLETE]
    assert pages[1].text == "Quick."


@pytest.mark.parametrize(
    ("content", "error"),
    [
        pytest.param(pdfs.empty(), DocumentEmpty, id="empty"),
        pytest.param(pdfs.without_pages(), DocumentEmpty, id="without pages"),
        pytest.param(pdfs.not_a_pdf(), DocumentCorrupt, id="not a PDF"),
        pytest.param(pdfs.truncated(), DocumentCorrupt, id="truncated"),
        pytest.param(pdfs.garbage(100_000), DocumentCorrupt, id="garbage"),
        pytest.param(pdfs.with_a_page_tree_loop(), DocumentCorrupt, id="page tree loop"),
        pytest.param(pdfs.locked("x", opened_with="pw"), DocumentEncrypted, id="locked"),
        pytest.param(
            pdfs.encrypted_by_an_unknown_handler(), DocumentEncrypted, id="unknown handler"
        ),
    ],
)
def test_a_document_that_does_not_open_fails_with_its_error(
    content: bytes, error: type[DomainError], reader: Bench, children: NewChildren
) -> None:
    with pytest.raises(error) as raised:
        reader.read(content)
    assert not raised.value.retryable
    assert children() == []


def test_a_file_that_is_too_large_is_not_opened(reader: Bench) -> None:
    with pytest.raises(DocumentLimitExceeded, match="more than 100"):
        reader.read(pdfs.with_pages("small"), file_bytes=100)


def test_pages_beyond_the_limit_are_left_out_and_flagged(reader: Bench) -> None:
    opened, pages, summary = reader.read(pdfs.with_pages("one", "two", "three"), pages=2)
    assert [page.text.strip() for page in pages] == ["one", "two"]
    assert opened.page_count == 3
    assert (summary.cut, summary.cut_reason) == (
        Outcome.LIMIT_PAGES,
        "Only the first 2 pages are read.",
    )


def test_text_beyond_the_limit_is_left_out_and_flagged(reader: Bench) -> None:
    content = pdfs.with_page_contents(*[b"BT /F1 12 Tf (0123456789) Tj ET"] * 3)
    _, pages, summary = reader.read(content, text_bytes=15)
    assert [page.text for page in pages] == ["0123456789", "01234"]
    assert (summary.cut, pages[1].outcome) == (Outcome.LIMIT_TEXT, Outcome.LIMIT_TEXT)


def test_a_page_with_too_much_text_is_cut_and_flagged(reader: Bench) -> None:
    page = reader.read(pdfs.page_of_text(b"0123456789"), page_characters=4).pages[0]
    assert (page.text, page.outcome) == ("0123", Outcome.LIMIT_PAGE_TEXT)


def test_the_summary_is_not_available_before_the_last_page(reader: Bench) -> None:
    with reader.open(pdfs.with_pages("one")) as document, pytest.raises(RuntimeError):
        _ = document.summary


def test_an_abandoned_reading_leaves_no_child(reader: Bench, children: NewChildren) -> None:
    with reader.open(pdfs.pages_sharing_a_stream(50, tokens=90_000)) as document:
        assert next(document.pages()).number == 1
        assert children()
    assert children() == []


def test_a_killed_child_is_a_retryable_crash(reader: Bench, children: NewChildren) -> None:
    def read_and_kill_the_child() -> None:
        with reader.open(pdfs.pages_sharing_a_stream(50, tokens=90_000)) as document:
            for _ in document.pages():
                os.kill(children()[0].pid, signal.SIGKILL)

    with capture_logs() as logs, pytest.raises(DocumentCrashed) as raised:
        read_and_kill_the_child()
    assert raised.value.signal_number == signal.SIGKILL
    assert raised.value.retryable
    assert [(line["event"], line["signal_number"]) for line in logs] == [("ingest.child_died", 9)]


def test_a_memory_error_in_the_callers_block_is_an_error_of_the_document(
    reader: Bench, children: NewChildren
) -> None:
    with pytest.raises(DocumentOutOfMemory), reader.open(pdfs.with_pages("one")):
        raise MemoryError
    assert children() == []


def test_parser_warnings_are_counted_and_not_logged(
    reader: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    handler = logging.StreamHandler(os.fdopen(2, "w", closefd=False))  # which the child keeps
    logging.getLogger().addHandler(handler)
    try:
        _, pages, summary = reader.read(pdfs.with_wrong_offsets("Found all the same."))
    finally:
        logging.getLogger().removeHandler(handler)
    assert pages[0].text.strip() == "Found all the same."
    assert summary.warnings > 0
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
