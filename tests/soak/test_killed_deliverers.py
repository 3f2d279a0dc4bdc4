"""Five minutes of kills while events are delivered, ordered endpoints included; rotations at 200/s."""

from collections.abc import Mapping
from datetime import timedelta

import pytest

from dev.stack.stack import Stack
from tests.e2e import killed_deliverers
from tests.killable import Killable

pytestmark = pytest.mark.timeout(1_800)


def test_five_minutes_of_kills_lose_no_event(
    delivering: Stack, infrastructure_processes: Mapping[str, Killable]
) -> None:
    killed_deliverers.assert_events_survive_kills(
        delivering,
        infrastructure_processes,
        tenant="killed",
        lasting=timedelta(minutes=5),
        rate=40,
        kill_every=timedelta(seconds=6),
        seed=42,
    )


def test_rotations_at_two_hundred_events_per_second_fail_no_verification(delivering: Stack) -> None:
    killed_deliverers.assert_rotations_fail_no_verification(
        delivering,
        tenant="rotated",
        rotations=20,
        rate=200,
        every=timedelta(seconds=2),
        overlap=timedelta(seconds=16),
    )
