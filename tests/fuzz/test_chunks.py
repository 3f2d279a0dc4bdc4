"""Random chunk requests over raw connections."""

import pytest

from tests.fuzz import chunks
from tests.fuzz.gateway import Fuzzed

pytestmark = pytest.mark.timeout(180)


def test_no_chunk_request_breaks_the_gateway_or_stores_a_wrong_byte(fuzzed: Fuzzed) -> None:
    chunks.send_random_requests(fuzzed, examples=400, is_repeatable=True)

    assert fuzzed.failures() == []
    assert fuzzed.corrupt_chunks() == []
