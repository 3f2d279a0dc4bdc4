"""A healthy endpoint gets its events in time beside hostile receivers, of its own tenant too."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import pytest

from schemas.ids import TenantId
from tests.fakes import replies
from tests.fakes.receiver import Receiver
from tests.fakes.replies import Reply
from tests.integration.notifier.dispatchers import RunDispatcher
from tests.integration.notifier.rows import Rows, an_event, eventually

pytestmark = pytest.mark.anyio

IN_TIME = timedelta(seconds=3)
"""The hostile receivers hold an attempt for ten seconds. The goal of half as much is measured by the
benchmark, on a machine that does nothing else."""

TIMEOUT = "10s"
PACE = timedelta(milliseconds=50)

MANY, FEW = 60, 5
"""Endpoints. Receivers that send much share a processor with the test."""

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

HOSTILE: dict[str, tuple[Reply, int]] = {
    "silent": (replies.silence(), MANY),
    "slow": (replies.late(timedelta(seconds=1.9), replies.status(204)), MANY),
    "endless interim answers": (replies.flood(b"HTTP/1.1 100 Continue\r\n\r\n"), FEW),
    "endless chunk extensions": (
        replies.flood(b"1;" + b"x" * 1000 + b"\r\nz\r\n", head=CHUNKED),
        FEW,
    ),
    "a body of 1 GB": (replies.huge(1_000_000_000), FEW),
    "a gzip bomb": (replies.gzip_bomb(5_000_000), FEW),
    "a dripped head": (replies.slow_headers(every=timedelta(seconds=1)), MANY),
    "a dripped body": (replies.slow_body(every=timedelta(seconds=1)), FEW),
    "throttling": (replies.status(503), MANY),
    "hanging up": (replies.hang_up(), MANY),
}


@pytest.fixture
def hostile() -> Iterator[Sequence[Receiver]]:
    with Receiver() as one, Receiver() as another:
        yield one, another


async def add_hostile(
    rows: Rows, tenant_id: TenantId, receivers: Sequence[Receiver], *, reply: Reply, count: int
) -> None:
    """Add endpoints, in turns at the receivers."""
    for receiver in receivers:
        receiver.answer_with(reply)
    for number in range(count):
        receiver = receivers[number % len(receivers)]
        await rows.add_webhook(tenant_id, url=receiver.url_of(f"/{number}"))


async def latest(rows: Rows, receiver: Receiver, tenant_id: TenantId, *, count: int) -> timedelta:
    """Record events at an even pace; return the longest time until one arrives."""
    recorded: dict[str, datetime] = {}
    before = len(receiver.received)
    for _ in range(count):
        event = an_event(tenant_id=tenant_id)
        recorded[str(event.id)] = event.time
        await rows.record(event)
        await asyncio.sleep(PACE.total_seconds())
    requests = await asyncio.to_thread(
        receiver.wait_for, before + count, timeout=timedelta(seconds=30)
    )
    return max(
        request.at - recorded[request.headers["webhook-id"]]
        for request in requests
        if request.headers["webhook-id"] in recorded
    )


@pytest.mark.parametrize("kind", HOSTILE)
async def test_hostile_receivers_do_not_delay_a_healthy_endpoint(
    rows: Rows, run_dispatcher: RunDispatcher, hostile: Sequence[Receiver], kind: str
) -> None:
    healthy, other = await rows.add_tenant(), await rows.add_tenant()
    reply, count = HOSTILE[kind]
    await add_hostile(rows, other, hostile, reply=reply, count=count)
    with Receiver() as receiver:
        await rows.add_webhook(healthy, url=receiver.url)
        async with run_dispatcher(webhook_timeout=TIMEOUT):
            await rows.record(*(an_event(tenant_id=other) for _ in range(5)))
            # The healthy endpoint is new too.
            assert await latest(rows, receiver, healthy, count=40) < IN_TIME


async def test_hanging_endpoints_do_not_delay_a_new_one_of_the_same_tenant(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver, hostile: Sequence[Receiver]
) -> None:
    tenant_id = await rows.add_tenant()
    await add_hostile(rows, tenant_id, hostile, reply=replies.silence(), count=MANY)
    async with run_dispatcher(webhook_timeout=TIMEOUT):
        await rows.record(*(an_event(tenant_id=tenant_id) for _ in range(5)))
        await asyncio.to_thread(hostile[0].wait_for, 1)
        await rows.add_webhook(tenant_id, url=receiver.url)
        assert await latest(rows, receiver, tenant_id, count=30) < IN_TIME


async def test_endpoints_that_hung_before_a_restart_do_not_delay_others_after_it(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver, hostile: Sequence[Receiver]
) -> None:
    tenant_id = await rows.add_tenant()
    await add_hostile(rows, tenant_id, hostile, reply=replies.silence(), count=MANY)
    async with run_dispatcher(webhook_timeout="1s"):
        await rows.record(an_event(tenant_id=tenant_id))

        async def all_were_attempted() -> bool:
            return len(await rows.attempts()) >= MANY

        await eventually(all_were_attempted, within=timedelta(seconds=60))
    await rows.make_due()
    await rows.add_webhook(tenant_id, url=receiver.url)
    async with run_dispatcher(webhook_timeout=TIMEOUT):
        await asyncio.to_thread(hostile[0].wait_for, 20)
        assert await latest(rows, receiver, tenant_id, count=30) < IN_TIME


async def test_a_backlog_of_a_hanging_endpoint_does_not_delay_others(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver, hostile: Sequence[Receiver]
) -> None:
    tenant_id = await rows.add_tenant()
    await add_hostile(rows, tenant_id, hostile[:1], reply=replies.silence(), count=1)
    for _ in range(10):
        await rows.record(*(an_event(tenant_id=tenant_id) for _ in range(300)))
    await rows.add_webhook(tenant_id, url=receiver.url)
    async with run_dispatcher(webhook_timeout=TIMEOUT):
        await asyncio.to_thread(hostile[0].wait_for, 1)
        assert await latest(rows, receiver, tenant_id, count=30) < IN_TIME
