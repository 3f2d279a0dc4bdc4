import asyncio
import weakref
from contextlib import suppress
from datetime import timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.staging import Buffers, BuffersBusy
from gateway.staging.buffers import BUFFER_BYTES, BufferLimits
from schemas.ids import TenantId
from schemas.settings import BodySettings
from tests.factories.buffers import buffers_of

pytestmark = pytest.mark.anyio

ACME, GLOBEX, INITECH = (TenantId(uuid4()) for _ in range(3))
A_MOMENT = timedelta(milliseconds=20)


class Body:
    """A body that fills a buffer, and gives the buffer back when it has to give way."""

    def __init__(self, buffers: Buffers, tenant_id: TenantId) -> None:
        self._buffers = buffers
        self._tenant_id = tenant_id
        self.buffer: memoryview | None = None
        self.gave_way = asyncio.Event()

    async def begin(self) -> "Body":
        self.buffer = await self._buffers.borrow(self._tenant_id)
        self.receive()
        return self

    def receive(self) -> None:
        self._buffers.fills(self, self._tenant_id)

    def give_way(self) -> None:
        assert self.buffer is not None
        buffer, self.buffer = self.buffer, None
        self._buffers.fills_no_more(self, self._tenant_id)
        self._buffers.give_back(buffer, self._tenant_id)
        self.gave_way.set()


async def asked(buffers: Buffers, tenant_id: TenantId) -> "asyncio.Task[memoryview]":
    """Return a task that has asked for a buffer."""
    asking = asyncio.create_task(buffers.borrow(tenant_id))
    await asyncio.sleep(0)
    return asking


async def test_a_tenant_gets_its_share_and_no_more() -> None:
    buffers = buffers_of(1, count=4, per_tenant=2, wait_max=A_MOMENT)
    for _ in range(2):
        await buffers.borrow(ACME)

    with pytest.raises(BuffersBusy):
        await buffers.borrow(ACME)
    await buffers.borrow(GLOBEX)


async def test_a_body_waits_until_a_buffer_is_given_back() -> None:
    buffers = buffers_of(1, count=1)
    first = await buffers.borrow(ACME)
    waiting = await asked(buffers, ACME)
    assert not waiting.done()

    buffers.give_back(first, ACME)

    assert await waiting is first


async def test_the_tenant_with_the_fewest_buffers_gets_the_next_one() -> None:
    buffers = buffers_of(1, count=2)
    held = [await buffers.borrow(ACME) for _ in range(2)]
    busy, other = await asked(buffers, ACME), await asked(buffers, GLOBEX)

    buffers.give_back(held.pop(), ACME)
    await other
    assert not busy.done()

    buffers.give_back(held.pop(), ACME)
    await busy


async def test_bodies_of_a_tenant_get_buffers_in_the_order_of_their_arrival() -> None:
    buffers = buffers_of(1, count=1)
    held = await buffers.borrow(ACME)
    waiting = [await asked(buffers, ACME) for _ in range(3)]
    for each in waiting:
        buffers.give_back(held, ACME)
        held = await each

    buffers.give_back(held, ACME)
    assert buffers.lent == 0


async def test_a_body_does_not_overtake_a_body_that_waits() -> None:
    buffers = buffers_of(1, count=1)
    held = await buffers.borrow(ACME)
    first = await asked(buffers, ACME)

    buffers.give_back(held, ACME)
    second = await asked(buffers, ACME)

    assert (first.done(), second.done()) == (True, False)
    buffers.give_back(await first, ACME)
    await second


async def test_the_body_that_was_silent_longest_gives_way() -> None:
    buffers = buffers_of(1, count=2)
    first, second = [await Body(buffers, ACME).begin() for _ in range(2)]
    first.receive()

    await Body(buffers, GLOBEX).begin()

    assert (first.buffer is None, second.buffer is None) == (False, True)


async def test_a_tenant_at_its_share_takes_no_buffer_from_others() -> None:
    buffers = buffers_of(1, count=4, per_tenant=1)
    other, own = await Body(buffers, GLOBEX).begin(), await Body(buffers, ACME).begin()

    await Body(buffers, ACME).begin()

    assert (other.buffer is None, own.buffer is None) == (False, True)


async def test_no_body_gives_way_for_a_buffer_that_comes_back_anyway() -> None:
    buffers = buffers_of(1, count=2)
    filling = await Body(buffers, ACME).begin()
    processed = await buffers.borrow(ACME)
    waiting = await asked(buffers, GLOBEX)
    assert filling.buffer is not None

    buffers.give_back(processed, ACME)
    await waiting


async def test_a_silent_body_gives_its_buffer_up() -> None:
    buffers = buffers_of(1, idle_check=timedelta(milliseconds=5))
    body = await Body(buffers, ACME).begin()

    async with asyncio.timeout(5):
        await body.gave_way.wait()
    assert buffers.lent == 0


async def test_a_cancelled_wait_takes_no_buffer() -> None:
    buffers = buffers_of(1, count=1)
    held = await buffers.borrow(ACME)
    cancelled, waiting = await asked(buffers, ACME), await asked(buffers, ACME)
    cancelled.cancel()
    with suppress(asyncio.CancelledError):
        await cancelled

    buffers.give_back(held, ACME)

    buffers.give_back(await waiting, ACME)
    assert buffers.lent == 0


async def test_a_wait_that_is_cancelled_with_its_buffer_gives_the_buffer_on() -> None:
    buffers = buffers_of(1, count=1)
    held = await buffers.borrow(ACME)
    cancelled, waiting = await asked(buffers, ACME), await asked(buffers, GLOBEX)
    buffers.give_back(held, ACME)
    cancelled.cancel()
    waiting.cancel()
    await asyncio.wait([cancelled, waiting])

    assert buffers.lent == 0
    await buffers.borrow(INITECH)


async def test_bytes_that_wait_are_bounded() -> None:
    buffers = buffers_of(16, count=1)
    held = await buffers.borrow(ACME)
    waiting = asyncio.create_task(buffers.borrow(ACME, waiting_bytes=8))
    await asyncio.sleep(0)

    with pytest.raises(BuffersBusy):
        await buffers.borrow(GLOBEX, waiting_bytes=1)

    buffers.give_back(held, ACME)
    await waiting


async def test_buffers_beyond_the_spare_ones_go_back_to_the_system() -> None:
    buffers = buffers_of(1, spare_max=1)
    held = [await buffers.borrow(ACME) for _ in range(2)]
    mappings = [weakref.ref(each.obj) for each in held]
    while held:
        buffers.give_back(held.pop(), ACME)

    assert [mapping() is None for mapping in mappings] == [True, False]


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["ask", "run", "end", "cancel"]), st.integers(0, 9)), max_size=60
    )
)
async def test_no_buffer_is_lost_whatever_bodies_do(steps: list[tuple[str, int]]) -> None:
    buffers = buffers_of(1, count=3, per_tenant=2)
    tenants = (ACME, GLOBEX, INITECH)
    asking: list[tuple[TenantId, asyncio.Task[memoryview]]] = []

    def end(number: int) -> None:
        tenant_id, task = asking.pop(number)
        if task.done() and not task.cancelled():
            buffers.give_back(task.result(), tenant_id)
        else:
            task.cancel()

    for step, number in steps:
        if step == "run":
            await asyncio.sleep(0)
        elif step == "ask":
            tenant_id = tenants[number % len(tenants)]
            asking.append((tenant_id, asyncio.create_task(buffers.borrow(tenant_id))))
        elif asking and step == "end":
            end(number % len(asking))
        elif asking:
            asking[number % len(asking)][1].cancel()
        assert buffers.lent <= 3
    while asking:
        end(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    assert buffers.lent == 0
    for tenant_id in tenants:
        await buffers.borrow(tenant_id)


def test_the_default_limits_are_a_multiple_of_the_buffer_size() -> None:
    limits = BufferLimits.from_settings(BodySettings())

    assert limits.count * BUFFER_BYTES == BodySettings().body_memory_max
    assert limits.per_tenant == limits.count // 2
