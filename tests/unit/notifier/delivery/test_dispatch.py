import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import uuid4

import pytest

from notifier.delivery import owned_queues
from notifier.delivery.attempt import AttemptResult
from notifier.delivery.dispatch import Dispatcher
from notifier.delivery.outcome import AttemptOutcome, of_status
from notifier.delivery.work import Endpoint, EndpointState
from notifier.liveness import Pulse
from schemas.ids import TenantId, UploadId, WebhookId
from schemas.lifecycle import DisabledReason, DiscardReason
from schemas.settings import DeliverySettings
from tests.factories.secret_keys import KEYS
from tests.fakes.delivery_store import MemoryStore, Tables

pytestmark = pytest.mark.anyio

HANGING = "https://hanging.example/hook"


class Receivers:
    """Answers 204 to every URL but those in `statuses`; `hanging` URLs answer after `release`.

    Attributes:
        arrived: the message ids by URL.
    """

    def __init__(self) -> None:
        self.statuses: dict[str, int] = {}
        self.hanging: set[str] = {HANGING}
        self.retry_after: timedelta | None = None
        self.delay = 0.0
        self.arrived: dict[str, list[str]] = {}
        self.under_way = Counter[str]()
        self.most_under_way = Counter[str]()
        self._released = asyncio.Event()

    def release(self) -> None:
        self._released.set()

    def count(self, url: str) -> int:
        return len(self.arrived.get(url, ()))

    async def post(
        self,
        *,
        url: str,
        headers: Mapping[str, str],
        body: bytes,  # noqa: ARG002  # as `attempt.post`
        started_at: datetime,
        timeout: timedelta,  # noqa: ASYNC109
        share: str,  # noqa: ARG002
    ) -> AttemptResult:
        self.arrived.setdefault(url, []).append(headers["webhook-id"])
        self.under_way[url] += 1
        self.most_under_way[url] = max(self.most_under_way[url], self.under_way[url])
        status: int | None = self.statuses.get(url, 204)
        try:
            if url in self.hanging:
                try:
                    async with asyncio.timeout(timeout.total_seconds()):
                        await self._released.wait()
                except TimeoutError:
                    status = None
            await asyncio.sleep(self.delay)
        finally:
            self.under_way[url] -= 1
        return AttemptResult(
            outcome=AttemptOutcome.TIMED_OUT if status is None else of_status(status),
            status_code=status,
            started_at=started_at,
            duration=datetime.now(UTC) - started_at,
            retry_after=self.retry_after,
        )


class Process:
    def __init__(
        self,
        tables: Tables,
        receivers: Receivers,
        *,
        jitter: Callable[[], float] = lambda: 0.0,
        **settings: object,
    ) -> None:
        self.store = MemoryStore(tables)
        self.dispatcher = Dispatcher(
            store=self.store,
            post=receivers.post,
            pulse=Pulse(),
            settings=DeliverySettings.model_validate(settings),
            keys=KEYS,
            clock=tables.clock,
            jitter=jitter,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.dispatcher.run())
        try:
            yield
            assert not task.done(), task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def notify_change(self, webhook_id: WebhookId) -> None:
        self.dispatcher.notifications["waybill_webhooks"](str(webhook_id))

    def notify_due(self) -> None:
        self.dispatcher.notifications["waybill_deliveries"]("")

    async def receive(self, webhook_id: WebhookId, count: int = 1, **options: object) -> None:
        """Record events of an endpoint as the consumer does."""
        self.store.next_events = partial(self.store.receive, webhook_id, count, **options)
        await self.dispatcher.record_events(())


@pytest.fixture
def tables() -> Tables:
    return Tables()


@pytest.fixture
async def receivers() -> Receivers:
    return Receivers()


async def until(condition: Callable[[], bool], *, within: float = 30) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110  # the tables have no event
            await asyncio.sleep(0.005)


async def test_events_of_the_intake_are_delivered_and_recorded_in_groups(
    tables: Tables, receivers: Receivers
) -> None:
    process = Process(tables, receivers)
    webhook_id = tables.add_endpoint()
    async with process.running():
        await process.receive(webhook_id, 150)
        await until(tables.is_settled)
    assert {row.status for row in tables.rows.values()} == {"delivered"}
    assert sum(process.store.groups) == 150
    assert len(process.store.groups) < 75


async def test_a_delivery_that_a_load_finds_before_the_intake_returns_is_attempted_once(
    tables: Tables, receivers: Receivers
) -> None:
    process = Process(tables, receivers)
    webhook_id = tables.add_endpoint()
    async with process.running():
        await process.receive(webhook_id, 1)
        await until(tables.is_settled)
        # The transaction is committed, and its answer arrives later.
        committed = process.store.receive(webhook_id, 5)
        process.store.next_events = lambda: committed
        process.store.events_delay = asyncio.Event()
        intake = asyncio.create_task(process.dispatcher.record_events(()))
        tables.queues[webhook_id].due_at = tables.clock()
        process.notify_due()
        await until(tables.is_settled)
        process.store.events_delay.set()
        await intake
        await asyncio.sleep(0.1)
    assert receivers.count("https://receiver.example/hook") == 6


async def test_a_queue_that_another_process_made_due_is_taken(
    tables: Tables, receivers: Receivers
) -> None:
    process = Process(tables, receivers)
    tables.add(tables.add_endpoint(), 3)
    async with process.running():
        await until(tables.is_settled)
    assert receivers.count("https://receiver.example/hook") == 3


async def test_a_backlog_larger_than_memory_is_delivered_once_each(
    tables: Tables, receivers: Receivers
) -> None:
    process = Process(tables, receivers)
    webhook_id = tables.add_endpoint()
    async with process.running():
        tables.add(webhook_id, 700)
        await process.receive(webhook_id, 300)
        await until(tables.is_settled)
    (arrived,) = receivers.arrived.values()
    assert len(arrived) == len(set(arrived)) == 1000


async def test_a_hanging_endpoint_does_not_delay_others_of_its_tenant(
    tables: Tables, receivers: Receivers
) -> None:
    process = Process(tables, receivers)
    healthy = tables.add_endpoint()
    hanging = [tables.add_endpoint(url=HANGING) for _ in range(50)]
    async with process.running():
        for each in hanging:
            await process.receive(each, 5)
        await process.receive(healthy, 20)
        await until(lambda: receivers.count("https://receiver.example/hook") == 20)
        receivers.release()


async def test_a_hanging_receiver_seen_for_the_first_time_gets_one_attempt(
    tables: Tables, receivers: Receivers
) -> None:
    receivers.delay = 0.01
    process = Process(tables, receivers)
    webhook_id = tables.add_endpoint(url=HANGING)
    async with process.running():
        await process.receive(webhook_id, 50)
        await until(lambda: receivers.count(HANGING) == 1)
        await asyncio.sleep(0.2)
        assert receivers.count(HANGING) == 1
        receivers.release()
        await until(tables.is_settled)
    assert receivers.most_under_way[HANGING] == 10


async def test_the_concurrency_of_an_endpoint_is_kept(tables: Tables, receivers: Receivers) -> None:
    receivers.delay = 0.01
    process = Process(tables, receivers)
    webhook_id = tables.add_endpoint(concurrency=3)
    async with process.running():
        await process.receive(webhook_id, 100)
        await until(tables.is_settled)
    assert receivers.most_under_way.total() == 3


async def test_the_rate_of_an_endpoint_is_kept(tables: Tables, receivers: Receivers) -> None:
    process = Process(tables, receivers)
    webhook_id = tables.add_endpoint(rate=50)
    began = asyncio.get_running_loop().time()
    async with process.running():
        await process.receive(webhook_id, 56)
        await until(tables.is_settled)
    # Five are a burst, the others 20 ms apart.
    assert 1.0 <= asyncio.get_running_loop().time() - began < 1.6


async def test_a_throttling_answer_blocks_the_endpoint_and_is_saved(
    tables: Tables, receivers: Receivers
) -> None:
    url = "https://receiver.example/hook"
    receivers.statuses[url] = 503
    receivers.retry_after = timedelta(minutes=1)
    process = Process(tables, receivers)
    webhook_id = tables.add_endpoint()
    async with process.running():
        await process.receive(webhook_id, 1)
        await until(lambda: receivers.count(url) == 1)
        await process.receive(webhook_id, 50)
        state = tables.queues[webhook_id]
        await until(lambda: state.state.throttles == 1)
        assert receivers.count(url) == 1
        assert state.state.blocked_until is not None
        assert state.state.blocked_until - tables.clock() > timedelta(seconds=55)


async def test_after_a_block_one_request_at_a_time_probes_the_endpoint(
    tables: Tables, receivers: Receivers
) -> None:
    url = "https://receiver.example/hook"
    receivers.delay = 0.02
    receivers.statuses[url] = 503
    receivers.retry_after = timedelta(seconds=0.3)
    process = Process(tables, receivers, webhook_retry_delays="300ms,300ms")
    webhook_id = tables.add_endpoint()
    async with process.running():
        await process.receive(webhook_id, 20)
        await until(lambda: receivers.count(url) >= 2)
        assert receivers.most_under_way[url] == 1
        del receivers.statuses[url]
        await until(tables.is_settled)
    assert receivers.most_under_way[url] > 1


async def test_a_retry_is_read_from_the_table_when_it_is_due(
    tables: Tables, receivers: Receivers
) -> None:
    url = "https://receiver.example/hook"
    receivers.statuses[url] = 500
    process = Process(tables, receivers, webhook_retry_delays="200ms,200ms")
    webhook_id = tables.add_endpoint()
    async with process.running():
        await process.receive(webhook_id, 2)
        await until(tables.is_settled)
    assert receivers.count(url) == 6
    assert [row.status for row in tables.of(webhook_id)] == ["exhausted", "exhausted"]


async def test_a_410_disables_the_endpoint_and_discards_the_rest(
    tables: Tables, receivers: Receivers
) -> None:
    url = "https://receiver.example/hook"
    receivers.statuses[url] = 410
    process = Process(tables, receivers)
    webhook_id = tables.add_endpoint()
    async with process.running():
        await process.receive(webhook_id, 500)
        await until(tables.is_settled)
    assert tables.disabled == {webhook_id: DisabledReason.GONE}
    assert receivers.count(url) == 1
    assert {row.reason for row in tables.of(webhook_id)} == {DiscardReason.ENDPOINT_DISABLED}


async def test_an_endpoint_that_fails_for_days_is_disabled(
    tables: Tables, receivers: Receivers
) -> None:
    receivers.statuses["https://receiver.example/hook"] = 500
    process = Process(tables, receivers)
    failing = tables.add_endpoint(failing_since=tables.clock() - timedelta(days=6))
    recent = tables.add_endpoint(failing_since=tables.clock() - timedelta(days=4))
    async with process.running():
        await process.receive(failing, 30)
        await process.receive(recent, 30)
        await until(lambda: failing in tables.disabled)
        await until(lambda: all(row.attempts or row.reason for row in tables.rows.values()))
    assert tables.disabled == {failing: DisabledReason.FAILING}
    attempted = sum(bool(row.attempts) for row in tables.of(failing))
    assert 10 <= attempted <= 20


async def test_an_endpoint_that_is_enabled_again_is_not_disabled_by_its_first_failure(
    tables: Tables, receivers: Receivers
) -> None:
    receivers.statuses["https://receiver.example/hook"] = 500
    process = Process(tables, receivers)
    webhook_id = tables.add_endpoint(failing_since=tables.clock() - timedelta(days=6))
    async with process.running():
        await process.receive(webhook_id, 30)
        await until(tables.is_settled)
        assert tables.disabled.pop(webhook_id) is DisabledReason.FAILING
        tables.change(webhook_id, state=EndpointState.ACTIVE)
        process.notify_change(webhook_id)
        settled = set(tables.rows)
        await process.receive(webhook_id, 1)
        [new] = [row for row in tables.of(webhook_id) if row.delivery.delivery_id not in settled]
        await until(lambda: bool(new.attempts))
    assert tables.disabled == {}
    assert new.status == "pending"


async def test_a_new_url_ends_the_pause_that_the_earlier_receiver_asked_for(
    tables: Tables, receivers: Receivers
) -> None:
    receivers.statuses["https://receiver.example/hook"] = 429
    process = Process(tables, receivers)
    webhook_id = tables.add_endpoint()
    async with process.running():
        await process.receive(webhook_id, 1)
        await until(lambda: receivers.count("https://receiver.example/hook") == 1)
        tables.change(webhook_id, url="https://other.example/hook")
        process.notify_change(webhook_id)
        await process.receive(webhook_id, 1)
        await until(lambda: receivers.count("https://other.example/hook") == 1)


async def test_an_attempt_under_way_settles_its_delivery_after_the_endpoint_is_deleted(
    tables: Tables, receivers: Receivers
) -> None:
    process = Process(tables, receivers)
    webhook_id = tables.add_endpoint(url=HANGING)
    async with process.running():
        await process.receive(webhook_id, 20)
        await until(lambda: receivers.count(HANGING) == 1)
        tables.change(webhook_id, state=EndpointState.DELETED)
        process.notify_change(webhook_id)
        await until(lambda: sum(row.status == "discarded" for row in tables.rows.values()) == 19)
        receivers.release()
        await until(tables.is_settled)
    assert Counter(row.status.value for row in tables.rows.values()) == {
        "discarded": 19,
        "delivered": 1,
    }


async def test_a_paused_endpoint_gets_nothing_and_its_queue_is_given_back(
    tables: Tables, receivers: Receivers
) -> None:
    process = Process(tables, receivers)
    webhook_id = tables.add_endpoint(state=EndpointState.PAUSED)
    async with process.running():
        await process.receive(webhook_id, 20)
        await until(lambda: process.store.releases == [webhook_id])
        assert receivers.arrived == {}
        tables.change(webhook_id, state=EndpointState.ACTIVE)
        tables.queues[webhook_id].due_at = tables.clock()
        process.notify_change(webhook_id)
        process.notify_due()
        await until(tables.is_settled)


async def test_a_changed_url_is_used_from_the_next_attempt_on(
    tables: Tables, receivers: Receivers
) -> None:
    process = Process(tables, receivers)
    webhook_id = tables.add_endpoint()
    async with process.running():
        await process.receive(webhook_id, 1)
        await until(tables.is_settled)
        # Without a notification: the version of the delivery is newer.
        tables.change(webhook_id, url="https://new.example/hook")
        await process.receive(webhook_id, 1)
        await until(tables.is_settled)
    assert receivers.count("https://new.example/hook") == 1


async def test_a_process_that_lost_its_lease_takes_its_queues_again(
    tables: Tables, receivers: Receivers
) -> None:
    process = Process(tables, receivers)
    webhook_id = tables.add_endpoint()
    async with process.running():
        await process.receive(webhook_id, 1)
        await until(tables.is_settled)
        process.store.die()
        tables.add(webhook_id, 5)
        await until(tables.is_settled)
    assert receivers.count("https://receiver.example/hook") == 6


async def test_without_a_heartbeat_no_attempt_starts(
    tables: Tables, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned_queues, "ALIVE_FOR", timedelta(milliseconds=50))
    monkeypatch.setattr(owned_queues, "HEARTBEAT", timedelta(milliseconds=20))
    process = Process(tables, receivers)
    webhook_id = tables.add_endpoint()
    async with process.running():
        await process.receive(webhook_id, 1)
        await until(tables.is_settled)
        process.store.up.clear()
        await asyncio.sleep(0.2)
        await process.receive(webhook_id, 5)
        await asyncio.sleep(0.1)
        assert receivers.count("https://receiver.example/hook") == 1
        process.store.up.set()
        await until(tables.is_settled)


async def test_an_attempt_beside_a_pause_does_not_delay_what_waits_for_its_end(
    tables: Tables, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned_queues, "IDLE", timedelta(milliseconds=200))
    monkeypatch.setattr(owned_queues, "HOUSEKEEPING_INTERVAL", timedelta(milliseconds=50))
    url = "https://receiver.example/hook"
    process = Process(tables, receivers)
    webhook_id = tables.add_endpoint(url=url)
    async with process.running():
        await process.receive(webhook_id)
        await until(tables.is_settled)
        receivers.hanging.add(url)
        await process.receive(webhook_id)
        await until(lambda: receivers.under_way[url] == 1)
        receivers.hanging.discard(url)
        receivers.statuses[url], receivers.retry_after = 429, timedelta(seconds=1)
        await process.receive(webhook_id, 3)
        await until(lambda: receivers.count(url) == 3)
        receivers.statuses[url] = 204
        # Longer than the pause; the first request after it waits for the end of the attempt.
        await asyncio.sleep(1.2)
        receivers.release()
        # All but the delivery that was refused, which waits for its retry.
        await until(lambda: receivers.count(url) == 5, within=2)


async def test_a_delivery_whose_attempt_crashes_is_attempted_again(
    tables: Tables, receivers: Receivers
) -> None:
    answers = iter([float("nan"), 0.0, 0.0])  # the first is refused
    process = Process(tables, receivers, jitter=lambda: next(answers), webhook_concurrency=1)
    webhook_id = tables.add_endpoint()
    url = "https://receiver.example/hook"
    receivers.statuses[url] = 500
    async with process.running():
        await process.receive(webhook_id)
        await until(lambda: receivers.count(url) == 1)
        receivers.statuses[url] = 204
        tables.queues[webhook_id].due_at = tables.clock()
        process.notify_due()
        await until(tables.is_settled)


async def test_many_endpoints_are_prepared_in_small_groups(
    tables: Tables, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(tables, receivers)
    for _ in range(300):
        tables.add(tables.add_endpoint())
    groups: list[int] = []
    read = process.store.endpoints

    async def endpoints(webhook_ids: Collection[WebhookId]) -> Mapping[WebhookId, Endpoint]:
        groups.append(len(webhook_ids))
        return await read(webhook_ids)

    monkeypatch.setattr(process.store, "endpoints", endpoints)
    async with process.running():
        await until(tables.is_settled)
    assert sum(groups) == 300
    assert max(groups) <= 50


async def test_attempts_that_end_during_an_outage_are_recorded_after_it(
    tables: Tables, receivers: Receivers
) -> None:
    process = Process(tables, receivers)
    webhook_id = tables.add_endpoint()
    async with process.running():
        await process.receive(webhook_id, 1)
        await until(tables.is_settled)
        process.store.up.clear()
        await process.receive(webhook_id, 20)
        await until(lambda: receivers.count("https://receiver.example/hook") == 21)
        assert not tables.is_settled()
        process.store.up.set()
        await until(tables.is_settled)
    assert receivers.count("https://receiver.example/hook") == 21


async def test_a_stop_records_the_attempts_under_way_and_gives_every_queue_back(
    tables: Tables, receivers: Receivers
) -> None:
    process = Process(tables, receivers)
    slow, busy = tables.add_endpoint(url=HANGING), tables.add_endpoint()
    receivers.delay = 0.05
    async with process.running():
        await process.receive(slow, 2)
        await process.receive(busy, 100)
        await until(lambda: receivers.count(HANGING) == 1)
        asyncio.get_running_loop().call_later(0.3, receivers.release)
    assert [row.status for row in tables.of(slow)] == ["delivered", "pending"]
    attempted = [row for row in tables.rows.values() if row.attempts]
    assert len(attempted) == sum(map(len, receivers.arrived.values())) < 102
    assert {queue.owner for queue in tables.queues.values()} == {None}


async def test_another_process_takes_the_queues_of_a_dead_one(
    tables: Tables, receivers: Receivers
) -> None:
    dead, heir = Process(tables, receivers), Process(tables, receivers)
    webhook_id = tables.add_endpoint(url=HANGING)
    running = asyncio.create_task(dead.dispatcher.run())
    await until(lambda: dead.store.owner in tables.alive)
    await dead.receive(webhook_id, 3)
    await until(lambda: receivers.count(HANGING) == 1)
    running.cancel()
    dead.store.die()
    receivers.release()
    async with heir.running():
        await until(tables.is_settled)
    with suppress(asyncio.CancelledError):
        await running


async def test_two_events_of_an_upload_start_one_after_the_other(
    tables: Tables, receivers: Receivers
) -> None:
    receivers.delay = 0.01
    process = Process(tables, receivers)
    webhook_id = tables.add_endpoint(concurrency=10)
    async with process.running():
        await process.receive(webhook_id, 10)
        await until(tables.is_settled)
        for _ in range(20):
            await process.receive(webhook_id, 2, upload_id=UploadId(uuid4()))
        await until(tables.is_settled)
    order = receivers.arrived["https://receiver.example/hook"]
    place = {message_id: index for index, message_id in enumerate(order)}
    events = [str(row.delivery.event_id) for row in tables.of(webhook_id)][10:]
    pairs = [(events[index], events[index + 1]) for index in range(0, 40, 2)]
    assert all(place[first] < place[second] for first, second in pairs)


async def test_the_next_event_of_an_upload_waits_a_second_at_most(
    tables: Tables, receivers: Receivers
) -> None:
    process = Process(tables, receivers)
    url = "https://receiver.example/hook"
    webhook_id = tables.add_endpoint(url=url)
    async with process.running():
        await process.receive(webhook_id, 4)
        await until(tables.is_settled)
        receivers.hanging.add(url)
        began = asyncio.get_running_loop().time()
        await process.receive(webhook_id, 2, upload_id=UploadId(uuid4()))
        await until(lambda: receivers.count(url) == 6)
        assert 0.9 < asyncio.get_running_loop().time() - began < 1.6
        receivers.release()


async def test_a_delivery_without_its_event_is_discarded(
    tables: Tables, receivers: Receivers
) -> None:
    process = Process(tables, receivers)
    webhook_id = tables.add_endpoint()
    async with process.running():
        await process.receive(webhook_id, 1, body=None)
        await until(tables.is_settled)
    (row,) = tables.of(webhook_id)
    assert (row.status, row.reason) == ("discarded", DiscardReason.EVENT_MISSING)
    assert receivers.arrived == {}


async def test_an_endpoint_whose_secret_is_unreadable_is_retried_and_never_disabled(
    tables: Tables, receivers: Receivers
) -> None:
    process = Process(tables, receivers)
    webhook_id = tables.add_endpoint(
        secret="no secret",  # noqa: S106
        failing_since=tables.clock() - timedelta(days=9),
    )
    async with process.running():
        await process.receive(webhook_id, 15)
        await until(lambda: all(row.attempts for row in tables.rows.values()))
    assert {row.attempts[0].result.outcome for row in tables.rows.values()} == {
        AttemptOutcome.SECRET_UNREADABLE
    }
    assert {row.status for row in tables.rows.values()} == {"pending"}
    assert tables.disabled == {}
    assert receivers.arrived == {}


async def test_the_backlog_of_a_hanging_endpoint_is_not_read_beyond_its_memory(
    tables: Tables, receivers: Receivers
) -> None:
    process = Process(tables, receivers)
    hanging, other = tables.add_endpoint(url=HANGING), TenantId(uuid4())
    tables.add(hanging, 1000)
    async with process.running():
        await until(lambda: receivers.count(HANGING) == 1)
        loads = len(process.store.loads)
        healthy = tables.add_endpoint(tenant_id=other)
        await process.receive(healthy, 50)
        await until(lambda: receivers.count("https://receiver.example/hook") == 50)
        assert len(process.store.loads) <= loads + 3
        receivers.release()
