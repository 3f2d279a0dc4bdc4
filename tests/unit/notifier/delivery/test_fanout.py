from uuid import uuid4

from notifier.delivery import fanout
from notifier.delivery.fanout import Subscription
from schemas.ids import UploadId, WebhookId

UPLOAD = UploadId(uuid4())


def a_subscription(*event_types: str, upload_id: UploadId | None = None) -> Subscription:
    return Subscription(
        webhook_id=WebhookId(uuid4()), event_types=frozenset(event_types), upload_id=upload_id
    )


def test_without_event_types_an_endpoint_hears_everything() -> None:
    everything = a_subscription()
    for event_type in ("upload.stored", "document.ingested", "a.type.of.tomorrow"):
        heard = fanout.matching([everything], event_type=event_type, upload_id=UPLOAD)
        assert heard == (everything,)


def test_an_endpoint_hears_only_the_types_it_asked_for() -> None:
    stored, ingested = a_subscription("upload.stored"), a_subscription("document.ingested")
    heard = fanout.matching([stored, ingested], event_type="document.ingested", upload_id=UPLOAD)
    assert heard == (ingested,)


def test_event_types_match_whole() -> None:
    upload = a_subscription("upload")
    assert fanout.matching([upload], event_type="upload.stored", upload_id=UPLOAD) == ()


def test_a_callback_hears_of_its_own_upload_alone() -> None:
    callback = a_subscription(upload_id=UPLOAD)
    other = UploadId(uuid4())
    assert fanout.matching([callback], event_type="upload.stored", upload_id=UPLOAD) == (callback,)
    assert fanout.matching([callback], event_type="upload.stored", upload_id=other) == ()


def test_a_callback_does_not_hear_of_events_about_no_upload() -> None:
    callback, everything = a_subscription(upload_id=UPLOAD), a_subscription()
    heard = fanout.matching([callback, everything], event_type="export.completed", upload_id=None)
    assert heard == (everything,)


def test_a_callback_with_types_needs_both_to_match() -> None:
    callback = a_subscription("document.ingested", upload_id=UPLOAD)
    assert fanout.matching([callback], event_type="upload.stored", upload_id=UPLOAD) == ()


def test_the_order_given_is_kept() -> None:
    several = [a_subscription() for _ in range(5)]
    heard = fanout.matching(several, event_type="upload.stored", upload_id=UPLOAD)
    assert heard == tuple(several)
