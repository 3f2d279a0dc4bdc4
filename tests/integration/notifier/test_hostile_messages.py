"""Messages whose properties no client library should have to decode."""

from typing import Any

import pytest

from schemas import queues, topology
from schemas.events.envelope import encode
from schemas.settings import BrokerSettings
from tests.integration.notifier import foreign
from tests.integration.notifier.bus import Bus
from tests.integration.notifier.conftest import Start
from tests.integration.notifier.rows import Rows, an_event, eventually

pytestmark = pytest.mark.anyio

HOSTILE: dict[str, dict[str, Any]] = {
    "text": {"message_id": b"\xff"},
    "time": {"timestamp": 2**63 - 1},
    "header": {"application_headers": {"a": {b"\xff": 1}}},
}


@pytest.mark.parametrize("properties", HOSTILE.values(), ids=HOSTILE)
async def test_a_message_with_undecodable_properties_stops_no_other_message(
    *, properties: dict[str, Any], rows: Rows, broker: BrokerSettings, events_bus: Bus, start: Start
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id)
    dead = topology.dead_letter_queue(queues.UPLOADS)
    for number in range(20):
        body = f"malformed {number}".encode()
        foreign.publish(broker, queues.NOTIFY, body, **properties)
        foreign.publish(broker, dead, body, **properties)
    await events_bus.publish(an_event(tenant_id=tenant_id))
    await events_bus.publish_to(dead, encode(an_event()))

    deliver = await start("deliver")
    await deliver.until_alive()
    await eventually(rows.deliveries)

    await rows.until_dead_letters(41)
    assert not deliver.logged("broker.unavailable")
