from uuid import uuid4

from notifier.delivery import fanout
from notifier.delivery.fanout import Subscription
from schemas.ids import UploadId, WebhookId

UPLOAD = UploadId(uuid4())


def a_subscription(*event_types: str, upload_id: UploadId | None = None) -> Subscription:
    return Subscription(
        webhook_id=WebhookId(uuid4()), event_types=frozenset(event_types), upload_id=upload_id
    )


def test_without_event_types_an_endpoint_receives_every_event() -> None:
    everything = a_subscription()
    for event_type in ("upload.stored", "document.ingested", "a.type.of.tomorrow"):
        matched = fanout.matching([everything], event_type=event_type, upload_id=UPLOAD)
        assert matched == (everything,)


def test_an_endpoint_receives_only_its_event_types() -> None:
    stored, ingested = a_subscription("upload.stored"), a_subscription("document.ingested")
    matched = fanout.matching([stored, ingested], event_type="document.ingested", upload_id=UPLOAD)
    assert matched == (ingested,)


def test_a_prefix_of_an_event_type_does_not_match() -> None:
    upload = a_subscription("upload")
    assert fanout.matching([upload], event_type="upload.stored", upload_id=UPLOAD) == ()


def test_a_callback_receives_only_the_events_of_its_upload() -> None:
    callback = a_subscription(upload_id=UPLOAD)
    other = UploadId(uuid4())
    assert fanout.matching([callback], event_type="upload.stored", upload_id=UPLOAD) == (callback,)
    assert fanout.matching([callback], event_type="upload.stored", upload_id=other) == ()


def test_a_callback_receives_no_event_that_has_no_upload() -> None:
    callback, everything = a_subscription(upload_id=UPLOAD), a_subscription()
    matched = fanout.matching([callback, everything], event_type="export.completed", upload_id=None)
    assert matched == (everything,)


def test_a_callback_with_event_types_receives_only_these_types_of_its_upload() -> None:
    callback = a_subscription("document.ingested", upload_id=UPLOAD)
    assert fanout.matching([callback], event_type="upload.stored", upload_id=UPLOAD) == ()


def test_the_order_of_the_subscriptions_is_kept() -> None:
    several = [a_subscription() for _ in range(5)]
    matched = fanout.matching(several, event_type="upload.stored", upload_id=UPLOAD)
    assert matched == tuple(several)
