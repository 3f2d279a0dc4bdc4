import asyncio
from collections.abc import Iterator
from datetime import timedelta

import aio_pika
import pytest

from schemas import topology
from schemas.settings import BrokerSettings
from tests.fakes import replies
from tests.fakes.receiver import Receiver
from tests.integration.notifier.bus import Bus
from tests.integration.notifier.conftest import CutBroker, CutDatabase, Start
from tests.integration.notifier.scene import SECRET, Scene, an_event, eventually

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

TOKEN = "a-token-in-the-url"  # noqa: S105  # made up


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running_receiver:
        yield running_receiver


async def test_an_event_on_the_bus_becomes_a_signed_webhook(
    scene: Scene, events_bus: Bus, start: Start, receiver: Receiver
) -> None:
    tenant_id = await scene.add_tenant()
    await scene.add_webhook(tenant_id, url=receiver.url_of(f"/hook?token={TOKEN}"))
    deliver = await start("deliver")
    await deliver.alive()
    event = an_event(tenant_id=tenant_id)
    await events_bus.publish(event)
    (request,) = await asyncio.to_thread(receiver.wait_for, 1)
    assert request.verified_with(SECRET)["id"] == str(event.id)
    await eventually(scene.everything_is_settled)
    assert await deliver.stop() == 0
    (line,) = deliver.logged("delivery.attempted")
    (delivery,) = await scene.deliveries()
    assert line["delivery_id"] == str(delivery.id)
    assert line["webhook_id"] == str(delivery.webhook_id)
    assert line["event_id"] == str(event.id)
    assert (line["attempt"], line["outcome"], line["status_code"]) == (1, "delivered", 204)
    assert line["level"] == "info"
    logged = deliver.log_file.read_text()
    assert TOKEN not in logged
    assert SECRET not in logged


async def test_a_deliverer_killed_during_an_attempt_is_succeeded_under_the_same_id(
    scene: Scene, events_bus: Bus, start: Start, receiver: Receiver
) -> None:
    receiver.answer_with(replies.silence(), replies.status(204))
    tenant_id = await scene.add_tenant()
    await scene.add_webhook(tenant_id, url=receiver.url)
    event = an_event(tenant_id=tenant_id)
    victim = await start("deliver", WEBHOOK_TIMEOUT="1s")
    await victim.alive()
    await events_bus.publish(event)
    await asyncio.to_thread(receiver.wait_for, 1)
    await victim.kill()
    await start("deliver", WEBHOOK_TIMEOUT="1s")
    # The claim of the dead process has to lapse first.
    requests = await asyncio.to_thread(receiver.wait_for, 2, timeout=timedelta(seconds=30))
    await eventually(scene.everything_is_settled)
    assert {request.headers["webhook-id"] for request in requests} == {str(event.id)}
    assert requests[1].verified_with(SECRET)["id"] == str(event.id)
    (delivery,) = await scene.deliveries()
    assert (delivery.status, delivery.attempts_made) == ("delivered", 1)


async def test_a_deliverer_asked_to_stop_ends_its_attempts_and_leaves_the_rest(
    scene: Scene, events_bus: Bus, start: Start, receiver: Receiver
) -> None:
    receiver.answer_with(replies.late(timedelta(seconds=1), replies.status(204)))
    tenant_id = await scene.add_tenant()
    await scene.add_webhook(tenant_id, url=receiver.url)
    deliver = await start("deliver")
    await deliver.alive()
    for _ in range(30):
        await events_bus.publish(an_event(tenant_id=tenant_id))
    await asyncio.to_thread(receiver.wait_for, 5)
    assert await deliver.stop() == 0
    delivered = [each for each in await scene.deliveries() if each.status == "delivered"]
    assert len(delivered) == len(receiver.received) == len(await scene.attempts())
    assert all(each.leased_until is None for each in await scene.deliveries())
    recorded = len(await scene.deliveries())
    assert recorded + await events_bus.depth(topology.NOTIFY) == 30


async def test_a_deliverer_touches_its_file_only_while_it_consumes(
    start: Start, cut: CutBroker
) -> None:
    url = cut.settings.rabbitmq_url.get_secret_value()
    deliver = await start("deliver", RABBITMQ_URL=url)
    await deliver.alive()
    await cut.way.refuse()

    async def withheld() -> bool:
        return bool(deliver.logged("liveness.withheld"))

    await eventually(withheld)
    touched = deliver.liveness_file.stat().st_mtime_ns
    await cut.way.accept()

    async def touched_again() -> bool:
        return deliver.liveness_file.stat().st_mtime_ns > touched

    await eventually(touched_again)
    assert await deliver.stop() == 0


async def test_a_deliverer_waits_for_services_that_are_not_there_yet(
    start: Start, cut: CutBroker, cut_database: CutDatabase
) -> None:
    await cut.way.refuse()
    await cut_database.way.refuse()
    deliver = await start(
        "deliver",
        RABBITMQ_URL=cut.settings.rabbitmq_url.get_secret_value(),
        DATABASE_URL=cut_database.settings.database_url.get_secret_value(),
    )

    async def misses(event: str) -> bool:
        return len(deliver.logged(event)) >= 2

    await eventually(lambda: misses("database.unavailable"))
    await cut_database.way.accept()
    await eventually(lambda: misses("broker.unavailable"))
    await cut.way.accept()
    await deliver.alive()
    assert await deliver.stop() == 0


async def test_a_queue_that_exists_otherwise_ends_the_process_and_is_named(
    broker: BrokerSettings, start: Start
) -> None:
    connection = await aio_pika.connect(broker.rabbitmq_url.get_secret_value())
    async with connection, connection.channel() as channel:
        await channel.declare_queue(topology.NOTIFY, durable=True)
    deliver = await start("deliver")
    async with asyncio.timeout(30):
        assert await deliver.process.wait() == 1
    (line,) = deliver.logged("process.failed")
    assert "notify exists with other arguments" in line["exception"]


async def test_a_deliverer_can_be_stopped_while_the_broker_is_away(
    start: Start, cut: CutBroker
) -> None:
    deliver = await start("deliver", RABBITMQ_URL=cut.settings.rabbitmq_url.get_secret_value())
    await deliver.alive()
    await cut.way.refuse()

    async def withheld() -> bool:
        return bool(deliver.logged("liveness.withheld"))

    await eventually(withheld)
    assert await deliver.stop() == 0
