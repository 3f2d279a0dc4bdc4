"""Many kills of workers in one batch."""

import pytest

from dev.stack.stack import Stack
from tests.e2e.killed_batches import assert_batch_survives_kills

pytestmark = pytest.mark.timeout(3600)


def test_every_line_of_a_batch_ends_once_although_workers_are_killed_twenty_times(
    system: Stack,
) -> None:
    assert_batch_survives_kills(system, files=1_000, kills=20, seed=2)
