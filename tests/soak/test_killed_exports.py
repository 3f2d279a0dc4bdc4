"""Twenty kills of workers that export."""

import pytest

from tests.integration.pipeline.killed_exports import Exports, assert_exports_survive_kills

pytestmark = pytest.mark.timeout(1_800)


def test_exports_with_twenty_kills_have_every_row_once_and_leave_nothing(exports: Exports) -> None:
    assert_exports_survive_kills(exports, kills=20, seed=42)
