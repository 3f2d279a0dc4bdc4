"""Decides what the pages of a document come to, and how its reading goes on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from schemas.lifecycle import PageStatus
from schemas.outcomes import MEANINGS, RANGES_MAX, Meaning, Outcome, Reason

GOOD: Final = frozenset({Outcome.COMPLETE, Outcome.NO_TEXT})
"""The outcomes of a page that is read as a whole."""
LIMITS_OF_TEXT: Final = frozenset(
    {
        Outcome.LIMIT_PAGES,
        Outcome.LIMIT_TEXT,
        Outcome.LIMIT_PAGE_TEXT,
        Outcome.LIMIT_PAGE_CONTENT,
    }
)
"""The outcomes of a document or page whose text is cut short."""

REASONS_MAX: Final = 20
"""Reasons of one document; an event has all of them and is at most 64 KiB."""
REASON_MAX: Final = 200
"""Characters of one reason."""
OTHER_REASONS: Final = "These pages have other reasons; each page says its own."
MISSING: Final = "These pages could not be read."


@dataclass(frozen=True, kw_only=True)
class PageFacts:
    """What counts of a page; `reason` is a sentence about an outcome that is not good."""

    number: int
    status: PageStatus
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Why the pages after the last one are missing.

    Attributes:
        outcome: `LIMIT_PAGES`, `LIMIT_TEXT` or `TIMEOUT_DOCUMENT`.
        reason: a sentence for clients.
    """

    outcome: Outcome
    reason: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """The outcome of a document and why; `outcome` may be that of a document that failed."""

    outcome: Outcome
    reasons: tuple[Reason, ...] = ()

    @property
    def meaning(self) -> Meaning:
        return MEANINGS[self.outcome]

    @property
    def truncated(self) -> bool:
        return any(reason.outcome in LIMITS_OF_TEXT for reason in self.reasons)


class Next(StrEnum):
    """How a reading goes on after the end of one of its steps."""

    READ_THE_REST = "read_the_rest"
    RECOGNISE = "recognise"
    PUBLISH = "publish"


def next_of(*, has_more_pages: bool, pages_needing_ocr: int, is_ocr_available: bool) -> Next:
    """Return how a reading goes on after a step that reads pages."""
    if has_more_pages:
        return Next.READ_THE_REST
    if pages_needing_ocr and is_ocr_available:
        return Next.RECOGNISE
    return Next.PUBLISH


def status_of_page(outcome: Outcome, *, has_text: bool, is_recognised: bool = False) -> PageStatus:
    """Return the status of a page.

    Args:
        outcome: of the page.
        has_text: whether any text of the page is kept.
        is_recognised: whether the page was read by OCR.
    """
    if outcome is Outcome.NEEDS_OCR:
        return PageStatus.NEEDS_OCR
    if outcome in GOOD or has_text:
        return PageStatus.OCR if is_recognised else PageStatus.READ
    # A page that OCR could not read is still a picture of text.
    return PageStatus.NEEDS_OCR if is_recognised else PageStatus.FAILED


def result_of(
    *,
    page_count: int,
    pages: int,
    pages_without_text: int,
    incomplete: Sequence[PageFacts],
    cut: Cut | None,
) -> Result:
    """Return the outcome of a document whose reading has ended.

    Args:
        page_count: pages of the document, including those beyond a limit.
        pages: pages that are written.
        pages_without_text: those of them whose outcome is `NO_TEXT`.
        incomplete: every written page whose outcome is neither `COMPLETE` nor `NO_TEXT`.
        cut: why the pages after the last written one are missing, or the rest of its text.
    """
    reasons = _reasons(incomplete)
    if cut is None and 0 < pages < page_count:
        # A document with missing pages never looks complete, whatever ended its reading.
        cut = Cut(outcome=Outcome.CORRUPT, reason=MISSING)
    if cut is not None:
        reasons = (*reasons, reason_of(cut, pages=pages, page_count=page_count))
    if pages == 0:
        return Result(outcome=cut.outcome if cut else Outcome.EMPTY, reasons=reasons)
    failed = [page for page in incomplete if page.status is PageStatus.FAILED]
    if len(failed) == pages:
        outcomes = {page.outcome for page in failed}
        return Result(
            outcome=outcomes.pop() if len(outcomes) == 1 else Outcome.CORRUPT, reasons=reasons
        )
    if cut is None and not incomplete:
        is_blank = pages_without_text == pages
        return Result(outcome=Outcome.NO_TEXT if is_blank else Outcome.COMPLETE)
    needing_ocr = sum(page.status is PageStatus.NEEDS_OCR for page in incomplete)
    if cut is None and needing_ocr and needing_ocr + pages_without_text == pages:
        return Result(outcome=Outcome.NEEDS_OCR, reasons=reasons)
    return Result(outcome=Outcome.PARTIAL, reasons=reasons)


def _reasons(incomplete: Iterable[PageFacts]) -> tuple[Reason, ...]:
    """Group pages by outcome and sentence, in the order of the first page of each group.

    If there are too many groups, the last ones are merged by outcome: every page is counted. One
    reason is left for a cut.
    """
    groups: dict[tuple[Outcome, str], list[int]] = {}
    for page in sorted(incomplete, key=lambda page: page.number):
        groups.setdefault((page.outcome, page.reason), []).append(page.number)
    each = list(groups.items())
    others: dict[tuple[Outcome, str], list[int]] = {}
    while len(each) + len(others) > REASONS_MAX - 1:
        (outcome, _), numbers = each.pop()
        others.setdefault((outcome, OTHER_REASONS), []).extend(numbers)
    return tuple(
        Reason(
            outcome=outcome,
            pages=tuple(_ranges(sorted(numbers))[:RANGES_MAX]),
            page_count=len(numbers),
            reason=reason[:REASON_MAX],
        )
        for (outcome, reason), numbers in [*each, *others.items()]
    )


def with_pages(
    reasons: Sequence[Reason], *, first: int, last: int, outcome: Outcome, reason: str
) -> tuple[Reason, ...]:
    """Return reasons with further pages, which follow all pages of the reasons.

    Beyond `REASONS_MAX` sentences, the pages are counted by their outcomes alone.
    """
    known = {each.outcome: each for each in reasons if each.reason == reason}
    if outcome not in known and len(reasons) >= REASONS_MAX - 1:
        known = {each.outcome: each for each in reasons if each.reason == OTHER_REASONS}
        reason = OTHER_REASONS
    before = known.get(outcome)
    if before is None:
        added = Reason(
            outcome=outcome,
            pages=((first, last),),
            page_count=last - first + 1,
            reason=reason[:REASON_MAX],
        )
        return (*reasons, added)
    ranges = list(before.pages)
    if ranges and ranges[-1][1] == first - 1:
        ranges[-1] = (ranges[-1][0], last)
    elif len(ranges) < RANGES_MAX:
        ranges.append((first, last))
    changed = msgspec.structs.replace(
        before, pages=tuple(ranges), page_count=before.page_count + last - first + 1
    )
    return tuple(changed if each is before else each for each in reasons)


def reason_of(cut: Cut, *, pages: int, page_count: int) -> Reason:
    """Return the reason for the pages after the last written one."""
    missing = max(page_count - pages, 0)
    return Reason(
        outcome=cut.outcome,
        pages=((pages + 1, page_count),) if missing else (),
        page_count=missing,
        reason=cut.reason[:REASON_MAX],
    )


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return ascending numbers as ranges: first and last of each."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges
