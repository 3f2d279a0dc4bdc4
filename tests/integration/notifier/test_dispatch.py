import asyncio
import base64
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import uuid4

import msgspec
import pytest
from sqlalchemy import func, update
from standardwebhooks import WebhookVerificationError
from structlog.testing import capture_logs

from schemas.events.envelope import encode
from schemas.ids import UploadId, WebhookId
from schemas.key_ring import KeyRing
from schemas.policy import webhook_headers, webhook_secrets
from schemas.policy.webhook_headers import Header
from schemas.tables.deliveries import Delivery
from tests.factories.secret_keys import KEY, KEYS, OTHER_KEY
from tests.fakes import replies
from tests.fakes.receiver import Received, Receiver
from tests.integration.notifier.conftest import ProxiedDatabase
from tests.integration.notifier.dispatchers import RunDispatcher
from tests.integration.notifier.rows import SECRET, Rows, an_event, eventually

pytestmark = pytest.mark.anyio

NEW_SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def arrivals(receiver: Receiver, count: int) -> list[Received]:
    return await asyncio.to_thread(receiver.wait_for, count)


async def has_attempts(rows: Rows, count: int) -> bool:
    return len(await rows.attempts()) == count


async def has_passed(time: datetime) -> bool:
    return datetime.now(UTC) > time


async def test_an_event_arrives_signed_with_unchanged_bytes(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id, url=receiver.url)
    event = an_event(tenant_id=tenant_id)
    async with run_dispatcher():
        await rows.record(event)
        (request,) = await arrivals(receiver, 1)
        await eventually(rows.everything_is_settled)
    assert request.body == encode(event)
    assert request.verified_with(SECRET)["id"] == str(event.id)
    assert request.headers["webhook-id"] == str(event.id)
    assert request.headers["content-type"] == "application/cloudevents+json"
    (delivery,) = await rows.deliveries()
    assert delivery.status == "delivered"
    assert delivery.attempts_made == 1
    assert delivery.next_attempt_at is None
    (attempt,) = await rows.attempts()
    assert (attempt.number, attempt.outcome, attempt.status_code) == (1, "delivered", 204)
    assert attempt.remote_address == "127.0.0.1"


async def test_a_retry_has_the_same_id_and_its_own_timestamp(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    receiver.answer_with(replies.status(500), replies.raw(b"no HTTP"), replies.status(204))
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id, url=receiver.url)
    event = an_event(tenant_id=tenant_id)
    async with run_dispatcher():
        await rows.record(event)
        for attempts in (1, 2):
            await eventually(partial(has_attempts, rows, attempts))
            (delivery,) = await rows.deliveries()
            assert delivery.status == "pending"
            # The timestamp of a signature has a resolution of one second.
            await eventually(partial(has_passed, datetime.now(UTC).replace(microsecond=999_999)))
            await rows.make_due()
        requests = await arrivals(receiver, 3)
        await eventually(rows.everything_is_settled)
    assert {request.headers["webhook-id"] for request in requests} == {str(event.id)}
    assert len({request.headers["webhook-timestamp"] for request in requests}) == 3
    assert [request.verified_with(SECRET)["id"] for request in requests] == [str(event.id)] * 3
    assert [(each.number, each.outcome) for each in await rows.attempts()] == [
        (1, "rejected"),
        (2, "protocol_error"),
        (3, "delivered"),
    ]


async def test_a_retry_follows_the_schedule_without_a_wake_up(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    receiver.answer_with(replies.status(503), replies.status(204))
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id, url=receiver.url)
    async with run_dispatcher():
        await rows.record(an_event(tenant_id=tenant_id))
        first, second = await arrivals(receiver, 2)
    assert timedelta(seconds=5) <= second.at - first.at < timedelta(seconds=6.5)


async def test_an_exhausted_delivery_is_not_attempted_again(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    receiver.answer_with(replies.status(500))
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id, url=receiver.url)
    await rows.record(an_event(tenant_id=tenant_id))
    async with rows.transaction() as session:
        await session.execute(update(Delivery).values(attempts_made=9))
    async with run_dispatcher():
        await eventually(rows.everything_is_settled)
    (delivery,) = await rows.deliveries()
    assert (delivery.status, delivery.attempts_made) == ("exhausted", 10)
    assert delivery.next_attempt_at is None


async def test_410_disables_the_endpoint_and_discards_its_pending_deliveries(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    receiver.answer_with(replies.status(410))
    tenant_id = await rows.add_tenant()
    gone = await rows.add_webhook(tenant_id, url=receiver.url)
    await rows.record(an_event(tenant_id=tenant_id))
    async with rows.transaction() as session:
        later = func.now() + timedelta(hours=5)
        await session.execute(update(Delivery).values(next_attempt_at=later))
    await rows.record(*(an_event(tenant_id=tenant_id) for _ in range(30)))
    async with run_dispatcher():
        await eventually(rows.everything_is_settled)
    assert {delivery.status for delivery in await rows.deliveries()} == {"discarded"}
    assert len(await rows.deliveries()) == 31
    webhook = await rows.webhook(gone)
    assert webhook.disabled_at is not None
    assert webhook.disabled_reason == "gone"
    # Only attempts in progress at the first response were made; no later one.
    assert 1 <= len(receiver.received) <= 10
    await rows.record(an_event(tenant_id=tenant_id))
    assert {(each.status, each.reason) for each in await rows.deliveries()} == {
        ("discarded", "endpoint_disabled")
    }
    assert len(await rows.deliveries()) == 32


async def test_a_deleted_endpoint_has_no_pending_deliveries(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    receiver.answer_with(replies.status(500))
    tenant_id = await rows.add_tenant()
    deleted = await rows.add_webhook(tenant_id, url=receiver.url)
    async with run_dispatcher():
        await rows.record(*(an_event(tenant_id=tenant_id) for _ in range(5)))
        await eventually(partial(has_attempts, rows, 5))
        # Each waits five seconds for its second attempt.
        await rows.delete_webhook(deleted)
        await eventually(rows.everything_is_settled, within=timedelta(seconds=3))
    assert {(each.status, each.reason) for each in await rows.deliveries()} == {
        ("discarded", "endpoint_deleted")
    }


async def test_a_paused_endpoint_gets_its_deliveries_when_it_is_active_again(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    tenant_id = await rows.add_tenant()
    paused = await rows.add_webhook(tenant_id, url=receiver.url_of("/paused"))
    await rows.add_webhook(tenant_id, url=receiver.url_of("/active"))
    async with run_dispatcher():
        await rows.record(an_event(tenant_id=tenant_id))
        await arrivals(receiver, 2)
        await rows.change_webhook(paused, paused_at=func.now())
        await rows.record(*(an_event(tenant_id=tenant_id) for _ in range(5)))
        await arrivals(receiver, 7)
        assert [each.path for each in receiver.received].count("/paused") == 1
        await rows.change_webhook(paused, paused_at=None)
        await arrivals(receiver, 12)
    assert [each.path for each in receiver.received].count("/paused") == 6


async def test_a_rotated_secret_signs_beside_the_earlier_one_until_that_expires(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    tenant_id = await rows.add_tenant()
    webhook_id = await rows.add_webhook(tenant_id, url=receiver.url)
    async with run_dispatcher():
        await rows.record(an_event(tenant_id=tenant_id))
        (before,) = await arrivals(receiver, 1)
        await rows.add_secret(webhook_id, NEW_SECRET, others_expire_in=timedelta(seconds=2))
        expiry = datetime.now(UTC) + timedelta(seconds=2)
        await rows.record(an_event(tenant_id=tenant_id))
        (during,) = (await arrivals(receiver, 2))[1:]
        await eventually(partial(has_passed, expiry))
        await rows.record(an_event(tenant_id=tenant_id))
        (after,) = (await arrivals(receiver, 3))[2:]
    assert [len(each.headers["webhook-signature"].split()) for each in (before, during, after)] == [
        1,
        2,
        1,
    ]
    during.verified_with(SECRET)
    during.verified_with(NEW_SECRET)
    after.verified_with(NEW_SECRET)
    with pytest.raises(WebhookVerificationError):
        after.verified_with(SECRET)


async def test_the_headers_of_an_endpoint_are_sent_and_the_log_hides_the_sensitive_ones(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    tenant_id = await rows.add_tenant()
    webhook_id = await rows.add_webhook(tenant_id, url=receiver.url)
    headers = webhook_headers.encrypt(
        [
            Header(name="Authorization", value="Bearer of-the-receiver"),
            Header(name="X-Env", value="test", sensitive=False),
        ],
        webhook_id=webhook_id,
        keys=KEYS,
    )
    await rows.change_webhook(webhook_id, headers=headers)
    event = an_event(tenant_id=tenant_id)
    await rows.add_events(event, traceparent=TRACEPARENT)
    await rows.record(event)
    async with run_dispatcher():
        (request,) = await arrivals(receiver, 1)
        await eventually(rows.everything_is_settled)
    assert request.headers["authorization"] == "Bearer of-the-receiver"
    assert request.headers["x-env"] == "test"
    assert request.headers["traceparent"] == TRACEPARENT
    (attempt,) = await rows.attempts()
    assert attempt.request_headers is not None
    assert attempt.request_headers["authorization"] == "***"
    assert attempt.request_headers["x-env"] == "test"
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature", "content-type"):
        assert attempt.request_headers[name] == request.headers[name]


async def test_a_throttling_answer_stops_the_endpoint_in_the_next_process_too(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    receiver.answer_with(replies.status(429, headers={"retry-after": "4"}), replies.status(204))
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id, url=receiver.url)
    async with run_dispatcher():
        await rows.record(an_event(tenant_id=tenant_id))
        await eventually(partial(has_attempts, rows, 1))
        await rows.record(*(an_event(tenant_id=tenant_id) for _ in range(20)))
    async with run_dispatcher():
        await eventually(rows.everything_is_settled)
    first, *others = receiver.received
    assert all(each.at - first.at >= timedelta(seconds=4) for each in others)
    assert {each.status for each in await rows.deliveries()} == {"delivered"}


async def test_a_delivery_that_is_only_refused_is_exhausted_early(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    receiver.answer_with(replies.status(500), path="/failing")
    receiver.answer_with(replies.status(500), replies.status(404), path="/mixed")
    receiver.answer_with(replies.status(404), path="/refusing")
    tenant_id = await rows.add_tenant()
    for path in ("/failing", "/mixed", "/refusing"):
        await rows.add_webhook(tenant_id, url=receiver.url_of(path))
    await rows.record(an_event(tenant_id=tenant_id))
    async with run_dispatcher(
        webhook_retry_delays="100ms,100ms,100ms", webhook_permanent_attempts=2
    ):
        await eventually(rows.everything_is_settled)
    assert {each.status for each in await rows.deliveries()} == {"exhausted"}
    paths = Counter(each.path for each in receiver.received)
    assert paths == {"/failing": 4, "/mixed": 4, "/refusing": 2}


async def test_the_events_of_an_upload_arrive_in_order_through_failures(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    failing, ok = replies.status(500), replies.status(204)
    receiver.answer_with(ok, failing, ok, failing, failing, ok)
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id, url=receiver.url, ordered=True)
    uploads = [UploadId(uuid4()) for _ in range(3)]
    events = []
    for _ in range(4):
        events += [an_event(tenant_id=tenant_id, upload_id=upload_id) for upload_id in uploads]
        # Ids of one millisecond have no order.
        await asyncio.sleep(0.002)
    async with run_dispatcher(webhook_retry_delays="300ms,300ms,300ms,300ms"):
        await rows.record(*reversed(events))
        await eventually(rows.everything_is_settled)
    assert {each.status for each in await rows.deliveries()} == {"delivered"}
    delivered: dict[str, list[str]] = defaultdict(list)
    subjects = {str(event.id): event.subject for event in events}
    for request in receiver.received:
        message_id = request.headers["webhook-id"]
        order = delivered[subjects[message_id]]
        # A repetition follows at once.
        if order[-1:] != [message_id]:
            order.append(message_id)
    for upload_id in uploads:
        assert delivered[str(upload_id)] == [
            str(event.id) for event in events if event.subject == str(upload_id)
        ]


async def test_a_process_without_the_database_for_long_starts_no_attempt(
    rows: Rows,
    run_dispatcher: RunDispatcher,
    receiver: Receiver,
    proxied_database: ProxiedDatabase,
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id, url=receiver.url, rate=2)
    async with run_dispatcher(database=proxied_database.settings):
        await rows.record(*(an_event(tenant_id=tenant_id) for _ in range(40)))
        await arrivals(receiver, 2)
        await proxied_database.proxy.refuse()
        async with run_dispatcher():
            # The rate of two processes at once would be four.
            await eventually(rows.everything_is_settled, within=timedelta(seconds=40))
        await proxied_database.proxy.accept()
    ids = [request.headers["webhook-id"] for request in receiver.received]
    assert len(set(ids)) == 40
    # Those that the first process has sent, and could not record.
    assert len(ids) - 40 <= 12


async def test_a_delivery_without_its_event_is_discarded_with_the_reason(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id, url=receiver.url)
    await rows.record(an_event(tenant_id=tenant_id))
    await rows.delete_events()
    sent = an_event(tenant_id=tenant_id)
    await rows.record(sent)
    async with run_dispatcher():
        await eventually(rows.everything_is_settled)
    assert [request.headers["webhook-id"] for request in receiver.received] == [str(sent.id)]
    assert [(each.status, each.attempts_made) for each in await rows.deliveries()] == [
        ("discarded", 1),
        ("delivered", 1),
    ]
    assert {(each.outcome, each.error) for each in await rows.attempts()} == {
        ("event_missing", "the event is no longer stored; nothing was sent"),
        ("delivered", None),
    }


async def test_an_event_is_never_sent_to_another_tenant(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    owner, another = await rows.add_tenant(), await rows.add_tenant()
    await rows.add_webhook(another, url=receiver.url)
    event = an_event(tenant_id=owner)
    await rows.add_events(event)
    await rows.record(msgspec.structs.replace(event, tenantid=another))
    async with run_dispatcher():
        await eventually(rows.everything_is_settled)
    assert receiver.received == []
    (delivery,) = await rows.deliveries()
    assert delivery.status == "discarded"


async def test_due_deliveries_to_a_deleted_endpoint_are_discarded(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    tenant_id = await rows.add_tenant()
    deleted = await rows.add_webhook(tenant_id, url=receiver.url_of("/deleted"))
    await rows.add_webhook(tenant_id, url=receiver.url_of("/live"))
    await rows.record(*(an_event(tenant_id=tenant_id) for _ in range(30)))
    await rows.delete_webhook(deleted)
    async with run_dispatcher():
        await eventually(rows.everything_is_settled)
    assert {request.path for request in receiver.received} == {"/live"}
    for delivery in await rows.deliveries():
        expected = "discarded" if delivery.webhook_id == deleted else "delivered"
        assert delivery.status == expected


async def test_a_hanging_endpoint_does_not_delay_a_healthy_one(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    tenant_id = await rows.add_tenant()
    with Receiver() as hanging:
        hanging.answer_with(replies.silence())
        # One webhook per upload, as callback URLs create them: many endpoints, one receiver.
        for _ in range(40):
            await rows.add_webhook(tenant_id, url=hanging.url, event_types=["upload.cancelled"])
        async with run_dispatcher(webhook_timeout="10s"):
            await rows.record(an_event(tenant_id=tenant_id))
            await arrivals(hanging, 10)
            healthy = await rows.add_tenant()
            await rows.add_webhook(healthy, url=receiver.url)
            await rows.record(*(an_event(tenant_id=healthy) for _ in range(50)))
            await arrivals(receiver, 50)
            # No attempt at the hanging receiver has ended yet and made room for another one.
            assert len(hanging.received) == 10


async def test_slow_receivers_leave_slots_for_other_receivers(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    tenants = [await rows.add_tenant() for _ in range(8)]
    with Receiver() as hanging:
        hanging.answer_with(replies.silence())
        for tenant_id in tenants:
            await rows.add_webhook(tenant_id, url=hanging.url)
        async with run_dispatcher(webhook_timeout="3s"):
            await rows.record(*(an_event(tenant_id=tenant_id) for tenant_id in tenants))
            await eventually(partial(has_attempts, rows, len(tenants)))
            for tenant_id in tenants:
                await rows.record(*(an_event(tenant_id=tenant_id) for _ in range(5)))
            await arrivals(hanging, len(tenants) + 4)
            healthy = await rows.add_tenant()
            await rows.add_webhook(healthy, url=receiver.url)
            began = datetime.now(UTC)
            await rows.record(*(an_event(tenant_id=healthy) for _ in range(20)))
            await arrivals(receiver, 20)
            assert datetime.now(UTC) - began < timedelta(seconds=2)


async def test_first_attempts_precede_retries(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id, url=receiver.url)
    retries = [an_event(tenant_id=tenant_id) for _ in range(5)]
    await rows.record(*retries)
    async with rows.transaction() as session:
        await session.execute(update(Delivery).values(attempts_made=1))
    first_attempts = [an_event(tenant_id=tenant_id) for _ in range(5)]
    await rows.record(*first_attempts)
    async with run_dispatcher(webhook_concurrency=1):
        requests = await arrivals(receiver, 10)
    assert [request.headers["webhook-id"] for request in requests] == [
        # Ids of one millisecond have no order; deliveries follow the ids.
        *sorted(str(event.id) for event in first_attempts),
        *sorted(str(event.id) for event in retries),
    ]


async def test_a_stopping_dispatcher_finishes_and_records_attempts_in_progress(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id, url=receiver.url)
    async with run_dispatcher():
        await rows.record(*(an_event(tenant_id=tenant_id) for _ in range(20)))
        await eventually(rows.everything_is_settled)
        receiver.answer_with(replies.late(timedelta(seconds=1), replies.status(204)))
        await rows.record(*(an_event(tenant_id=tenant_id) for _ in range(30)))
        await arrivals(receiver, 25)
        assert len(await rows.attempts()) == 20
    attempts = await rows.attempts()
    assert len(receiver.received) == len(attempts) < 50
    assert {attempt.outcome for attempt in attempts} == {"delivered"}
    assert {queue.owner for queue in await rows.queues()} == {None}


async def test_two_dispatchers_attempt_each_delivery_once(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id, url=receiver.url)
    async with run_dispatcher(), run_dispatcher():
        await rows.record(*(an_event(tenant_id=tenant_id) for _ in range(100)))
        await eventually(rows.everything_is_settled)
    ids = [request.headers["webhook-id"] for request in receiver.received]
    assert len(ids) == len(set(ids)) == 100


async def test_an_attempt_that_another_process_recorded_records_nothing(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    receiver.answer_with(replies.late(timedelta(seconds=1), replies.status(500)))
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id, url=receiver.url)
    async with run_dispatcher():
        await rows.record(an_event(tenant_id=tenant_id))
        await arrivals(receiver, 1)
        async with rows.transaction() as session:
            later = func.now() + timedelta(hours=5)
            await session.execute(update(Delivery).values(attempts_made=1, next_attempt_at=later))
    (delivery,) = await rows.deliveries()
    assert (delivery.status, delivery.attempts_made) == ("pending", 1)
    assert await rows.attempts() == []


async def test_an_outage_of_the_database_during_an_attempt_does_not_lose_its_record(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver, proxied_database: ProxiedDatabase
) -> None:
    receiver.answer_with(replies.late(timedelta(seconds=1), replies.status(204)))
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id, url=receiver.url)
    async with run_dispatcher(database=proxied_database.settings):
        await rows.record(*(an_event(tenant_id=tenant_id) for _ in range(5)))
        await arrivals(receiver, 5)
        await proxied_database.proxy.refuse()
        with capture_logs() as lines:

            async def recording_fails() -> bool:
                return any(line.get("doing") == "recording attempts" for line in lines)

            await eventually(recording_fails)
        await proxied_database.proxy.accept()
        await eventually(rows.everything_is_settled)
    assert len(receiver.received) == 5
    assert len(await rows.attempts()) == 5


async def test_a_secret_that_is_not_encrypted_signs(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.set_secret(await rows.add_webhook(tenant_id, url=receiver.url), SECRET)
    event = an_event(tenant_id=tenant_id)
    async with run_dispatcher():
        await rows.record(event)
        (request,) = await arrivals(receiver, 1)
    assert request.verified_with(SECRET)["id"] == str(event.id)


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(
            lambda webhook_id: webhook_secrets.encrypt(
                SECRET, webhook_id=webhook_id, keys=KeyRing.parse(OTHER_KEY)
            ),
            id="of a missing key",
        ),
        pytest.param(
            lambda _: webhook_secrets.encrypt(SECRET, webhook_id=WebhookId(uuid4()), keys=KEYS),
            id="of another row",
        ),
        pytest.param(
            lambda webhook_id: webhook_secrets.encrypt(
                "whsec_short", webhook_id=webhook_id, keys=KEYS
            ),
            id="decrypted to a malformed secret",
        ),
        pytest.param(lambda _: "not a secret", id="no token"),
    ],
)
async def test_a_delivery_whose_secret_is_unreadable_does_not_block_the_others(
    rows: Rows,
    run_dispatcher: RunDispatcher,
    receiver: Receiver,
    stored: Callable[[WebhookId], str],
) -> None:
    tenant_id = await rows.add_tenant()
    unsignable = await rows.add_webhook(tenant_id, url=receiver.url)
    await rows.set_secret(unsignable, stored(unsignable))
    await rows.add_webhook(tenant_id, url=receiver.url)
    async with run_dispatcher():
        await rows.record(*(an_event(tenant_id=tenant_id) for _ in range(3)))
        await arrivals(receiver, 3)

        async def others_are_settled() -> bool:
            return all(
                delivery.settled_at is not None
                for delivery in await rows.deliveries()
                if delivery.webhook_id != unsignable
            )

        await eventually(others_are_settled)

        async def unsignable_ones_are_rescheduled() -> bool:
            return all(
                delivery.attempts_made == 1 and delivery.next_attempt_at is not None
                for delivery in await rows.deliveries()
                if delivery.webhook_id == unsignable
            )

        await eventually(unsignable_ones_are_rescheduled)
    assert len(receiver.received) == 3
    unread = [attempt for attempt in await rows.attempts() if attempt.outcome != "delivered"]
    assert [(attempt.outcome, attempt.status_code) for attempt in unread] == [
        ("secret_unreadable", None)
    ] * 3
    assert unread[0].error == "the secret cannot be read; nothing was sent"


async def test_a_delivery_is_signed_after_its_key_is_added(
    rows: Rows, run_dispatcher: RunDispatcher, receiver: Receiver
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_webhook(tenant_id, url=receiver.url)
    event = an_event(tenant_id=tenant_id)
    await rows.record(event)
    async with run_dispatcher(keys=KeyRing.parse(OTHER_KEY)):
        await eventually(partial(has_attempts, rows, 1))
    await rows.make_due()
    async with run_dispatcher(keys=KeyRing.parse(f"{OTHER_KEY},{KEY}")):
        (request,) = await arrivals(receiver, 1)
    assert request.verified_with(SECRET)["id"] == str(event.id)
