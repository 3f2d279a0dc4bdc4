import itertools
from collections.abc import Sequence

import msgspec
import pytest

from pipeline.ingest import outcome
from pipeline.ingest.outcome import REASON_MAX, REASONS_MAX, Cut, Next, PageFacts, Result
from schemas.events.envelope import MAX_BYTES
from schemas.lifecycle import DocumentStatus, JobStatus, PageStatus
from schemas.outcomes import MEANINGS, RANGES_MAX, Outcome, Reason

READ = (PageStatus.READ, Outcome.COMPLETE)
BLANK = (PageStatus.READ, Outcome.NO_TEXT)
SCAN = (PageStatus.NEEDS_OCR, Outcome.NEEDS_OCR)
CUT_PAGE = (PageStatus.READ, Outcome.LIMIT_PAGE_TEXT)
DAMAGED = (PageStatus.FAILED, Outcome.CORRUPT)
SLOW = (PageStatus.FAILED, Outcome.TIMEOUT_PAGE)
RECOGNISED = (PageStatus.OCR, Outcome.COMPLETE)
BLANK_SCAN = (PageStatus.OCR, Outcome.NO_TEXT)
UNREAD_SCAN = (PageStatus.NEEDS_OCR, Outcome.TIMEOUT_PAGE)

Kind = tuple[PageStatus, Outcome]


def result_of(
    *kinds: Kind, page_count: int | None = None, cut: Cut | None = None, reason: str = "Why."
) -> Result:
    pages = [
        PageFacts(number=number, status=status, outcome=each, reason=reason)
        for number, (status, each) in enumerate(kinds, start=1)
    ]
    return outcome.result_of(
        page_count=len(pages) if page_count is None else page_count,
        pages=len(pages),
        pages_without_text=sum(page.outcome is Outcome.NO_TEXT for page in pages),
        incomplete=[page for page in pages if page.outcome not in outcome.GOOD],
        cut=cut,
    )


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([READ], Outcome.COMPLETE),
        ([READ, BLANK], Outcome.COMPLETE),
        ([RECOGNISED, READ], Outcome.COMPLETE),
        ([BLANK], Outcome.NO_TEXT),
        ([BLANK_SCAN, BLANK], Outcome.NO_TEXT),
        ([SCAN], Outcome.NEEDS_OCR),
        ([SCAN, BLANK], Outcome.NEEDS_OCR),
        ([SCAN, UNREAD_SCAN], Outcome.NEEDS_OCR),
        ([SCAN, READ], Outcome.PARTIAL),
        ([SCAN, RECOGNISED], Outcome.PARTIAL),
        ([SCAN, DAMAGED], Outcome.PARTIAL),
        ([CUT_PAGE], Outcome.PARTIAL),
        ([READ, DAMAGED], Outcome.PARTIAL),
        ([BLANK, DAMAGED], Outcome.PARTIAL),
        ([DAMAGED], Outcome.CORRUPT),
        ([SLOW, SLOW], Outcome.TIMEOUT_PAGE),
        ([SLOW, DAMAGED], Outcome.CORRUPT),
    ],
)
def test_the_outcome_of_a_document_follows_from_its_pages(
    kinds: Sequence[Kind], expected: Outcome
) -> None:
    assert result_of(*kinds).outcome is expected


@pytest.mark.parametrize("cut", [Outcome.LIMIT_PAGES, Outcome.LIMIT_TEXT, Outcome.TIMEOUT_DOCUMENT])
@pytest.mark.parametrize("kind", [READ, BLANK, SCAN, CUT_PAGE])
def test_a_document_with_missing_pages_is_partial(cut: Outcome, kind: Kind) -> None:
    result = result_of(kind, page_count=5, cut=Cut(outcome=cut, reason="Too long."))
    assert result.outcome is Outcome.PARTIAL
    assert result.reasons[-1] == Reason(
        outcome=cut, pages=((2, 5),), page_count=4, reason="Too long."
    )


def test_a_document_with_missing_pages_is_never_complete() -> None:
    result = result_of(READ, BLANK, page_count=4)
    assert result.outcome is Outcome.PARTIAL
    assert [(reason.pages, reason.page_count) for reason in result.reasons] == [(((3, 4),), 2)]


def test_a_cut_within_the_last_page_names_no_page() -> None:
    cut = Cut(outcome=Outcome.LIMIT_TEXT, reason="Too long.")
    (reason,) = result_of(READ, cut=cut).reasons
    assert (reason.pages, reason.page_count) == ((), 0)


def test_a_document_that_is_cut_before_its_first_page_has_the_outcome_of_the_cut() -> None:
    cut = Cut(outcome=Outcome.TIMEOUT_DOCUMENT, reason="Too slow.")
    assert result_of(page_count=9, cut=cut).outcome is Outcome.TIMEOUT_DOCUMENT
    assert result_of(page_count=0).outcome is Outcome.EMPTY


def test_a_document_whose_pages_all_failed_fails_also_if_it_is_cut() -> None:
    cut = Cut(outcome=Outcome.TIMEOUT_DOCUMENT, reason="Too slow.")
    assert result_of(SLOW, page_count=9, cut=cut).outcome is Outcome.TIMEOUT_PAGE


KINDS = [READ, BLANK, SCAN, CUT_PAGE, DAMAGED, SLOW, RECOGNISED, BLANK_SCAN, UNREAD_SCAN]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_document_is_whole_only_if_every_page_is(length: int) -> None:
    for kinds in itertools.product(KINDS, repeat=length):
        result = result_of(*kinds)
        is_whole = all(each in outcome.GOOD for _, each in kinds)
        assert (result.meaning.document_status is DocumentStatus.INGESTED) == is_whole, kinds
        assert bool(result.reasons) == (not is_whole), kinds
        has_failed = all(status is PageStatus.FAILED for status, _ in kinds)
        assert (result.meaning.job_status is JobStatus.FAILED) == has_failed, kinds
        assert sum(reason.page_count for reason in result.reasons) == sum(
            each not in outcome.GOOD for _, each in kinds
        )


def test_reasons_group_pages_by_outcome_and_sentence_in_ranges() -> None:
    result = result_of(SCAN, READ, DAMAGED, SCAN, SCAN)
    assert result.reasons == (
        Reason(outcome=Outcome.NEEDS_OCR, pages=((1, 1), (4, 5)), page_count=3, reason="Why."),
        Reason(outcome=Outcome.CORRUPT, pages=((3, 3),), page_count=1, reason="Why."),
    )


def test_the_ranges_of_a_reason_are_limited_and_its_pages_are_counted() -> None:
    (reason,) = result_of(*[SCAN, READ] * 100).reasons
    assert (len(reason.pages), reason.page_count) == (RANGES_MAX, 100)


def test_the_reasons_of_a_document_fit_into_an_event() -> None:
    pages = [
        PageFacts(
            number=2 * number + 100_000,
            status=PageStatus.FAILED,
            outcome=Outcome.CORRUPT,
            reason=f"{number % 100} " + "\N{SNOWMAN}" * 1_000,
        )
        for number in range(100 * 2 * RANGES_MAX)
    ]
    result = outcome.result_of(
        page_count=1_000_000,
        pages=500_000,
        pages_without_text=0,
        incomplete=pages,
        cut=Cut(outcome=Outcome.LIMIT_PAGES, reason="Too long."),
    )
    assert len(result.reasons) == REASONS_MAX
    assert result.reasons[-1].outcome is Outcome.LIMIT_PAGES
    assert {len(reason.reason) for reason in result.reasons[:-2]} == {REASON_MAX}
    assert sum(reason.page_count for reason in result.reasons[:-1]) == len(pages)
    assert len(msgspec.json.encode(result.reasons)) < MAX_BYTES / 2


@pytest.mark.parametrize(
    ("kind", "truncated"), [(CUT_PAGE, True), (DAMAGED, False), (SCAN, False), (READ, False)]
)
def test_only_a_limit_truncates_a_document(kind: Kind, *, truncated: bool) -> None:
    assert result_of(READ, kind).truncated is truncated


@pytest.mark.parametrize("each", Outcome)
@pytest.mark.parametrize("has_text", [False, True])
@pytest.mark.parametrize("is_recognised", [False, True])
def test_the_status_of_a_page(each: Outcome, *, has_text: bool, is_recognised: bool) -> None:
    status = outcome.status_of_page(each, has_text=has_text, is_recognised=is_recognised)
    if each is Outcome.NEEDS_OCR:
        assert status is PageStatus.NEEDS_OCR
    elif has_text or each in outcome.GOOD:
        assert status is (PageStatus.OCR if is_recognised else PageStatus.READ)
    else:
        assert status is (PageStatus.NEEDS_OCR if is_recognised else PageStatus.FAILED)


@pytest.mark.parametrize(
    ("more_pages", "needing_ocr", "ocr", "expected"),
    [
        (True, 0, True, Next.READ_THE_REST),
        (True, 3, True, Next.READ_THE_REST),
        (False, 3, True, Next.RECOGNISE),
        (False, 3, False, Next.PUBLISH),
        (False, 0, True, Next.PUBLISH),
    ],
)
def test_a_reading_goes_on_until_its_pages_are_read_and_recognised(
    *, more_pages: bool, needing_ocr: int, ocr: bool, expected: Next
) -> None:
    following = outcome.next_of(
        has_more_pages=more_pages, pages_needing_ocr=needing_ocr, is_ocr_available=ocr
    )
    assert following is expected


def test_every_outcome_has_a_meaning() -> None:
    assert MEANINGS.keys() == set(Outcome)
