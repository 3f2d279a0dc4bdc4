"""Deliverers, the relay, the broker and the database may die; every event is delivered and accounted for."""

from collections.abc import Mapping
from datetime import timedelta

import pytest

from dev.stack.stack import Stack
from tests.e2e import killed_deliverers
from tests.killable import Killable

pytestmark = pytest.mark.timeout(420)


def test_every_event_is_delivered_although_processes_are_killed(
    delivering: Stack, infrastructure_processes: Mapping[str, Killable]
) -> None:
    killed_deliverers.assert_events_survive_kills(
        delivering,
        infrastructure_processes,
        tenant="killed",
        lasting=timedelta(seconds=20),
        rate=30,
        kill_every=timedelta(seconds=4),
        seed=41,
    )


def test_a_rotated_secret_fails_no_verification(delivering: Stack) -> None:
    killed_deliverers.assert_rotations_fail_no_verification(
        delivering,
        tenant="rotated",
        rotations=3,
        rate=60,
        every=timedelta(seconds=1),
        overlap=timedelta(minutes=1),
    )
