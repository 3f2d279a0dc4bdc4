"""Longer fuzzing; each run sends different requests."""

import pytest

from tests.fuzz import chunks
from tests.fuzz.described import schemathesis
from tests.fuzz.gateway import Fuzzed

pytestmark = pytest.mark.timeout(1800)


def test_no_chunk_request_breaks_the_gateway_or_stores_a_wrong_byte(fuzzed: Fuzzed) -> None:
    chunks.send_random_requests(fuzzed, examples=10_000, is_repeatable=False)

    assert fuzzed.failures() == []
    assert fuzzed.corrupt_chunks() == []


def test_every_operation_answers_any_request_as_described(fuzzed: Fuzzed) -> None:
    exit_code, report = schemathesis(
        fuzzed,
        phases="coverage,fuzzing,stateful",
        bounds=("--max-examples", "100", "--max-time", "300"),
    )

    assert exit_code == 0, report
    assert fuzzed.failures() == []
