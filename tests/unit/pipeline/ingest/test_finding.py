from datetime import timedelta

from pipeline.ingest import finding
from pipeline.ingest.errors import DocumentEncrypted
from pipeline.ingest.extractors.extractor import ExtractedPage, OpenDocument, Structure
from pipeline.ingest.extractors.layout import LayoutLimits, PageLayout
from pipeline.ingest.frames import FindTables, LayoutFound, Opening, TablesFound
from schemas.outcomes import Outcome
from tests.factories.reading_limits import READING_LIMITS


class Pages(OpenDocument):
    """A document whose second page is slow, whose third is damaged, and whose fourth is locked."""

    page_count = 5

    def page(self, number: int) -> ExtractedPage:
        return ExtractedPage(number=number)

    def structure(self) -> Structure:
        return Structure()

    def layout(self, number: int, *, limits: LayoutLimits) -> PageLayout:
        del limits
        match number:
            case 2:
                while True:
                    pass
            case 3:
                raise KeyError(number)
            case 4:
                raise DocumentEncrypted
        return PageLayout(number=number)


def request(
    *, first: int = 1, last: int | None = None, time_left: timedelta = timedelta(minutes=1)
) -> FindTables:
    return FindTables(
        opening=Opening(path="-", media_type="application/pdf", limits=READING_LIMITS),
        first_page=first,
        last_page=last,
        page_timeout=timedelta(milliseconds=100),
        time_left=time_left,
    )


def test_a_page_that_fails_has_its_reason_and_the_next_one_follows() -> None:
    *pages, end = finding.messages(Pages(), request())
    outcomes = [page.outcome for page in pages if isinstance(page, LayoutFound)]
    assert outcomes == [
        Outcome.COMPLETE,
        Outcome.TIMEOUT_PAGE,
        Outcome.CORRUPT,
        Outcome.ENCRYPTED,
        Outcome.COMPLETE,
    ]
    assert all(page.reason for page in pages[1:4] if isinstance(page, LayoutFound))
    assert end == TablesFound()


def test_pages_without_time_are_missing() -> None:
    assert list(finding.messages(Pages(), request(time_left=timedelta(0)))) == [
        TablesFound(cut=Outcome.TIMEOUT_DOCUMENT)
    ]


def test_only_the_pages_of_the_request_are_looked_at() -> None:
    *pages, end = finding.messages(Pages(), request(first=3, last=4))
    assert [page.number for page in pages if isinstance(page, LayoutFound)] == [3, 4]
    assert end == TablesFound()
