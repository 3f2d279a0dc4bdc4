"""The sweep of ended callbacks and of endpoints that were deleted long ago."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import select, update

from pipeline.context import Context
from pipeline.maintenance import endpoints
from schemas.ids import DeliveryId, EventId, UploadId, WebhookId
from schemas.lifecycle import DeliveryStatus, UploadStatus
from schemas.tables.deliveries import Delivery, DeliveryQueue
from schemas.tables.retention import LOG_GRACE
from schemas.tables.uploads import Upload
from schemas.tables.webhooks import Webhook, WebhookSecret
from tests.integration.pipeline.maintenance.leftovers import LONG_AGO, ample_budget, count, opened


def add_callback(context: Context) -> tuple[UploadId, WebhookId]:
    """Add an open upload with a callback."""
    upload = opened(context)
    webhook_id = WebhookId(uuid4())
    with context.transaction() as session:
        session.add(
            Webhook(
                id=webhook_id,
                tenant_id=upload.tenant_id,
                upload_id=upload.id,
                url="https://a.invalid/",
                headers="encrypted",
            )
        )
        session.flush()
        session.add(WebhookSecret(id=uuid4(), webhook_id=webhook_id, scheme="v1", secret=""))
    return upload.id, webhook_id


def end(context: Context, upload_id: UploadId, *, status: UploadStatus, at: datetime) -> None:
    with context.transaction() as session:
        session.execute(update(Upload).where(Upload.id == upload_id).values(status=status))
    with context.transaction() as session:
        session.execute(
            update(Webhook)
            .where(Webhook.upload_id == upload_id, Webhook.upload_ended_at.is_not(None))
            .values(upload_ended_at=at)
        )


def add_delivery(context: Context, webhook_id: WebhookId, *, status: DeliveryStatus) -> None:
    with context.transaction() as session:
        webhook = session.scalars(select(Webhook).where(Webhook.id == webhook_id)).one()
        session.add(
            Delivery(
                id=DeliveryId(uuid4()),
                tenant_id=webhook.tenant_id,
                webhook_id=webhook_id,
                event_id=EventId(uuid4()),
                event_type="upload.cancelled",
                status=status,
            )
        )


@pytest.mark.parametrize(
    "status", [UploadStatus.CANCELLED, UploadStatus.FAILED, UploadStatus.EXPIRED]
)
def test_the_callback_of_an_ended_upload_is_deleted_with_its_secret(
    context: Context, status: UploadStatus
) -> None:
    upload_id, webhook_id = add_callback(context)
    end(context, upload_id, status=status, at=LONG_AGO)
    add_delivery(context, webhook_id, status=DeliveryStatus.DELIVERED)

    first = endpoints.sweep(context, ample_budget())
    second = endpoints.sweep(context, ample_budget())

    assert first == endpoints.Summary(callbacks=1, removed=0)
    assert second == endpoints.Summary(callbacks=0, removed=0)
    with context.transaction() as session:
        webhook = session.scalars(select(Webhook)).one()
        assert webhook.deleted_at is not None
        assert webhook.headers is None
    assert count(context, WebhookSecret) == 0


def test_a_callback_that_may_still_get_an_event_is_kept(context: Context) -> None:
    add_callback(context)
    stored, _ = add_callback(context)
    end(context, stored, status=UploadStatus.STORED, at=LONG_AGO)
    recent, _ = add_callback(context)
    end(context, recent, status=UploadStatus.CANCELLED, at=datetime.now(UTC) - timedelta(days=1))
    pending, webhook_id = add_callback(context)
    end(context, pending, status=UploadStatus.CANCELLED, at=LONG_AGO)
    add_delivery(context, webhook_id, status=DeliveryStatus.PENDING)

    assert endpoints.sweep(context, ample_budget()).callbacks == 0
    assert count(context, WebhookSecret) == 4


def test_an_upload_that_goes_on_keeps_its_callback(context: Context) -> None:
    upload_id, _ = add_callback(context)
    end(context, upload_id, status=UploadStatus.FAILED, at=LONG_AGO)
    end(context, upload_id, status=UploadStatus.FINALIZED, at=LONG_AGO)

    assert endpoints.sweep(context, ample_budget()).callbacks == 0


def test_the_row_of_a_deleted_endpoint_goes_after_its_deliveries(context: Context) -> None:
    now = datetime.now(UTC)
    kept = context.settings.delivery_retention + LOG_GRACE
    for deleted_at in (None, now, now - kept + timedelta(hours=1), now - kept - timedelta(hours=1)):
        _, webhook_id = add_callback(context)
        with context.transaction() as session:
            session.execute(
                update(Webhook).where(Webhook.id == webhook_id).values(deleted_at=deleted_at)
            )

    assert endpoints.sweep(context, ample_budget()).removed == 1
    assert count(context, Webhook) == count(context, DeliveryQueue) == 3


def test_more_endpoints_than_one_batch_are_all_swept(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "BATCH", 2)
    for _ in range(5):
        upload_id, _ = add_callback(context)
        end(context, upload_id, status=UploadStatus.CANCELLED, at=LONG_AGO)

    assert endpoints.sweep(context, ample_budget()).callbacks == 5
