import pytest

from pipeline.ingest import errors
from pipeline.ingest.errors import DocumentCrashed, DocumentError
from schemas.errors import DomainError
from schemas.outcomes import MEANINGS, Outcome

KINDS = [kind for kind in DocumentError.__subclasses__() if kind is not DocumentCrashed]


@pytest.mark.parametrize("outcome", sorted(errors.FAILURES))
def test_an_error_has_the_code_and_the_sentence_of_its_outcome(outcome: Outcome) -> None:
    error = DocumentError("The limit is 3.", outcome=outcome)
    assert (error.code, error.retryable) == (MEANINGS[outcome].code, MEANINGS[outcome].retryable)
    assert str(error) == f"{MEANINGS[outcome].sentence} The limit is 3."
    assert str(DocumentError(outcome=outcome)) == MEANINGS[outcome].sentence


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_error_has_an_outcome_of_its_own(kind: type[DocumentError]) -> None:
    others = {other.default_outcome for other in KINDS if other is not kind}
    assert kind().outcome not in others


@pytest.mark.parametrize("outcome", sorted(set(Outcome) - errors.FAILURES))
def test_a_document_that_did_not_fail_has_no_error(outcome: Outcome) -> None:
    with pytest.raises(ValueError, match=outcome):
        DocumentError(outcome=outcome)


def test_a_fault_of_the_system_has_no_outcome() -> None:
    assert errors.outcome_of(DomainError()) is None
    assert errors.outcome_of(errors.DocumentEmpty()) is Outcome.EMPTY


def test_only_a_crash_by_sigkill_is_retryable() -> None:
    assert DocumentCrashed(signal_number=9, exit_status=None).retryable
    assert not DocumentCrashed(signal_number=11, exit_status=None).retryable
    assert not DocumentCrashed(signal_number=None, exit_status=1).retryable
