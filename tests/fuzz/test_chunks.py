"""Chunks over raw connections: no request may break the gateway or store what it does not say."""

import pytest

from tests.fuzz import chunks
from tests.fuzz.gateway import Fuzzed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def test_no_request_for_a_chunk_breaks_the_gateway_or_stores_a_wrong_byte(fuzzed: Fuzzed) -> None:
    chunks.send_all_kinds(fuzzed, examples=400, is_repeatable=True)

    assert fuzzed.failures() == []
    assert fuzzed.wrongly_stored() == []
