"""Files built to exhaust the extractor of PDFs: every page comes to an outcome, or kills its child."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.ingest.errors import DocumentError
from pipeline.ingest.extractors.extractor import Extractor
from pipeline.ingest.extractors.pdf.document import PdfExtractor
from pipeline.ingest.sandbox.fork import (
    ChildDied,
    ChildOutOfMemory,
    Send,
    TimeLimitReached,
    time_limit,
)
from schemas.outcomes import Outcome
from tests.factories.hostile_pdfs import HOSTILE
from tests.factories.reading_limits import READING_LIMITS
from tests.integration.sandbox.forked import LIMITS, forked

PAGES = 5
DEATH = "death"
READING = replace(READING_LIMITS, page_timeout=timedelta(seconds=2), pages=5_000)

# What PDFium yields, and what pypdf yields after a death of the child.
EXPECTED = {
    "a stream that inflates a thousandfold": [DEATH, Outcome.LIMIT_PAGE_CONTENT],
    "a stream that inflates a millionfold": [DEATH, Outcome.LIMIT_PAGE_CONTENT],
    "a page of 10 MB of operators": [Outcome.COMPLETE],
    "a page of 1.8 million tokens": [Outcome.COMPLETE],
    "many pages with one stream": [Outcome.COMPLETE],
    "forms shown ten thousand times": [DEATH, Outcome.TIMEOUT_PAGE],
    "tens of thousands of pages": [Outcome.NO_TEXT],
    "one string of 60 MB": [Outcome.LIMIT_PAGE_TEXT],
    "nested arrays": [Outcome.NO_TEXT],
    "a long outline": [Outcome.COMPLETE],
    "a map to Unicode that inflates a thousandfold": [DEATH, Outcome.LIMIT_PAGE_CONTENT],
    "a loop of the page tree": [Outcome.CORRUPT],
    "pages of text matrices": [Outcome.COMPLETE],
    "garbage": [Outcome.CORRUPT],
    "half of a file": [Outcome.CORRUPT],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_every_page_of_a_hostile_file_has_an_outcome(name: str, tmp_path: Path) -> None:
    path = tmp_path / "document.pdf"
    path.write_bytes(HOSTILE[name]())
    extractor = PdfExtractor()
    outcomes = read(path, extractor)
    if outcomes == [DEATH]:
        outcomes += read(path, extractor.other())
    assert list(dict.fromkeys(outcomes)) == EXPECTED[name]


def test_the_structure_of_a_hostile_file_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "document.pdf"
    path.write_bytes(HOSTILE["a long outline"]())

    def work(send: Send) -> None:
        with PdfExtractor().open(path, limits=READING, password=None) as document:
            found = document.structure()
        send(b"%d %d" % (len(found.outline), found.is_cut))

    with forked(work, memory_bytes=READING.memory_bytes) as frames:
        assert next(frames) == b"5000 1"


def read(path: Path, extractor: Extractor) -> Sequence[str]:
    """Return the outcomes of the first pages; `DEATH` at last if the child died."""

    def work(send: Send) -> None:
        try:
            with extractor.open(path, limits=READING, password=None) as document:
                for number in range(1, min(document.page_count, PAGES) + 1):
                    try:
                        with time_limit(READING.page_timeout):
                            outcome = document.page(number).outcome
                    except TimeLimitReached:
                        outcome = Outcome.TIMEOUT_PAGE
                    except MemoryError:
                        outcome = Outcome.OUT_OF_MEMORY
                    send(outcome.encode())
        except DocumentError as error:
            send(error.outcome.encode())

    outcomes: list[str] = []
    try:
        with forked(work, limits=LIMITS, memory_bytes=READING.memory_bytes) as frames:
            outcomes += [frame.decode() for frame in frames]
    except (ChildDied, ChildOutOfMemory):
        outcomes.append(DEATH)
    return outcomes
