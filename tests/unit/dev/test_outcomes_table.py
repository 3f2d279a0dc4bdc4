"""The page of outcomes matches the code."""

import pytest

from dev import outcomes_table
from pipeline.ingest import errors
from schemas.lifecycle import DocumentStatus, JobStatus
from schemas.outcomes import MEANINGS, Outcome


def test_the_page_is_up_to_date() -> None:
    stale = "docs/outcomes.md is stale: run `python -m dev.outcomes_table`"

    assert outcomes_table.PAGE.read_text() == outcomes_table.page(), stale


@pytest.mark.parametrize("outcome", Outcome)
def test_a_document_fails_with_its_job(outcome: Outcome) -> None:
    meaning = MEANINGS[outcome]
    has_failed = meaning.job_status is JobStatus.FAILED
    assert (meaning.document_status is DocumentStatus.FAILED) == has_failed
    assert (meaning.code is not None) == has_failed


@pytest.mark.parametrize(
    "sentence",
    [meaning.sentence for meaning in MEANINGS.values()] + list(errors.PAGE_REASONS.values()),
)
def test_a_meaning_is_a_sentence(sentence: str) -> None:
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert len(sentence) < 150
