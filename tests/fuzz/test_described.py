"""The gateway answers as its OpenAPI description says."""

import pytest

from tests.fuzz.described import schemathesis
from tests.fuzz.gateway import Fuzzed

pytestmark = pytest.mark.timeout(300)


def test_every_operation_answers_any_request_as_described(fuzzed: Fuzzed) -> None:
    exit_code, report = schemathesis(
        fuzzed,
        phases="coverage,stateful",
        bounds=("--max-examples", "3", "--seed", "1", "--generation-deterministic"),
    )

    assert exit_code == 0, report
    assert fuzzed.failures() == []
