import pytest

from schemas.lifecycle import Priority
from schemas.settings import StepSettings
from schemas.tables.steps import Counters, Share

SETTINGS = StepSettings(tenant_steps_max=3, tenant_bulk_steps_max=2)
INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


def share(**of_priority: Counters) -> Share:
    return Share.of(
        (name, each.waiting, each.in_broker, each.released, 0, 0)
        for name, each in of_priority.items()
    )


@pytest.mark.parametrize(
    ("counted", "rooms"),
    [
        pytest.param({}, {INTERACTIVE, BULK}, id="no steps"),
        pytest.param(
            {"interactive": Counters(in_broker=2), "bulk": Counters(in_broker=1)},
            {INTERACTIVE, BULK},
            id="both have room for one",
        ),
        pytest.param({"interactive": Counters(in_broker=3)}, {BULK}, id="interactive is full"),
        pytest.param({"bulk": Counters(in_broker=2)}, {INTERACTIVE}, id="bulk is full"),
        pytest.param({"interactive": Counters(waiting=1)}, set(), id="an interactive step waits"),
        pytest.param({"bulk": Counters(waiting=1)}, {INTERACTIVE}, id="a bulk step waits"),
    ],
)
def test_a_step_has_room_if_none_is_ahead_and_the_share_is_not_full(
    counted: dict[str, Counters], rooms: set[Priority]
) -> None:
    assert {
        priority for priority in Priority if share(**counted).has_room(priority, settings=SETTINGS)
    } == rooms
