"""Two brokers of one cluster, of which one fails: one broker behind two proxies."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from schemas.settings import BrokerSettings
from tests.fakes.receiver import Receiver
from tests.integration.notifier import proxy as proxies
from tests.integration.notifier.conftest import Start
from tests.integration.notifier.proxy import Proxy
from tests.integration.notifier.rows import Rows, an_event, eventually

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("events_bus")]


@dataclass(frozen=True)
class Cluster:
    nodes: tuple[Proxy, Proxy]
    urls: str

    async def leave_only(self, node: int) -> None:
        """End every node but this one."""
        await self.nodes[1 - node].refuse()
        await self.nodes[node].accept()


@pytest.fixture
async def cluster(broker: BrokerSettings) -> AsyncIterator[Cluster]:
    async with proxies.to_broker(broker) as first, proxies.to_broker(broker) as second:
        urls = [
            each.in_front_of_broker(broker).rabbitmq_url.get_secret_value()
            for each in (first, second)
        ]
        yield Cluster(nodes=(first, second), urls=",".join(urls))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running_receiver:
        yield running_receiver


@pytest.mark.parametrize("node", [0, 1])
async def test_a_process_starts_while_one_of_two_brokers_is_down(
    node: int, cluster: Cluster, start: Start
) -> None:
    await cluster.nodes[1 - node].refuse()
    for command in ("relay", "deliver"):
        await (await start(command, RABBITMQ_URL=cluster.urls)).until_alive()


async def test_events_flow_while_the_brokers_fail_in_turn(
    rows: Rows, cluster: Cluster, start: Start, receiver: Receiver
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id, url=receiver.url)
    processes = [
        await start(command, RABBITMQ_URL=cluster.urls) for command in ("relay", "deliver")
    ]
    for process in processes:
        await process.until_alive()
    await cluster.nodes[1].refuse()
    events = [an_event(tenant_id=tenant_id) for _ in range(200)]
    for number, event in enumerate(events):
        await rows.add_to_outbox(event)
        if number % 50 == 25:
            await cluster.leave_only(1 - number // 50 % 2)
            await eventually(rows.everything_is_published)
    requests = await asyncio.to_thread(receiver.wait_for, len(events))
    assert {each.headers["webhook-id"] for each in requests} == {str(each.id) for each in events}
    assert all(process.is_running for process in processes)
