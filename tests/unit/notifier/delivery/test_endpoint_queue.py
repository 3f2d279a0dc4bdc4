from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from notifier.delivery.endpoint_queue import ENDPOINT_MAX, ENDPOINT_MIN, DueQueue, Memory
from notifier.delivery.load_requests import DELIVERIES_MIN, QUEUES, LoadRequests
from notifier.delivery.pacing import Pace
from notifier.delivery.work import DueDelivery
from schemas.ids import DeliveryId, EventId, TenantId, UploadId, WebhookId

TENANT = TenantId(UUID(int=1))


def a_queue(memory: Memory, *, tenant_id: TenantId = TENANT) -> DueQueue:
    return DueQueue(webhook_id=WebhookId(uuid4()), tenant_id=tenant_id, memory=memory, pace=Pace())


def a_delivery(*, upload: int | None = None, attempts_made: int = 0) -> DueDelivery:
    return DueDelivery(
        delivery_id=DeliveryId(uuid4()),
        webhook_id=WebhookId(UUID(int=2)),
        tenant_id=TENANT,
        event_id=EventId(uuid4()),
        event_type="upload.stored",
        upload_id=None if upload is None else UploadId(UUID(int=upload)),
        version=1,
        attempts_made=attempts_made,
        ordered=False,
        body=b"{}",
        traceparent=None,
    )


def fill(queue: DueQueue) -> int:
    """Add as many deliveries as have room; return how many."""
    count = queue.room
    queue.add(a_delivery() for _ in range(count))
    return count


def start_all(queue: DueQueue) -> list[DueDelivery]:
    started = []
    while queue.has_next():
        started.append(queue.start())
    return started


def test_an_endpoint_alone_has_its_bound() -> None:
    assert fill(a_queue(Memory())) == ENDPOINT_MAX


def test_many_busy_endpoints_of_a_tenant_leave_room_for_another_one() -> None:
    memory = Memory()
    for _ in range(200):
        fill(a_queue(memory))
    assert a_queue(memory).room == ENDPOINT_MIN


def test_a_tenant_with_ten_thousand_endpoints_leaves_room_for_other_tenants() -> None:
    memory = Memory()
    for _ in range(10_000):
        fill(a_queue(memory))
    assert a_queue(memory).room == 0
    others = [a_queue(memory, tenant_id=TenantId(uuid4())) for _ in range(100)]
    assert {fill(queue) for queue in others} == {ENDPOINT_MIN}


def test_memory_is_free_again_after_attempts_start_and_after_deliveries_are_forgotten() -> None:
    memory = Memory(size=100)
    queue = a_queue(memory)
    room = queue.room
    queue.add(a_delivery(upload=each % 2) for each in range(room))
    assert len(start_all(queue)) == 2
    queue.forget_due()
    assert queue.room == room
    assert queue.more
    assert len(queue.known) == 2


def test_a_delivery_is_added_once() -> None:
    queue = a_queue(Memory())
    delivery = a_delivery()
    queue.add((delivery, delivery))
    assert start_all(queue) == [delivery]
    queue.add((delivery,))
    assert not queue.has_next()
    assert queue.due == 0


def test_first_attempts_start_before_retries() -> None:
    queue = a_queue(Memory())
    retry, first = a_delivery(attempts_made=1), a_delivery()
    queue.add((retry, first))
    assert start_all(queue) == [first, retry]


def test_the_next_event_of_an_upload_starts_after_the_first_attempt_of_the_one_before() -> None:
    queue = a_queue(Memory())
    one, two, three = (a_delivery(upload=1) for _ in range(3))
    other, without = a_delivery(upload=2), a_delivery()
    queue.add((one, two, three, other, without))
    assert start_all(queue) == [one, other, without]
    assert queue.due == 2
    queue.let_followers_start(one)
    assert start_all(queue) == [two]
    queue.let_followers_start(other)
    queue.let_followers_start(two)
    assert start_all(queue) == [three]


def test_a_retry_holds_no_event_of_its_upload() -> None:
    queue = a_queue(Memory())
    retry = a_delivery(upload=1, attempts_made=1)
    queue.add((retry,))
    assert start_all(queue) == [retry]
    first, second = a_delivery(upload=1), a_delivery(upload=1)
    queue.add((first, second))
    assert start_all(queue) == [first]
    queue.let_followers_start(replace(retry))
    assert start_all(queue) == []


@pytest.mark.parametrize(("queues", "limit"), [(1, 200), (5, 200), (50, 20), (500, 10)])
def test_a_load_of_many_queues_reads_few_deliveries_of_each(queues: int, limit: int) -> None:
    memory, requests = Memory(), LoadRequests()
    for _ in range(queues):
        requests.add(a_queue(memory))
    load = requests.next()
    assert load is not None
    assert load.limit == limit
    assert len(load.queues) == min(queues, QUEUES)
    assert len(requests) == queues - len(load.queues)


def test_tenants_load_in_turns() -> None:
    memory, requests = Memory(), LoadRequests()
    for _ in range(10_000):
        requests.add(a_queue(memory))
    other = a_queue(memory, tenant_id=TenantId(uuid4()))
    requests.add(other)
    load = requests.next()
    assert load is not None
    assert other in load.queues


def test_every_queue_is_loaded_though_the_first_ones_are_full() -> None:
    memory, requests = Memory(), LoadRequests()
    full = [a_queue(memory) for _ in range(150)]
    for queue in full:
        queue.add(a_delivery() for _ in range(ENDPOINT_MAX // 10))
        requests.add(queue)
    empty = a_queue(memory, tenant_id=TenantId(uuid4()))
    requests.add(empty)
    loaded: list[DueQueue] = []
    for _ in range(20):
        if (load := requests.next()) is not None:
            loaded += load.queues
    assert empty in loaded


def test_a_queue_without_room_waits_and_is_loaded_when_it_has_some() -> None:
    memory, requests = Memory(size=10), LoadRequests()
    queue = a_queue(memory)
    fill(queue)
    fill(a_queue(memory))
    late = a_queue(memory)
    requests.add(late)
    assert requests.next() is None
    start_all(queue)
    load = requests.next()
    assert load is not None
    assert load.queues == [late]
    assert load.limit >= DELIVERIES_MIN


def test_a_choice_reserves_nothing_for_ever() -> None:
    memory, requests = Memory(), LoadRequests()
    queue = a_queue(memory)
    room = queue.room
    requests.add(queue)
    requests.next()
    assert queue.room == room
