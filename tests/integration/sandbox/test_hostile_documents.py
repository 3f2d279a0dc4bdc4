"""Files built to exhaust their reader: each file fails, and the next good file is read."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial

import pytest

from pipeline.ingest import outcome
from pipeline.ingest.errors import DocumentError
from schemas.outcomes import Outcome
from schemas.settings import PdfEngine
from tests.factories import pdfs
from tests.integration.sandbox.conftest import Bench, NewChildren

MB = pdfs.MB
MIB = 1024 * 1024

Make = Callable[[], bytes]

HOSTILE: dict[str, tuple[Make, Outcome]] = {
    "flate bomb": (partial(pdfs.flate_bomb, 200 * MB), Outcome.LIMIT_PAGE_CONTENT),
    "double flate bomb": (partial(pdfs.double_flate_bomb, 200 * MB), Outcome.LIMIT_PAGE_CONTENT),
    "page of 1.8 million tokens": (partial(pdfs.page_of_tokens, 1_800_000), Outcome.COMPLETE),
    "one string of 60 MB": (partial(pdfs.page_of_text, b"a" * 60 * MB), Outcome.PARTIAL),
    "nested arrays": (partial(pdfs.nested_arrays, 200_000), Outcome.NO_TEXT),
    "map to Unicode": (partial(pdfs.unicode_map_bomb, 200 * MB), Outcome.LIMIT_PAGE_CONTENT),
    "more pages than are read": (partial(pdfs.tiny_pages, 500), Outcome.PARTIAL),
    "page tree loop": (pdfs.with_a_page_tree_loop, Outcome.CORRUPT),
    "garbage": (partial(pdfs.garbage, 5 * MB), Outcome.CORRUPT),
    "truncated": (pdfs.truncated, Outcome.CORRUPT),
}


@pytest.fixture(autouse=True)
def a_good_file_is_still_read(reader: Bench, children: NewChildren) -> Iterator[None]:
    yield
    pages = reader.read(pdfs.with_pages("Still here.", "Both pages.")).pages
    assert [page.text.strip() for page in pages] == ["Still here.", "Both pages."]
    reader.reader.close()
    assert children() == []


@pytest.mark.parametrize(("make", "expected"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_ends_with_its_outcome(make: Make, expected: Outcome, reader: Bench) -> None:
    assert outcome_of(reader, make()) is expected


def outcome_of(reader: Bench, content: bytes) -> Outcome:
    try:
        pages, ending = reader.read(content)
    except DocumentError as error:
        return error.outcome
    return outcome.result_of(
        page_count=ending.page_count or len(pages),
        pages=len(pages),
        pages_without_text=sum(page.outcome is Outcome.NO_TEXT for page in pages),
        incomplete=[
            outcome.PageFacts(
                number=page.number,
                status=outcome.status_of_page(page.outcome, has_text=bool(page.text)),
                outcome=page.outcome,
                reason=page.reason,
            )
            for page in pages
            if page.outcome not in outcome.GOOD
        ],
        cut=None
        if ending.read.cut is None
        else outcome.Cut(outcome=ending.read.cut, reason=ending.read.cut_reason),
    ).outcome


def test_a_timeout_keeps_the_pages_read_before_it(reader: Bench) -> None:
    content = pdfs.pages_sharing_a_stream(100, tokens=290_000)
    pages, ending = reader.read(content, timeout=timedelta(seconds=2))
    assert ending.read.cut is Outcome.TIMEOUT_DOCUMENT
    assert [page.number for page in pages] == list(range(1, len(pages) + 1))
    assert len(pages) < 100


def test_each_slow_page_fails_with_a_timeout(reader: Bench) -> None:
    content = pdfs.pages_of_text_matrices(2, matrices=32_000)
    pages = reader.read(
        content, page_timeout=timedelta(milliseconds=50), pdf_engine=PdfEngine.PYPDF
    ).pages
    assert [page.outcome for page in pages] == [Outcome.TIMEOUT_PAGE] * 2


def test_a_document_that_needs_too_much_memory_fails_with_out_of_memory(reader: Bench) -> None:
    [page] = reader.read(pdfs.page_of_text(b"words " * (3 * MB)), memory_bytes=48 * MIB).pages
    assert page.outcome is Outcome.OUT_OF_MEMORY


def test_a_page_with_nested_forms_is_cut_and_flagged(reader: Bench) -> None:
    content = pdfs.form_fan_out(width=12, depth=4, words=90)
    [page] = reader.read(content, page_timeout=timedelta(seconds=1)).pages
    assert page.outcome in {Outcome.LIMIT_PAGE_TEXT, Outcome.TIMEOUT_PAGE}
    assert page.reason


@pytest.mark.timeout(120)  # without a limit on words the tokenizer takes half an hour
def test_a_page_of_apostrophes_is_read(reader: Bench) -> None:
    page = reader.read(pdfs.page_of_text(b"'" * 190_000)).pages[0]
    assert page.outcome is Outcome.COMPLETE
    assert page.sentences
