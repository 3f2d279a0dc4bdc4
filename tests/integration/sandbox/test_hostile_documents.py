"""Files built to exhaust their reader: each file fails, and the next good file is read."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial

import pytest

from pipeline.ingest.errors import (
    DocumentCorrupt,
    DocumentLimitExceeded,
    DocumentOutOfMemory,
    DocumentTimeout,
)
from schemas.errors import DomainError
from schemas.outcomes import Outcome
from tests.factories import pdfs
from tests.integration.sandbox.conftest import Bench, NewChildren

MB = pdfs.MB
MIB = 1024 * 1024

Make = Callable[[], bytes]

HOSTILE: dict[str, tuple[Make, type[DomainError]]] = {
    "flate bomb": (partial(pdfs.flate_bomb, 200 * MB), DocumentLimitExceeded),
    "double flate bomb": (partial(pdfs.double_flate_bomb, 200 * MB), DocumentLimitExceeded),
    "page of 1.8 million tokens": (partial(pdfs.page_of_tokens, 1_800_000), DocumentLimitExceeded),
    "one string of 60 MB": (partial(pdfs.page_of_text, b"a" * 60 * MB), DocumentLimitExceeded),
    "nested arrays": (partial(pdfs.nested_arrays, 200_000), DocumentLimitExceeded),
    "map to Unicode": (partial(pdfs.unicode_map_bomb, 200 * MB), DocumentLimitExceeded),
    "more pages than a tree may have": (partial(pdfs.tiny_pages, 500), DocumentLimitExceeded),
    "page tree loop": (pdfs.with_a_page_tree_loop, DocumentCorrupt),
    "garbage": (partial(pdfs.garbage, 5 * MB), DocumentCorrupt),
    "truncated": (pdfs.truncated, DocumentCorrupt),
}


@pytest.fixture(autouse=True)
def a_good_file_is_still_read(reader: Bench, children: NewChildren) -> Iterator[None]:
    yield
    pages = reader.read(pdfs.with_pages("Still here.", "Both pages.")).pages
    assert [page.text.strip() for page in pages] == ["Still here.", "Both pages."]
    reader.reader.close()
    assert children() == []


@pytest.mark.parametrize(("make", "error"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_fails_with_its_error(
    make: Make, error: type[DomainError], reader: Bench
) -> None:
    with pytest.raises(error):
        reader.read(make())


def test_a_timeout_keeps_the_pages_read_before_it(reader: Bench) -> None:
    content = pdfs.pages_sharing_a_stream(100, tokens=290_000)
    numbers: list[int] = []

    def read_to_the_end() -> None:
        with reader.open(content, timeout=timedelta(seconds=2)) as document:
            numbers.extend(page.number for page in document.pages())

    with pytest.raises(DocumentTimeout):
        read_to_the_end()
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) < 100


def test_each_slow_page_fails_with_a_timeout(reader: Bench) -> None:
    content = pdfs.pages_of_text_matrices(2, matrices=32_000)
    pages = reader.read(content, page_timeout=timedelta(milliseconds=50)).pages
    assert [page.outcome for page in pages] == [Outcome.TIMEOUT_PAGE] * 2


def test_a_document_that_needs_too_much_memory_fails_with_out_of_memory(reader: Bench) -> None:
    with pytest.raises(DocumentOutOfMemory):
        reader.read(pdfs.page_of_text(b"words " * (3 * MB)), memory_bytes=48 * MIB)


def test_a_page_with_nested_forms_is_cut_and_flagged(reader: Bench) -> None:
    page = reader.read(pdfs.form_fan_out(width=12, depth=4, words=90)).pages[0]
    assert page.outcome is Outcome.LIMIT_PAGE_TEXT


@pytest.mark.timeout(120)  # without a limit on words the tokenizer takes half an hour
def test_a_page_of_apostrophes_is_read(reader: Bench) -> None:
    page = reader.read(pdfs.page_of_text(b"'" * 190_000)).pages[0]
    assert page.outcome is Outcome.COMPLETE
    assert page.sentences
