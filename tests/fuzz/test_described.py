"""The gateway keeps what its description promises."""

import pytest

from tests.fuzz.described import schemathesis
from tests.fuzz.gateway import Fuzzed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def test_every_operation_answers_as_described_whatever_it_is_sent(fuzzed: Fuzzed) -> None:
    exit_code, report = schemathesis(
        fuzzed,
        phases="coverage,stateful",
        bounds=("--max-examples", "3", "--seed", "1", "--generation-deterministic"),
    )

    assert exit_code == 0, report
    assert fuzzed.failures() == []
