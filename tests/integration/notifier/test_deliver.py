import asyncio
from datetime import timedelta

import aio_pika
import pytest

from schemas import queues
from schemas.settings import BrokerSettings
from tests.factories.secret_keys import OTHER_KEY
from tests.fakes import replies
from tests.fakes.receiver import Receiver
from tests.integration.notifier.bus import Bus
from tests.integration.notifier.conftest import ProxiedBroker, ProxiedDatabase, Start
from tests.integration.notifier.rows import SECRET, Rows, an_event, eventually

pytestmark = pytest.mark.anyio

TOKEN = "a-token-in-the-url"  # noqa: S105  # not a real one


async def test_an_event_on_the_bus_is_delivered_as_a_signed_webhook(
    rows: Rows, events_bus: Bus, start: Start, receiver: Receiver
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id, url=receiver.url_of(f"/hook?token={TOKEN}"))
    deliver = await start("deliver")
    await deliver.until_alive()
    event = an_event(tenant_id=tenant_id)
    await events_bus.publish(event)
    (request,) = await asyncio.to_thread(receiver.wait_for, 1)
    assert request.verified_with(SECRET)["id"] == str(event.id)
    await eventually(rows.everything_is_settled)
    assert await deliver.stop() == 0
    (line,) = deliver.logged("delivery.attempted")
    (delivery,) = await rows.deliveries()
    assert line["delivery_id"] == str(delivery.id)
    assert line["webhook_id"] == str(delivery.webhook_id)
    assert line["event_id"] == str(event.id)
    assert (line["attempt"], line["outcome"], line["status_code"]) == (1, "delivered", 204)
    assert line["level"] == "info"
    logged = deliver.log_file.read_text()
    assert TOKEN not in logged
    assert SECRET not in logged


async def test_a_secret_without_its_key_is_logged_and_never_printed(
    rows: Rows, events_bus: Bus, start: Start
) -> None:
    tenant_id = await rows.add_tenant()
    webhook_id = await rows.add_webhook(tenant_id)
    (stored,) = await rows.secrets(webhook_id)
    deliver = await start("deliver", SECRET_KEYS=OTHER_KEY)
    await deliver.until_alive()
    await events_bus.publish(an_event(tenant_id=tenant_id))
    await deliver.until(lambda: bool(deliver.logged("delivery.attempted")))
    assert await deliver.stop() == 0
    (line,) = deliver.logged("delivery.secret_unreadable")
    assert (line["level"], line["webhook_id"]) == ("error", str(webhook_id))
    assert line["error"] == f"SECRET_KEYS has no key with the id {stored.split('.')[1]}"
    (attempted,) = deliver.logged("delivery.attempted")
    assert attempted["outcome"] == "secret_unreadable"
    logged = deliver.log_file.read_text()
    assert stored not in logged
    assert OTHER_KEY not in logged


async def test_a_relay_needs_no_key(start: Start) -> None:
    relay = await start("relay", SECRET_KEYS="")
    await relay.until_alive()
    assert await relay.stop() == 0


async def test_another_process_repeats_the_attempt_of_a_killed_process_with_the_same_id(
    rows: Rows, events_bus: Bus, start: Start, receiver: Receiver
) -> None:
    receiver.answer_with(replies.silence(), replies.status(204))
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id, url=receiver.url)
    event = an_event(tenant_id=tenant_id)
    victim = await start("deliver", WEBHOOK_TIMEOUT="1s")
    await victim.until_alive()
    await events_bus.publish(event)
    await asyncio.to_thread(receiver.wait_for, 1)
    await victim.kill()
    await start("deliver", WEBHOOK_TIMEOUT="1s")
    # The killed process has to count as dead first.
    requests = await asyncio.to_thread(receiver.wait_for, 2, timeout=timedelta(seconds=30))
    await eventually(rows.everything_is_settled)
    assert {request.headers["webhook-id"] for request in requests} == {str(event.id)}
    assert requests[1].verified_with(SECRET)["id"] == str(event.id)
    (delivery,) = await rows.deliveries()
    assert (delivery.status, delivery.attempts_made) == ("delivered", 1)


async def test_on_sigterm_the_deliverer_finishes_its_attempts_and_starts_no_new_attempt(
    rows: Rows, events_bus: Bus, start: Start, receiver: Receiver
) -> None:
    receiver.answer_with(replies.late(timedelta(seconds=1), replies.status(204)))
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id, url=receiver.url)
    deliver = await start("deliver")
    await deliver.until_alive()
    for _ in range(30):
        await events_bus.publish(an_event(tenant_id=tenant_id))
    await asyncio.to_thread(receiver.wait_for, 5)
    assert await deliver.stop() == 0
    delivered = [each for each in await rows.deliveries() if each.status == "delivered"]
    assert len(delivered) == len(receiver.received) == len(await rows.attempts())
    assert {queue.owner for queue in await rows.queues()} == {None}
    # A heartbeat after the process has left would register it again.
    assert not deliver.logged("deliverer.counted_as_dead")
    recorded = len(await rows.deliveries())
    assert recorded + await events_bus.depth(queues.NOTIFY) == 30


async def test_the_liveness_file_is_touched_only_while_the_deliverer_consumes(
    start: Start, proxied_broker: ProxiedBroker
) -> None:
    url = proxied_broker.settings.rabbitmq_url.get_secret_value()
    deliver = await start("deliver", RABBITMQ_URL=url)
    await deliver.until_alive()
    await proxied_broker.proxy.refuse()

    async def withheld() -> bool:
        return bool(deliver.logged("liveness.withheld"))

    await eventually(withheld)
    touched = deliver.liveness_file.stat().st_mtime_ns
    await proxied_broker.proxy.accept()

    async def touched_again() -> bool:
        return deliver.liveness_file.stat().st_mtime_ns > touched

    await eventually(touched_again)
    assert await deliver.stop() == 0


async def test_the_deliverer_waits_for_database_and_broker_at_its_start(
    start: Start, proxied_broker: ProxiedBroker, proxied_database: ProxiedDatabase
) -> None:
    await proxied_broker.proxy.refuse()
    await proxied_database.proxy.refuse()
    deliver = await start(
        "deliver",
        RABBITMQ_URL=proxied_broker.settings.rabbitmq_url.get_secret_value(),
        DATABASE_URL=proxied_database.settings.database_url.get_secret_value(),
    )

    async def misses(event: str) -> bool:
        return len(deliver.logged(event)) >= 2

    await eventually(lambda: misses("database.unavailable"))
    await proxied_database.proxy.accept()
    await eventually(lambda: misses("broker.unavailable"))
    await proxied_broker.proxy.accept()
    await deliver.until_alive()
    assert await deliver.stop() == 0


async def test_a_queue_with_other_arguments_ends_the_process_and_is_named(
    broker: BrokerSettings, start: Start
) -> None:
    connection = await aio_pika.connect(broker.rabbitmq_url.get_secret_value())
    async with connection, connection.channel() as channel:
        await channel.declare_queue(queues.NOTIFY, durable=True)
    deliver = await start("deliver")
    async with asyncio.timeout(30):
        assert await deliver.process.wait() == 1
    (line,) = deliver.logged("process.failed")
    assert "notify exists with other arguments" in line["exception"]


async def test_the_deliverer_can_be_stopped_while_the_broker_is_unreachable(
    start: Start, proxied_broker: ProxiedBroker
) -> None:
    deliver = await start(
        "deliver", RABBITMQ_URL=proxied_broker.settings.rabbitmq_url.get_secret_value()
    )
    await deliver.until_alive()
    await proxied_broker.proxy.refuse()

    async def withheld() -> bool:
        return bool(deliver.logged("liveness.withheld"))

    await eventually(withheld)
    assert await deliver.stop() == 0
