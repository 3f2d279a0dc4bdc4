"""A batch outlives its workers."""

import pytest

from dev.stack.stack import Stack
from tests.e2e.killed_batches import assert_batch_survives_kills

pytestmark = pytest.mark.timeout(300)


def test_every_line_of_a_batch_ends_once_although_workers_are_killed(system: Stack) -> None:
    assert_batch_survives_kills(system, files=18, kills=2, seed=1)
